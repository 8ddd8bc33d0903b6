//! Homeservers that must be told of an association.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    super::invites::{INVITE, OPEN, invite},
    association,
};
use crate::{
    clock::Timestamp,
    store::{Association, DueOnbind, Invite},
};

/// How many invitations are told at once; the others follow.
const INVITES: u32 = 100;

/// What is due by `?2` of those that were tried before (`?1`), or of those that never were.
const DUE: &str = "SELECT onbind.id, tries, medium, address, user_id, at
    FROM onbind JOIN association ON association.id = onbind.association
    WHERE (tries > 0) = ?1 AND due_at <= ?2 ORDER BY due_at, onbind.id LIMIT ?3";
/// When the next of them is due.
const NEXT: &str = "SELECT min(due_at) FROM onbind WHERE (tries > 0) = ?1";

/// Puts down that a homeserver is to be told. What was to be told of this address before is not: its row goes, so that
/// whoever holds its lease finishes nothing of this one.
pub(super) fn put(
    connection: &Connection,
    association: i64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    forget(connection, association)?;
    connection
        .prepare_cached("INSERT INTO onbind (association, due_at) VALUES (?1, ?2)")?
        .execute(params![association, now.0])
        .map(drop)
}

/// Forgets what was to be told.
pub(super) fn forget(connection: &Connection, association: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM onbind WHERE association = ?1")?
        .execute([association])
        .map(drop)
}

/// What is due of those that were tried before, or of those that never were; the oldest first, without invitations.
pub(super) fn due(
    connection: &Connection,
    now: Timestamp,
    tried: bool,
    limit: u32,
) -> rusqlite::Result<Vec<DueOnbind>> {
    connection
        .prepare_cached(DUE)?
        .query_map(params![tried, now.0, limit], |row| {
            Ok(DueOnbind {
                id: row.get(0)?,
                tries: row.get(1)?,
                association: association(row, 2)?,
                invites: Vec::new(),
            })
        })?
        .collect()
}

/// Leases what is `due`, and adds the invitations.
pub(super) fn lease(
    connection: &Connection,
    due: &mut [DueOnbind],
    now: Timestamp,
    until: Timestamp,
) -> rusqlite::Result<()> {
    let mut update =
        connection.prepare_cached("UPDATE onbind SET due_at = ?2, leased = 1 WHERE id = ?1")?;
    for onbind in due {
        update.execute(params![onbind.id, until.0])?;
        onbind.invites = invites(connection, &onbind.association, now)?;
    }
    Ok(())
}

/// The oldest invitations of an address that can still be used.
fn invites(
    connection: &Connection,
    association: &Association,
    now: Timestamp,
) -> rusqlite::Result<Vec<Invite>> {
    let threepid = &association.threepid;
    connection
        .prepare_cached(&format!(
            "SELECT {INVITE} FROM invite
             WHERE medium = ?1 AND address = ?2 AND {OPEN} AND expires_at > ?3 ORDER BY created_at, id LIMIT ?4"
        ))?
        .query_map(
            params![
                threepid.medium().as_str(),
                threepid.address(),
                now.0,
                INVITES
            ],
            invite,
        )?
        .collect()
}

/// When the next one is due of those that were tried before, or of those that never were.
pub(super) fn next(connection: &Connection, tried: bool) -> rusqlite::Result<Option<Timestamp>> {
    let next: Option<i64> = connection
        .prepare_cached(NEXT)?
        .query_row([tried], |row| row.get(0))?;
    Ok(next.map(Timestamp))
}

/// Makes one due later.
pub(super) fn defer(connection: &Connection, id: i64, due_at: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE onbind SET due_at = ?2, leased = 0, tries = tries + 1 WHERE id = ?1",
        )?
        .execute(params![id, due_at.0])
        .map(drop)
}

