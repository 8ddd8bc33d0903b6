//! What account management keeps: sessions of user-interactive authentication, and bindings at identity servers.

use std::fmt;

use async_trait::async_trait;

use super::StoreResult;
use crate::{clock::Timestamp, keys::KeyId, threepid::Threepid};

/// A session of user-interactive authentication, or a challenge of the homeserver's that was passed on.
#[derive(Clone)]
pub struct NewUia {
    /// A MAC of its name and of what it is for.
    pub(crate) id: [u8; 32],
    /// What its stages left, sealed.
    pub(crate) sealed: Option<Vec<u8>>,
    pub(crate) expires_at: Timestamp,
}

impl fmt::Debug for NewUia {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("NewUia(…)")
    }
}

/// A session of user-interactive authentication as the store keeps it.
#[derive(Clone)]
pub struct UiaRow {
    /// What its stages left, sealed.
    pub(crate) sealed: Option<Vec<u8>>,
}

impl fmt::Debug for UiaRow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("UiaRow(…)")
    }
}

/// Sessions of user-interactive authentication (Client-Server API, "User-Interactive Authentication API").
#[async_trait]
pub trait Uia: fmt::Debug + Send + Sync {
    /// Keeps a session; what was kept under the same id gives way.
    async fn remember_uia(&self, session: NewUia) -> StoreResult<()>;

    /// The session of this id, unless it is over.
    async fn find_uia(&self, id: [u8; 32], now: Timestamp) -> StoreResult<Option<UiaRow>>;

    /// Forgets a session.
    async fn forget_uia(&self, id: [u8; 32]) -> StoreResult<()>;
}

/// An address that an account has bound at an identity server.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// The account.
    pub user_id: String,
    /// The address.
    pub threepid: Threepid,
    /// The identity server, as `IdServer` writes it.
    pub server: String,
    /// The server key that `sealed` was made with.
    pub(crate) key_id: KeyId,
    /// With what it can be unbound, sealed.
    pub(crate) sealed: Vec<u8>,
    /// When it was bound.
    pub bound_at: Timestamp,
}

impl fmt::Debug for Binding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Binding({:?} at {})", self.threepid, self.server)
    }
}

/// Through which identity servers addresses were bound, so that they can be unbound there.
#[async_trait]
pub trait Bindings: fmt::Debug + Send + Sync {
    /// Remembers a binding; one of the same address at the same server gives way, and of very many the oldest.
    async fn remember_binding(&self, binding: Binding) -> StoreResult<()>;

    /// The bindings of one address of an account, or of all its addresses; the newest first.
    async fn bindings(
        &self,
        user_id: &str,
        threepid: Option<&Threepid>,
    ) -> StoreResult<Vec<Binding>>;

    /// Forgets a binding.
    async fn forget_binding(
        &self,
        user_id: &str,
        threepid: &Threepid,
        server: &str,
    ) -> StoreResult<()>;
}
