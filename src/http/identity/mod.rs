//! The Identity Service API v2, every route on one screen.

use axum::{
    Router,
    http::header,
    response::IntoResponse,
    routing::{get, post},
};

use super::{App, guarded, method_not_allowed, with_cors};
use crate::error::Dialect;

mod account;
mod accounts;
mod associations;
mod body;
mod invites;
mod keys;
mod lookup;
mod terms;
mod validate;

/// What all paths but one begin with.
const PREFIX: &str = "/_matrix/identity/v2";

/// The endpoints of the identity server, for a host to merge into its own router.
pub(crate) fn routes(app: &App) -> Router {
    if app.identity.is_none() {
        return Router::new();
    }
    let at = |path: &str| format!("{PREFIX}/{path}");
    let api = Router::new()
        .route("/_matrix/identity/versions", get(accounts::versions))
        .route(PREFIX, get(accounts::ping))
        .route(&at("account"), get(accounts::whoami))
        .route(&at("account/register"), post(accounts::register))
        .route(&at("account/logout"), post(accounts::logout))
        .route(&at("terms"), get(terms::show).post(terms::accept))
        .route(&at("pubkey/isvalid"), get(keys::is_valid))
        .route(
            &at("pubkey/ephemeral/isvalid"),
            get(keys::is_ephemeral_valid),
        )
        .route(&at("pubkey/{keyId}"), get(keys::public_key))
        .route(&at("hash_details"), get(lookup::hash_details))
        .route(&at("lookup"), post(lookup::look_up))
        .route(
            &at("validate/email/requestToken"),
            post(validate::request_email),
        )
        .route(
            &at("validate/msisdn/requestToken"),
            post(validate::request_msisdn),
        )
        .route(
            &at("validate/email/submitToken"),
            post(validate::submit_email),
        )
        .route(
            &at("validate/msisdn/submitToken"),
            post(validate::submit_msisdn),
        )
        .route(&at("3pid/getValidated3pid"), get(associations::validated))
        .route(&at("3pid/bind"), post(associations::bind))
        .route(&at("3pid/unbind"), post(associations::unbind))
        .route(&at("store-invite"), post(invites::store))
        .route(&at("sign-ed25519"), post(invites::sign))
        .method_not_allowed_fallback(method_not_allowed);
    // The pages have the paths of the two submitToken endpoints above, and their fallback.
    let pages = Router::new()
        .route(
            &at("validate/email/submitToken"),
            get(validate::show_email).head(validate::head),
        )
        .route(
            &at("validate/msisdn/submitToken"),
            get(validate::show_msisdn).head(validate::head),
        );
    let all = guarded(api, app, Dialect::Identity).merge(guarded(pages, app, Dialect::Page));
    let described = Router::new().route("/_threepid/openapi.json", get(described));
    with_cors(all.merge(described)).with_state(app.clone())
}

/// `GET /_threepid/openapi.json`: the description of this API.
async fn described() -> impl IntoResponse {
    let document = include_str!("../../../docs/identity.openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], document)
}
