//! As much of a homeserver as an identity server needs: one user, who they are, and where it is told of associations.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Map, Value, json};
use threepid::{
    Error,
    error::Result,
    homeserver::{Accounts, Origin, PassedBack, PassedOn, Reauth, Requester},
    id_server::{IdServer, Unbound},
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    threepid::Threepid,
};

/// The homeserver.
#[derive(Debug)]
pub(crate) struct Homeserver {
    /// Its name in the ids of users.
    pub(crate) name: String,
    pub(crate) user_id: String,
    /// The user's access token.
    pub(crate) access_token: String,
    /// What was made to show others who the user is.
    openid_tokens: Mutex<HashSet<String>>,
    /// The addresses that identity servers told of.
    told: Mutex<Vec<Value>>,
}

impl Homeserver {
    pub(crate) fn new(name: String, localpart: &str) -> Arc<Self> {
        Arc::new(Self {
            user_id: format!("@{localpart}:{name}"),
            access_token: random(),
            openid_tokens: Mutex::default(),
            told: Mutex::default(),
            name,
        })
    }

    /// What the user's client gets from `POST /_matrix/client/v3/user/{userId}/openid/request_token`.
    pub(crate) fn openid_token(&self) -> Value {
        let token = random();
        if let Ok(mut tokens) = self.openid_tokens.lock() {
            tokens.insert(token.clone());
        }
        json!({
            "access_token": token, "token_type": "Bearer", "expires_in": 3600,
            "matrix_server_name": self.name,
        })
    }

    /// Whether an identity server has told that the user has this address.
    pub(crate) fn was_told_of(&self, address: &str) -> bool {
        let told = self.told.lock();
        told.is_ok_and(|told| {
            told.iter()
                .any(|one| one["address"] == address && one["mxid"] == self.user_id)
        })
    }

    /// What other servers call.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
            .route("/_matrix/federation/v1/3pid/onbind", post(onbind))
            .with_state(Arc::clone(self))
    }
}

/// A token that nobody guesses.
fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// `GET /_matrix/federation/v1/openid/userinfo`
async fn userinfo(
    State(homeserver): State<Arc<Homeserver>>,
    Query(query): Query<Map<String, Value>>,
) -> (StatusCode, Json<Value>) {
    let token = query.get("access_token").and_then(Value::as_str);
    let tokens = homeserver.openid_tokens.lock();
    if tokens.is_ok_and(|tokens| token.is_some_and(|token| tokens.contains(token))) {
        (StatusCode::OK, Json(json!({ "sub": homeserver.user_id })))
    } else {
        let refusal = json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Nobody has this token." });
        (StatusCode::UNAUTHORIZED, Json(refusal))
    }
}

/// `POST /_matrix/federation/v1/3pid/onbind`; a real homeserver invites the user to the rooms in `invites`.
async fn onbind(State(homeserver): State<Arc<Homeserver>>, Json(body): Json<Value>) -> Json<Value> {
    if let Ok(mut told) = homeserver.told.lock() {
        told.push(body);
    }
    Json(json!({}))
}

/// What the library asks of the homeserver that it is mounted in.
#[async_trait]
impl Accounts for Homeserver {
    async fn whoami(&self, access_token: &AccessToken, _: &Origin) -> Result<Requester> {
        // A real homeserver finds the token by its hash.
        if access_token.reveal() != self.access_token {
            return Err(Error::UnknownToken { soft_logout: false });
        }
        Ok(Requester {
            user_id: self.user_id.clone(),
            device_id: None,
            access_token: access_token.clone(),
        })
    }

    async fn reauth(&self, _: &Requester, _: Option<&Value>, _: &Origin) -> Result<Reauth> {
        Ok(Reauth::Done)
    }

    async fn is_suspended(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn sets_passwords(&self) -> bool {
        false
    }

    async fn password_policy(&self) -> Result<PasswordPolicy> {
        Ok(PasswordPolicy::default())
    }

    async fn reset_password(&self, _: &str, _: &NewPassword, _: bool) -> Result<()> {
        Err(Error::AccountGone)
    }

    /// It signs no requests: the library shows the identity server the proof instead.
    async fn unbind(
        &self,
        _: &Requester,
        _: &Threepid,
        _: &IdServer,
        _: &Origin,
    ) -> Result<Option<Unbound>> {
        Ok(None)
    }

    async fn pass_on(&self, _: PassedOn, _: &Origin) -> Result<PassedBack> {
        Err(Error::Unrecognized)
    }
}
