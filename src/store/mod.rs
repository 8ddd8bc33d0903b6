//! What the rules ask of a store: the traits, and the values that go through them.

use crate::{error::Error, rate::Rate};

mod accounts;
mod associations;
mod contacts;
mod identity_accounts;
mod invites;
mod outbox;
mod registrations;
mod sessions;
pub mod sqlite;

pub use self::{
    accounts::{Binding, Bindings, NewUia, Uia, UiaRow},
    associations::{
        Association, Associations, Dissociated, DueOnbind, LookedUp, Pepper, Proving, Rotation,
    },
    contacts::{Bound, Contact, Contacts},
    identity_accounts::{AcceptedPolicy, IdentityAccount, IdentityAccounts, NewIdentityToken},
    invites::{Invite, InviteEntry, InviteStored, Invites, NewInvite},
    outbox::{About, Backlog, Leased, Outbox, OutboxEntry, Queued, SealedMail},
    registrations::{
        DueRegistration, NewRegistration, RegistrationBegun, RegistrationProof, Registrations,
    },
    sessions::{
        Claimed, Details, FinishedReset, NewClaim, NewProxied, NewRequest, NewSession, NewTry,
        Notice, Remembered, Requested, Reservation, Reserved, Sessions,
    },
};

/// Why a store could not do what it was asked. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Too many requests wait already, the disk is full, or the database does not answer: try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A fault of ours, or a damaged database.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => Self::Unavailable(cause),
            StoreError::Failed(cause) => Self::Internal(cause),
        }
    }
}

/// The result of a question to the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// A bucket that is counted in the store, and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub(crate) key: [u8; 16],
    pub(crate) rate: Rate,
}

/// All that a store is.
pub trait Store:
    Sessions
    + Outbox
    + Contacts
    + Uia
    + Bindings
    + Registrations
    + IdentityAccounts
    + Associations
    + Invites
{
}

impl<T> Store for T where
    T: Sessions
        + Outbox
        + Contacts
        + Uia
        + Bindings
        + Registrations
        + IdentityAccounts
        + Associations
        + Invites
{
}
