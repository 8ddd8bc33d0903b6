//! Accounts of the identity server in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    SqliteStore,
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    store::{AcceptedPolicy, IdentityAccount, IdentityAccounts, NewIdentityToken, StoreResult},
};

#[async_trait]
impl IdentityAccounts for SqliteStore {
    async fn add_identity_token(&self, token: NewIdentityToken) -> StoreResult<()> {
        self.writer
            .run(Size::Many, move |connection| {
                add(connection, &token).map(Verdict::Keep)
            })
            .await
    }

    async fn identity_account(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<Option<IdentityAccount>> {
        self.readers
            .ask(move |connection| find(connection, hash, now))
    }

    async fn renew_identity_token(&self, hash: [u8; 32], expires_at: Timestamp) -> StoreResult<()> {
        self.write_one(move |connection| {
            connection
                .prepare_cached("UPDATE identity_token SET expires_at = ?2 WHERE hash = ?1")?
                .execute(params![hash, expires_at.0])
                .map(drop)
        })
        .await
    }

    async fn remove_identity_token(&self, hash: [u8; 32], now: Timestamp) -> StoreResult<bool> {
        // Strangers may make tokens up as fast as they like: that costs no write.
        let found = self
            .readers
            .ask(move |connection| find(connection, hash, now))?;
        if found.is_none() {
            return Ok(false);
        }
        self.write_one(move |connection| {
            let gone = connection
                .prepare_cached("DELETE FROM identity_token WHERE hash = ?1 AND expires_at > ?2")?
                .execute(params![hash, now.0])?;
            Ok(gone > 0)
        })
        .await
    }

    async fn accept_policies(
        &self,
        user_id: &str,
        policies: Vec<AcceptedPolicy>,
        now: Timestamp,
    ) -> StoreResult<()> {
        let user_id = user_id.to_owned();
        self.writer
            .run(Size::Many, move |connection| {
                let mut accept = connection.prepare_cached(
                    "INSERT INTO accepted_policy (user_id, policy, version, accepted_at)
                     VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                )?;
                for AcceptedPolicy { policy, version } in policies {
                    accept.execute(params![user_id, policy, version, now.0])?;
                }
                Ok(Verdict::Keep(()))
            })
            .await
    }
}

fn add(connection: &Connection, token: &NewIdentityToken) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO identity_token (hash, user_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            token.hash,
            token.user_id,
            token.now.0,
            token.expires_at.0
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM identity_token WHERE user_id = ?1 AND hash <> ?4 AND (expires_at <= ?3 OR hash NOT IN
               (SELECT hash FROM identity_token WHERE user_id = ?1 ORDER BY created_at DESC, hash = ?4 DESC LIMIT ?2))",
        )?
        .execute(params![token.user_id, token.most, token.now.0, token.hash])
        .map(drop)
}

fn find(
    connection: &Connection,
    hash: [u8; 32],
    now: Timestamp,
) -> rusqlite::Result<Option<IdentityAccount>> {
    let found: Option<(String, i64)> = connection
        .prepare_cached(
            "SELECT user_id, expires_at FROM identity_token WHERE hash = ?1 AND expires_at > ?2",
        )?
        .query_row(params![hash, now.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((user_id, expires_at)) = found else {
        return Ok(None);
    };
    let accepted = connection
        .prepare_cached("SELECT policy, version FROM accepted_policy WHERE user_id = ?1")?
        .query_map([&user_id], |row| {
            Ok(AcceptedPolicy {
                policy: row.get(0)?,
                version: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(IdentityAccount {
        user_id,
        expires_at: Timestamp(expires_at),
        accepted,
    }))
}
