//! The endpoints of the Identity Service API v1 that living homeservers call.

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{Body, Query};
use crate::{
    error::{Dialect, Error, Result},
    http::{
        App,
        client::submit_token,
        extract::Object,
        {read_email_request, read_msisdn_request},
    },
    secret::{ClientSecret, Sid},
    session::{Api, Purpose},
    source::Source,
    threepid::Medium,
    validation::Opened,
};

/// What a homeserver passes on to its user, with a `submit_url` of its own.
#[derive(Serialize)]
pub(super) struct Reply {
    success: bool,
    sid: String,
    #[serde(flatten)]
    number: Option<NumberReply>,
}

/// What clients show of a phone number.
#[derive(Serialize)]
struct NumberReply {
    msisdn: String,
    intl_fmt: String,
}

impl From<Opened> for Reply {
    fn from(opened: Opened) -> Self {
        Self {
            success: true,
            sid: opened.sid.to_string(),
            number: opened.number.map(|number| NumberReply {
                msisdn: number.msisdn,
                intl_fmt: number.intl_fmt,
            }),
        }
    }
}

/// `POST {prefix}/_matrix/identity/api/v1/validate/email/requestToken` (Identity Service API v1, "Email associations").
/// The proof serves to sign up and to add the address; homeservers ask for both alike.
pub(super) async fn request_token_email(app: State<App>, body: Body) -> Result<Json<Reply>> {
    request_token(&app, Medium::Email, body).await
}

/// `POST {prefix}/_matrix/identity/api/v1/validate/msisdn/requestToken` (Identity Service API v1, "Phone number
/// associations"). The same for phone numbers.
pub(super) async fn request_token_msisdn(app: State<App>, body: Body) -> Result<Json<Reply>> {
    request_token(&app, Medium::Msisdn, body).await
}

async fn request_token(app: &App, medium: Medium, Body(mut body): Body) -> Result<Json<Reply>> {
    body.read_integer("send_attempt");
    let read = match medium {
        Medium::Email => read_email_request,
        Medium::Msisdn => read_msisdn_request,
    };
    let next_links = &app.validation.settings.next_links;
    // Read as every other requestToken is.
    let body = serde_json::to_vec(body.entries()).expect("JSON and texts can be written as JSON");
    let mut request = read(Purpose::Register, &body, next_links, Source::Homeserver)?;
    // For the homeserver that is we.
    (request.id_server, request.id_access_token) = (None, None);
    let opened = app.validation.request_token(request).await?;
    Ok(Json(opened.into()))
}

/// `POST {prefix}/_matrix/identity/api/v1/validate/email/submitToken` (Identity Service API v1, "Email associations").
pub(super) async fn submit_token_email(app: State<App>, body: Body) -> Result<Json<Value>> {
    submit(&app, Medium::Email, &body.0).await
}

/// `POST {prefix}/_matrix/identity/api/v1/validate/msisdn/submitToken` (Identity Service API v1, "Phone number
/// associations").
pub(super) async fn submit_token_msisdn(app: State<App>, body: Body) -> Result<Json<Value>> {
    submit(&app, Medium::Msisdn, &body.0).await
}

/// `GET {prefix}/_matrix/identity/api/v1/validate/email/submitToken` (Identity Service API v1, "Email associations"): the
/// same with a query, answered to a program.
pub(super) async fn get_submit_token_email(app: State<App>, query: Query) -> Result<Json<Value>> {
    submit(&app, Medium::Email, &query.0).await
}

/// `GET {prefix}/_matrix/identity/api/v1/validate/msisdn/submitToken` (Identity Service API v1, "Phone number
/// associations"): the same for phone numbers.
pub(super) async fn get_submit_token_msisdn(app: State<App>, query: Query) -> Result<Json<Value>> {
    submit(&app, Medium::Msisdn, &query.0).await
}

/// A wrong token is told with 200: of any other status a homeserver makes a failure of ours, and the user could not try
/// again.
async fn submit(app: &App, medium: Medium, body: &Object) -> Result<Json<Value>> {
    let pair = (body.string("sid")?, body.string("client_secret")?);
    let token = body.string("token")?;
    let source = Source::Homeserver;
    let shown = submit_token::submit(app, Api::Client, medium, pair, token, source);
    let is_right = match shown.await {
        Ok(_) => true,
        Err(error) if is_about_token(&error) => false,
        Err(error) => return Err(error),
    };
    Ok(Json(json!({ "success": is_right })))
}

/// Whether it is we who say that a token is wrong, or the identity server that has the session.
fn is_about_token(error: &Error) -> bool {
    error.wire(Dialect::Identity).1 == "M_TOKEN_INCORRECT"
}

/// `GET {prefix}/_matrix/identity/api/v1/3pid/getValidated3pid` (Identity Service API v1, "General associations").
/// Refused for an address that an account has, since homeservers would give it to whoever asks last.
pub(super) async fn get_validated_3pid(app: State<App>, query: Query) -> Result<Json<Value>> {
    let sid = Sid::parse(query.0.string("sid")?)?;
    let client_secret = ClientSecret::parse(query.0.string("client_secret")?)?;
    let validation = &app.validation;
    let proof = validation
        .validated_for_homeserver(&sid, &client_secret)
        .await?;
    Ok(Json(json!({
        "medium": proof.threepid.medium().as_str(),
        "address": proof.threepid.address(),
        "validated_at": proof.validated_at,
    })))
}
