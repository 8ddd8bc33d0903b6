//! OpenID: whose a token is, by the word of their homeserver.

use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{Federation, nonsense};
use crate::{
    error::{Error, Result},
    outbound::Reply,
    secret::AccessToken,
    server_name::ServerName,
    user_id,
};

const PATH: &str = "/_matrix/federation/v1/openid/userinfo";
/// What is escaped in a query: all but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl Federation {
    /// `GET /_matrix/federation/v1/openid/userinfo`: the user that a token of `POST …/openid/request_token` stands for, a
    /// user of that very server (Server-Server API, "OpenID").
    ///
    /// # Errors
    /// [`Error::Unauthorized`] if the homeserver does not know the token, or names a user who is not its own;
    /// [`Error::FederationFailed`], [`Error::FederationTimeout`], [`Error::Unavailable`].
    pub async fn userinfo(
        &self,
        server: &ServerName,
        access_token: &AccessToken,
    ) -> Result<String> {
        let token = utf8_percent_encode(access_token.reveal(), RESERVED);
        let path = format!("{PATH}?access_token={token}");
        let reply = self.ask(server, Method::GET, path, None).await?;
        read(server, &reply)
    }
}

fn read(server: &ServerName, reply: &Reply) -> Result<String> {
    let nonsense = |what: &str| {
        nonsense(
            server,
            PATH,
            format_args!("{} {what}", reply.status.as_u16()),
        )
    };
    let body = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
    let is_unknown = match reply.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        status => status.is_client_error() && body["errcode"] == "M_UNKNOWN_TOKEN",
    };
    if is_unknown {
        return Err(Error::Unauthorized);
    }
    if reply.status != StatusCode::OK || body.get("errcode").is_some() {
        return Err(nonsense("and no user"));
    }
    let sub = body.get("sub").and_then(Value::as_str);
    let sub = sub.ok_or_else(|| nonsense("and no sub"))?;
    // Compared as a whole: another server's name may end like this one's.
    if user_id::server_of(sub).as_ref() == Some(server) {
        Ok(sub.to_owned())
    } else {
        Err(Error::Unauthorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(server: &str, status: u16, body: &str) -> Result<String> {
        let reply = Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        read(&server.parse().unwrap(), &reply)
    }

    #[test]
    fn a_user_is_of_that_very_server() {
        for (server, sub, is_its_own) in [
            ("il.org", "@a:il.org", true),
            ("il.org:8448", "@a:il.org:8448", true),
            ("[::1]:8448", "@a:[::1]:8448", true),
            ("il.org", "@a:evil.org", false),
            ("evil.org", "@a:il.org", false),
            ("il.org", "@a:ev:il.org", false),
            ("il.org", "@a:il.org:8448", false),
            ("il.org:8448", "@a:il.org", false),
            ("localhost", "@a:localhost:1", false),
            ("il.org", "@a:IL.org", false),
            ("IL.org", "@a:il.org", false),
            ("il.org", "@a:il.org.", false),
            ("il.org", "@a:il.org ", false),
            ("il.org", "@a:il.org\\u0000", false),
            ("il.org", "a:il.org", false),
            ("il.org", "@:il.org", false),
            ("il.org", "il.org", false),
            ("il.org", "", false),
        ] {
            let found = sort(server, 200, &format!(r#"{{"sub":"{sub}"}}"#));
            let expected = if is_its_own {
                Ok(sub.to_owned())
            } else {
                Err(Error::Unauthorized)
            };
            assert_eq!(found, expected, "{server} {sub}");
        }
    }

    #[test]
    fn a_refusal_is_one_and_nonsense_is_told_to_the_log() {
        let unknown = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Access Token unknown or expired"}"#;
        for (status, body) in [
            (401, unknown),
            (401, ""),
            (403, "{}"),
            (400, unknown),
            (404, unknown),
        ] {
            assert_eq!(
                sort("a.org", status, body),
                Err(Error::Unauthorized),
                "{status}"
            );
        }
        let good = r#"{"sub":"@a:a.org"}"#;
        for (status, body) in [
            (200, ""),
            (200, "<html>"),
            (200, "null"),
            (200, "[]"),
            (200, "{}"),
            (200, r#"{"sub":1}"#),
            (200, r#"{"sub":null}"#),
            (200, unknown),
            (200, r#"{"sub":"@a:a.org","errcode":"M_UNKNOWN"}"#),
            (201, good),
            (302, good),
            (404, good),
            (429, r#"{"errcode":"M_LIMIT_EXCEEDED"}"#),
            (500, unknown),
            (502, "<html>"),
        ] {
            let found = sort("a.org", status, body);
            let start = format!("a.org answered {PATH} with {status} and no ");
            assert!(
                matches!(&found, Err(Error::FederationFailed(cause)) if cause.starts_with(&start)),
                "{status} {body} {found:?}"
            );
        }
    }
}
