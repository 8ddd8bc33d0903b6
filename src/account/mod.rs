//! What an account may do about its addresses and its password.

pub(crate) mod addresses;
pub(crate) mod binding;
pub(crate) mod fallback;
pub(crate) mod host;
pub(crate) mod password;
pub(crate) mod registration;
pub(crate) mod uia;

use std::{fmt, sync::Arc, time::Duration};

use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, Result},
    homeserver::{Accounts, Origin, Requester},
    keys::Label,
    secret::AccessToken,
    turns::Turns,
    validation::Validation,
};

/// How long the homeserver may take between claim and take, over all its calls.
pub(crate) const LEASE: Duration = Duration::from_mins(2);

/// What accounts may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether addresses can be added and deleted (`m.3pid_changes`).
    pub(crate) allow_changes: bool,
    /// Whether passwords can be changed (`m.change_password`).
    pub(crate) password_change: bool,
    /// Whether the page of a mailed link sets the new password itself.
    pub(crate) finish_password_reset: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_changes: true,
            password_change: true,
            finish_password_reset: true,
        }
    }
}

/// The rules of account management, and what they ask.
pub(crate) struct AccountRules {
    pub(crate) settings: Settings,
    pub(crate) validation: Arc<Validation>,
    pub(crate) accounts: Arc<dyn Accounts>,
    /// Requests of one operation go one after the other: the second finds what the first has done.
    turns: Turns,
    /// What goes on although its client went away.
    pub(crate) tasks: TaskTracker,
}

impl fmt::Debug for AccountRules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AccountRules")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl AccountRules {
    pub(crate) fn new(
        settings: Settings,
        validation: Arc<Validation>,
        accounts: Arc<dyn Accounts>,
    ) -> Self {
        Self {
            settings,
            validation,
            accounts,
            turns: Turns::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// [`Error::MissingToken`], and what [`Accounts::whoami`] says.
    pub(crate) async fn requester(
        &self,
        access_token: Option<&AccessToken>,
        origin: &Origin,
    ) -> Result<Requester> {
        let access_token = access_token.ok_or(Error::MissingToken)?;
        self.accounts.whoami(access_token, origin).await
    }

    /// Tells one request from another, without telling anything of it: endpoint, account, and what it asks for.
    fn digest(&self, parts: &[&str]) -> [u8; 32] {
        let lengths: Vec<[u8; 8]> = parts
            .iter()
            .map(|part| u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes())
            .collect();
        let framed: Vec<&[u8]> = parts
            .iter()
            .zip(&lengths)
            .flat_map(|(part, length)| [length.as_slice(), part.as_bytes()])
            .collect();
        let key = self.validation.keys.newest();
        key.mac(Label::Request, &framed)
    }

    /// Does what stands between claim and take, `act`, whose last step is to take the proof. If it fails, the proof is
    /// given back when the homeserver has certainly done nothing; else the same operation may continue at once, and no
    /// other.
    async fn settle(
        &self,
        op_id: &str,
        act: impl Future<Output = Result<()>> + Send,
    ) -> Result<()> {
        let done = act.await;
        if let Err(error) = &done {
            self.give_back(op_id, error).await;
        }
        done
    }

    /// Does all of it, even if the client goes away in the middle: what has begun at another server is not left half done.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = self.tasks.spawn(work).await;
        done.unwrap_or_else(|_| Err(Error::Internal("an operation panicked".to_owned())))
    }

    /// Counts a change that an account asks for.
    ///
    /// # Errors
    /// [`Error::Limited`].
    pub(crate) fn count_change(&self, requester: &Requester) -> Result<()> {
        let now = self.validation.clock.now();
        let limiter = &self.validation.limiter;
        limiter.count_change(&requester.user_id, now)
    }

    async fn give_back(&self, op_id: &str, error: &Error) {
        let store = &self.validation.store;
        let given = if error.leaves_open() {
            store.pause(op_id, self.validation.clock.now()).await
        } else {
            store.release(op_id).await
        };
        if let Err(error) = given {
            tracing::warn!(%error, "a claim could not be given back; its lease runs out by itself");
        }
    }
}
