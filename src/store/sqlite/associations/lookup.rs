//! Who is found by which address.

use std::{collections::HashMap, rc::Rc};

use rusqlite::{Connection, OptionalExtension, params, types::Value};

use crate::{
    clock::Timestamp,
    lookup_hash,
    store::{LookedUp, Pepper},
    threepid::Medium,
};

/// How many addresses are looked up where they are asked: more take longer than handing them to another thread and back.
pub(super) const SHORT: usize = 32;

/// The current pepper.
pub(super) fn pepper(connection: &Connection) -> rusqlite::Result<Option<Pepper>> {
    connection
        .prepare_cached("SELECT value, since FROM pepper WHERE state = 'current'")?
        .query_row([], |row| {
            Ok(Pepper {
                value: row.get(0)?,
                since: Timestamp(row.get(1)?),
            })
        })
        .optional()
}

/// The current pepper; if there is none yet, it is `first`.
pub(super) fn first_pepper(
    connection: &Connection,
    first: &str,
    now: Timestamp,
) -> rusqlite::Result<Pepper> {
    if let Some(pepper) = pepper(connection)? {
        return Ok(pepper);
    }
    connection
        .prepare_cached("INSERT INTO pepper (value, state, since) VALUES (?1, 'current', ?2)")?
        .execute(params![first, now.0])?;
    Ok(Pepper {
        value: first.to_owned(),
        since: now,
    })
}

/// Answers hashes. Pepper and hashes are those of one moment: a rotation may end in between.
pub(super) fn hashes(
    connection: &Connection,
    pepper: &str,
    hashes: &[String],
) -> rusqlite::Result<LookedUp> {
    let moment = connection.unchecked_transaction()?;
    let pepper = match is_current(&moment, pepper)? {
        Current::Yes(id) => id,
        Current::No(current) => return Ok(LookedUp::OtherPepper(current)),
        Current::None => return Ok(LookedUp::Found(HashMap::new())),
    };
    let mut asked: Vec<_> = hashes
        .iter()
        .filter_map(|text| lookup_hash::decode(text))
        .collect();
    // In the order of the index, so that each of its pages is read once.
    asked.sort_unstable();
    let asked = asked
        .iter()
        .map(|hash| Value::Blob(hash.to_vec()))
        .collect();
    let asked: Rc<Vec<Value>> = Rc::new(asked);
    // The array is the outer loop: each of its hashes is one step down the index.
    let mut select = moment.prepare_cached(
        "SELECT hash, user_id FROM rarray(?2) AS asked
         CROSS JOIN association_hash ON pepper = ?1 AND hash = asked.value",
    )?;
    let rows = select.query_map(params![pepper, asked], |row| {
        let hash: [u8; 32] = row.get(0)?;
        Ok((lookup_hash::encode(&hash), row.get(1)?))
    })?;
    rows.collect::<rusqlite::Result<_>>().map(LookedUp::Found)
}

/// Answers addresses in clear.
pub(super) fn plain(
    connection: &Connection,
    pepper: &str,
    mut addresses: Vec<(Medium, String)>,
) -> rusqlite::Result<LookedUp> {
    let moment = connection.unchecked_transaction()?;
    if let Current::No(current) = is_current(&moment, pepper)? {
        return Ok(LookedUp::OtherPepper(current));
    }
    addresses.sort_unstable_by(|one, other| one.1.cmp(&other.1));
    let mut select = moment
        .prepare_cached("SELECT user_id FROM association WHERE medium = ?1 AND address = ?2")?;
    let mut found = HashMap::new();
    for (medium, address) in addresses {
        let user_id = select.query_row(params![medium.as_str(), address], |row| row.get(0));
        if let Some(user_id) = user_id.optional()? {
            found.insert(format!("{address} {medium}"), user_id);
        }
    }
    Ok(LookedUp::Found(found))
}

/// Whether a pepper is the current one.
enum Current {
    /// It is, and is the row of this name.
    Yes(i64),
    /// It is not, but this is.
    No(String),
    /// There is none yet, and no association.
    None,
}

fn is_current(connection: &Connection, pepper: &str) -> rusqlite::Result<Current> {
    let current: Option<(i64, String)> = connection
        .prepare_cached("SELECT id, value FROM pepper WHERE state = 'current'")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match current {
        Some((id, value)) if value == pepper => Current::Yes(id),
        Some((_, value)) => Current::No(value),
        None => Current::None,
    })
}
