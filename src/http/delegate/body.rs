//! What homeservers send: JSON today, a form in the days of the Identity Service API v1.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header::CONTENT_TYPE, request::Parts},
};

use crate::{
    error::{Error, Result},
    http::extract::{Object, read_body},
};

/// The body of a request: JSON or a form, as its `Content-Type` says, or as it turns out.
#[derive(Debug)]
pub(super) struct Body(pub(super) Object);

/// The query of a request.
#[derive(Debug)]
pub(super) struct Query(pub(super) Object);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let content_type = content_type(request.headers());
        let body = read_body(request).await?;
        let read = match content_type.as_deref() {
            Some("application/json") => Object::parse(&body),
            Some("application/x-www-form-urlencoded") => Object::from_form(&body),
            _ => match Object::parse(&body) {
                Err(Error::NotJson) => Object::from_form(&body),
                read => read,
            },
        };
        read.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let query = parts.uri.query().unwrap_or_default();
        Object::from_form(query.as_bytes()).map(Self)
    }
}

/// The media type, without its parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = text.split(';').next().unwrap_or_default();
    Some(media_type.trim().to_ascii_lowercase())
}
