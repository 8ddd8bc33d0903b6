//! No homeserver that we could ask: nobody owns an address here, and no access token is known.

use async_trait::async_trait;
use serde_json::Value;

use super::{Accounts, Directory, Origin, PassedBack, PassedOn, Reauth, Requester};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id_server::{IdServer, Unbound},
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    store::{Bound, Contact},
    threepid::Threepid,
};

/// Neither directory nor accounts.
#[derive(Clone, Copy, Debug)]
pub struct NoHomeserver;

#[async_trait]
impl Directory for NoHomeserver {
    async fn owner(&self, _: &Threepid) -> Result<Option<String>> {
        Ok(None)
    }

    async fn bind(
        &self,
        _: &str,
        _: &Threepid,
        _: Option<Timestamp>,
        _: Timestamp,
    ) -> Result<Bound> {
        Err(not_here())
    }

    async fn unbind(&self, _: &str, _: &Threepid) -> Result<bool> {
        Ok(false)
    }

    async fn list(&self, _: &str) -> Result<Vec<Contact>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Accounts for NoHomeserver {
    fn is_there(&self) -> bool {
        false
    }

    /// Not that the token is unknown: a client that is told so logs out, and it may be a good one elsewhere.
    async fn whoami(&self, _: &AccessToken, _: &Origin) -> Result<Requester> {
        Err(not_here())
    }

    async fn reauth(&self, _: &Requester, _: Option<&Value>, _: &Origin) -> Result<Reauth> {
        Err(not_here())
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
        Err(not_here())
    }

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
        Err(not_here())
    }
}

fn not_here() -> Error {
    Error::Forbidden(
        "There is no homeserver here whose accounts these are. Use the homeserver's own address."
            .into(),
    )
}
