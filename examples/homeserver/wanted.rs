//! What somebody may sign up with: user names and passwords.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use serde_json::{Map, Value, json};
use threepid::{
    Error,
    password::{NewPassword, PasswordPolicy},
};

use crate::{
    Homeserver,
    answer::{Answer, Refusal, text},
};

/// The longest user id, in bytes (Matrix appendices, "User Identifiers").
const LONGEST: usize = 255;

/// `GET /_matrix/client/v3/register/available`
pub(crate) async fn available(
    State(homeserver): State<Arc<Homeserver>>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let name = query
        .get("username")
        .ok_or(Error::MissingParam("username"))?;
    check_name(&homeserver, name)?;
    Ok(Json(json!({ "available": true })))
}

/// What is demanded of every password, also of one that the library sets.
pub(crate) fn password_policy() -> PasswordPolicy {
    PasswordPolicy {
        minimum_length: 8,
        ..PasswordPolicy::default()
    }
}

/// Reads a new password.
///
/// # Errors
/// [`Error::WeakPassword`], [`Error::InvalidParam`].
pub(crate) fn new_password(text: &str) -> Result<NewPassword, Error> {
    let password = NewPassword::parse(text)?;
    password_policy().check(&password)?;
    Ok(password)
}

/// Whether an account can be made of what a client asks for. What is not there yet may come with a later request.
pub(crate) fn check(homeserver: &Homeserver, wanted: &Map<String, Value>) -> Result<(), Refusal> {
    if let Some(name) = text(wanted, "username")? {
        check_name(homeserver, name)?;
    }
    if let Some(password) = text(wanted, "password")? {
        new_password(password)?;
    }
    text(wanted, "device_id")?;
    Ok(())
}

fn check_name(homeserver: &Homeserver, name: &str) -> Result<(), Refusal> {
    let is_letter = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._=-/+".contains(letter)
    };
    let user_id = homeserver.users.user_id(name);
    if name.is_empty() || !name.chars().all(is_letter) || user_id.len() > LONGEST {
        let error = "A user name has letters from a to z, digits, and . _ = - / + alone.";
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "M_INVALID_USERNAME",
            error,
        ));
    }
    if homeserver.users.is_taken(&user_id) {
        return Err(in_use());
    }
    Ok(())
}

/// Somebody has the name.
pub(crate) fn in_use() -> Refusal {
    let error = "This user name is taken. Choose another one.";
    Refusal::new(StatusCode::BAD_REQUEST, "M_USER_IN_USE", error)
}
