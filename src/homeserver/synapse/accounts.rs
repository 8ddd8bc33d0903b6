//! The account side, by the Client-Server API in the name of whoever asks, and by the admin API.

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Synapse;
use crate::{
    error::{Error, Result},
    homeserver::{
        Accounts, Origin, PassedBack, PassedOn, Reauth, Requester,
        api::{Answer, Asked, Call, segment},
    },
    id_server::{IdServer, Unbound},
    matrix_error::MatrixError,
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    threepid::Threepid,
};

const RESET_PASSWORD: &str = "/_synapse/admin/v1/reset_password";

#[async_trait]
impl Accounts for Synapse {
    async fn whoami(&self, access_token: &AccessToken, origin: &Origin) -> Result<Requester> {
        self.client.whoami(access_token, origin).await
    }

    async fn reauth(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        origin: &Origin,
    ) -> Result<Reauth> {
        self.client.reauth(requester, auth, origin).await
    }

    async fn is_suspended(&self, user_id: &str) -> Result<bool> {
        if self.admin_token.is_none() {
            return Ok(false);
        }
        let account = self.find_user(user_id).await?;
        Ok(account.is_some_and(|account| account.is_suspended))
    }

    fn sets_passwords(&self) -> bool {
        self.admin_token.is_some()
    }

    /// Synapse's admin API does not enforce it.
    async fn password_policy(&self) -> Result<PasswordPolicy> {
        self.client.password_policy().await
    }

    /// `POST /_synapse/admin/v1/reset_password/{user_id}`
    async fn reset_password(
        &self,
        user_id: &str,
        new: &NewPassword,
        logout_devices: bool,
    ) -> Result<()> {
        if self.find_person(user_id).await?.is_none() {
            return Err(Error::AccountGone);
        }
        let path = format!("{RESET_PASSWORD}/{}", segment(user_id));
        let body = json!({ "new_password": new.reveal(), "logout_devices": logout_devices });
        let call = Call::new(Asked::changing(Method::POST, RESET_PASSWORD), path)
            .bearer(self.admin()?)
            .json(&body);
        let answer = self.client.send(call).await?;
        match answer.status {
            StatusCode::OK => answer.success().map(drop),
            _ => Err(reset_fault(&answer)),
        }
    }

    async fn unbind(
        &self,
        requester: &Requester,
        threepid: &Threepid,
        id_server: &IdServer,
        origin: &Origin,
    ) -> Result<Option<Unbound>> {
        self.client
            .unbind(requester, threepid, id_server, origin)
            .await
    }

    async fn pass_on(&self, request: PassedOn, origin: &Origin) -> Result<PassedBack> {
        self.client.pass_on(request, origin).await
    }
}

/// What an answer to a reset means that is no success. The same token has just read the account, so that it is not the
/// token that is refused.
fn reset_fault(answer: &Answer) -> Error {
    let Some(MatrixError { errcode, error, .. }) = answer.matrix_error() else {
        return answer.admin_fault();
    };
    match (answer.status, errcode.as_str()) {
        (StatusCode::NOT_FOUND, "M_NOT_FOUND") => Error::AccountGone,
        (StatusCode::BAD_REQUEST, code) if code.contains("PASSWORD") => {
            Error::WeakPassword(error.into())
        }
        (StatusCode::NOT_FOUND | StatusCode::FORBIDDEN, _) => Error::HomeserverFailed(format!(
            "the homeserver sets no passwords ({errcode}): its accounts live elsewhere, or its configuration turns \
             passwords off"
        )),
        _ => answer.admin_fault(),
    }
}
