//! Terms: what users must accept.

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

use super::account::{AccountBeforeTerms, rules};
use crate::{
    error::Result,
    http::{App, extract::MatrixJson},
    identity::Policy,
};

/// `GET /_matrix/identity/v2/terms` (Identity Service API, "Terms of service").
pub(crate) async fn show(State(app): State<App>) -> Result<Json<Value>> {
    let terms = &rules(&app)?.settings.terms;
    let policies: Map<String, Value> = terms
        .iter()
        .map(|(name, policy)| (name.clone(), in_all_languages(policy)))
        .collect();
    Ok(Json(json!({ "policies": policies })))
}

fn in_all_languages(policy: &Policy) -> Value {
    let mut shown = Map::new();
    for (language, text) in &policy.texts {
        let text = json!({ "name": text.name, "url": text.url });
        shown.insert(language.clone(), text);
    }
    shown.insert("version".to_owned(), json!(policy.version));
    Value::Object(shown)
}

/// `POST /_matrix/identity/v2/terms` (Identity Service API, "Terms of service").
pub(crate) async fn accept(
    State(app): State<App>,
    account: AccountBeforeTerms,
    MatrixJson(mut body): MatrixJson,
) -> Result<Json<Value>> {
    let urls = body.take_strings("user_accepts")?;
    rules(&app)?.accept_terms(&account.user_id, &urls).await?;
    Ok(Json(json!({})))
}
