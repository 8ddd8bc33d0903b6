//! The use of a proof, in SQLite: claimed once, then taken, given back, or ended.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::{
    row::{self, SESSION},
    sessions::find,
    writer::Verdict,
};
use crate::{
    clock::Timestamp,
    session::{MessageKind, Session},
    store::{Claimed, FinishedReset, NewClaim, Notice},
};

/// A claim that nobody has, or that the same operation may continue.
const FREE: &str = "(claimed_by IS NULL
                     OR (claimed_by = :op AND claim_digest = :digest AND claimed_until <= :now))
                    AND NOT EXISTS (SELECT 1 FROM session WHERE claimed_by = :op AND sid <> :sid)";

pub(super) fn claim(connection: &Connection, claim: &NewClaim) -> rusqlite::Result<Claimed> {
    let claimed = claim_if(connection, claim, "validated_at IS NOT NULL")?;
    Ok(match claimed {
        Some(session) => Claimed::Yes(session),
        None => why_not(find(connection, claim.sid)?, claim, true),
    })
}

pub(super) fn claim_by_page(
    connection: &Connection,
    claim: &NewClaim,
) -> rusqlite::Result<Claimed> {
    let claimed = claim_if(
        connection,
        claim,
        "validated_at IS NULL AND purpose = 'password' AND genuine = 1 AND server IS NULL
         AND (link_expires_at > :now OR claimed_by = :op)",
    )?;
    Ok(match claimed {
        Some(session) => Claimed::Yes(session),
        None => why_not(find(connection, claim.sid)?, claim, false),
    })
}

fn claim_if(
    connection: &Connection,
    claim: &NewClaim,
    state: &str,
) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(&format!(
            "UPDATE session SET claimed_by = :op, claim_digest = :digest, claimed_until = :until
             WHERE sid = :sid AND taken_at IS NULL AND expires_at > :now AND {state} AND {FREE}
             RETURNING {SESSION}"
        ))?
        .query_row(
            named_params! {
                ":op": claim.op_id, ":digest": claim.digest, ":until": (claim.now + claim.lease).0,
                ":sid": claim.sid.as_bytes(), ":now": claim.now.0,
            },
            row::session,
        )
        .optional()
}

fn why_not(session: Option<Session>, claim: &NewClaim, wants_validated: bool) -> Claimed {
    match session {
        Some(session) if session.taken_at.is_some() => Claimed::Taken {
            same_request: session.claim_digest.as_deref() == Some(claim.digest.as_slice()),
        },
        Some(session)
            if session.validated_at.is_some() == wants_validated
                && session.expires_at > claim.now
                && session.claim_digest.is_some() =>
        {
            Claimed::Held
        }
        other => Claimed::No(other),
    }
}

/// Whether the claim of an operation was there, and its lease has ended now.
pub(super) fn pause(
    connection: &Connection,
    op_id: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let paused = connection
        .prepare_cached(
            "UPDATE session SET claimed_until = ?2 WHERE claimed_by = ?1 AND taken_at IS NULL",
        )?
        .execute(params![op_id, now.0])?;
    Ok(paused > 0)
}

pub(super) fn pause_all(connection: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE session SET claimed_until = ?1
         WHERE claimed_by IS NOT NULL AND taken_at IS NULL AND claimed_until > ?1",
        [now.0],
    )
}

pub(super) fn end(connection: &Connection, op_id: &str, now: Timestamp) -> rusqlite::Result<bool> {
    let ended = connection
        .prepare_cached(
            "UPDATE session SET expires_at = min(expires_at, ?2), claimed_by = NULL, claim_digest = NULL,
                                claimed_until = NULL
             WHERE claimed_by = ?1 AND taken_at IS NULL",
        )?
        .execute(params![op_id, now.0])?;
    Ok(ended > 0)
}

pub(super) fn end_resets(
    connection: &Connection,
    user_id: &str,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "UPDATE session SET expires_at = ?2
             WHERE purpose = 'password' AND taken_at IS NULL AND user_id = ?1 AND expires_at > ?2",
        )?
        .execute(params![user_id, now.0])
}

/// The whole transaction after a reset.
pub(super) fn finish_reset(
    connection: &Connection,
    finished: &FinishedReset,
) -> rusqlite::Result<Verdict<bool>> {
    let Some(session) = take(connection, &finished.op_id, finished.now)? else {
        return Ok(Verdict::Undo(false));
    };
    end_resets(connection, &finished.user_id, finished.now)?;
    for notice in &finished.notices {
        queue(connection, &session, notice, finished.now)?;
    }
    Ok(Verdict::Keep(true))
}

fn queue(
    connection: &Connection,
    session: &Session,
    notice: &Notice,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let details = serde_json::to_string(&notice.details)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at, medium, address)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?7, ?8)",
        )?
        .execute(params![
            session.sid.as_bytes(),
            session.send_attempt,
            MessageKind::PasswordChanged.as_str(),
            details,
            now.0,
            notice.useless_at.0,
            notice.to.medium().as_str(),
            notice.to.address(),
        ])?;
    Ok(())
}

/// Uses up the proof of a claim: its session as it is then, if there was one.
pub(super) fn take(
    connection: &Connection,
    op_id: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(&format!(
            "UPDATE session SET taken_at = ?2 WHERE claimed_by = ?1 AND taken_at IS NULL RETURNING {SESSION}"
        ))?
        .query_row(params![op_id, now.0], row::session)
        .optional()
}

pub(super) fn release(connection: &Connection, op_id: &str) -> rusqlite::Result<bool> {
    let released = connection
        .prepare_cached(
            "UPDATE session SET claimed_by = NULL, claim_digest = NULL, claimed_until = NULL
             WHERE claimed_by = ?1 AND taken_at IS NULL",
        )?
        .execute([op_id])?;
    Ok(released > 0)
}
