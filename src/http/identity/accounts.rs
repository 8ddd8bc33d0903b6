//! Accounts: registering with the word of one's homeserver, and logging out.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::account::{Account, Token, rules};
use crate::{
    error::{Error, Result},
    http::{
        App,
        extract::{ClientSource, MatrixJson},
    },
    secret::AccessToken,
    server_name::ServerName,
};

/// The versions of the specification that this API is served in. The one before v1.1 is the first with accounts; what it has
/// besides, for clients of before it, is not served.
const VERSIONS: [&str; 20] = [
    "r0.3.0", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
    "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// `GET /_matrix/identity/versions` (Identity Service API, "API Version check").
pub(crate) async fn versions() -> Json<Value> {
    Json(json!({ "versions": VERSIONS }))
}

/// `GET /_matrix/identity/v2` (Identity Service API, "Status check").
pub(crate) async fn ping() -> Json<Value> {
    Json(json!({}))
}

/// `GET /_matrix/identity/v2/account` (Identity Service API, "Authentication").
pub(crate) async fn whoami(account: Account) -> Json<Value> {
    Json(json!({ "user_id": account.user_id }))
}

/// `POST /_matrix/identity/v2/account/register` (Identity Service API, "Authentication"). Of the homeserver's OpenID object
/// only what is needed is asked for. Some clients read the token as `access_token`.
pub(crate) async fn register(
    State(app): State<App>,
    ClientSource(source): ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Response> {
    let (access_token, server) = (
        body.string("access_token")?,
        body.string("matrix_server_name")?,
    );
    let access_token = AccessToken::parse(access_token)?;
    let server: ServerName = server.parse().map_err(|_| {
        Error::invalid(
            "matrix_server_name must be the name of a homeserver, such as \"example.org\".",
        )
    })?;
    let token = rules(&app)?
        .register(&server, &access_token, source)
        .await?;
    let token = token.reveal();
    let body = json!({ "token": token, "access_token": token });
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Json(body)).into_response())
}

/// `POST /_matrix/identity/v2/account/logout` (Identity Service API, "Authentication"). It needs no body, and no accepted
/// terms (MSC2140).
pub(crate) async fn logout(
    State(app): State<App>,
    ClientSource(source): ClientSource,
    Token(token): Token,
) -> Result<Json<Value>> {
    rules(&app)?.log_out(&token, source).await?;
    Ok(Json(json!({})))
}
