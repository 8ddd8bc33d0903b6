//! What clients are told of this server: the homeserver's answer, and what is so because of us.

use axum::{
    Json,
    extract::{MatchedPath, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::{
    account,
    error::{Error, Result},
    homeserver::{Origin, PassedOn},
    http::{
        App,
        extract::{Bearer, ClientOrigin},
    },
    secret::AccessToken,
};

/// What is served where there is no homeserver to say what else: the versions of the Client-Server API in which our
/// endpoints came, or changed.
const VERSIONS: [&str; 6] = ["r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2"];

/// `GET /_matrix/client/v3/capabilities` (Client-Server API, "Capabilities negotiation"): with `m.3pid_changes` (MSC3283)
/// and `m.change_password`.
pub(crate) async fn capabilities(
    State(app): State<App>,
    path: MatchedPath,
    Bearer(access_token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    uri: Uri,
) -> Result<Response> {
    if access_token.is_none() {
        return Err(Error::MissingToken);
    }
    let settings = app.account.settings;
    merged(&app, &path, access_token, &origin, &uri, |body| {
        let all = body.entry("capabilities").or_insert_with(|| json!({}));
        if let Some(all) = all.as_object_mut() {
            add_capabilities(all, settings);
        }
    })
    .await
}

/// `GET /_matrix/client/versions` (Client-Server API, "API standards"): with what clients of before v1.1 look for before
/// they leave `id_server` out (MSC2263) and add without binding (MSC2290).
pub(crate) async fn versions(
    State(app): State<App>,
    path: MatchedPath,
    Bearer(access_token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    uri: Uri,
) -> Result<Response> {
    merged(&app, &path, access_token, &origin, &uri, |body| {
        body.entry("versions").or_insert_with(|| json!(VERSIONS));
        let all = body.entry("unstable_features").or_insert_with(|| json!({}));
        if let Some(all) = all.as_object_mut() {
            all.insert("m.require_identity_server".to_owned(), json!(false));
            all.insert("m.separate_add_and_bind".to_owned(), json!(true));
            all.insert("m.id_access_token".to_owned(), json!(true));
        }
    })
    .await
}

/// What we say stands before what the homeserver says: its own endpoints for addresses are not reached. A change of a
/// password is made by both.
fn add_capabilities(all: &mut Map<String, Value>, settings: account::Settings) {
    let is_off =
        |all: &Map<String, Value>, name: &str| all.get(name) == Some(&json!({ "enabled": false }));
    let changes_password = settings.password_change && !is_off(all, "m.change_password");
    all.insert(
        "m.3pid_changes".to_owned(),
        json!({ "enabled": settings.allow_changes }),
    );
    all.insert(
        "m.change_password".to_owned(),
        json!({ "enabled": changes_password }),
    );
}

/// The homeserver's answer with ours in it; ours alone where there is none that could be asked.
async fn merged(
    app: &App,
    path: &MatchedPath,
    access_token: Option<AccessToken>,
    origin: &Origin,
    uri: &Uri,
    add: impl FnOnce(&mut Map<String, Value>),
) -> Result<Response> {
    let query = uri.query();
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let passed_on = PassedOn {
        method: http::Method::GET,
        path_and_query: format!("{}{query}", path.as_str()),
        access_token,
        body: Vec::new(),
    };
    let mut body = match app.account.accounts.pass_on(passed_on, origin).await {
        Err(Error::Forbidden(_)) => Map::new(),
        Err(error) => return Err(error),
        Ok(answer) if answer.status != StatusCode::OK => return Ok(answer.into_response()),
        Ok(answer) => match serde_json::from_slice(&answer.body) {
            Ok(body) => body,
            Err(_) => return Ok(answer.into_response()),
        },
    };
    add(&mut body);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_changed_only_where_both_let_it() {
        for (ours, theirs, expected) in [
            (true, json!({}), true),
            (
                true,
                json!({ "m.change_password": { "enabled": true } }),
                true,
            ),
            (
                true,
                json!({ "m.change_password": { "enabled": false } }),
                false,
            ),
            (
                false,
                json!({ "m.change_password": { "enabled": true } }),
                false,
            ),
        ] {
            let mut all = theirs.as_object().unwrap().clone();
            let settings = account::Settings {
                password_change: ours,
                ..account::Settings::default()
            };

            add_capabilities(&mut all, settings);

            assert_eq!(
                all["m.change_password"]["enabled"], expected,
                "{ours} {theirs}"
            );
        }
    }
}
