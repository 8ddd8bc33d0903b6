//! What the library asks of the homeserver it is mounted in.

use async_trait::async_trait;
use axum::{Json, http::StatusCode};
use serde_json::Value;
use threepid::{
    Error,
    error::Result,
    homeserver::{Accounts, Origin, PassedBack, PassedOn, Reauth, Requester},
    id_server::{IdServer, Unbound},
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    threepid::Threepid,
};

use crate::{password::PasswordHash, users::Users, wanted};

#[async_trait]
impl Accounts for Users {
    async fn whoami(&self, access_token: &AccessToken, _: &Origin) -> Result<Requester> {
        self.requester(access_token)
    }

    /// Before an address is added: the library passes the challenge on, and comes back with `auth`.
    async fn reauth(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        _: &Origin,
    ) -> Result<Reauth> {
        Ok(match self.reauthenticate(requester, auth).await {
            Ok(_) => Reauth::Done,
            Err(challenge) => Reauth::Challenge(challenge.body),
        })
    }

    async fn is_suspended(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn sets_passwords(&self) -> bool {
        true
    }

    async fn password_policy(&self) -> Result<PasswordPolicy> {
        Ok(wanted::password_policy())
    }

    /// After somebody has proved an address of the account; the library has checked the policy.
    async fn reset_password(
        &self,
        user_id: &str,
        new: &NewPassword,
        logout_devices: bool,
    ) -> Result<()> {
        let new = PasswordHash::of(new.reveal()).await;
        if !self.set_password(user_id, None, new) {
            return Err(Error::AccountGone);
        }
        if logout_devices {
            self.log_out_all(user_id, None);
        }
        Ok(())
    }

    /// Without federation there is no key to sign such a request with.
    async fn unbind(
        &self,
        _: &Requester,
        _: &Threepid,
        _: &IdServer,
        _: &Origin,
    ) -> Result<Option<Unbound>> {
        Ok(None)
    }

    /// `POST account/password` with an access token: the only request that the library passes on.
    async fn pass_on(&self, request: PassedOn, _: &Origin) -> Result<PassedBack> {
        let access_token = request.access_token.as_ref();
        let changed = self.change_password(access_token, &request.body).await;
        let (status, body) = match changed {
            Ok(Json(body)) => (StatusCode::OK, body),
            Err(refusal) => (refusal.status, refusal.body.into()),
        };
        Ok(PassedBack {
            status,
            body: body.to_string().into_bytes(),
            retry_after: None,
        })
    }
}
