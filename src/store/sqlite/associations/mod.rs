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
    secret::SessionId,
    store::{
        Association, Associations, Dissociated, DueOnbind, LookedUp, Pepper, Proving, Rotation,
        StoreResult,
    },
    threepid::{Medium, Threepid},
};

mod lookup;
mod onbind;
mod rotation;

pub(super) use self::rotation::Batch;

#[async_trait]
impl Associations for SqliteStore {
    async fn associate(
        &self,
        association: Association,
        by: Option<Proving>,
        first_pepper: &str,
    ) -> StoreResult<bool> {
        let first = first_pepper.to_owned();
        self.writer
            .run(Size::Many, move |connection| {
                if let Some(by) = &by
                    && !is_admitted(connection, &association, by)?
                {
                    return Ok(Verdict::Undo(false));
                }
                associate(connection, &association, by, &first)?;
                Ok(Verdict::Keep(true))
            })
            .await
    }

    async fn dissociate(
        &self,
        threepid: &Threepid,
        user_id: &str,
        by: Option<Proving>,
        now: Timestamp,
    ) -> StoreResult<Dissociated> {
        let (threepid, user_id) = (threepid.clone(), user_id.to_owned());
        self.writer
            .run(Size::Many, move |connection| {
                dissociate(connection, &threepid, &user_id, by, now).map(Verdict::Keep)
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
        let question = move |connection: &Connection| lookup::hashes(connection, &pepper, &hashes);
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
        retries: u32,
    ) -> StoreResult<Vec<DueOnbind>> {
        self.writer
            .run(Size::Many, move |connection| {
                let mut due = onbind::due(connection, now, false, limit)?;
                let left = limit.saturating_sub(u32::try_from(due.len()).unwrap_or(limit));
                due.extend(onbind::due(connection, now, true, left.min(retries))?);
                onbind::lease(connection, &mut due, now, until)?;
                Ok(Verdict::Keep(due))
            })
            .await
    }

    async fn next_onbind(&self, with_retries: bool) -> StoreResult<Option<Timestamp>> {
        self.readers.ask(move |connection| {
            let first = onbind::next(connection, false)?;
            let again = with_retries.then(|| onbind::next(connection, true));
            let again = again.transpose()?.flatten();
            Ok(first.into_iter().chain(again).min())
        })
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

/// Whether the session still proves the address, and nobody else is associated with it by a newer proof.
fn is_admitted(
    connection: &Connection,
    association: &Association,
    by: &Proving,
) -> rusqlite::Result<bool> {
    let Association {
        threepid,
        user_id,
        at,
    } = association;
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM session
                            WHERE sid = ?1 AND validated_at IS NOT NULL AND expires_at > ?2)
                AND NOT EXISTS (SELECT 1 FROM association
                                WHERE medium = ?3 AND address = ?4 AND user_id <> ?5 AND proved_at > ?6)",
        )?
        .query_row(
            params![
                by.sid.as_bytes(),
                at.0,
                threepid.medium().as_str(),
                threepid.address(),
                user_id,
                by.validated_at.0
            ],
            |row| row.get(0),
        )
}

/// The whole transaction of an association.
fn associate(
    connection: &Connection,
    association: &Association,
    by: Option<Proving>,
    first_pepper: &str,
) -> rusqlite::Result<()> {
    let proved_at = by.map_or(association.at, |by| by.validated_at);
    let Association {
        threepid,
        user_id,
        at,
    } = association;
    lookup::first_pepper(connection, first_pepper, *at)?;
    let id: i64 = connection
        .prepare_cached(
            "INSERT INTO association (medium, address, user_id, at, proved_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (medium, address) DO UPDATE SET
                 user_id = excluded.user_id, at = excluded.at, proved_at = max(proved_at, excluded.proved_at)
             RETURNING id",
        )?
        .query_row(
            params![threepid.medium().as_str(), threepid.address(), user_id, at.0, proved_at.0],
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

/// The whole transaction of an association's end.
fn dissociate(
    connection: &Connection,
    threepid: &Threepid,
    user_id: &str,
    by: Option<Proving>,
    now: Timestamp,
) -> rusqlite::Result<Dissociated> {
    let (medium, address) = (threepid.medium().as_str(), threepid.address());
    let sid = by.map(|by| by.sid);
    let validated_at = by.map(|by| by.validated_at.0);
    let ended: Option<(i64, i64)> = connection
        .prepare_cached(
            "DELETE FROM association WHERE medium = ?1 AND address = ?2 AND user_id = ?3
                AND (?4 IS NULL
                     OR proved_at <= ?5
                        AND EXISTS (SELECT 1 FROM session
                                    WHERE sid = ?4 AND validated_at IS NOT NULL AND expires_at > ?6))
             RETURNING id, proved_at",
        )?
        .query_row(
            params![
                medium,
                address,
                user_id,
                sid.as_ref().map(SessionId::as_bytes),
                validated_at,
                now.0
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((id, proved_at)) = ended else {
        return is_theirs(connection, threepid, user_id).map(|is_theirs| {
            if is_theirs {
                Dissociated::NotProved
            } else {
                Dissociated::NotTheirs
            }
        });
    };
    // A user whose association others have ended must prove the address anew, however new their proofs are.
    let whose = by.is_none().then_some(user_id);
    connection
        .prepare_cached(
            "UPDATE session SET expires_at = ?5
             WHERE medium = ?1 AND address = ?2 AND purpose = 'identity' AND validated_at IS NOT NULL
               AND expires_at > ?5 AND (user_id = ?3 OR validated_at < ?4)",
        )?
        .execute(params![
            medium,
            address,
            whose,
            validated_at.unwrap_or(proved_at),
            now.0
        ])?;
    let mut delete = connection
        .prepare_cached("DELETE FROM association_hash WHERE pepper = ?1 AND hash = ?2")?;
    for (pepper, value) in peppers(connection, "true")? {
        delete.execute(params![pepper, lookup_hash::hash(threepid, &value)])?;
    }
    onbind::forget(connection, id)?;
    Ok(Dissociated::Yes)
}

fn is_theirs(
    connection: &Connection,
    threepid: &Threepid,
    user_id: &str,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM association WHERE medium = ?1 AND address = ?2 AND user_id = ?3)",
        )?
        .query_row(
            params![threepid.medium().as_str(), threepid.address(), user_id],
            |row| row.get(0),
        )
}

/// Names and values of the peppers of these states.
fn peppers(connection: &Connection, states: &str) -> rusqlite::Result<Vec<(i64, String)>> {
    connection
        .prepare_cached(&format!("SELECT id, value FROM pepper WHERE {states}"))?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Role;

    #[tokio::test]
    async fn a_proof_that_has_ended_by_then_associates_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("t.db"), Role::Server).unwrap();
        let now = Timestamp(1_795_341_600_000);
        let association = Association {
            threepid: Threepid::email("a@b.org").unwrap(),
            user_id: "@a:b".to_owned(),
            at: now,
        };
        let by = Proving {
            sid: SessionId::generate(now),
            validated_at: now,
        };

        let done = store
            .associate(association.clone(), Some(by), "pepper")
            .await;

        assert!(!done.unwrap(), "no session proves it");
        let found = store.association(&association.threepid).await.unwrap();
        assert_eq!(found, None);
    }

    #[tokio::test]
    async fn a_proof_that_has_ended_by_then_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("t.db"), Role::Server).unwrap();
        let now = Timestamp(1_795_341_600_000);
        let association = Association {
            threepid: Threepid::email("a@b.org").unwrap(),
            user_id: "@a:b".to_owned(),
            at: now,
        };
        let done = store.associate(association.clone(), None, "pepper").await;
        assert!(done.unwrap());
        let by = Proving {
            sid: SessionId::generate(now),
            validated_at: now,
        };
        let end = async |user_id| {
            let ending = store.dissociate(&association.threepid, user_id, Some(by), now);
            ending.await.unwrap()
        };

        assert_eq!(end("@a:b").await, Dissociated::NotProved);
        assert_eq!(end("@b:b").await, Dissociated::NotTheirs);

        let found = store.association(&association.threepid).await.unwrap();
        assert_eq!(found, Some(association));
    }
}
