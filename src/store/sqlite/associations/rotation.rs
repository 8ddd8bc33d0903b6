//! Rotating the pepper: all hashes are made anew, in small steps.
//!
//! The new hashes are written in their own order, so that a step fills a few pages of the index instead of touching one for
//! each hash: they are made in batches that are sorted in memory. What is lost with the process is made again.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{
    SqliteStore,
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    lookup_hash::{self, LookupHash},
    store::{Rotation, StoreResult},
};

/// How many hashes one step writes.
const STEP: usize = 250;
/// How many hashes one step forgets: they lie side by side.
const FORGET: u32 = 500;
/// How many hashes are kept sorted in memory.
const BATCH: usize = 1 << 18;
/// How many associations are read in one go, and how long it is rested after that.
const READ: u32 = 4000;
const REST: Duration = Duration::from_millis(3);

/// The next hashes of a rotation, in their order, and whose they are.
#[derive(Debug)]
pub(in super::super) struct Batch {
    pepper: i64,
    hashes: Vec<(LookupHash, i64)>,
    /// Whether there are no more after these.
    is_last: bool,
}

/// A pepper of a rotation under way.
struct Pepper {
    id: i64,
    value: String,
    is_next: bool,
    /// Of the next one: the last hash that is written.
    rehashed: Vec<u8>,
}

impl SqliteStore {
    /// One step.
    pub(super) async fn rotate(&self, now: Timestamp) -> StoreResult<Rotation> {
        let Some(pepper) = self.readers.ask(under_way)? else {
            *self.rehashing() = None;
            return Ok(Rotation::Done);
        };
        let id = pepper.id;
        if !pepper.is_next {
            *self.rehashing() = None;
            let forget = move |connection: &Connection| forget(connection, id).map(Verdict::Keep);
            return self.writer.run(Size::Many, forget).await;
        }
        let batch = self.batch(&pepper).await?;
        let written = batch
            .hashes
            .partition_point(|(hash, _)| hash.as_slice() <= pepper.rehashed.as_slice());
        self.writer
            .run(Size::Many, move |connection| {
                let rest = &batch.hashes[written..];
                let step = &rest[..rest.len().min(STEP)];
                write(connection, id, step)?;
                if batch.is_last && step.len() == rest.len() {
                    flip(connection, id, now)?;
                }
                Ok(Verdict::Keep(Rotation::GoesOn))
            })
            .await
    }

    /// The batch in which the next hash is.
    async fn batch(&self, pepper: &Pepper) -> StoreResult<Arc<Batch>> {
        let kept = self.rehashing().clone();
        let has_more = |batch: &Arc<Batch>| {
            let last = batch.hashes.last();
            batch.pepper == pepper.id
                && (batch.is_last
                    || last.is_some_and(|(hash, _)| hash.as_slice() > pepper.rehashed.as_slice()))
        };
        if let Some(batch) = kept.filter(has_more) {
            return Ok(batch);
        }
        // Before the next one is made: both at once are more than is needed.
        *self.rehashing() = None;
        let batch = Arc::new(self.make_batch(pepper).await?);
        *self.rehashing() = Some(Arc::clone(&batch));
        Ok(batch)
    }

    /// The lowest hashes that are not written yet. Associations that are made meanwhile need none: they have theirs.
    async fn make_batch(&self, pepper: &Pepper) -> StoreResult<Batch> {
        let mut hashes: Vec<(LookupHash, i64)> = Vec::new();
        let (mut read_to, mut is_last) = (0, true);
        loop {
            let (value, after) = (pepper.value.clone(), pepper.rehashed.clone());
            let read = move |connection: &Connection| read(connection, &value, read_to, &after);
            let (more, last_read) = self.readers.ask_aside(read).await?;
            hashes.extend(more);
            if hashes.len() >= 2 * BATCH || last_read.is_none() {
                is_last &= hashes.len() <= BATCH;
                if hashes.len() > BATCH {
                    hashes.select_nth_unstable(BATCH);
                    hashes.truncate(BATCH);
                }
            }
            match last_read {
                Some(id) => read_to = id,
                None => break,
            }
            tokio::time::sleep(REST).await;
        }
        hashes.sort_unstable();
        Ok(Batch {
            pepper: pepper.id,
            hashes,
            is_last,
        })
    }

