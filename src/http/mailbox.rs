//! The mailbox page: what was "sent" while messages are only captured. For newcomers and for tests.
//!
//! It is for this machine alone, and what a proxy on this machine passes on is not from it. A proxy shows itself by a
//! header or by speaking HTTP/1.0, as nginx does by default. One that does neither (nginx with `proxy_http_version 1.1`
//! and no `proxy_set_header`) can not be told from a local client: then only the public URL keeps the world out of
//! the public listener's mailbox, and nobody may let a proxy lead to the internal listener.

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, Version, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use url::Host;

use super::{App, pages, peer::Peer};
use crate::{courier::capture::Captured, error::Error, loopback::is_loopback_host};

/// Headers that only proxies write, besides all `X-Forwarded-…`.
const OF_PROXIES: [&str; 7] = [
    "forwarded",
    "via",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-client-ip",
    "x-cluster-client-ip",
];

/// `GET /_threepid/mailbox`, `GET` and `DELETE /_threepid/mailbox/messages`: 404 unless messages are captured, and for
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
            medium: &mail.medium,
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
    // No client of today speaks HTTP/1.0.
    if local
        && request.version() >= Version::HTTP_11
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
        OF_PROXIES.contains(&name) || name.starts_with("x-forwarded-")
    })
}
