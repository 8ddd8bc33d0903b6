//! A database that holds associations already, and what is asked of it.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use threepid::store::sqlite::SqliteStore;

use crate::Failure;

/// The pepper that the database begins with.
pub(crate) const PEPPER: &str = "matrixrocks";

/// The address of one association; one in four is a phone's.
pub(crate) fn address(number: u32) -> (String, &'static str) {
    if number.is_multiple_of(4) {
        (format!("4477{number:08}"), "msisdn")
    } else {
        (format!("person{number:09}@example.org"), "email")
    }
}

/// The hash of an address.
pub(crate) fn hash(number: u32, pepper: &str) -> [u8; 32] {
    let (address, medium) = address(number);
    Sha256::digest(format!("{address} {medium} {pepper}")).into()
}

/// The body of a lookup of these addresses.
pub(crate) fn lookup(numbers: impl Iterator<Item = u32>, pepper: &str) -> String {
    let quoted = numbers.map(|number| {
        let hash = URL_SAFE_NO_PAD.encode(hash(number, pepper));
        format!("\"{hash}\"")
    });
    let addresses: Vec<_> = quoted.collect();
    let addresses = addresses.join(",");
    format!(r#"{{"algorithm":"sha256","pepper":"{pepper}","addresses":[{addresses}]}}"#)
}

/// Makes a database with this many associations, of which nobody is to be told.
pub(crate) fn database(folder: &Path, associations: u32) -> Result<(), Failure> {
    let path = folder.join("threepid.db");
    SqliteStore::migrate(&path)?;
    let mut connection = Connection::open(&path)?;
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;")?;
    let rows = connection.transaction()?;
    let now = now_ms()?;
    rows.execute(
        "INSERT INTO pepper (id, value, state, since) VALUES (1, ?1, 'current', ?2)",
        params![PEPPER, now],
    )?;
    {
        let mut insert = rows.prepare(
            "INSERT INTO association (id, medium, address, user_id, at, proved_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        )?;
        let mut hashes = Vec::new();
        for number in 0..associations {
            let (address, medium) = address(number);
            let user_id = format!("@person{number:09}:example.org");
            insert.execute(params![number + 1, medium, address, user_id, now])?;
            hashes.push((hash(number, PEPPER), user_id));
        }
        hashes.sort_unstable();
        let mut insert = rows
            .prepare("INSERT INTO association_hash (pepper, hash, user_id) VALUES (1, ?1, ?2)")?;
        for (hash, user_id) in hashes {
            insert.execute(params![hash, user_id])?;
        }
    }
    rows.commit()?;
    connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(())
}

/// Lets the pepper be older than any lifetime, while no server runs.
pub(crate) fn age_pepper(folder: &Path) -> Result<(), Failure> {
    let connection = Connection::open(folder.join("threepid.db"))?;
    connection.execute("UPDATE pepper SET since = 0", [])?;
    Ok(())
}

/// Whether the old hashes are all gone.
pub(crate) fn is_rotated(folder: &Path) -> Result<bool, Failure> {
    let connection = Connection::open(folder.join("threepid.db"))?;
    let only = "SELECT count(*) = 1 FROM pepper";
    Ok(connection.query_row(only, [], |row| row.get(0))?)
}

/// Numbers that look random (`SplitMix64`).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// One below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        u32::try_from(mixed % u64::from(end)).expect("it is below a u32")
    }
}

#[expect(clippy::disallowed_methods, reason = "rows of a real day")]
fn now_ms() -> Result<i64, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}
