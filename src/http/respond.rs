//! From a result to an answer: one layer words all errors of a router.

use std::{any::Any, time::Duration};

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{App, pages};
use crate::error::{Dialect, Error};

impl IntoResponse for Error {
    /// An answer without words yet: the router's layer finds the error in it and words it.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Words errors for the Client-Server API.
pub(super) async fn in_client_words(response: Response) -> Response {
    worded(response, |error| as_json(error, Dialect::Client))
}

/// Words errors for the Identity Service API, which our `submit_url` speaks (MSC4183).
pub(super) async fn in_identity_words(response: Response) -> Response {
    worded(response, |error| as_json(error, Dialect::Identity))
}

/// Words errors for people.
pub(super) async fn in_page_words(State(app): State<App>, response: Response) -> Response {
    worded(response, |error| as_page(error, &app.name))
}

/// An error as a page, its cause logged.
pub(super) fn as_page(error: &Error, app_name: &str) -> Response {
    let (status, _) = error.wire(Dialect::Page);
    log_cause(error, status);
    pages::failed(app_name, error)
}

fn worded(mut response: Response, word: impl FnOnce(&Error) -> Response) -> Response {
    let Some(error) = response.extensions_mut().remove::<Error>() else {
        return response;
    };
    let mut worded = word(&error);
    // `Allow` of a 405, which the router added.
    for (name, value) in response.headers() {
        if *name == header::ALLOW {
            worded.headers_mut().insert(name, value.clone());
        }
    }
    worded
}

fn as_json(error: &Error, dialect: Dialect) -> Response {
    let (status, errcode) = error.wire(dialect);
    log_cause(error, status);
    let mut body = json!({ "errcode": errcode, "error": error.to_string() });
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match error {
        Error::Limited { retry_after } => {
            body["retry_after_ms"] =
                json!(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
            headers.insert(header::RETRY_AFTER, whole_seconds(*retry_after));
        }
        Error::Unavailable(_) => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    (status, headers, Json(body)).into_response()
}

/// `Retry-After` in seconds, rounded up, and never 0 (MSC4041).
pub(super) fn whole_seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(
        wait.as_millis()
            .div_ceil(1000)
            .max(1)
            .try_into()
            .unwrap_or(u64::MAX),
    )
}

fn log_cause(error: &Error, status: StatusCode) {
    if let Some(cause) = error.cause() {
        tracing::error!(status = status.as_u16(), cause, "a request failed");
    }
}

/// Ends a request that takes too long.
pub(super) async fn in_time(
    State(limit): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    let timed_out = || {
        as_json(
            &Error::Unavailable("a request took too long".to_owned()),
            Dialect::Client,
        )
    };
    tokio::time::timeout(limit, next.run(request))
        .await
        .unwrap_or_else(|_| timed_out())
}

/// What a client sees of a panic. Its text stays in the log of the panic itself.
pub(super) fn after_panic(_panic: Box<dyn Any + Send>) -> Response {
    as_json(
        &Error::Internal("a handler panicked".to_owned()),
        Dialect::Client,
    )
}

/// One line for each request: the route and the outcome, never the path, which may hold a link.
pub(super) async fn log(
    route: Option<MatchedPath>,
    method: Method,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    tracing::debug!(%method, route, status = response.status().as_u16(), "answered");
    response
}
