//! The account side, by the Client-Server API in the name of whoever asks, and by Dendrite's admin API.

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Dendrite;
use crate::{
    error::{Error, Result},
    homeserver::{
        Accounts, Origin, PassedBack, PassedOn, Reauth, Requester,
        api::{Answer, Asked, Call, segment},
    },
    id_server::{IdServer, Unbound},
    matrix_error::MatrixError,
    password::{NewPassword, PasswordPolicy},
    secret::{AccessToken, ClientSecret, Sid},
    threepid::Threepid,
};

const RESET_PASSWORD: &str = "/_dendrite/admin/resetPassword";
/// The path of all versions (Client-Server API r0.6.1, `POST /_matrix/client/r0/account/3pid`).
const THREEPID: &str = "/_matrix/client/r0/account/3pid";
const DELETE: &str = "/_matrix/client/r0/account/3pid/delete";

/// Its own rule for passwords, which it tells at no endpoint: the fewest characters, and the most bytes.
const SHORTEST_PASSWORD: u32 = 8;
const LONGEST_PASSWORD: usize = 512;

#[async_trait]
impl Accounts for Dendrite {
    async fn whoami(&self, access_token: &AccessToken, origin: &Origin) -> Result<Requester> {
        self.client.whoami(access_token, origin).await
    }

    /// By the path that names one device: old versions delete many at once without asking for a password, and all of
    /// them for an empty list.
    async fn reauth(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        origin: &Origin,
    ) -> Result<Reauth> {
        self.client.reauth_by_device(requester, auth, origin).await
    }

    /// Dendrite suspends nobody.
    async fn is_suspended(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn sets_passwords(&self) -> bool {
        self.admin_token.is_some()
    }

    async fn password_policy(&self) -> Result<PasswordPolicy> {
        Ok(PasswordPolicy {
            minimum_length: SHORTEST_PASSWORD,
            ..PasswordPolicy::default()
        })
    }

    /// `POST /_dendrite/admin/resetPassword/{userID}`
    async fn reset_password(
        &self,
        user_id: &str,
        new: &NewPassword,
        logout_devices: bool,
    ) -> Result<()> {
        if new.reveal().len() > LONGEST_PASSWORD {
            let why = "The new password is too long. Take at most 512 plain letters and digits; others count more than once.";
            return Err(Error::WeakPassword(why.into()));
        }
        let path = format!("{RESET_PASSWORD}/{}", segment(user_id));
        let body = json!({ "password": new.reveal(), "logout_devices": logout_devices });
        let call = Call::new(Asked::changing(Method::POST, RESET_PASSWORD), path)
            .bearer(self.admin()?)
            .json(&body);
        let answer = self.client.send(call).await?;
        if answer.status != StatusCode::OK {
            return Err(reset_fault(&answer));
        }
        let asked = answer.asked.clone();
        match answer.success()?.get("password_updated") {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err(asked.broken("200 and no password_updated")),
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

    /// `POST /_matrix/client/r0/account/3pid`. Before it answers, Dendrite asks us, as its identity server, for the proof.
    async fn copy_address(
        &self,
        requester: &Requester,
        sid: &Sid,
        client_secret: &ClientSecret,
        origin: &Origin,
    ) -> Result<bool> {
        let Some(id_server) = &self.id_server_name else {
            return Ok(false);
        };
        let body = json!({
            "three_pid_creds": {
                "id_server": id_server,
                "sid": sid.as_str(),
                "client_secret": client_secret.as_str(),
            },
            "bind": false,
        });
        let call = Call::new(Asked::changing(Method::POST, THREEPID), THREEPID.to_owned())
            .bearer(&requester.access_token)
            .json(&body)
            .origin(origin);
        let answer = self.client.send(call).await?;
        if answer.says(StatusCode::BAD_REQUEST, "M_SERVER_NOT_TRUSTED") {
            return Err(Error::HomeserverFailed(format!(
                "the homeserver does not trust us as its identity server: write \"{id_server}\" into \
                 global.trusted_third_party_id_servers of dendrite.yaml"
            )));
        }
        answer.success()?;
        Ok(true)
    }

    /// `POST /_matrix/client/r0/account/3pid/delete`, which takes the address from whoever has it there.
    async fn forget_copy(
        &self,
        requester: &Requester,
        threepid: &Threepid,
        origin: &Origin,
    ) -> Result<()> {
        if self.id_server_name.is_none() {
            return Ok(());
        }
        let body = json!({ "medium": threepid.medium().as_str(), "address": threepid.address() });
        let call = Call::new(Asked::changing(Method::POST, DELETE), DELETE.to_owned())
            .bearer(&requester.access_token)
            .json(&body)
            .origin(origin);
        self.client.send(call).await?.success().map(drop)
    }

    async fn pass_on(&self, request: PassedOn, origin: &Origin) -> Result<PassedBack> {
        self.client.pass_on(request, origin).await
    }
}

/// What an answer to a reset means that is no success.
fn reset_fault(answer: &Answer) -> Error {
    let Some(MatrixError { errcode, error, .. }) = answer.matrix_error() else {
        return answer.admin_fault();
    };
    match (answer.status, errcode.as_str()) {
        (StatusCode::NOT_FOUND, "M_UNKNOWN" | "M_NOT_FOUND") => Error::AccountGone,
        (StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD") => Error::WeakPassword(error.into()),
        // Its database failed, perhaps after the password was set.
        (StatusCode::BAD_REQUEST, "M_UNKNOWN") => answer.asked.broken("400 (M_UNKNOWN)"),
        _ => answer.admin_fault(),
    }
}
