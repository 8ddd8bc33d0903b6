//! Registrations between the homeserver's word and the address on the account.

use std::fmt;

use async_trait::async_trait;

use super::{NewClaim, NewUia, StoreResult};
use crate::{clock::Timestamp, keys::KeyId, session::Session, threepid::Threepid};

/// A registration that is about to be made at the homeserver.
pub struct NewRegistration {
    /// A MAC of its session's name.
    pub(crate) id: [u8; 32],
    /// The proofs that it uses, of addresses that differ, each claimed under an `op_id` of its own.
    pub(crate) proofs: Vec<RegistrationProof>,
    /// The server key that `sealed` was made with.
    pub(crate) key_id: KeyId,
    /// With what the homeserver is asked whether it made the account, sealed.
    pub(crate) sealed: Vec<u8>,
    /// What takes the place of the session's row.
    pub(crate) session: NewUia,
    pub(crate) now: Timestamp,
    /// When somebody else may ask that.
    pub(crate) due_at: Timestamp,
}

impl fmt::Debug for NewRegistration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NewRegistration({:?})", self.proofs)
    }
}

/// A proof that a registration uses.
#[derive(Clone, Debug)]
pub struct RegistrationProof {
    pub(crate) claim: NewClaim,
    pub(crate) threepid: Threepid,
    pub(crate) validated_at: Timestamp,
}

/// What the beginning of a registration met.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is looked at once"
)]
pub enum RegistrationBegun {
    /// All its proofs and addresses are its own.
    Yes,
    /// The same, and it was begun before: what came of that is not known.
    Again,
    /// Another operation holds a proof or an address, or this one in another request.
    Held,
    /// Another registration has made an account with one of the addresses, or this one has made its account already.
    InUse,
    /// A proof was used before; whether by a request of the same digest.
    Taken {
        /// The digests are equal: the same request, repeated.
        same_request: bool,
    },
    /// A proof is not validated, or over. Its session as it is.
    No(Option<Session>),
}

/// A registration that somebody must look after.
#[derive(Clone)]
pub struct DueRegistration {
    /// A MAC of its session's name.
    pub(crate) id: [u8; 32],
    /// The account, if it is known to be made.
    pub(crate) user_id: Option<String>,
    /// The addresses that it is to have, and when they were validated.
    pub(crate) threepids: Vec<(Threepid, Timestamp)>,
    /// The server key that `sealed` was made with.
    pub(crate) key_id: KeyId,
    /// With what the homeserver is asked whether it made the account, sealed; `None` once that is known.
    pub(crate) sealed: Option<Vec<u8>>,
    /// How often it was looked after.
    pub(crate) tries: u32,
    pub(crate) begun_at: Timestamp,
}

impl fmt::Debug for DueRegistration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DueRegistration({:?})", self.threepids)
    }
}

/// Registrations that use a proof: from before the homeserver is asked for the account until the account has its
/// addresses. An address is in one of them at most.
#[async_trait]
pub trait Registrations: fmt::Debug + Send + Sync {
    /// Claims all its proofs and puts down what is about to be done, in one durable transaction: all of it, or nothing.
    /// The same registration may begin once more after [`Registrations::pause_registration`], or once its leases ran out.
    ///
    /// It may then have other proofs: those that it has no more are given back, or it is `Held` while a lease of theirs runs.
    ///
    /// Of parallel callers for one proof, or for one address, exactly one is told `Yes`.
    async fn begin_registration(
        &self,
        registration: NewRegistration,
    ) -> StoreResult<RegistrationBegun>;

    /// Puts down that the account is made: its proofs are used up, `session` takes the place of the session's row, and at
    /// `due_at` the addresses are to be bound; in one durable transaction. `false` if there is no such registration whose
    /// account is not known yet: then nothing was changed but the session's row.
    async fn registered(
        &self,
        id: [u8; 32],
        user_id: &str,
        session: NewUia,
        now: Timestamp,
        due_at: Timestamp,
    ) -> StoreResult<bool>;

    /// Gives all back: the homeserver has certainly made nothing. `false` if there is no such registration whose account
    /// is not known.
    async fn abandon_registration(&self, id: [u8; 32]) -> StoreResult<bool>;

    /// Ends the leases of its claims: the same registration may begin once more at once, and no other; at `due_at`
    /// somebody else may ask what became of it.
    async fn pause_registration(
        &self,
        id: [u8; 32],
        now: Timestamp,
        due_at: Timestamp,
    ) -> StoreResult<()>;

    /// Registrations that are due, the oldest first, at most `limit`; they are not due again before `until`.
    async fn lease_registrations(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<DueRegistration>>;

    /// When the next one is due; `None` if there is none.
    async fn next_registration(&self) -> StoreResult<Option<Timestamp>>;

    /// Makes a registration due at another time, and counts one try.
    async fn defer_registration(&self, id: [u8; 32], due_at: Timestamp) -> StoreResult<()>;

    /// Forgets one address of a registration: it is bound, or never can be.
    async fn forget_registration(&self, id: [u8; 32], threepid: &Threepid) -> StoreResult<()>;

    /// Makes all registrations due that a process has left which died: now, if the account is known; at `ask_at` at the
    /// latest, if it is not. How many became due earlier. Only for the holder of the store's lock.
    async fn free_registrations(&self, now: Timestamp, ask_at: Timestamp) -> StoreResult<usize>;
}
