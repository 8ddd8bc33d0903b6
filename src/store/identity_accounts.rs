//! Accounts of the identity server: the trait, and the values that go through it.

use std::fmt;

use async_trait::async_trait;

use super::StoreResult;
use crate::clock::Timestamp;

/// A token that is given out.
#[derive(Clone)]
pub struct NewIdentityToken {
    /// SHA-256 of the token.
    pub(crate) hash: [u8; 32],
    pub(crate) user_id: String,
    pub(crate) now: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// How many tokens a user may have.
    pub(crate) most: u32,
}

impl fmt::Debug for NewIdentityToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NewIdentityToken({})", self.user_id)
    }
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityAccount {
    /// The user.
    pub user_id: String,
    /// Until when the token works.
    pub expires_at: Timestamp,
    /// The policies that the user has accepted.
    pub(crate) accepted: Vec<AcceptedPolicy>,
}

/// One version of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcceptedPolicy {
    /// The policy's name in the configuration.
    pub(crate) policy: String,
    /// Its version.
    pub(crate) version: String,
}

/// Accounts of the identity server (Identity Service API, "Authentication").
#[async_trait]
pub trait IdentityAccounts: fmt::Debug + Send + Sync {
    /// Keeps a token; of the user's tokens the newest `most` stay, those that have run out go first. Durable when it
    /// returns.
    async fn add_identity_token(&self, token: NewIdentityToken) -> StoreResult<()>;

    /// Whose token this is, and what its user has accepted; `None` if there is none that works at `now`. Cheap: each request
    /// asks.
    async fn identity_account(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<Option<IdentityAccount>>;

    /// Lets a token live on. Nothing happens if it is gone.
    async fn renew_identity_token(&self, hash: [u8; 32], expires_at: Timestamp) -> StoreResult<()>;

    /// Forgets a token; `false` if there is none that works at `now`. Of parallel callers one is told `true`.
    async fn remove_identity_token(&self, hash: [u8; 32], now: Timestamp) -> StoreResult<bool>;

    /// Adds to what a user has accepted. Durable when it returns.
    async fn accept_policies(
        &self,
        user_id: &str,
        policies: Vec<AcceptedPolicy>,
        now: Timestamp,
    ) -> StoreResult<()>;
}
