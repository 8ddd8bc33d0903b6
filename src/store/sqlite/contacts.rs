//! The addresses of local accounts in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    SqliteStore,
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    store::{Bound, Contact, Contacts, StoreResult},
    threepid::Threepid,
};

#[async_trait]
impl Contacts for SqliteStore {
    async fn owner(&self, threepid: &Threepid) -> StoreResult<Option<String>> {
        let threepid = threepid.clone();
        self.readers
            .ask(move |connection| owner(connection, &threepid))
    }

    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
        now: Timestamp,
    ) -> StoreResult<Bound> {
        let (user_id, threepid) = (user_id.to_owned(), threepid.clone());
        self.writer
            .run(Size::Many, move |connection| {
                let inserted = connection
                    .prepare_cached(
                        "INSERT INTO contact (medium, address, user_id, validated_at, added_at) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT (medium, address) DO NOTHING",
                    )?
                    .execute(params![
                        threepid.medium().as_str(), threepid.address(), user_id,
                        validated_at.map(|moment| moment.0), now.0
                    ])?;
                Ok(Verdict::Keep(if inserted > 0 {
                    Bound::Bound
                } else if owner(connection, &threepid)?.as_ref() == Some(&user_id) {
                    Bound::AlreadyYours
                } else {
                    Bound::OwnedByOther
                }))
            })
            .await
    }

    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> StoreResult<bool> {
        let (user_id, threepid) = (user_id.to_owned(), threepid.clone());
        self.write_one(move |connection| {
            let removed = connection
                .prepare_cached(
                    "DELETE FROM contact WHERE medium = ?1 AND address = ?2 AND user_id = ?3",
                )?
                .execute(params![
                    threepid.medium().as_str(),
                    threepid.address(),
                    user_id
                ])?;
            Ok(removed > 0)
        })
        .await
    }

    async fn contacts(
        &self,
        user_id: Option<&str>,
        after: Option<(&str, &str)>,
        most: u32,
    ) -> StoreResult<Vec<Contact>> {
        let user_id = user_id.map(str::to_owned);
        let (after_user, after_address) = after
            .map(|(user, address)| (user.to_owned(), address.to_owned()))
            .unzip();
        self.readers
            .ask_aside(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT user_id, medium, address, validated_at, added_at FROM contact
                         WHERE (?1 IS NULL OR user_id = ?1) AND (?2 IS NULL OR (user_id, address) > (?2, ?3))
                         ORDER BY user_id, address LIMIT ?4",
                    )?
                    .query_map(params![user_id, after_user, after_address, most], |row| {
                        Ok(Contact {
                            user_id: row.get(0)?,
                            medium: row.get(1)?,
                            address: row.get(2)?,
                            validated_at: row.get::<_, Option<i64>>(3)?.map(Timestamp),
                            added_at: Timestamp(row.get(4)?),
                        })
                    })?
                    .collect()
            }).await
    }
}

fn owner(connection: &Connection, threepid: &Threepid) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT user_id FROM contact WHERE medium = ?1 AND address = ?2")?
        .query_row(
            params![threepid.medium().as_str(), threepid.address()],
            |row| row.get(0),
        )
        .optional()
}
