//! Sessions of identity servers, in SQLite.

use rusqlite::{Connection, named_params, params};

use super::row::{self, SESSION};
use crate::{
    clock::Timestamp,
    session::Session,
    store::{NewProxied, Remembered},
};

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

/// Gives a scope free that was reserved until `until`.
pub(super) fn free(
    connection: &Connection,
    scope: [u8; 16],
    until: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM asking WHERE scope = ?1 AND until = ?2")?
        .execute(params![scope, until.0])?;
    Ok(())
}

/// The whole transaction after an identity server's answer.
pub(super) fn remember(
    connection: &Connection,
    proxied: &NewProxied,
) -> rusqlite::Result<Remembered> {
    if is_spent(connection, proxied)? {
        return Ok(Remembered::Spent);
    }
    let session = &proxied.session;
    let now = session.now;
    // What is another session at the server, or ran out before it proved anything, makes room.
    connection
        .prepare_cached(
            "UPDATE session SET replaced_at = :now
             WHERE scope = :scope AND replaced_at IS NULL
               AND (server_sid IS NOT :server_sid OR (expires_at <= :now AND validated_at IS NULL))",
        )?
        .execute(named_params! {
            ":scope": session.scope, ":now": now.0, ":server_sid": proxied.server_sid,
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
                 tries = iif(excluded.send_attempt > send_attempt, 0, tries),
                 send_attempt = max(send_attempt, excluded.send_attempt), next_link = excluded.next_link,
                 access_token = excluded.access_token
             WHERE validated_at IS NULL",
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
    connection
        .prepare_cached("DELETE FROM asking WHERE scope = ?1")?
        .execute([session.scope])?;
    Ok(Remembered::Yes)
}

/// Whether the session has proved an address in another row than the one that would go on.
fn is_spent(connection: &Connection, proxied: &NewProxied) -> rusqlite::Result<bool> {
    let session = &proxied.session;
    connection
        .prepare_cached(
            "SELECT count(*) FROM session
             WHERE server_pair = :server_pair AND server = :server AND medium = :medium AND address = :address
               AND validated_at IS NOT NULL AND NOT (scope = :scope AND replaced_at IS NULL)",
        )?
        .query_row(
            named_params! {
                ":server_pair": proxied.server_pair, ":server": proxied.server,
                ":medium": session.threepid.medium().as_str(), ":address": session.threepid.address(),
                ":scope": session.scope,
            },
            |row| Ok(row.get::<_, u32>(0)? > 0),
        )
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
