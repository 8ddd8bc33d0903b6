//! Associations in SQLite.

use async_trait::async_trait;

use super::SqliteStore;
use crate::{
    clock::Timestamp,
    store::{
        Association, Associations, DueOnbind, LookedUp, Pepper, Rotation, StoreError, StoreResult,
    },
    threepid::{Medium, Threepid},
};

#[async_trait]
impl Associations for SqliteStore {
    async fn associate(&self, _association: Association) -> StoreResult<()> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn dissociate(&self, _threepid: &Threepid, _user_id: &str) -> StoreResult<bool> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn association(&self, _threepid: &Threepid) -> StoreResult<Option<Association>> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn pepper(&self, _first: &str, _now: Timestamp) -> StoreResult<Pepper> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn look_up(&self, _pepper: &str, _hashes: Vec<String>) -> StoreResult<LookedUp> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn look_up_plain(
        &self,
        _pepper: &str,
        _addresses: Vec<(Medium, String)>,
    ) -> StoreResult<LookedUp> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn begin_rotation(&self, _next: &str, _now: Timestamp) -> StoreResult<bool> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn rotation_step(&self, _now: Timestamp) -> StoreResult<Rotation> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn lease_onbinds(
        &self,
        _now: Timestamp,
        _until: Timestamp,
        _limit: u32,
    ) -> StoreResult<Vec<DueOnbind>> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn next_onbind(&self) -> StoreResult<Option<Timestamp>> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn defer_onbind(&self, _id: i64, _due_at: Timestamp) -> StoreResult<()> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn finish_onbind(
        &self,
        _id: i64,
        _told: Vec<[u8; 16]>,
        _now: Timestamp,
    ) -> StoreResult<()> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }

    async fn free_onbinds(&self, _now: Timestamp) -> StoreResult<usize> {
        Err(StoreError::Failed("not there yet".to_owned()))
    }
}
