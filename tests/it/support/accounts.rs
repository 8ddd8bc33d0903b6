//! A stand-in for the account side of a homeserver, in memory: passwords, a policy, and faults that a test turns on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use serde_json::Value;
use threepid::{
    error::{Error, Result},
    homeserver::{Accounts, Origin, PassedBack, PassedOn, Reauth, Requester},
    id_server::{IdServer, Unbound},
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    threepid::Threepid,
};
use tokio::sync::Semaphore;

/// Accounts in memory.
#[derive(Debug)]
pub(crate) struct FakeAccounts {
    state: Mutex<State>,
    /// How many resets may go through before the next one has to wait.
    gate: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    passwords: BTreeMap<String, String>,
    policy: PasswordPolicy,
    fault: Option<Error>,
    sets_none: bool,
    resets: Vec<(String, String, bool)>,
    passed_on: Vec<PassedOn>,
}

impl FakeAccounts {
    /// Accounts with these user ids, each with the password `old`.
    pub(crate) fn of(user_ids: &[&str]) -> Arc<Self> {
        let old = |user_id: &&str| ((*user_id).to_owned(), "old".to_owned());
        let state = State {
            passwords: user_ids.iter().map(old).collect(),
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// The password of an account; empty if there is none.
    pub(crate) fn password(&self, user_id: &str) -> String {
        let passwords = &self.state().passwords;
        passwords.get(user_id).cloned().unwrap_or_default()
    }

    /// Account, password and `logout_devices` of all resets that were asked for, oldest first.
    pub(crate) fn resets(&self) -> Vec<(String, String, bool)> {
        self.state().resets.clone()
    }

    /// The requests that were passed on.
    pub(crate) fn passed_on(&self) -> Vec<PassedOn> {
        self.state().passed_on.clone()
    }

    /// What is demanded of a password.
    pub(crate) fn demand(&self, policy: PasswordPolicy) {
        self.state().policy = policy;
    }

    /// Lets resets fail; `None` heals them. A time-out may have done its work all the same, and here it has.
    pub(crate) fn fail(&self, fault: Option<Error>) {
        self.state().fault = fault;
    }

    /// Takes the means to set passwords away.
    pub(crate) fn set_none(&self) {
        self.state().sets_none = true;
    }

    /// Lets resets wait until [`FakeAccounts::open`].
    pub(crate) fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets those that wait, and all others, go on.
    pub(crate) fn open(&self) {
        self.gate.add_permits(1_000);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Accounts for FakeAccounts {
    /// Everybody's token is the owner's.
    async fn whoami(&self, token: &AccessToken, _: &Origin) -> Result<Requester> {
        let user_id = self.state().passwords.keys().next().cloned();
        Ok(Requester {
            user_id: user_id.ok_or(Error::UnknownToken { soft_logout: false })?,
            device_id: None,
            access_token: token.clone(),
        })
    }

    async fn reauth(&self, _: &Requester, _: Option<&Value>, _: &Origin) -> Result<Reauth> {
        Ok(Reauth::Done)
    }

    async fn is_suspended(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn sets_passwords(&self) -> bool {
        !self.state().sets_none
    }

    async fn password_policy(&self) -> Result<PasswordPolicy> {
        Ok(self.state().policy)
    }

    async fn reset_password(
        &self,
        user_id: &str,
        new: &NewPassword,
        logout_devices: bool,
    ) -> Result<()> {
        let permit = self.gate.acquire().await;
        drop(permit);
        let mut state = self.state();
        let asked = (user_id.to_owned(), new.reveal().to_owned(), logout_devices);
        state.resets.push(asked);
        let fault = state.fault.clone();
        if !matches!(fault, None | Some(Error::HomeserverTimeout(_))) {
            return fault.map_or(Ok(()), Err);
        }
        let password = state.passwords.get_mut(user_id);
        new.reveal().clone_into(password.ok_or(Error::AccountGone)?);
        fault.map_or(Ok(()), Err)
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

    async fn pass_on(&self, request: PassedOn, _: &Origin) -> Result<PassedBack> {
        let mut state = self.state();
        let is_change = request.body.starts_with(b"{\"new_password");
        state.passed_on.push(request);
        if is_change {
            return Ok(PassedBack {
                status: http::StatusCode::OK,
                body: b"{}".to_vec(),
                retry_after: None,
            });
        }
        Ok(PassedBack {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            body: br#"{"errcode":"M_LIMIT_EXCEEDED"}"#.to_vec(),
            retry_after: Some("7".to_owned()),
        })
    }
}