/// Forgets the row, unless there are more invitations than were told.
pub(super) fn finish(
    connection: &Connection,
    id: i64,
    told: &[[u8; 16]],
    now: Timestamp,
) -> rusqlite::Result<()> {
    let mut used = 0;
    let mut mark = connection.prepare_cached(&format!(
        "UPDATE invite SET used_at = ?2 WHERE id = ?1 AND {OPEN}"
    ))?;
    for invite in told {
        used += mark.execute(params![invite, now.0])?;
    }
    let done = if used > 0 && has_more(connection, id, now)? {
        connection
            .prepare_cached("UPDATE onbind SET due_at = ?2, leased = 0, tries = 0 WHERE id = ?1")?
            .execute(params![id, now.0])
    } else {
        connection
            .prepare_cached("DELETE FROM onbind WHERE id = ?1")?
            .execute([id])
    };
    done.map(drop)
}

fn has_more(connection: &Connection, id: i64, now: Timestamp) -> rusqlite::Result<bool> {
    let address: Option<(String, String)> = connection
        .prepare_cached(
            "SELECT medium, address FROM onbind JOIN association ON association.id = onbind.association
             WHERE onbind.id = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((medium, address)) = address else {
        return Ok(false);
    };
    connection
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM invite WHERE medium = ?1 AND address = ?2 AND {OPEN} AND expires_at > ?3)"
        ))?
        .query_row(params![medium, address, now.0], |row| row.get(0))
}

