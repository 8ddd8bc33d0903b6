//! Logging in, by user name or by an address of the account, and logging out (Client-Server API, "Login").

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use threepid::Error;

use crate::{
    Homeserver,
    answer::{Answer, Body, Caller, Refusal, required, text},
    password,
};

/// The only way to log in.
pub(crate) const PASSWORD: &str = "m.login.password";

/// `GET /_matrix/client/v3/login`
pub(crate) async fn flows() -> Answer {
    Ok(Json(json!({ "flows": [{ "type": PASSWORD }] })))
}

/// `POST /_matrix/client/v3/login`
pub(crate) async fn login(State(homeserver): State<Arc<Homeserver>>, Body(body): Body) -> Answer {
    if required(&body, "type")? != PASSWORD {
        let error = "This way to log in is not known here.";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error));
    }
    let typed = required(&body, "password")?;
    let device_id = text(&body, "device_id")?;
    let identifier = body.get("identifier");
    let user_id = find(
        &homeserver,
        identifier.ok_or(Error::MissingParam("identifier"))?,
    )
    .await?;
    // An address of nobody, a name of nobody and a wrong password: one answer, and the same work.
    let users = &homeserver.users;
    let known = user_id.as_ref().and_then(|user_id| users.password(user_id));
    let checked = password::check(known, typed).await;
    let (Some(user_id), Some(checked)) = (user_id, checked) else {
        return Err(wrong());
    };
    let device = users
        .log_in(&user_id, &checked, device_id)
        .ok_or_else(wrong)?;
    Ok(Json(json!({
        "user_id": user_id,
        "access_token": device.access_token,
        "device_id": device.device_id,
    })))
}

/// Which account an identifier means, whether or not there is one (Client-Server API, "Identifier types"). User names are
/// ours; who has an address, the library knows.
async fn find(homeserver: &Homeserver, identifier: &Value) -> Result<Option<String>, Error> {
    let is_name = identifier
        .get("type")
        .is_some_and(|kind| kind == "m.id.user");
    match identifier.as_object() {
        Some(identifier) if is_name => {
            let user = required(identifier, "user")?;
            Ok(Some(homeserver.users.user_id(user)))
        }
        _ => homeserver.threepid.find_account(identifier).await,
    }
}

fn wrong() -> Refusal {
    let error = "There is no such account, or this is not its password.";
    Refusal::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", error)
}

/// `POST /_matrix/client/v3/logout`
pub(crate) async fn logout(
    State(homeserver): State<Arc<Homeserver>>,
    Caller(requester): Caller,
) -> Answer {
    homeserver.users.log_out(&requester.access_token);
    Ok(Json(json!({})))
}

/// `POST /_matrix/client/v3/logout/all`
pub(crate) async fn logout_all(
    State(homeserver): State<Arc<Homeserver>>,
    Caller(requester): Caller,
) -> Answer {
    homeserver.users.log_out_all(&requester.user_id, None);
    Ok(Json(json!({})))
}
