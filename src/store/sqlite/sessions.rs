//! Validation sessions in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::{
    SqliteStore,
    buckets::{count, count_all, full_at},
    claims, proxied,
    row::{self, SESSION},
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    rate::SET_BACK,
    secret::SessionId,
    session::Session,
    store::{
        Bucket, Claimed, FinishedReset, NewClaim, NewProxied, NewRequest, NewTry, Remembered,
        Requested, Reservation, Reserved, Sessions, StoreResult,
    },
};

#[async_trait]
impl Sessions for SqliteStore {
    async fn peek(
        &self,
        scope: [u8; 16],
        send_attempt: i64,
        buckets: Vec<Bucket>,
        code_tries: u32,
        now: Timestamp,
    ) -> StoreResult<Option<Requested>> {
        self.readers.ask(move |connection| {
            if let Some(sid) = repeated(connection, scope, send_attempt, code_tries, now)? {
                return Ok(Some(Requested::Repeated(sid)));
            }
            for bucket in buckets {
                let full_at = full_at(connection, bucket)?;
                if let Err(wait) = bucket.rate.take(full_at, now) {
                    return Ok(Some(Requested::Limited(wait)));
                }
            }
            Ok(None)
        })
    }

    async fn request(&self, request: NewRequest) -> StoreResult<Requested> {
        self.writer
            .run(Size::Many, move |connection| accept(connection, &request))
            .await
    }

    async fn reserve(&self, reservation: Reservation) -> StoreResult<Reserved> {
        self.writer
            .run(Size::Many, move |connection| {
                let Reservation {
                    scope, now, until, ..
                } = reservation;
                let (attempt, tries) = (reservation.send_attempt, reservation.code_tries);
                if let Some(sid) = repeated(connection, scope, attempt, tries, now)? {
                    return Ok(Verdict::Undo(Reserved::Answered(sid)));
                }
                if !proxied::reserve(connection, scope, now, until)? {
                    return Ok(Verdict::Undo(Reserved::Taken));
                }
                Ok(match count_all(connection, &reservation.buckets, now)? {
                    Ok(()) => Verdict::Keep(Reserved::Yes),
                    Err(wait) => Verdict::Undo(Reserved::Limited(wait)),
                })
            })
            .await
    }

    async fn remove(&self, scope: [u8; 16], until: Timestamp) -> StoreResult<()> {
        self.write_one(move |connection| proxied::free(connection, scope, until))
            .await
    }

    async fn remember(&self, proxied: NewProxied) -> StoreResult<Remembered> {
        self.writer
            .run(Size::Many, move |connection| {
                proxied::remember(connection, &proxied).map(Verdict::Keep)
            })
            .await
    }

