//! Asking for a token, and showing it.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde_json::Value;

use super::{
    account::{Account, rules},
    body::IdentityJson,
};
use crate::{
    error::Result,
    http::{
        App,
        client::{
            request_token::{Reply, read},
            submit_token::{self, Shown},
        },
        extract::ClientSource,
    },
    session::{Api, Purpose},
    threepid::Medium,
};

/// `POST /_matrix/identity/v2/validate/email/requestToken` (Identity Service API, "Email associations").
pub(crate) async fn request_email(
    app: State<App>,
    source: ClientSource,
    account: Account,
    body: IdentityJson,
) -> Result<Json<Reply>> {
    request(&app, Medium::Email, source, account, body).await
}

/// `POST /_matrix/identity/v2/validate/msisdn/requestToken` (Identity Service API, "Phone number associations").
pub(crate) async fn request_msisdn(
    app: State<App>,
    source: ClientSource,
    account: Account,
    body: IdentityJson,
) -> Result<Json<Reply>> {
    request(&app, Medium::Msisdn, source, account, body).await
}

/// `POST /_matrix/identity/v2/validate/email/submitToken` (Identity Service API, "Email associations").
pub(crate) async fn submit_email(
    app: State<App>,
    source: ClientSource,
    _account: Account,
    IdentityJson(body): IdentityJson,
) -> Result<Json<Value>> {
    submit_token::post(&app, Api::Identity, Medium::Email, source, &body).await
}

/// `POST /_matrix/identity/v2/validate/msisdn/submitToken` (Identity Service API, "Phone number associations").
pub(crate) async fn submit_msisdn(
    app: State<App>,
    source: ClientSource,
    _account: Account,
    IdentityJson(body): IdentityJson,
) -> Result<Json<Value>> {
    submit_token::post(&app, Api::Identity, Medium::Msisdn, source, &body).await
}

/// `GET /_matrix/identity/v2/validate/email/submitToken`: the same for people. The specification demands an access token
/// here too. None is asked for: a browser that follows a link has none.
pub(crate) async fn show_email(
    app: State<App>,
    source: ClientSource,
    headers: HeaderMap,
    query: Shown,
) -> Result<Response> {
    submit_token::show(&app, Api::Identity, Medium::Email, source, &headers, query).await
}

/// `GET /_matrix/identity/v2/validate/msisdn/submitToken`: the same for phone numbers.
pub(crate) async fn show_msisdn(
    app: State<App>,
    source: ClientSource,
    headers: HeaderMap,
    query: Shown,
) -> Result<Response> {
    submit_token::show(&app, Api::Identity, Medium::Msisdn, source, &headers, query).await
}

/// `HEAD` of the same: changes nothing, whatever the query says.
pub(crate) async fn head() -> Response {
    submit_token::head().await
}

async fn request(
    app: &App,
    medium: Medium,
    ClientSource(source): ClientSource,
    account: Account,
    IdentityJson(mut body): IdentityJson,
) -> Result<Json<Reply>> {
    // matrix-js-sdk writes it as a string, and so does every form.
    body.read_integer("send_attempt");
    let request = read(app, medium, Purpose::Identity, &body, source)?;
    let opened = rules(app)?.request_token(account.user_id, request).await?;
    Ok(Json(opened.into()))
}
