//! The outbox in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    SqliteStore, invites,
    row::{self, SESSION, SESSION_WIDTH},
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    session::{MessageKind, Session},
    store::{About, Backlog, Leased, Outbox, OutboxEntry, Queued, StoreResult},
    threepid::{Medium, Threepid},
};

#[async_trait]
impl Outbox for SqliteStore {
    async fn lease(
        &self,
        medium: Medium,
        holder: &str,
        most: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> StoreResult<Leased> {
        let holder = holder.to_owned();
        self.writer
            .run(Size::Many, move |connection| {
                let due = due(connection, medium, &holder, most, now, until)?;
                sort_out(connection, &due, now).map(Verdict::Keep)
            })
            .await
    }

    async fn delivered(&self, id: i64, outcome: &str, now: Timestamp) -> StoreResult<bool> {
        self.finish(id, None, "sent", outcome, now).await
    }

    async fn retry_at(
        &self,
        id: i64,
        holder: &str,
        outcome: &str,
        due_at: Timestamp,
    ) -> StoreResult<bool> {
        let (holder, outcome) = (holder.to_owned(), outcome.to_owned());
        self.write_one(move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE outbox SET holder = NULL, state = 'queued', outcome = ?3, due_at = ?4
                     WHERE id = ?1 AND holder = ?2 AND finished_at IS NULL",
                )?
                .execute(params![id, holder, outcome, due_at.0])?;
            Ok(changed > 0)
        })
        .await
    }

    async fn give_back(&self, id: i64, holder: &str, now: Timestamp) -> StoreResult<bool> {
        let holder = holder.to_owned();
        self.write_one(move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE outbox SET holder = NULL, state = 'queued', due_at = ?3, deliveries = deliveries - 1
                     WHERE id = ?1 AND holder = ?2 AND finished_at IS NULL",
                )?
                .execute(params![id, holder, now.0])?;
            Ok(changed > 0)
        })
        .await
    }

    async fn give_up(
        &self,
        id: i64,
        holder: &str,
        outcome: &str,
        now: Timestamp,
    ) -> StoreResult<bool> {
        self.finish(id, Some(holder), "failed", outcome, now).await
    }

    async fn free_leases(&self, now: Timestamp) -> StoreResult<usize> {
        self.write_one(move |connection| {
            connection.execute(
                "UPDATE outbox SET holder = NULL, state = 'queued', due_at = ?1
                 WHERE finished_at IS NULL AND holder IS NOT NULL",
                [now.0],
            )
        })
        .await
    }

    async fn next_due(&self, medium: Medium) -> StoreResult<Option<Timestamp>> {
        self.readers.ask(|connection| {
            let next: Option<i64> = connection
                .prepare_cached(
                    "SELECT min(due_at) FROM outbox WHERE medium = ?1 AND finished_at IS NULL",
                )?
                .query_row([medium.as_str()], |row| row.get(0))?;
            Ok(next.map(Timestamp))
        })
    }

    async fn list(&self, most: u32) -> StoreResult<Vec<OutboxEntry>> {
        self.readers
            .ask_aside(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT outbox.id, outbox.kind, outbox.medium, coalesce(outbox.address, session.address), outbox.state, outbox.deliveries,
                                outbox.queued_at, outbox.due_at, outbox.finished_at, outbox.outcome
                         FROM outbox LEFT JOIN session ON session.sid = outbox.sid
                         ORDER BY outbox.id DESC LIMIT ?1",
                    )?
                    .query_map([most], entry)?
                    .collect()
            }).await
    }

    async fn retry(&self, id: i64, now: Timestamp) -> StoreResult<bool> {
        self.write_one(move |connection| {
            let changed = connection.execute(
                "UPDATE outbox SET due_at = ?2, finished_at = NULL, state = 'queued'
                 WHERE id = ?1 AND state IN ('queued', 'failed') AND (kind != ?3 OR sealed IS NOT NULL)",
                params![id, now.0, MessageKind::Invite.as_str()],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    async fn drop_message(&self, id: i64, now: Timestamp) -> StoreResult<bool> {
        self.write_one(move |connection| {
            let changed = connection.execute(
                "UPDATE outbox SET finished_at = ?2, state = 'dropped', outcome = 'dropped by the operator', sealed = NULL
                 WHERE id = ?1 AND state = 'queued'",
                params![id, now.0],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    async fn backlog(&self) -> StoreResult<Backlog> {
        self.readers
            .ask_aside(|connection| {
                connection
                    .prepare_cached(
                        "SELECT count(*), min(queued_at) FROM outbox WHERE finished_at IS NULL",
                    )?
                    .query_row([], |row| {
                        Ok(Backlog {
                            waiting: row.get(0)?,
                            oldest: row.get::<_, Option<i64>>(1)?.map(Timestamp),
                        })
                    })
            })
            .await
    }
}

impl SqliteStore {
    /// Ends a message; only for `holder` if one is given.
    async fn finish(
        &self,
        id: i64,
        holder: Option<&str>,
        state: &'static str,
        outcome: &str,
        now: Timestamp,
    ) -> StoreResult<bool> {
        let (holder, outcome) = (holder.map(str::to_owned), outcome.to_owned());
        self.write_one(move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE outbox SET holder = NULL, finished_at = ?5, state = ?3, outcome = ?4, sealed = NULL
                     WHERE id = ?1 AND (?2 IS NULL OR holder = ?2) AND finished_at IS NULL",
                )?
                .execute(params![id, holder, state, outcome, now.0])?;
            Ok(changed > 0)
        })
        .await
    }
}

/// Leases what is due; the rows.
fn due(
    connection: &Connection,
    medium: Medium,
    holder: &str,
    most: u32,
    now: Timestamp,
    until: Timestamp,
) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached(
            "UPDATE outbox SET holder = ?1, due_at = ?2, state = 'sending', deliveries = deliveries + 1
             WHERE id IN (SELECT id FROM outbox WHERE medium = ?5 AND finished_at IS NULL AND due_at <= ?3
                          ORDER BY due_at LIMIT ?4)
             RETURNING id",
        )?
        .query_map(
            params![holder, until.0, now.0, most, medium.as_str()],
            |row| row.get(0),
        )?
        .collect()
}

/// Drops those of the leased messages that nobody needs any more.
fn sort_out(connection: &Connection, leased: &[i64], now: Timestamp) -> rusqlite::Result<Leased> {
    let mut ready = Vec::with_capacity(leased.len());
    for &id in leased {
        let looked_at = match of_session(connection, id, now)? {
            Some(looked_at) => looked_at,
            None => invites::queued(connection, id, now)?.unwrap_or(Err("its session is gone")),
        };
        match looked_at {
            Ok(queued) => ready.push(queued),
            Err(why) => drop_stale(connection, id, why, now)?,
        }
    }
    let dropped = leased.len() - ready.len();
    Ok(Leased { ready, dropped })
}

/// A message about a session, or why nobody needs it any more; `None` if there is none.
fn of_session(
    connection: &Connection,
    id: i64,
    now: Timestamp,
) -> rusqlite::Result<Option<Result<Queued, &'static str>>> {
    connection
        .prepare_cached(&format!(
            "SELECT {SESSION}, {MESSAGE}
             FROM outbox JOIN session ON session.sid = outbox.sid WHERE outbox.id = ?1"
        ))?
        .query_row([id], |row| {
            let session = row::session(row)?;
            let to = session.threepid.clone();
            let about = About::Session(Box::new(session.clone()));
            let queued = message(row, SESSION_WIDTH, about, to)?;
            Ok(stale(&queued, &session, now).map_or(Ok(queued), Err))
        })
        .optional()
}

/// Why a message would tell its reader nothing any more.
fn stale(queued: &Queued, session: &Session, now: Timestamp) -> Option<&'static str> {
    if queued.kind == MessageKind::PasswordChanged {
        None
    } else if session.taken_at.is_some() {
        Some("the password is reset already")
    } else if session.validated_at.is_some() {
        Some("the address is proved already")
    } else if session.replaced_at.is_some()
        || session.is_over(now)
        || (matches!(queued.kind, MessageKind::Token(_)) && !session.genuine)
    {
        Some("its session is over")
    } else if session.send_attempt != queued.send_attempt {
        Some("a newer message was asked for")
    } else {
        None
    }
}

fn drop_stale(connection: &Connection, id: i64, why: &str, now: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE outbox SET finished_at = ?2, holder = NULL, state = 'dropped', outcome = ?3, sealed = NULL
             WHERE id = ?1",
        )?
        .execute(params![id, now.0, why])?;
    Ok(())
}

/// The columns that [`message`] reads, in their order.
pub(super) const MESSAGE: &str =
    "outbox.id, outbox.kind, outbox.details, outbox.send_attempt, outbox.deliveries,
    outbox.queued_at, outbox.useless_at, outbox.medium, outbox.address";

/// Reads the columns of [`MESSAGE`], the first of which is `at`. It goes to `to` unless it has an address of its own.
pub(super) fn message(
    row: &Row<'_>,
    at: usize,
    about: About,
    to: Threepid,
) -> rusqlite::Result<Queued> {
    let details: String = row.get(at + 2)?;
    let to = match row.get(at + 8)? {
        Some(address) => Threepid::stored(row::medium(row, at + 7)?, address),
        None => to,
    };
    Ok(Queued {
        about,
        to,
        id: row.get(at)?,
        kind: row::kind(row, at + 1)?,
        details: serde_json::from_str(&details).unwrap_or_default(),
        send_attempt: row.get(at + 3)?,
        deliveries: row.get(at + 4)?,
        queued_at: Timestamp(row.get(at + 5)?),
        useless_at: Timestamp(row.get(at + 6)?),
    })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<OutboxEntry> {
    let (medium, address): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
    let to = medium.zip(address).and_then(|(medium, address)| {
        Medium::parse(&medium).map(|medium| Threepid::stored(medium, address).masked())
    });
    let state: String = row.get(4)?;
    let finished: Option<i64> = row.get(8)?;
    Ok(OutboxEntry {
        id: row.get(0)?,
        kind: row.get(1)?,
        to: to.unwrap_or_else(|| "gone".to_owned()),
        state: ["queued", "sending", "sent", "failed", "dropped"]
            .into_iter()
            .find(|known| *known == state)
            .unwrap_or("unknown"),
        deliveries: row.get(5)?,
        queued_at: Timestamp(row.get(6)?),
        due_at: if finished.is_none() {
            Some(Timestamp(row.get(7)?))
        } else {
            None
        },
        outcome: row.get(9)?,
    })
}