    async fn give_try_back(&self, sid: SessionId) -> StoreResult<()> {
        self.write_one(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE session SET tries = tries - 1 WHERE sid = ?1 AND tries > 0",
                )?
                .execute([sid.as_bytes()])?;
            Ok(())
        })
        .await
    }

    async fn find_proxied(&self, server_pairs: Vec<[u8; 16]>) -> StoreResult<Vec<Session>> {
        self.readers
            .ask(move |connection| proxied::find(connection, &server_pairs))
    }

    async fn find(&self, sid: SessionId) -> StoreResult<Option<Session>> {
        self.readers.ask(move |connection| find(connection, sid))
    }

    async fn try_code(&self, shown: NewTry) -> StoreResult<Result<Option<Session>, Duration>> {
        self.writer
            .run(Size::Many, move |connection| {
                let Some(session) = count_try(connection, &shown)? else {
                    return Ok(Verdict::Keep(Ok(None)));
                };
                if let Err(wait) = count(connection, shown.address_bucket, shown.now)? {
                    return Ok(Verdict::Undo(Err(wait)));
                }
                if !(shown.is_right)(&session) {
                    return Ok(Verdict::Keep(Ok(Some(session))));
                }
                mark_validated(connection, shown.sid, shown.now, shown.validated_until)?;
                Ok(Verdict::Keep(Ok(find(connection, shown.sid)?)))
            })
            .await
    }

    async fn mark_validated(
        &self,
        sid: SessionId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> StoreResult<bool> {
        self.write_one(move |connection| mark_validated(connection, sid, now, expires_at))
            .await
    }

    async fn claim(&self, claim: NewClaim) -> StoreResult<Claimed> {
        self.writer
            .run(Size::Many, move |connection| {
                claims::claim(connection, &claim).map(Verdict::Keep)
            })
            .await
    }

    async fn claim_by_page(&self, claim: NewClaim) -> StoreResult<Claimed> {
        self.writer
            .run(Size::Many, move |connection| {
                claims::claim_by_page(connection, &claim).map(Verdict::Keep)
            })
            .await
    }

    async fn pause(&self, op_id: &str, now: Timestamp) -> StoreResult<bool> {
        let op_id = op_id.to_owned();
        self.write_one(move |connection| claims::pause(connection, &op_id, now))
            .await
    }

    async fn pause_all(&self, now: Timestamp) -> StoreResult<usize> {
        self.write_one(move |connection| claims::pause_all(connection, now))
            .await
    }

    async fn end(&self, op_id: &str) -> StoreResult<bool> {
        let op_id = op_id.to_owned();
        self.write_one(move |connection| claims::end(connection, &op_id))
            .await
    }

    async fn end_resets(&self, user_id: &str) -> StoreResult<usize> {
        let user_id = user_id.to_owned();
        self.write_one(move |connection| claims::end_resets(connection, &user_id))
            .await
    }

    async fn finish_reset(&self, finished: FinishedReset) -> StoreResult<bool> {
        self.writer
            .run(Size::Many, move |connection| {
                claims::finish_reset(connection, &finished)
            })
            .await
    }

    async fn take(&self, op_id: &str, now: Timestamp) -> StoreResult<bool> {
        let op_id = op_id.to_owned();
        self.write_one(move |connection| Ok(claims::take(connection, &op_id, now)?.is_some()))
            .await
    }

    async fn release(&self, op_id: &str) -> StoreResult<bool> {
        let op_id = op_id.to_owned();
        self.write_one(move |connection| claims::release(connection, &op_id))
            .await
    }

    async fn sweep(&self, before: Timestamp, now: Timestamp) -> StoreResult<usize> {
        self.sweep_step(before, now).await
    }

    async fn check(&self) -> StoreResult<()> {
        self.readers
            .ask(|connection| connection.query_row("SELECT 1", [], |_| Ok(())))?;
        self.check_writing().await
    }
}

pub(super) fn find(connection: &Connection, sid: SessionId) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(&format!("SELECT {SESSION} FROM session WHERE sid = ?1"))?
        .query_row([sid.as_bytes()], row::session)
        .optional()
}

/// The session that has accepted this attempt, or a later one, if it goes on.
fn repeated(
    connection: &Connection,
    scope: [u8; 16],
    send_attempt: i64,
    code_tries: u32,
    now: Timestamp,
) -> rusqlite::Result<Option<SessionId>> {
    connection
        .prepare_cached(
            "SELECT sid FROM session
             WHERE scope = ?1 AND replaced_at IS NULL AND send_attempt >= ?2
               AND expires_at > ?3 AND validated_at IS NULL AND taken_at IS NULL AND tries < ?4",
        )?
        .query_row(params![scope, send_attempt, now.0, code_tries], |row| {
            row.get(0).map(SessionId::from_bytes)
        })
        .optional()
}

/// Counts a try at a session's code; the session with that try counted.
fn count_try(connection: &Connection, shown: &NewTry) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(&format!(
            "UPDATE session SET tries = tries + 1
             WHERE sid = ?1 AND tries < ?2 AND code_expires_at > ?3 AND expires_at > ?3 AND validated_at IS NULL
             RETURNING {SESSION}"
        ))?
        .query_row(
            params![shown.sid.as_bytes(), shown.code_tries, shown.now.0],
            row::session,
        )
        .optional()
}

fn mark_validated(
    connection: &Connection,
    sid: SessionId,
    now: Timestamp,
    expires_at: Timestamp,
) -> rusqlite::Result<bool> {
    let marked = connection
        .prepare_cached(
            "UPDATE session SET validated_at = ?2, expires_at = ?3
             WHERE sid = ?1 AND validated_at IS NULL AND genuine = 1 AND expires_at > ?2 AND claimed_by IS NULL",
        )?
        .execute(params![sid.as_bytes(), now.0, expires_at.0])?;
    Ok(marked > 0)
}

