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

/// Leases what is due.
pub(super) fn lease(
    connection: &Connection,
    now: Timestamp,
    until: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<DueOnbind>> {
    let mut due: Vec<DueOnbind> = connection
        .prepare_cached(
            "SELECT onbind.id, tries, medium, address, user_id, at
             FROM onbind JOIN association ON association.id = onbind.association
             WHERE due_at <= ?1 ORDER BY due_at, onbind.id LIMIT ?2",
        )?
        .query_map(params![now.0, limit], |row| {
            Ok(DueOnbind {
                id: row.get(0)?,
                tries: row.get(1)?,
                association: association(row, 2)?,
                invites: Vec::new(),
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut update =
        connection.prepare_cached("UPDATE onbind SET due_at = ?2, leased = 1 WHERE id = ?1")?;
    for onbind in &mut due {
        update.execute(params![onbind.id, until.0])?;
        onbind.invites = invites(connection, &onbind.association, now)?;
    }
    Ok(due)
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

/// When the next one is due.
pub(super) fn next(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(due_at) FROM onbind")?
        .query_row([], |row| row.get(0))?;
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
        let due = store.lease_onbinds(now, now + DAY, 9).await.unwrap();
        let invites = due.iter().flat_map(|onbind| &onbind.invites);
        invites.map(|invite| invite.id[0]).collect()
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
        let due = store.lease_onbinds(NOW, NOW + DAY, 9).await.unwrap();
        let told: Vec<_> = due[0].invites.iter().map(|invite| invite.id).collect();
        assert_eq!(told.len(), 100);

        store.finish_onbind(due[0].id, told, NOW).await.unwrap();

        let due = store.lease_onbinds(NOW, NOW + DAY, 9).await.unwrap();
        let told: Vec<_> = due[0].invites.iter().map(|invite| invite.id).collect();
        assert_eq!((told.len(), told[0]), (30, [101; 16]));
        store.finish_onbind(due[0].id, told, NOW).await.unwrap();
        assert_eq!(store.next_onbind().await.unwrap(), None);
    }

    #[tokio::test]
    async fn who_is_never_told_is_forgotten_and_the_invitations_stay_open() {
        let (store, _dir) = stored().await;
        invite(&store, 1, 2).await;
        let due = store.lease_onbinds(NOW, NOW + DAY, 9).await.unwrap();

        let gave_up = store.finish_onbind(due[0].id, Vec::new(), NOW);
        gave_up.await.unwrap();

        assert_eq!(store.next_onbind().await.unwrap(), None);
        let again = due[0].association.clone();
        store.associate(again, None, "pepper").await.unwrap();
        assert_eq!(lease(&store, NOW).await, [1, 2]);
    }
}
