//! Databases that hold sessions already.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, params};
use threepid::store::sqlite::SqliteStore;

use crate::Failure;

const HOUR: i64 = 3_600_000;
/// One in so many sessions still has a bucket that is not full.
const BUCKET_EVERY: usize = 100;

/// Makes a database with `sessions` stored sessions of the last 23 hours, their mails sent; none is to be swept.
pub(crate) fn database(folder: &Path, sessions: usize) -> Result<PathBuf, Failure> {
    fs::create_dir_all(folder)?;
    let path = folder.join("threepid.db");
    SqliteStore::migrate(&path)?;
    let mut connection = Connection::open(&path)?;
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;")?;
    let rows = connection.transaction()?;
    insert(&rows, sessions)?;
    rows.commit()?;
    connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(path)
}

fn insert(rows: &Connection, sessions: usize) -> Result<(), Failure> {
    let now = now_ms()?;
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let mut session = rows.prepare(
        "INSERT INTO session (sid, scope, key_id, secret_hash, purpose, medium, address, genuine, send_attempt,
                              send_full_at, created_at, link_expires_at, code_expires_at, expires_at, validated_at)
         VALUES (?1, ?2, ?3, ?4, 'register', 'email', ?5, 1, 1, ?6, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let mut outbox = rows.prepare(
        "INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at, deliveries,
                             finished_at, state, outcome)
         VALUES (?1, 1, 'register', '{\"network\":\"127.0.0.1\"}', ?2, ?3, ?2, 1, ?2, 'sent', 'written')",
    )?;
    let mut bucket = rows.prepare("INSERT INTO bucket (key, full_at) VALUES (?1, ?2)")?;
    let span = 23 * HOUR;
    for number in 0..sessions {
        // In the order of their making, as their ids are.
        let created_at = now - span + span * i64::try_from(number)? / i64::try_from(sessions)?;
        let mut sid: [u8; 21] = chance.bytes();
        sid[..4].copy_from_slice(&u32::try_from(created_at / 1000)?.to_be_bytes());
        let validated_at = number.is_multiple_of(2).then_some(created_at + 60_000);
        session.execute(params![
            sid,
            chance.bytes::<16>(),
            b"fill",
            chance.bytes::<32>(),
            format!("person{number:09}@example.org"),
            created_at,
            created_at + HOUR,
            created_at + HOUR / 4,
            created_at + 24 * HOUR,
            validated_at,
        ])?;
        outbox.execute(params![sid, created_at, created_at + HOUR])?;
        if number.is_multiple_of(BUCKET_EVERY) {
            bucket.execute(params![chance.bytes::<16>(), now + 2 * HOUR])?;
        }
    }
    Ok(())
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "rows of a real day")]
pub(crate) fn now_ms() -> Result<i64, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}

/// Quick bytes that look random (`SplitMix64`).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for part in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^= mixed >> 31;
            part.copy_from_slice(&mixed.to_le_bytes()[..part.len()]);
        }
        bytes
    }
}