    fn rehashing(&self) -> std::sync::MutexGuard<'_, Option<Arc<Batch>>> {
        self.rehashing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins one, unless one is under way; `false` too while there is no pepper to rotate.
pub(super) fn begin(connection: &Connection, next: &str, now: Timestamp) -> rusqlite::Result<bool> {
    let begun = connection
        .prepare_cached(
            "INSERT INTO pepper (value, state, since) SELECT ?1, 'next', ?2
             WHERE EXISTS (SELECT 1 FROM pepper WHERE state = 'current')
               AND NOT EXISTS (SELECT 1 FROM pepper WHERE state <> 'current')",
        )?
        .execute(params![next, now.0])?;
    Ok(begun > 0)
}

/// The pepper that a rotation works at.
fn under_way(connection: &Connection) -> rusqlite::Result<Option<Pepper>> {
    connection
        .prepare_cached(
            "SELECT id, value, state = 'next', rehashed FROM pepper WHERE state <> 'current'
             ORDER BY state LIMIT 1",
        )?
        .query_row([], |row| {
            Ok(Pepper {
                id: row.get(0)?,
                value: row.get(1)?,
                is_next: row.get(2)?,
                rehashed: row.get(3)?,
            })
        })
        .optional()
}

/// What one reading gave: hashes, and the last association that was read.
type Reading = (Vec<(LookupHash, i64)>, Option<i64>);

/// Makes the hashes of some associations, those above `after` alone.
fn read(
    connection: &Connection,
    pepper: &str,
    read_to: i64,
    after: &[u8],
) -> rusqlite::Result<Reading> {
    let mut select = connection.prepare_cached(
        "SELECT id, medium, address FROM association WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = select.query(params![read_to, READ])?;
    let (mut hashes, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let (medium, address) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        let hash = lookup_hash::hash_of(address, medium, pepper);
        if hash.as_slice() > after {
            hashes.push((hash, id));
        }
        last = Some(id);
    }
    Ok((hashes, last))
}

/// Writes hashes of the next pepper, except those of associations that have ended.
fn write(
    connection: &Connection,
    pepper: i64,
    hashes: &[(LookupHash, i64)],
) -> rusqlite::Result<()> {
    let Some((last, _)) = hashes.last() else {
        return Ok(());
    };
    // Whatever another caller has done meanwhile: nothing is written for a pepper that is not the next one.
    let goes_on = connection
        .prepare_cached(
            "UPDATE pepper SET rehashed = max(rehashed, ?2) WHERE id = ?1 AND state = 'next'",
        )?
        .execute(params![pepper, last])?;
    if goes_on == 0 {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO association_hash (pepper, hash, user_id)
         SELECT ?1, ?2, user_id FROM association WHERE id = ?3
         ON CONFLICT (pepper, hash) DO NOTHING",
    )?;
    for (hash, association) in hashes {
        insert.execute(params![pepper, hash, association])?;
    }
    Ok(())
}

/// Makes the next pepper the current one.
fn flip(connection: &Connection, next: i64, now: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE pepper SET state = 'old' WHERE state = 'current'
               AND EXISTS (SELECT 1 FROM pepper WHERE id = ?1 AND state = 'next')",
        )?
        .execute([next])?;
    connection
        .prepare_cached(
            "UPDATE pepper SET state = 'current', since = ?2, rehashed = x'' WHERE id = ?1 AND state = 'next'",
        )?
        .execute(params![next, now.0])
        .map(drop)
}

/// Forgets some hashes of an old pepper; with the last ones the pepper itself.
fn forget(connection: &Connection, pepper: i64) -> rusqlite::Result<Rotation> {
    let up_to: Option<LookupHash> = connection
        .prepare_cached(
            "SELECT hash FROM association_hash WHERE pepper = ?1 ORDER BY hash LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![pepper, FORGET], |row| row.get(0))
        .optional()?;
    if let Some(up_to) = up_to {
        connection
            .prepare_cached("DELETE FROM association_hash WHERE pepper = ?1 AND hash < ?2")?
            .execute(params![pepper, up_to])?;
        return Ok(Rotation::GoesOn);
    }
    connection
        .prepare_cached("DELETE FROM association_hash WHERE pepper = ?1")?
        .execute([pepper])?;
    connection
        .prepare_cached("DELETE FROM pepper WHERE id = ?1 AND state = 'old'")?
        .execute([pepper])?;
    Ok(Rotation::Done)
}
