//! Associations in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    SqliteStore, row,
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    lookup_hash,
    store::{Association, Associations, DueOnbind, LookedUp, Pepper, Rotation, StoreResult},
    threepid::{Medium, Threepid},
};

mod lookup;
mod onbind;
mod rotation;

pub(super) use self::rotation::Batch;

#[async_trait]
impl Associations for SqliteStore {
    async fn associate(&self, association: Association, first_pepper: &str) -> StoreResult<()> {
        let first = first_pepper.to_owned();
        self.writer
            .run(Size::Many, move |connection| {
                associate(connection, &association, &first).map(Verdict::Keep)
            })
            .await
    }

    async fn dissociate(&self, threepid: &Threepid, user_id: &str) -> StoreResult<bool> {
        let (threepid, user_id) = (threepid.clone(), user_id.to_owned());
        self.writer
            .run(Size::Many, move |connection| {
                dissociate(connection, &threepid, &user_id).map(Verdict::Keep)
            })
            .await
    }

    async fn association(&self, threepid: &Threepid) -> StoreResult<Option<Association>> {
        let threepid = threepid.clone();
        self.readers.ask(move |connection| {
            connection
                .prepare_cached(
                    "SELECT medium, address, user_id, at FROM association WHERE medium = ?1 AND address = ?2",
                )?
                .query_row(params![threepid.medium().as_str(), threepid.address()], |row| {
                    association(row, 0)
                })
                .optional()
        })
    }

    async fn pepper(&self, first: &str, now: Timestamp) -> StoreResult<Pepper> {
        if let Some(pepper) = self.readers.ask(lookup::pepper)? {
            return Ok(pepper);
        }
        let first = first.to_owned();
        self.writer
            .run(Size::Many, move |connection| {
                lookup::first_pepper(connection, &first, now).map(Verdict::Keep)
            })
            .await
    }

    async fn look_up(&self, pepper: &str, hashes: Vec<String>) -> StoreResult<LookedUp> {
        let (pepper, is_short) = (pepper.to_owned(), hashes.len() <= lookup::SHORT);
        let question = move |connection: &Connection| lookup::hashes(connection, &pepper, hashes);
        if is_short {
            self.readers.ask(question)
        } else {
            self.readers.ask_aside(question).await
        }
    }

    async fn look_up_plain(
        &self,
        pepper: &str,
        addresses: Vec<(Medium, String)>,
    ) -> StoreResult<LookedUp> {
        let (pepper, is_short) = (pepper.to_owned(), addresses.len() <= lookup::SHORT);
        let question = move |connection: &Connection| lookup::plain(connection, &pepper, addresses);
        if is_short {
            self.readers.ask(question)
        } else {
            self.readers.ask_aside(question).await
        }
    }

    async fn begin_rotation(&self, next: &str, now: Timestamp) -> StoreResult<bool> {
        let next = next.to_owned();
        self.write_one(move |connection| rotation::begin(connection, &next, now))
            .await
    }

    async fn rotation_step(&self, now: Timestamp) -> StoreResult<Rotation> {
        self.rotate(now).await
    }

    async fn lease_onbinds(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<DueOnbind>> {
        self.writer
            .run(Size::Many, move |connection| {
                onbind::lease(connection, now, until, limit).map(Verdict::Keep)
            })
            .await
    }

    async fn next_onbind(&self) -> StoreResult<Option<Timestamp>> {
        self.readers.ask(onbind::next)
    }

    async fn defer_onbind(&self, id: i64, due_at: Timestamp) -> StoreResult<()> {
        self.write_one(move |connection| onbind::defer(connection, id, due_at))
            .await
    }

    async fn finish_onbind(&self, id: i64, told: Vec<[u8; 16]>, now: Timestamp) -> StoreResult<()> {
        self.writer
            .run(Size::Many, move |connection| {
                onbind::finish(connection, id, &told, now).map(Verdict::Keep)
            })
            .await
    }

    async fn free_onbinds(&self, now: Timestamp) -> StoreResult<usize> {
        self.write_one(move |connection| onbind::free(connection, now))
            .await
    }
}

/// Reads medium, address, user and time, which lie side by side from `column` on.
fn association(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Association> {
    let medium = row::medium(row, column)?;
    Ok(Association {
        threepid: Threepid::stored(medium, row.get(column + 1)?),
        user_id: row.get(column + 2)?,
        at: Timestamp(row.get(column + 3)?),
    })
}

/// The whole transaction of an association.
fn associate(
    connection: &Connection,
    association: &Association,
    first_pepper: &str,
) -> rusqlite::Result<()> {
    let Association {
        threepid,
        user_id,
        at,
    } = association;
    lookup::first_pepper(connection, first_pepper, *at)?;
    let id: i64 = connection
        .prepare_cached(
            "INSERT INTO association (medium, address, user_id, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (medium, address) DO UPDATE SET user_id = excluded.user_id, at = excluded.at
             RETURNING id",
        )?
        .query_row(
            params![threepid.medium().as_str(), threepid.address(), user_id, at.0],
            |row| row.get(0),
        )?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO association_hash (pepper, hash, user_id) VALUES (?1, ?2, ?3)
         ON CONFLICT (pepper, hash) DO UPDATE SET user_id = excluded.user_id",
    )?;
    // Those of a rotation that is under way too: it may have passed this one already.
    for (pepper, value) in peppers(connection, "state IN ('current', 'next')")? {
        insert.execute(params![
            pepper,
            lookup_hash::hash(threepid, &value),
            user_id
        ])?;
    }
    onbind::put(connection, id, *at)
}

fn dissociate(
    connection: &Connection,
    threepid: &Threepid,
    user_id: &str,
) -> rusqlite::Result<bool> {
    let id: Option<i64> = connection
        .prepare_cached(
            "DELETE FROM association WHERE medium = ?1 AND address = ?2 AND user_id = ?3 RETURNING id",
        )?
        .query_row(
            params![threepid.medium().as_str(), threepid.address(), user_id],
            |row| row.get(0),
        )
        .optional()?;
    let Some(id) = id else {
        return Ok(false);
    };
    let mut delete = connection
        .prepare_cached("DELETE FROM association_hash WHERE pepper = ?1 AND hash = ?2")?;
    for (pepper, value) in peppers(connection, "true")? {
        delete.execute(params![pepper, lookup_hash::hash(threepid, &value)])?;
    }
    onbind::forget(connection, id)?;
    Ok(true)
}

/// Names and values of the peppers of these states.
fn peppers(connection: &Connection, states: &str) -> rusqlite::Result<Vec<(i64, String)>> {
    connection
        .prepare_cached(&format!("SELECT id, value FROM pepper WHERE {states}"))?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
