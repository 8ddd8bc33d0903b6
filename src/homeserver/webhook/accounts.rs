//! The account side, as the homeserver tells it.

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Webhook,
    client::{Verb, flag, fresh_id},
};
use crate::{
    error::{Error, Result},
    homeserver::{
        Accounts, Origin, PassedBack, PassedOn, Reauth, Requester,
        api::{Answer, policy, reauthenticated, requester},
    },
    id_server::{IdServer, Unbound},
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    threepid::Threepid,
};

const WHOAMI: Verb = Verb::reading("account/whoami");
const REAUTH: Verb = Verb::reading("account/reauth");
const RESET_PASSWORD: Verb = Verb::changing("account/reset_password");
pub(super) const IS_SUSPENDED: Verb = Verb::reading("account/is_suspended");
pub(super) const PASSWORD_POLICY: Verb = Verb::reading("account/password_policy");

#[async_trait]
impl Accounts for Webhook {
    /// `POST account/whoami`
    async fn whoami(&self, access_token: &AccessToken, _: &Origin) -> Result<Requester> {
        // As anywhere else: one that could not stand in a header is nobody's.
        let unknown = |_| Error::UnknownToken { soft_logout: false };
        access_token.check().map_err(unknown)?;
        let body = json!({ "access_token": access_token.reveal() });
        requester(self.ask(WHOAMI, &body).await?, access_token)
    }

    /// `POST account/reauth`. A stage is shown once: some can be shown no second time.
    async fn reauth(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        _: &Origin,
    ) -> Result<Reauth> {
        let body = json!({ "access_token": requester.access_token.reveal(), "auth": auth });
        let verb = if auth.is_some() {
            REAUTH.once()
        } else {
            REAUTH
        };
        reauthenticated(self.ask(verb, &body).await?)
    }

    /// `POST account/is_suspended`; where there is no such path nobody is.
    async fn is_suspended(&self, user_id: &str) -> Result<bool> {
        let body = json!({ "user_id": user_id });
        let answer = self.ask(IS_SUSPENDED, &body).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        flag(answer, "suspended")
    }

    fn sets_passwords(&self) -> bool {
        true
    }

    /// `POST account/password_policy`, remembered for a while; where there is no such path nothing is demanded.
    async fn password_policy(&self) -> Result<PasswordPolicy> {
        if let Some(policy) = self.policy.recall() {
            return Ok(policy);
        }
        let answer = self.ask(PASSWORD_POLICY, &json!({})).await?;
        let policy = match answer.status {
            StatusCode::NOT_FOUND => PasswordPolicy::default(),
            _ => policy::read(&answer.success()?),
        };
        self.policy.remember(policy);
        Ok(policy)
    }

    /// `POST account/reset_password`
    async fn reset_password(
        &self,
        user_id: &str,
        new: &NewPassword,
        logout_devices: bool,
    ) -> Result<()> {
        let body = json!({
            "user_id": user_id,
            "new_password": new.reveal(),
            "logout_devices": logout_devices,
            "op_id": fresh_id(),
        });
        let answer = self.ask(RESET_PASSWORD, &body).await?;
        match answer.status {
            StatusCode::OK => answer.success().map(drop),
            _ => Err(reset_fault(&answer)),
        }
    }

    /// The contract has no such call.
    async fn unbind(
        &self,
        _: &Requester,
        _: &Threepid,
        _: &IdServer,
        _: &Origin,
    ) -> Result<Option<Unbound>> {
        Ok(None)
    }

    /// The contract has no such call.
    async fn pass_on(&self, _: PassedOn, _: &Origin) -> Result<PassedBack> {
        let why = "This server does not pass such requests on. Send them to the homeserver itself.";
        Err(Error::Forbidden(why.into()))
    }
}

/// What an answer to a reset means that is no success.
fn reset_fault(answer: &Answer) -> Error {
    let Some(error) = answer.matrix_error() else {
        return answer.fault();
    };
    match (answer.status, error.errcode.as_str()) {
        (StatusCode::NOT_FOUND, "M_NOT_FOUND") => Error::AccountGone,
        (StatusCode::BAD_REQUEST, code) if code.contains("PASSWORD") => {
            Error::WeakPassword(error.error.into())
        }
        (StatusCode::FORBIDDEN, "M_FORBIDDEN") => Error::Forbidden(error.error.into()),
        _ => answer.fault(),
    }
}
