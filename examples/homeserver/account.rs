//! What an account does with itself: it proves again who it is, changes its password, and ends (Client-Server API,
//! "Account management").

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};
use threepid::{Error, homeserver::Requester, secret::AccessToken};

use crate::{
    Homeserver,
    answer::{Answer, Body, Caller, Refusal, object, required},
    login::PASSWORD,
    password::{self, PasswordHash},
    users::{Users, chance},
    wanted,
};

/// `GET /_matrix/client/v3/account/whoami`
pub(crate) async fn whoami(Caller(requester): Caller) -> Answer {
    Ok(Json(json!({
        "user_id": requester.user_id,
        "device_id": requester.device_id,
        "is_guest": false,
    })))
}

/// `POST /_matrix/client/v3/account/deactivate`
///
/// The account ends last: until then the call may be repeated. Its addresses go in any case, not only where the person
/// wants to be erased: one that a dead account kept could be nobody's again.
pub(crate) async fn deactivate(
    State(homeserver): State<Arc<Homeserver>>,
    Caller(requester): Caller,
    Body(body): Body,
) -> Answer {
    let users = &homeserver.users;
    users.reauthenticate(&requester, body.get("auth")).await?;
    let work = tokio::spawn({
        let homeserver = Arc::clone(&homeserver);
        async move {
            let user_id = &requester.user_id;
            let unbound = homeserver
                .threepid
                .account_deactivated(user_id, true)
                .await?;
            homeserver.users.end(user_id);
            Ok(unbound)
        }
    });
    let panicked = |_| Err(Error::Internal("a deactivation panicked".to_owned()));
    let unbound = work.await.unwrap_or_else(panicked)?;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

impl Users {
    /// Asks for the password of whoever sent a request; `auth` is the key of the request. What the password is checked by.
    ///
    /// The password comes with the very request that it is for, so that nothing need be kept in the session. Whose it is,
    /// says the access token, and not the identifier.
    ///
    /// # Errors
    /// A 401 that asks for it.
    pub(crate) async fn reauthenticate(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
    ) -> Result<PasswordHash, Refusal> {
        let shown = |key: &str| auth.and_then(|auth| auth.get(key)?.as_str());
        let session = shown("session").map_or_else(chance::<16>, str::to_owned);
        let typed = shown("password").filter(|_| shown("type") == Some(PASSWORD));
        let Some(typed) = typed else {
            return Err(Refusal::challenge(PASSWORD, &session, None));
        };
        let known = self.password(&requester.user_id);
        let checked = password::check(known, typed).await;
        let why = ("M_FORBIDDEN", "This is not the password of the account.");
        checked.ok_or_else(|| Refusal::challenge(PASSWORD, &session, Some(why)))
    }

    /// `POST /_matrix/client/v3/account/password` of somebody who is logged in: what the library passes on.
    pub(crate) async fn change_password(
        &self,
        access_token: Option<&AccessToken>,
        body: &[u8],
    ) -> Answer {
        let access_token = access_token.ok_or(Error::MissingToken)?;
        let requester = self.requester(access_token)?;
        let body = object(body)?;
        let old = self.reauthenticate(&requester, body.get("auth")).await?;
        let new = wanted::new_password(required(&body, "new_password")?)?;
        let logout_devices = logout_devices(&body)?;
        let new = PasswordHash::of(new.reveal()).await;
        // A reset in the meantime has the last word.
        if !self.set_password(&requester.user_id, Some(&old), new) {
            let why = "The password was changed elsewhere. Log in with the new one.";
            return Err(Error::Forbidden(why.into()).into());
        }
        if logout_devices {
            self.log_out_all(&requester.user_id, requester.device_id.as_deref());
        }
        Ok(Json(json!({})))
    }
}

/// Whether a new password logs the other devices out; by default it does.
fn logout_devices(body: &Map<String, Value>) -> Result<bool, Error> {
    match body.get("logout_devices") {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Bool(logout_devices)) => Ok(*logout_devices),
        Some(_) => {
            let why = "The key logout_devices must be true or false.";
            Err(Error::BadJson(why.into()))
        }
    }
}