/// Makes all due that are leased.
pub(super) fn free(connection: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("UPDATE onbind SET due_at = ?1, leased = 0 WHERE leased = 1")?
        .execute([now.0])
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        store::{
            Associations,
            sqlite::{Role, SqliteStore},
        },
        threepid::Threepid,
    };

    const NOW: Timestamp = Timestamp(1_795_341_600_000);
    const DAY: Duration = Duration::from_hours(24);

    async fn stored() -> (Arc<SqliteStore>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("t.db"), Role::Server).unwrap();
        let association = Association {
            threepid: Threepid::email("a@b.org").unwrap(),
            user_id: "@a:b".to_owned(),
            at: NOW,
        };
        store.associate(association, None, "pepper").await.unwrap();
        (store, dir)
    }

    async fn execute(store: &SqliteStore, statement: &'static str) {
        let done = store.write_one(move |connection| connection.execute_batch(statement));
        done.await.unwrap();
    }

    /// Adds invitations of `a@b.org` that expire in two days.
    async fn invite(store: &SqliteStore, from: u8, count: u8) {
        let done = store.write_one(move |connection| {
            let mut insert = connection.prepare(
                "INSERT INTO invite (id, key_id, token, medium, address, room_id, sender, public_key, created_at, expires_at)
                 VALUES (?1, x'01020304', x'07', 'email', 'a@b.org', '!r:b', '@s:b', ?2, ?3, ?4)",
            )?;
            for number in from..from + count {
                let created_at = NOW.0 - 1000 + i64::from(number);
                insert.execute(params![[number; 16], [number; 32], created_at, (NOW + 2 * DAY).0])?;
            }
            Ok(())
        });
        done.await.unwrap();
    }

    async fn lease(store: &SqliteStore, now: Timestamp) -> Vec<u8> {
        let due = store.lease_onbinds(now, now + DAY, 9, 9).await.unwrap();
        let invites = due.iter().flat_map(|onbind| &onbind.invites);
        invites.map(|invite| invite.id[0]).collect()
    }

    #[tokio::test]
    async fn who_was_never_tried_comes_before_who_was_and_retries_are_bounded() {
        let (store, _dir) = stored().await;
        execute(
            &store,
            "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 13)
             INSERT INTO association (id, medium, address, user_id, at, proved_at)
             SELECT i, 'email', i || '@b.org', '@a:b', 0, 0 FROM n;
             INSERT INTO onbind (association, due_at, tries) SELECT id, id, 3 FROM association WHERE id > 3;
             INSERT INTO onbind (association, due_at, tries) VALUES (2, 99, 0), (3, 98, 0);
             DELETE FROM onbind WHERE association = 1;",
        )
        .await;
        let lease = async |limit, retries| {
            let due = store.lease_onbinds(NOW, NOW + DAY, limit, retries);
            let due = due.await.unwrap().into_iter();
            let address = |onbind: DueOnbind| onbind.association.threepid.address().to_owned();
            due.map(address).collect::<Vec<_>>()
        };

        assert_eq!(store.next_onbind(true).await.unwrap(), Some(Timestamp(4)));
        assert_eq!(store.next_onbind(false).await.unwrap(), Some(Timestamp(98)));
        assert_eq!(lease(1, 9).await, ["3@b.org"]);
        assert_eq!(lease(9, 2).await, ["2@b.org", "4@b.org", "5@b.org"]);
        assert!(lease(9, 0).await.is_empty());
        assert_eq!(store.next_onbind(false).await.unwrap(), Some(NOW + DAY));
        assert_eq!(lease(3, 9).await, ["6@b.org", "7@b.org", "8@b.org"]);
    }

    #[tokio::test]
    async fn what_is_due_is_found_by_an_index() {
        let (store, _dir) = stored().await;
        for query in [DUE, NEXT] {
            let plan = store.write_one(move |connection| {
                let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
                let values = (0..plan.parameter_count()).map(|_| 0);
                let steps = plan.query_map(rusqlite::params_from_iter(values), |row| row.get(3))?;
                steps.collect::<rusqlite::Result<Vec<String>>>()
            });
            let plan = plan.await.unwrap().join("; ");
            assert!(plan.contains("INDEX onbind_turn (<expr>=?"), "{plan}");
            assert!(!plan.contains("B-TREE"), "{plan}");
        }
    }

    #[tokio::test]
    async fn what_can_still_be_used_is_told_the_oldest_first() {
        let (store, _dir) = stored().await;
        invite(&store, 1, 6).await;
        execute(
            &store,
            "UPDATE invite SET used_at = 1 WHERE substr(id, 1, 1) = x'01';
             UPDATE invite SET withdrawn_at = 1 WHERE substr(id, 1, 1) = x'02';
             UPDATE invite SET expires_at = 1795341600000 WHERE substr(id, 1, 1) = x'03';
             UPDATE invite SET address = 'c@b.org' WHERE substr(id, 1, 1) = x'04';",
        )
        .await;

        assert_eq!(lease(&store, NOW).await, [5, 6]);
    }

    #[tokio::test]
    async fn what_was_told_is_used_and_the_rest_is_told_at_once() {
        let (store, _dir) = stored().await;
        invite(&store, 1, 130).await;
        let due = store.lease_onbinds(NOW, NOW + DAY, 9, 9).await.unwrap();
        let told: Vec<_> = due[0].invites.iter().map(|invite| invite.id).collect();
        assert_eq!(told.len(), 100);

        store.finish_onbind(due[0].id, told, NOW).await.unwrap();

        let due = store.lease_onbinds(NOW, NOW + DAY, 9, 9).await.unwrap();
        let told: Vec<_> = due[0].invites.iter().map(|invite| invite.id).collect();
        assert_eq!((told.len(), told[0]), (30, [101; 16]));
        store.finish_onbind(due[0].id, told, NOW).await.unwrap();
        assert_eq!(store.next_onbind(true).await.unwrap(), None);
    }

    #[tokio::test]
    async fn who_is_never_told_is_forgotten_and_the_invitations_stay_open() {
        let (store, _dir) = stored().await;
        invite(&store, 1, 2).await;
        let due = store.lease_onbinds(NOW, NOW + DAY, 9, 9).await.unwrap();

        let gave_up = store.finish_onbind(due[0].id, Vec::new(), NOW);
        gave_up.await.unwrap();

        assert_eq!(store.next_onbind(true).await.unwrap(), None);
        let again = due[0].association.clone();
        store.associate(again, None, "pepper").await.unwrap();
        assert_eq!(lease(&store, NOW).await, [1, 2]);
    }
}
