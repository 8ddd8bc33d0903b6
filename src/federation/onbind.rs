//! Telling a homeserver that one of its users has an address now.

use http::{Method, StatusCode};
use serde_json::Value;

use super::Federation;
use crate::{error::Error, outbound::Reply, server_name::ServerName};

const PATH: &str = "/_matrix/federation/v1/3pid/onbind";

/// What became of a homeserver being told of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It knows.
    Yes,
    /// It did not answer, or could not: it is worth another try. The cause is for the log.
    NotNow(String),
    /// It does not want to know. The cause is for the log.
    Refused(String),
}

impl Federation {
    /// Tells a homeserver that one of its users has an address now: `POST /_matrix/federation/v1/3pid/onbind`, and `PUT` where
    /// it does not take `POST` (the Identity Service API and the Server-Server API name one each).
    pub async fn onbind(&self, server: &ServerName, body: Vec<u8>) -> Told {
        let telling = self.in_background();
        let posted = telling.tell(server, Method::POST, body.clone()).await;
        match posted {
            Ok(reply) if !is_known(&reply) => {}
            answered => return sort(server, answered),
        }
        sort(server, telling.tell(server, Method::PUT, body).await)
    }

    async fn tell(
        &self,
        server: &ServerName,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Reply, Error> {
        self.ask(server, method, PATH.to_owned(), Some(body)).await
    }
}

/// Whether the homeserver has this path, with this method.
fn is_known(reply: &Reply) -> bool {
    let has_no_path = matches!(
        reply.status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    );
    !has_no_path && (!reply.status.is_client_error() || errcode(reply) != "M_UNRECOGNIZED")
}

fn errcode(reply: &Reply) -> Value {
    let body = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
    body["errcode"].clone()
}

fn sort(server: &ServerName, answered: Result<Reply, Error>) -> Told {
    let reply = match answered {
        Ok(reply) => reply,
        Err(why) => {
            let cause = why.cause().map_or_else(|| why.to_string(), str::to_owned);
            return Told::NotNow(cause);
        }
    };
    let cause = format!("{server} answered {PATH} with {}", reply.status.as_u16());
    match reply.status {
        status if status.is_success() => Told::Yes,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Told::NotNow(cause),
        status if status.is_client_error() => Told::Refused(cause),
        _ => Told::NotNow(cause),
    }
}
