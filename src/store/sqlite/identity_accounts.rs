//! Accounts of the identity server in SQLite.

use async_trait::async_trait;

use super::SqliteStore;
use crate::{
    clock::Timestamp,
    store::{
        AcceptedPolicy, IdentityAccount, IdentityAccounts, NewIdentityToken, StoreError,
        StoreResult,
    },
};

#[async_trait]
impl IdentityAccounts for SqliteStore {
    async fn add_identity_token(&self, _token: NewIdentityToken) -> StoreResult<()> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn identity_account(
        &self,
        _hash: [u8; 32],
        _now: Timestamp,
    ) -> StoreResult<Option<IdentityAccount>> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn renew_identity_token(
        &self,
        _hash: [u8; 32],
        _expires_at: Timestamp,
    ) -> StoreResult<()> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn remove_identity_token(&self, _hash: [u8; 32], _now: Timestamp) -> StoreResult<bool> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn accept_policies(
        &self,
        _user_id: &str,
        _policies: Vec<AcceptedPolicy>,
        _now: Timestamp,
    ) -> StoreResult<()> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }
}
