//! `requestToken` of the Client-Server API, for its three purposes.

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{
    error::Result,
    http::{
        App,
        extract::{ClientSource, MatrixJson, Object},
    },
    next_link::{NextLink, NextLinkPolicy},
    secret::ClientSecret,
    session::Purpose,
    source::Source,
    threepid::Threepid,
    validation::TokenRequest,
};

/// The answer of all `requestToken` endpoints (Client-Server API, `RequestTokenResponse`).
#[derive(Serialize)]
pub(crate) struct Reply {
    sid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    submit_url: Option<String>,
}

/// `POST /_matrix/client/v3/register/email/requestToken` (Client-Server API, "Account registration").
pub(crate) async fn register_email(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    request_email(&app, Purpose::Register, &body, source.0).await
}

/// `POST /_matrix/client/v3/account/password/email/requestToken` (Client-Server API, "Password management").
pub(crate) async fn password_email(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    request_email(&app, Purpose::Password, &body, source.0).await
}

/// `POST /_matrix/client/v3/account/3pid/email/requestToken` (Client-Server API, "Adding account administrative contact
/// information").
pub(crate) async fn add_email(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    request_email(&app, Purpose::Add, &body, source.0).await
}

async fn request_email(
    app: &App,
    purpose: Purpose,
    body: &Object,
    source: Source,
) -> Result<Json<Reply>> {
    let request = parse(purpose, body, &app.validation.settings.next_links, source)?;
    let opened = app.validation.request_token(request).await?;
    Ok(Json(Reply {
        sid: opened.sid.to_string(),
        submit_url: opened.submit_url.map(String::from),
    }))
}

/// Reads the body of an email `requestToken`, for hosts that bring their own HTTP. `id_server` and `id_access_token` are
/// ignored: this homeserver validates by itself (MSC2263).
///
/// # Errors
/// [`Error::NotJson`](crate::Error::NotJson), [`Error::BadJson`](crate::Error::BadJson),
/// [`Error::MissingParam`](crate::Error::MissingParam), [`Error::InvalidParam`](crate::Error::InvalidParam),
/// [`Error::InvalidAddress`](crate::Error::InvalidAddress).
pub fn read_email_request(
    purpose: Purpose,
    body: &[u8],
    next_links: &NextLinkPolicy,
    source: Source,
) -> Result<TokenRequest> {
    parse(purpose, &Object::parse(body)?, next_links, source)
}

fn parse(
    purpose: Purpose,
    body: &Object,
    next_links: &NextLinkPolicy,
    source: Source,
) -> Result<TokenRequest> {
    let (client_secret, email) = (body.string("client_secret")?, body.string("email")?);
    let send_attempt = body.count("send_attempt")?;
    let next_link = body.optional_string("next_link")?;
    Ok(TokenRequest {
        purpose,
        client_secret: ClientSecret::parse(client_secret)?,
        threepid: Threepid::email(email)?,
        send_attempt,
        next_link: next_link
            .map(|link| NextLink::parse(link, next_links))
            .transpose()?,
        source,
        user_id: None,
    })
}
