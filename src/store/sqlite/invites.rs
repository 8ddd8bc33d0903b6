//! Invitations in SQLite.

use async_trait::async_trait;

use super::SqliteStore;
use crate::{
    clock::Timestamp,
    signing::PublicKey,
    store::{Invite, InviteEntry, InviteStored, Invites, NewInvite, StoreError, StoreResult},
};

#[async_trait]
impl Invites for SqliteStore {
    async fn add_invite(&self, _invite: NewInvite) -> StoreResult<InviteStored> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn invite(&self, _id: [u8; 16], _now: Timestamp) -> StoreResult<Option<Invite>> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn is_ephemeral_key(&self, _public_key: PublicKey, _now: Timestamp) -> StoreResult<bool> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn list_invites(&self, _most: u32, _now: Timestamp) -> StoreResult<Vec<InviteEntry>> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn withdraw_invite(&self, _id: [u8; 16], _now: Timestamp) -> StoreResult<bool> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }
}
