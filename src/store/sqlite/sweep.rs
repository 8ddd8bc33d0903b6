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
/// How long it is known what somebody has accepted who is not logged in anywhere: whoever comes back sooner is not asked again.
const KEEP_ACCEPTED: Duration = Duration::from_hours(180 * 24);

/// Where the sweeper left off among what it has to look through, because no index says what is over.
#[derive(Clone, Debug, Default)]
pub(super) struct SweptTo {
    bucket: Vec<u8>,
    /// Among those who have accepted something.
    user_id: String,
}

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

/// How many rows went, and where to go on.
fn step(
    connection: &Connection,
    before: Timestamp,
    now: Timestamp,
    from: &SweptTo,
) -> rusqlite::Result<(usize, SweptTo)> {
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
    let (buckets, bucket) = full_buckets(connection, now, &from.bucket)?;
    let (accepted, user_id) = accepted_policies(connection, now, &from.user_id)?;
    let gone = sessions + stages + messages + buckets + accepted + identity(connection, now)?;
    Ok((gone, SweptTo { bucket, user_id }))
}

/// How many buckets went, and where to go on among them.
fn full_buckets(
    connection: &Connection,
    now: Timestamp,
    from: &[u8],
) -> rusqlite::Result<(usize, Vec<u8>)> {
    let keys: Vec<Vec<u8>> = connection
        .prepare_cached("SELECT key FROM bucket WHERE key > ?1 ORDER BY key LIMIT ?2")?
        .query_map(params![from, STEP], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let Some(last) = keys.last() else {
        return Ok((0, Vec::new()));
    };
    let buckets = connection
        .prepare_cached("DELETE FROM bucket WHERE key > ?1 AND key <= ?2 AND full_at <= ?3")?
        .execute(params![from, last, now.0])?;
    Ok((buckets, last.clone()))
}

/// How many acceptances went of users who have no token, and with which user to go on.
fn accepted_policies(
    connection: &Connection,
    now: Timestamp,
    from: &str,
) -> rusqlite::Result<(usize, String)> {
    let users: Vec<String> = connection
        .prepare_cached(
            "SELECT DISTINCT user_id FROM accepted_policy WHERE user_id > ?1 ORDER BY user_id LIMIT ?2",
        )?
        .query_map(params![from, STEP], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let Some(last) = users.last() else {
        return Ok((0, String::new()));
    };
    let before = now.before(KEEP_ACCEPTED);
    let gone = connection
        .prepare_cached(
            "DELETE FROM accepted_policy WHERE user_id > ?1 AND user_id <= ?2 AND accepted_at < ?3 AND NOT EXISTS
               (SELECT 1 FROM identity_token WHERE identity_token.user_id = accepted_policy.user_id)",
        )?
        .execute(params![from, last, before.0])?;
    Ok((gone, last.clone()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        AcceptedPolicy, IdentityAccounts, NewIdentityToken, Sessions, sqlite::Role,
    };

    const NOW: Timestamp = Timestamp(1_795_341_600_000);
    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test]
    async fn what_somebody_accepted_is_known_half_a_year_after_they_left() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("test.db"), Role::Server).unwrap();
        let add = |hash: u8, user_id: &str, now: Timestamp, expires_at: Timestamp| {
            store.add_identity_token(NewIdentityToken {
                hash: [hash; 32],
                user_id: user_id.to_owned(),
                now,
                expires_at,
                most: 9,
            })
        };
        for number in 0..250 {
            let policies = ["terms", "privacy"].map(|policy| AcceptedPolicy {
                policy: policy.to_owned(),
                version: "1".to_owned(),
            });
            let user_id = format!("@u{number}:example.org");
            let accepting = store.accept_policies(&user_id, policies.to_vec(), NOW);
            accepting.await.unwrap();
        }
        let late = NOW + KEEP_ACCEPTED + Duration::from_millis(1);
        let living = add(1, "@u7:example.org", NOW, late + KEEP_ACCEPTED);
        living.await.unwrap();
        let sweep = async |now: Timestamp| {
            let mut gone = Vec::new();
            // A step that finds nothing is not the last one: the next begins anew.
            for _ in 0..8 {
                gone.push(store.sweep(now, now).await.unwrap());
            }
            gone
        };

        let in_time = sweep(NOW + KEEP_ACCEPTED).await;
        let gone = sweep(late).await;
        add(2, "@u8:example.org", late, late + KEEP_ACCEPTED)
            .await
            .unwrap();

        assert_eq!(in_time, [0; 8]);
        assert_eq!(gone.iter().sum::<usize>(), 498, "{gone:?}");
        assert!(gone.iter().all(|step| *step <= 200), "{gone:?}");
        for (hash, accepted) in [(1, 2), (2, 0)] {
            let account = store.identity_account([hash; 32], late).await.unwrap();
            assert_eq!(account.unwrap().accepted.len(), accepted);
        }
    }

    #[tokio::test]
    async fn what_is_over_at_the_identity_server_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("test.db"), Role::Server).unwrap();
        // Invitations for two days, of which the first was used now, and the second withdrawn.
        let stored = store.write_one(|connection| {
            connection.execute_batch(
                "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 250)
                 INSERT INTO invite SELECT
                   randomblob(16), x'01020304', x'07', 'email', 'a@b.org', '!r:b', '@s:b', randomblob(32),
                   1795341600000, 1795514400000,
                   CASE n WHEN 1 THEN 1795341600000 END, CASE n WHEN 2 THEN 1795341600000 END FROM number;
                 INSERT INTO identity_token VALUES
                   (x'01', '@a:b', 1, 1795341600001), (x'02', '@a:b', 1, 1805341600000);",
            )
        });
        stored.await.unwrap();
        let sweep = async |now: Timestamp| {
            let mut gone = 0;
            loop {
                match store.sweep(now.before(DAY), now).await.unwrap() {
                    0 => return gone,
                    step => {
                        assert!(step <= 200, "{step} rows in one step");
                        gone += step;
                    }
                }
            }
        };

        let late = Duration::from_millis(1);
        assert_eq!(sweep(NOW).await, 0);
        assert_eq!(sweep(NOW + late).await, 1, "the token");
        assert_eq!(sweep(NOW + 30 * DAY).await, 0);
        assert_eq!(sweep(NOW + 30 * DAY + late).await, 2, "ended");
        assert_eq!(sweep(NOW + 32 * DAY + late).await, 248, "expired");
    }
}
