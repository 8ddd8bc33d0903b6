//! The body of a request to the identity server.

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, header::CONTENT_TYPE},
};

use super::account::legacy;
use crate::{
    error::{Error, Result},
    http::{
        App,
        extract::{Object, read_body},
    },
    server_name::ServerName,
    user_id::server_of,
};

/// The media types of a form: the right one, and the one that the specification wrote until 2019.
const FORMS: [&str; 2] = [
    "application/x-www-form-urlencoded",
    "application/x-form-www-urlencoded",
];

/// The JSON object of a request, whatever its `Content-Type` says; or its form, where the operator takes what the API had
/// before 2019.
///
/// For the endpoints that took forms then: `requestToken`, `submitToken` and `3pid/bind`. The values of a form are strings.
#[derive(Debug)]
pub(crate) struct IdentityJson(pub(crate) Object);

/// The largest body of a request that may be signed, in KiB.
const MOST_KIB_OF_SIGNED: usize = 8;

/// The JSON object of a request that anybody may say is signed: checking a signature costs more, the larger it is.
#[derive(Debug)]
pub(crate) struct SignedJson(pub(crate) Object);

impl<S: Send + Sync> FromRequest<S> for SignedJson {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let most_kib = MOST_KIB_OF_SIGNED;
        match read_body(request).await {
            Ok(body) if body.len() <= most_kib * 1024 => Object::parse(&body).map(Self),
            Ok(_) | Err(Error::TooLarge { .. }) => Err(Error::TooLarge { most_kib }),
            Err(error) => Err(error),
        }
    }
}

impl FromRequest<App> for IdentityJson {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        let takes_form = legacy(app) && says_form(request.headers());
        let body = read_body(request).await?;
        // Some programs call everything that they post a form.
        let is_object = body.trim_ascii_start().starts_with(b"{");
        if takes_form && !is_object {
            Object::from_form(&body).map(Self)
        } else {
            Object::parse(&body).map(Self)
        }
    }
}

/// The user that a body names, and the user's homeserver.
pub(crate) fn mxid(body: &Object) -> Result<(&str, ServerName)> {
    let mxid = body.string("mxid")?;
    let server = server_of(mxid)
        .ok_or_else(|| Error::invalid("mxid must be a user id like @alice:example.org"))?;
    Ok((mxid, server))
}

fn says_form(headers: &HeaderMap) -> bool {
    let said = headers.get(CONTENT_TYPE);
    let said = said.and_then(|value| value.to_str().ok());
    let essence = said.unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim();
    FORMS.iter().any(|form| essence.eq_ignore_ascii_case(form))
}
