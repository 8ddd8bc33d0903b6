//! Bodies, access tokens and errors, as all endpoints have them (Client-Server API, "API Standards").

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use threepid::{Error, error::Dialect, homeserver::Requester, secret::AccessToken};

use crate::Homeserver;

/// What an endpoint answers.
pub(crate) type Answer = Result<Json<Value>, Refusal>;

/// An answer that is no success: a Matrix error, or a stage that is not done.
#[derive(Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) body: Map<String, Value>,
}

impl Refusal {
    /// An error of our own.
    pub(crate) fn new(status: StatusCode, errcode: &str, error: &str) -> Self {
        let mut body = Map::new();
        body.insert("errcode".to_owned(), json!(errcode));
        body.insert("error".to_owned(), json!(error));
        Self { status, body }
    }

    /// The 401 that asks for `stage`, the only one (Client-Server API, "User-Interactive Authentication API"). With `why` it
    /// says that the stage was shown and is not done.
    pub(crate) fn challenge(stage: &str, session: &str, why: Option<(&str, &str)>) -> Self {
        let mut refusal = Self {
            status: StatusCode::UNAUTHORIZED,
            body: Map::new(),
        };
        if let Some((errcode, error)) = why {
            refusal = Self::new(StatusCode::UNAUTHORIZED, errcode, error);
        }
        let flows = json!([{ "stages": [stage] }]);
        let keys = [
            ("session", json!(session)),
            ("flows", flows),
            ("params", json!({})),
            ("completed", json!([])),
        ];
        let keys = keys.map(|(key, value)| (key.to_owned(), value));
        refusal.body.extend(keys);
        refusal
    }
}

/// The library words its errors itself.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, errcode) = error.wire(Dialect::Client);
        if status.is_server_error() {
            // Its cause, which the answer does not tell.
            eprintln!("{status}: {error:?}");
        }
        let mut refusal = Self::new(status, errcode, &error.to_string());
        if let Error::Limited { retry_after } = error {
            let wait = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            let key = "retry_after_ms".to_owned();
            refusal.body.insert(key, json!(wait));
        }
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let headers = [(header::CACHE_CONTROL, "no-store")];
        (self.status, headers, Json(self.body)).into_response()
    }
}

/// The JSON object of a request, whatever its `Content-Type` says.
pub(crate) struct Body(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge {
                most_kib: crate::MOST_BYTES / 1024,
            },
            _ => Error::NotJson,
        });
        Ok(Self(object(&bytes?)?))
    }
}

/// Reads a JSON object.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::BadJson(
            "The request body must be a JSON object.".into(),
        )),
        Err(_) => Err(Error::NotJson),
    }
}

/// An optional string; `null` is none.
pub(crate) fn text<'a>(
    holder: &'a Map<String, Value>,
    key: &'static str,
) -> Result<Option<&'a str>, Error> {
    match holder.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::BadJson(
            format!("The key {key} must be a string.").into(),
        )),
    }
}

/// A required string.
pub(crate) fn required<'a>(
    holder: &'a Map<String, Value>,
    key: &'static str,
) -> Result<&'a str, Error> {
    text(holder, key)?.ok_or(Error::MissingParam(key))
}

/// Whoever sent a request, by their access token.
pub(crate) struct Caller(pub(crate) Requester);

impl FromRequestParts<Arc<Homeserver>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        homeserver: &Arc<Homeserver>,
    ) -> Result<Self, Refusal> {
        let header = parts.headers.get(header::AUTHORIZATION);
        let header = header.and_then(|value| value.to_str().ok());
        let token = header.and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            AccessToken::parse(token.trim()).ok().filter(|_| is_bearer)
        });
        let token = token.ok_or(Error::MissingToken)?;
        Ok(Self(homeserver.users.requester(&token)?))
    }
}
