//! The mailbox page: what was "sent" while mails are only captured. For newcomers and for tests.

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use url::Host;

use super::{App, pages, peer::Peer};
use crate::{courier::capture::Captured, error::Error, loopback::is_loopback_host};

/// `GET /_threepid/mailbox`, `GET` and `DELETE /_threepid/mailbox/messages`: 404 unless mails are captured, and for
/// whoever is not on this machine.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_threepid/mailbox", get(page))
        .route("/_threepid/mailbox/messages", get(messages).delete(clear))
        .layer(middleware::from_fn(on_this_machine))
}

async fn page(State(app): State<App>) -> Result<Response, Error> {
    let captured = app.mailbox.as_ref().ok_or(Error::Unrecognized)?.messages();
    let entries: Vec<_> = captured
        .iter()
        .map(|mail| pages::MailboxEntry {
            to: &mail.to,
            subject: &mail.subject,
            text: &mail.text,
            at: mail.at,
        })
        .collect();
    Ok(pages::mailbox(&app.name, &entries))
}

async fn messages(State(app): State<App>) -> Result<Json<Vec<Captured>>, Error> {
    Ok(Json(
        app.mailbox.as_ref().ok_or(Error::Unrecognized)?.messages(),
    ))
}

async fn clear(State(app): State<App>) -> Result<StatusCode, Error> {
    let mailbox = app.mailbox.as_ref().ok_or(Error::Unrecognized)?;
    mailbox
        .clear()
        .map_err(|error| Error::Unavailable(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets only requests through that come from this machine, and were neither forwarded nor sent by a rebound name.
async fn on_this_machine(request: Request, next: Next) -> Response {
    let local = Peer::of(request.extensions()).is_some_and(Peer::is_loopback);
    if local
        && has_local_host(request.headers(), request.uri())
        && !was_forwarded(request.headers())
    {
        next.run(request).await
    } else {
        Error::Unrecognized.into_response()
    }
}

fn has_local_host(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let (Some(host), None) = (
        hosts.next().and_then(|host| host.to_str().ok()),
        hosts.next(),
    ) else {
        return false;
    };
    let is_local = |host: &str| Host::parse(host).is_ok_and(|host| is_loopback_host(&host));
    let absolute = uri.host().is_none_or(is_local);
    let authority = host.parse::<Authority>();
    absolute && authority.is_ok_and(|authority| is_local(authority.host()))
}

fn was_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name == "forwarded" || name == "via" || name.starts_with("x-forwarded-")
    })
}
