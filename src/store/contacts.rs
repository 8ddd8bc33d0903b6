//! Addresses of local accounts: the trait, and the values that go through it.

use std::fmt;

use async_trait::async_trait;

use super::StoreResult;
use crate::{clock::Timestamp, threepid::Threepid};

/// An address of a local account.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Contact {
    /// The account.
    pub user_id: String,
    /// The medium's name.
    pub medium: String,
    /// The canonical address.
    pub address: String,
    /// When it was proved, in milliseconds; `None` if that is not known.
    pub validated_at: Option<Timestamp>,
    /// When it was added, in milliseconds.
    pub added_at: Timestamp,
}

/// What binding an address to an account met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It is the account's now.
    Bound,
    /// It was the account's already.
    AlreadyYours,
    /// Another account has it.
    OwnedByOther,
}

/// The addresses of local accounts, unique on medium and address.
#[async_trait]
pub trait Contacts: fmt::Debug + Send + Sync {
    /// The account that has the address.
    async fn owner(&self, threepid: &Threepid) -> StoreResult<Option<String>>;

    /// Gives the address to the account unless it is taken. Of parallel callers one binds.
    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
        now: Timestamp,
    ) -> StoreResult<Bound>;

    /// Takes the address from the account. `false` if it was not the account's.
    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> StoreResult<bool>;

    /// The addresses of one account, or of all; ordered by account and address, after `after`, at most `most`.
    async fn contacts(
        &self,
        user_id: Option<&str>,
        after: Option<(&str, &str)>,
        most: u32,
    ) -> StoreResult<Vec<Contact>>;
}
