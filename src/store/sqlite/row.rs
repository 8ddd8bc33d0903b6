//! A session between Rust and its row.

use rusqlite::{Row, types::Type};

use crate::{
    clock::Timestamp,
    secret::SessionId,
    session::{MessageKind, Proxied, Purpose, Session},
    threepid::{Medium, Threepid},
};

/// The columns that [`session`] reads, in their order.
pub(super) const SESSION: &str = "session.sid, session.scope, session.key_id, session.secret_hash, session.purpose,
    session.medium, session.address, session.user_id, session.genuine, session.send_attempt, session.next_link,
    session.tries, session.created_at, session.link_expires_at, session.code_expires_at, session.expires_at,
    session.validated_at, session.claim_digest, session.taken_at, session.replaced_at,
    session.server, session.server_sid, session.access_token";

/// How many columns [`SESSION`] has.
pub(super) const SESSION_WIDTH: usize = 23;

/// Reads the columns of [`SESSION`], which are the row's first.
pub(super) fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let medium = medium(row, 5)?;
    Ok(Session {
        sid: SessionId::from_bytes(row.get(0)?),
        scope: row.get(1)?,
        key_id: row.get(2)?,
        secret_hash: row.get(3)?,
        purpose: word(row, 4, Purpose::parse)?,
        threepid: Threepid::stored(medium, row.get(6)?),
        user_id: row.get(7)?,
        genuine: row.get(8)?,
        send_attempt: row.get(9)?,
        next_link: row.get(10)?,
        tries: row.get(11)?,
        created_at: Timestamp(row.get(12)?),
        link_expires_at: Timestamp(row.get(13)?),
        code_expires_at: Timestamp(row.get(14)?),
        expires_at: Timestamp(row.get(15)?),
        validated_at: moment(row, 16)?,
        claim_digest: row.get(17)?,
        taken_at: moment(row, 18)?,
        replaced_at: moment(row, 19)?,
        proxied: proxied(row)?,
    })
}

fn proxied(row: &Row<'_>) -> rusqlite::Result<Option<Proxied>> {
    let Some(server) = row.get(20)? else {
        return Ok(None);
    };
    Ok(Some(Proxied {
        server,
        sid: row.get(21)?,
        access_token: row.get(22)?,
    }))
}

/// Reads the name of a medium.
pub(super) fn medium(row: &Row<'_>, column: usize) -> rusqlite::Result<Medium> {
    word(row, column, Medium::parse)
}

/// Reads the name of a kind of message.
pub(super) fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<MessageKind> {
    word(row, column, MessageKind::parse)
}

fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

fn word<T>(row: &Row<'_>, column: usize, parse: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| {
        let cause = format!("unknown word {text:?}");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, cause.into())
    })
}
