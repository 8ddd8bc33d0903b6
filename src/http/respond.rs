//! From a result to an answer: one layer words all errors of a router.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::pages;
use crate::{
    error::{Dialect, Error},
    homeserver::PassedBack,
};

impl IntoResponse for Error {
    /// An answer without words yet: the router's layer finds the error in it and words it.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for PassedBack {
    /// The homeserver's answer as it is.
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let mut response = (self.status, headers, self.body).into_response();
        if let Some(Ok(retry_after)) = self.retry_after.map(HeaderValue::try_from) {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, retry_after);
        }
        response
    }
}

/// Words the error in an answer, if there is one, and logs its cause.
pub(super) async fn worded(
    State((dialect, app_name)): State<(Dialect, Arc<str>)>,
    mut response: Response,
) -> Response {
    let Some(error) = response.extensions_mut().remove::<Error>() else {
        return response;
    };
    let (status, errcode) = error.wire(dialect);
    log_cause(&error, status);
    let mut worded = match dialect {
        Dialect::Client | Dialect::Identity => as_json(&error, status, errcode),
        Dialect::Page => pages::failed(&app_name, &error),
    };
    // `Allow` of a 405, which the router added.
    for (name, value) in response.headers() {
        if *name == header::ALLOW {
            worded.headers_mut().insert(name, value.clone());
        }
    }
    worded
}

/// Logs the cause of a fault that is not the caller's.
pub(super) fn log_cause(error: &Error, status: StatusCode) {
    match (error, error.cause()) {
        // No fault of ours: under load there may be many.
        (Error::UpstreamFailed(_) | Error::UpstreamTimeout(_), Some(cause)) => {
            tracing::warn!(status = status.as_u16(), cause, "an identity server failed");
        }
        (Error::FederationFailed(_) | Error::FederationTimeout(_), Some(cause)) => {
            tracing::info!(
                status = status.as_u16(),
                cause,
                "a homeserver that was named failed"
            );
        }
        (Error::HomeserverFailed(_) | Error::HomeserverTimeout(_), Some(cause)) => {
            tracing::error!(status = status.as_u16(), cause, "the homeserver failed");
        }
        (_, Some(cause)) => {
            tracing::error!(status = status.as_u16(), cause, "a request failed");
        }
        (_, None) => {}
    }
}

fn as_json(error: &Error, status: StatusCode, errcode: &str) -> Response {
    let mut body = json!({ "errcode": errcode, "error": error.to_string() });
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match error {
        Error::Limited { retry_after } => {
            body["retry_after_ms"] =
                json!(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
            headers.insert(header::RETRY_AFTER, whole_seconds(*retry_after));
        }
        Error::Relayed {
            retry_after: Some(wait),
            ..
        } => {
            body["retry_after_ms"] = json!(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            headers.insert(header::RETRY_AFTER, whole_seconds(*wait));
        }
        Error::InvalidPepper {
            algorithm,
            lookup_pepper,
        } => {
            body["algorithm"] = json!(algorithm);
            body["lookup_pepper"] = json!(lookup_pepper);
        }
        Error::InUseBy { user_id } => body["mxid"] = json!(user_id),
        Error::UnknownToken { soft_logout: true } | Error::UserLocked => {
            body["soft_logout"] = json!(true);
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

/// Ends a request that takes too long.
pub(super) async fn in_time(
    State(limit): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    let timed_out = || Error::Unavailable("a request took too long".to_owned()).into_response();
    tokio::time::timeout(limit, next.run(request))
        .await
        .unwrap_or_else(|_| timed_out())
}

/// What is left of a panic. Its text stays in the log of the panic itself.
pub(super) fn after_panic(_panic: Box<dyn Any + Send>) -> Response {
    Error::Internal("a handler panicked".to_owned()).into_response()
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
