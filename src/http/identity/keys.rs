//! Signing keys.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::Uri,
};
use serde_json::{Value, json};

use super::account::rules;
use crate::{
    error::{Error, Result},
    http::{App, extract::Object},
};

/// `GET /_matrix/identity/v2/pubkey/{keyId}` (Identity Service API, "Key management").
pub(crate) async fn public_key(
    State(app): State<App>,
    key_id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>> {
    // What is no text is no key's name.
    let Path(key_id) = key_id.map_err(|_| Error::UnknownKey)?;
    let public_key = rules(&app)?.public_key(&key_id)?;
    Ok(Json(json!({ "public_key": public_key })))
}

/// `GET /_matrix/identity/v2/pubkey/isvalid` (Identity Service API, "Key management").
pub(crate) async fn is_valid(State(app): State<App>, uri: Uri) -> Result<Json<Value>> {
    let query = query(&uri)?;
    let valid = rules(&app)?.is_own_key(query.string("public_key")?);
    Ok(Json(json!({ "valid": valid })))
}

/// `GET /_matrix/identity/v2/pubkey/ephemeral/isvalid` (Identity Service API, "Key management").
pub(crate) async fn is_ephemeral_valid(State(app): State<App>, uri: Uri) -> Result<Json<Value>> {
    let query = query(&uri)?;
    let asked = rules(&app)?.is_ephemeral_key(query.string("public_key")?);
    Ok(Json(json!({ "valid": asked.await? })))
}

/// The values of a query.
fn query(uri: &Uri) -> Result<Object> {
    Object::from_form(uri.query().unwrap_or_default().as_bytes())
}
