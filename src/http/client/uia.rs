//! User-interactive authentication on the wire (Client-Server API, "User-Interactive Authentication API").

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

pub(crate) use crate::account::registration::stage_of;
use crate::{
    error::{Error, Result},
    secret::{ClientSecret, Sid},
};

/// The key of a stage's credentials, and how it was called before v1.1 (Client-Server API, changelog).
pub(crate) const CREDENTIALS: [&str; 2] = ["threepid_creds", "threepidCreds"];

/// Whether a stage shows a session that is to prove an address.
pub(crate) fn shows_credentials(auth: &Map<String, Value>) -> bool {
    let is_there = |key: &&str| auth.get(*key).is_some_and(|value| !value.is_null());
    CREDENTIALS.iter().any(is_there)
}

/// The 401 that asks for a stage; with `error` it says why the stage that was shown is not done.
pub(crate) fn challenge(mut body: Map<String, Value>, error: Option<&Error>) -> Response {
    if let Some(error) = error {
        // Clients take any other code for the end of it, and this one for "not yet".
        body.insert("errcode".to_owned(), json!("M_UNAUTHORIZED"));
        body.insert("error".to_owned(), json!(error.to_string()));
    }
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (StatusCode::UNAUTHORIZED, headers, Json(body)).into_response()
}

/// A validation session as a request shows it: `threepid_creds` of a stage, or `three_pid_creds` of the deprecated
/// `POST account/3pid`. `names` are the keys that it may have, the newest first; `holder` is the object it lies in.
///
/// # Errors
/// [`Error::MissingParam`], named like the first of `names`; [`Error::InvalidParam`] if it is malformed.
pub(crate) fn credentials(
    holder: &Map<String, Value>,
    names: [&'static str; 2],
) -> Result<(Sid, ClientSecret)> {
    let shown = names.iter().find_map(|name| holder.get(*name));
    let shown = match shown {
        None | Some(Value::Null) => return Err(Error::MissingParam(names[0])),
        // As it was before the specification made it an object.
        Some(Value::Array(several)) => several.first().unwrap_or(&Value::Null),
        Some(one) => one,
    };
    let text = |key: &'static str| match shown.get(key) {
        None | Some(Value::Null) => Err(Error::MissingParam(key)),
        Some(value) => value
            .as_str()
            .ok_or_else(|| Error::invalid(format!("{key} must be a string"))),
    };
    if !shown.is_object() {
        return Err(Error::invalid(format!("{} must be an object", names[0])));
    }
    Ok((
        Sid::parse(text("sid")?)?,
        ClientSecret::parse(text("client_secret")?)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["threepid_creds", "threepidCreds"];

    fn read(holder: &Value) -> Result<(Sid, ClientSecret)> {
        credentials(holder.as_object().unwrap(), NAMES)
    }

    #[test]
    fn credentials_are_read_in_all_their_spellings() {
        let creds = json!({ "sid": "s", "client_secret": "c", "id_server": "x" });
        for holder in [
            json!({ "threepid_creds": creds }),
            json!({ "threepidCreds": creds }),
            json!({ "threepidCreds": [creds] }),
            json!({ "threepid_creds": creds, "threepidCreds": 1 }),
        ] {
            let (sid, _) = read(&holder).unwrap();
            assert_eq!(sid.as_str(), "s", "{holder}");
        }
    }

    #[test]
    fn credentials_that_are_none_are_told_apart() {
        for holder in [
            json!({}),
            json!({ "threepid_creds": null }),
            json!({ "threepid_creds": {} }),
            json!({ "threepid_creds": { "sid": "s" } }),
        ] {
            assert!(
                matches!(read(&holder), Err(Error::MissingParam(_))),
                "{holder}"
            );
        }
        for holder in [
            json!({ "threepid_creds": "s" }),
            json!({ "threepid_creds": [] }),
            json!({ "threepid_creds": { "sid": 1, "client_secret": "c" } }),
            json!({ "threepid_creds": { "sid": "a b", "client_secret": "c" } }),
        ] {
            assert!(
                matches!(read(&holder), Err(Error::InvalidParam(_))),
                "{holder}"
            );
        }
    }
}
