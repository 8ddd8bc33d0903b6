//! Whether the database can be written to.

use std::{sync::PoisonError, time::Duration};

use rusqlite::Connection;
use tokio::time::Instant;

use super::SqliteStore;
use crate::store::StoreResult;

/// How often a check writes at most: anybody may ask for it.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How much it writes.
const CHECK_BYTES: u32 = 32 * 1024;

impl SqliteStore {
    /// Whether a request could write now, or could a moment ago.
    pub(super) async fn check_writing(&self) -> StoreResult<()> {
        let last = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, found)) = &*last()
            && at.elapsed() < CHECK_EVERY
        {
            return found.clone();
        }
        let found = self.write_one(write_in_earnest).await;
        *last() = Some((Instant::now(), found.clone()));
        found
    }
}

/// Writes as much as a request does: on a disk that is almost full, less might still fit when no request does.
fn write_in_earnest(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES ('check', hex(zeroblob(?1)))
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute([CHECK_BYTES / 2])
        .map(drop)
}
