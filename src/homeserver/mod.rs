//! Who owns which address, as the homeserver knows it.

use std::fmt;

use async_trait::async_trait;

use crate::{
    clock::Timestamp,
    error::Result,
    store::{Bound, Contact},
    threepid::Threepid,
};

pub mod local;

/// Who owns which address. An error is never "free".
#[async_trait]
pub trait Directory: fmt::Debug + Send + Sync {
    /// The user id of the account that has the address; `None` if no account has it.
    async fn owner(&self, threepid: &Threepid) -> Result<Option<String>>;

    /// Gives the address to an account, unless another has it.
    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Timestamp,
    ) -> Result<Bound>;

    /// Takes the address from an account; `false` if it was not the account's.
    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> Result<bool>;

    /// The addresses of an account.
    async fn list(&self, user_id: &str) -> Result<Vec<Contact>>;
}