/// The whole transaction of a `requestToken`.
fn accept(connection: &Connection, request: &NewRequest) -> rusqlite::Result<Verdict<Requested>> {
    // An index knows no clock: a session that is over, proved or out of tries makes room for a fresh one.
    connection
        .prepare_cached(
            "UPDATE session SET replaced_at = ?2
             WHERE scope = ?1 AND replaced_at IS NULL
               AND (expires_at <= ?2 OR validated_at IS NOT NULL OR taken_at IS NOT NULL OR tries >= ?3)",
        )?
        .execute(params![
            request.session.scope,
            request.session.now.0,
            request.session.lifetimes.code_tries
        ])?;
    let Some((sid, expires_at)) = open_or_find(connection, request)? else {
        return why_not_accepted(connection, request).map(Verdict::Undo);
    };
    if let Err(wait) = count_all(connection, &request.buckets, request.session.now)? {
        return Ok(Verdict::Undo(Requested::Limited(wait)));
    }
    queue_message(connection, request, sid, expires_at)?;
    Ok(Verdict::Keep(Requested::Accepted(sid)))
}

/// Makes the session, or finds it and claims the attempt for it; `None` if the attempt is not a new one, or the session
/// may not send so soon.
fn open_or_find(
    connection: &Connection,
    request: &NewRequest,
) -> rusqlite::Result<Option<(SessionId, i64)>> {
    let (step, period) = request
        .session_rate
        .step_and_period()
        .unwrap_or((0, i64::MAX / 4));
    let session = &request.session;
    let now = session.now;
    connection
        .prepare_cached(
            "INSERT INTO session (sid, scope, key_id, secret_hash, purpose, medium, address, user_id, genuine,
                                  send_attempt, send_full_at, next_link, created_at,
                                  link_expires_at, code_expires_at, expires_at)
             VALUES (:sid, :scope, :key_id, :secret_hash, :purpose, :medium, :address, :user_id, :genuine,
                     :attempt, :now + :step, :next_link, :now, min(:link, :end), min(:code, :end), :end)
             ON CONFLICT (scope) WHERE replaced_at IS NULL DO UPDATE SET
                 user_id = excluded.user_id, genuine = excluded.genuine, send_attempt = excluded.send_attempt,
                 send_full_at = iif(send_full_at > :now + :period + :set_back, :now + :period, max(send_full_at, :now) + :step),
                 next_link = excluded.next_link,
                 link_expires_at = min(:link, expires_at), code_expires_at = min(:code, expires_at)
             WHERE excluded.send_attempt > session.send_attempt
               AND (send_full_at > :now + :period + :set_back OR max(send_full_at, :now) + :step <= :now + :period)
             RETURNING sid, expires_at",
        )?
        .query_row(
            named_params! {
                ":sid": session.sid.as_bytes(), ":scope": session.scope, ":key_id": session.key_id,
                ":secret_hash": session.secret_hash, ":purpose": session.purpose.as_str(),
                ":medium": session.threepid.medium().as_str(), ":address": session.threepid.address(),
                ":user_id": session.user_id, ":genuine": session.genuine, ":attempt": session.send_attempt,
                ":step": step, ":period": period, ":set_back": SET_BACK, ":next_link": session.next_link, ":now": now.0,
                ":link": (now + session.lifetimes.link).0, ":code": (now + session.lifetimes.code).0,
                ":end": (now + session.lifetimes.session).0,
            },
            |row| Ok((SessionId::from_bytes(row.get(0)?), row.get(1)?)),
        )
        .optional()
}

fn why_not_accepted(connection: &Connection, request: &NewRequest) -> rusqlite::Result<Requested> {
    connection
        .prepare_cached("SELECT sid, send_attempt, send_full_at FROM session WHERE scope = ?1 AND replaced_at IS NULL")?
        .query_row([request.session.scope], |row| {
            if row.get::<_, i64>(1)? >= request.session.send_attempt {
                return Ok(Requested::Repeated(SessionId::from_bytes(row.get(0)?)));
            }
            let full_at = Some(Timestamp(row.get(2)?));
            Ok(Requested::Limited(request.session_rate.take(full_at, request.session.now).err().unwrap_or_default()))
        })
}

fn queue_message(
    connection: &Connection,
    request: &NewRequest,
    sid: SessionId,
    expires_at: i64,
) -> rusqlite::Result<()> {
    let details = serde_json::to_string(&request.details)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at, medium)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?7)",
        )?
        .execute(params![
            sid.as_bytes(),
            request.session.send_attempt,
            request.message.as_str(),
            details,
            request.session.now.0,
            (request.session.now + request.useful_for)
                .0
                .min(expires_at),
            request.session.threepid.medium().as_str(),
        ])?;
    Ok(())
}
