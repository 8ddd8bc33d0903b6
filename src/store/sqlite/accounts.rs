//! What account management keeps, in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, row};
use crate::{
    clock::Timestamp,
    store::{Binding, Bindings, NewUia, StoreResult, Uia, UiaRow},
    threepid::Threepid,
};

/// The most bindings of one account that are kept: the newest.
const MOST_BINDINGS: u32 = 50;

#[async_trait]
impl Uia for SqliteStore {
    async fn remember_uia(&self, session: NewUia) -> StoreResult<()> {
        self.write_one(move |connection| remember(connection, &session))
            .await
    }

    async fn find_uia(&self, id: [u8; 32], now: Timestamp) -> StoreResult<Option<UiaRow>> {
        self.readers.ask(move |connection| {
            connection
                .prepare_cached("SELECT sealed FROM uia WHERE id = ?1 AND expires_at > ?2")?
                .query_row(params![id, now.0], |row| {
                    Ok(UiaRow {
                        sealed: row.get(0)?,
                    })
                })
                .optional()
        })
    }

    async fn forget_uia(&self, id: [u8; 32]) -> StoreResult<()> {
        self.write_one(move |connection| {
            connection
                .prepare_cached("DELETE FROM uia WHERE id = ?1")?
                .execute([id])?;
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Bindings for SqliteStore {
    async fn remember_binding(&self, binding: Binding) -> StoreResult<()> {
        self.write_one(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO binding (user_id, medium, address, server, key_id, sealed, bound_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (user_id, medium, address, server) DO UPDATE SET
                         key_id = excluded.key_id, sealed = excluded.sealed, bound_at = excluded.bound_at",
                )?
                .execute(params![
                    binding.user_id,
                    binding.threepid.medium().as_str(),
                    binding.threepid.address(),
                    binding.server,
                    binding.key_id,
                    binding.sealed,
                    binding.bound_at.0,
                ])?;
            connection
                .prepare_cached(
                    "DELETE FROM binding WHERE user_id = ?1 AND (medium, address, server) NOT IN
                       (SELECT medium, address, server FROM binding WHERE user_id = ?1
                        ORDER BY bound_at DESC LIMIT ?2)",
                )?
                .execute(params![binding.user_id, MOST_BINDINGS])?;
            Ok(())
        })
        .await
    }

    async fn bindings(
        &self,
        user_id: &str,
        threepid: Option<&Threepid>,
    ) -> StoreResult<Vec<Binding>> {
        let user_id = user_id.to_owned();
        let (medium, address) = threepid
            .map(|threepid| (threepid.medium().as_str(), threepid.address().to_owned()))
            .unzip();
        self.readers.ask(move |connection| {
            connection
                .prepare_cached(
                    "SELECT user_id, medium, address, server, key_id, sealed, bound_at FROM binding
                     WHERE user_id = ?1 AND (?2 IS NULL OR (medium = ?2 AND address = ?3))
                     ORDER BY bound_at DESC LIMIT ?4",
                )?
                .query_map(params![user_id, medium, address, MOST_BINDINGS], binding)?
                .collect()
        })
    }

    async fn forget_binding(
        &self,
        user_id: &str,
        threepid: &Threepid,
        server: &str,
    ) -> StoreResult<()> {
        let (user_id, threepid) = (user_id.to_owned(), threepid.clone());
        let server = server.to_owned();
        self.write_one(move |connection| {
            connection
                .prepare_cached(
                    "DELETE FROM binding WHERE user_id = ?1 AND medium = ?2 AND address = ?3 AND server = ?4",
                )?
                .execute(params![
                    user_id,
                    threepid.medium().as_str(),
                    threepid.address(),
                    server
                ])?;
            Ok(())
        })
        .await
    }
}

pub(super) fn remember(connection: &Connection, session: &NewUia) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO uia (id, sealed, expires_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed, expires_at = excluded.expires_at",
        )?
        .execute(params![session.id, session.sealed, session.expires_at.0])?;
    Ok(())
}

fn binding(row: &Row<'_>) -> rusqlite::Result<Binding> {
    Ok(Binding {
        user_id: row.get(0)?,
        threepid: Threepid::stored(row::medium(row, 1)?, row.get(2)?),
        server: row.get(3)?,
        key_id: row.get(4)?,
        sealed: row.get(5)?,
        bound_at: Timestamp(row.get(6)?),
    })
}
