//! Sessions of identity servers, in SQLite.

use rusqlite::{Connection, named_params};

use super::row::{self, SESSION};
use crate::{clock::Timestamp, session::Session, store::NewProxied};

/// How many sessions of one pair are looked at: one for each purpose, and some that gave way.
const MOST: u32 = 8;

/// Reserves a scope, unless another request has it. A clock that was set back frees it too: no call takes an hour.
pub(super) fn reserve(
    connection: &Connection,
    scope: [u8; 16],
    now: Timestamp,
    until: Timestamp,
) -> rusqlite::Result<bool> {
    let reserved = connection
        .prepare_cached(
            "INSERT INTO asking (scope, until) VALUES (:scope, :until)
             ON CONFLICT (scope) DO UPDATE SET until = excluded.until
             WHERE until <= :now OR until > :now + 3600000",
        )?
        .execute(named_params! { ":scope": scope, ":now": now.0, ":until": until.0 })?;
    Ok(reserved > 0)
}

/// Gives a scope free.
pub(super) fn free(connection: &Connection, scope: [u8; 16]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM asking WHERE scope = ?1")?
        .execute([scope])?;
    Ok(())
}

/// The whole transaction after an identity server's answer.
pub(super) fn remember(connection: &Connection, proxied: &NewProxied) -> rusqlite::Result<()> {
    let session = &proxied.session;
    let now = session.now;
    // What is another session at the server, or over here, makes room.
    connection
        .prepare_cached(
            "UPDATE session SET replaced_at = :now
             WHERE scope = :scope AND replaced_at IS NULL
               AND (expires_at <= :now OR validated_at IS NOT NULL OR tries >= :tries OR server_sid IS NOT :server_sid)",
        )?
        .execute(named_params! {
            ":scope": session.scope, ":now": now.0, ":tries": session.lifetimes.code_tries,
            ":server_sid": proxied.server_sid,
        })?;
    // The server decides how long its tokens live: here they live as long as the session.
    connection
        .prepare_cached(
            "INSERT INTO session (sid, scope, key_id, secret_hash, purpose, medium, address, user_id, genuine,
                                  send_attempt, send_full_at, next_link, created_at,
                                  link_expires_at, code_expires_at, expires_at,
                                  server, server_sid, server_pair, access_token)
             VALUES (:sid, :scope, :key_id, :secret_hash, :purpose, :medium, :address, :user_id, :genuine,
                     :attempt, :now, :next_link, :now, :end, :end, :end,
                     :server, :server_sid, :server_pair, :access_token)
             ON CONFLICT (scope) WHERE replaced_at IS NULL DO UPDATE SET
                 user_id = excluded.user_id, genuine = excluded.genuine,
                 send_attempt = max(send_attempt, excluded.send_attempt), next_link = excluded.next_link,
                 access_token = excluded.access_token",
        )?
        .execute(named_params! {
            ":sid": session.sid.as_bytes(), ":scope": session.scope, ":key_id": session.key_id,
            ":secret_hash": session.secret_hash, ":purpose": session.purpose.as_str(),
            ":medium": session.threepid.medium().as_str(), ":address": session.threepid.address(),
            ":user_id": session.user_id, ":genuine": session.genuine, ":attempt": session.send_attempt,
            ":next_link": session.next_link, ":now": now.0, ":end": (now + session.lifetimes.session).0,
            ":server": proxied.server, ":server_sid": proxied.server_sid, ":server_pair": proxied.server_pair,
            ":access_token": proxied.access_token,
        })?;
    free(connection, session.scope)
}

/// The sessions of these pairs, those that stand before those that gave way, the newest first.
pub(super) fn find(
    connection: &Connection,
    server_pairs: &[[u8; 16]],
) -> rusqlite::Result<Vec<Session>> {
    let mut found = Vec::new();
    for pair in server_pairs {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {SESSION} FROM session WHERE server_pair = ?1
             ORDER BY replaced_at IS NOT NULL, created_at DESC LIMIT {MOST}"
        ))?;
        let rows = statement.query_map([pair], row::session)?;
        for session in rows {
            found.push(session?);
        }
    }
    Ok(found)
}
