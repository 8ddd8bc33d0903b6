//! What is over goes, in small steps.

use std::{sync::PoisonError, time::Duration};

use rusqlite::{Connection, params};

use super::{
    SqliteStore,
    writer::{Size, Verdict},
};
use crate::{clock::Timestamp, store::StoreResult};

/// How many rows of each kind one step deletes.
const STEP: u32 = 100;
/// A message that is due later than any retry would be was queued before the clock was set back; in milliseconds.
const BEYOND_RETRIES: i64 = 20 * 60 * 1000;
/// How long an operator sees invitations that were used, withdrawn or have expired.
const KEEP_INVITES: Duration = Duration::from_hours(30 * 24);

impl SqliteStore {
    /// One step; how many rows went.
    pub(super) async fn sweep_step(&self, before: Timestamp, now: Timestamp) -> StoreResult<usize> {
        let swept_to = || self.swept_to.lock().unwrap_or_else(PoisonError::into_inner);
        let from = swept_to().clone();
        let (gone, to) = self
            .writer
            .run(Size::Many, move |connection| {
                step(connection, before, now, &from).map(Verdict::Keep)
            })
            .await?;
        *swept_to() = to;
        Ok(gone)
    }
}

/// How many rows went, and where to go on among the buckets.
fn step(
    connection: &Connection,
    before: Timestamp,
    now: Timestamp,
    from: &[u8],
) -> rusqlite::Result<(usize, Vec<u8>)> {
    connection
        .prepare_cached(
            "UPDATE outbox SET due_at = ?1
             WHERE medium IN ('email', 'msisdn') AND finished_at IS NULL AND holder IS NULL AND due_at > ?2",
        )?
        .execute([now.0, now.0.saturating_add(BEYOND_RETRIES)])?;
    let sessions = connection
        .prepare_cached(
            "DELETE FROM session WHERE rowid IN (SELECT rowid FROM session WHERE expires_at < ?1 LIMIT ?2)",
        )?
        .execute(params![before.0, STEP])?;
    connection
        .prepare_cached("DELETE FROM asking WHERE until < ?1")?
        .execute([before.0])?;
    let stages = connection
        .prepare_cached(
            "DELETE FROM uia WHERE id IN (SELECT id FROM uia WHERE expires_at < ?1 LIMIT ?2)",
        )?
        .execute(params![now.0, STEP])?;
    // Finished or not: nobody could use it any more.
    let messages = connection
        .prepare_cached(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT ?2)
               AND (finished_at < ?1 OR useless_at < ?1)",
        )?
        .execute(params![before.0, STEP])?;
    let keys: Vec<Vec<u8>> = connection
        .prepare_cached("SELECT key FROM bucket WHERE key > ?1 ORDER BY key LIMIT ?2")?
        .query_map(params![from, STEP], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let gone = sessions + stages + messages + identity(connection, now)?;
    let Some(last) = keys.last() else {
        return Ok((gone, Vec::new()));
    };
    let buckets = connection
        .prepare_cached("DELETE FROM bucket WHERE key > ?1 AND key <= ?2 AND full_at <= ?3")?
        .execute(params![from, last, now.0])?;
    Ok((gone + buckets, last.clone()))
}

/// What is over at the identity server; how many rows went.
fn identity(connection: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    let tokens = connection
        .prepare_cached(
            "DELETE FROM identity_token WHERE hash IN
               (SELECT hash FROM identity_token WHERE expires_at <= ?1 LIMIT ?2)",
        )?
        .execute(params![now.0, STEP])?;
    let before = now.before(KEEP_INVITES);
    let mut invites = 0;
    for is_over in ["expires_at < ?1", "coalesce(used_at, withdrawn_at) < ?1"] {
        invites += connection
            .prepare_cached(&format!(
                "DELETE FROM invite WHERE id IN (SELECT id FROM invite WHERE {is_over} LIMIT ?2)"
            ))?
            .execute(params![before.0, STEP])?;
    }
    Ok(tokens + invites)
}
