//! Sessions that are there already when a test begins: `THREEPID_STORED_SESSIONS`, none by default.

use std::{fs, path::Path, sync::OnceLock};

use rusqlite::Connection;
use tempfile::TempDir;
use threepid::store::sqlite::SqliteStore;

/// The moment around which [`super::app::TestApp`] begins, in milliseconds.
const NOW: i64 = 1_795_341_600_000;

/// Puts a database full of other people's sessions at `path`.
pub(crate) fn fill(path: &Path) {
    static FULL: OnceLock<Option<TempDir>> = OnceLock::new();
    if let Some(dir) = FULL.get_or_init(make) {
        fs::copy(dir.path().join("full.db"), path).expect("a copy of the full database");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn make() -> Option<TempDir> {
    let wanted = std::env::var("THREEPID_STORED_SESSIONS").ok()?;
    let wanted: u32 = wanted
        .parse()
        .expect("THREEPID_STORED_SESSIONS is a number");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("full.db");
    SqliteStore::migrate(&path).expect("a fresh database");
    let connection = Connection::open(&path).expect("the database");
    connection
        .execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO session (sid, scope, key_id, secret_hash, purpose, medium, address, genuine, send_attempt,
                                  send_full_at, created_at, link_expires_at, code_expires_at, expires_at)
             SELECT randomblob(21), randomblob(16), randomblob(4), randomblob(32), 'register', 'email',
                    'stranger' || i || '@example.net', 1, 1, ?2, ?2 - i, ?2 + 3600000, ?2 + 900000, ?2 + 86400000 - i
             FROM n",
            (wanted, NOW),
        )
        .expect("many sessions");
    connection
        .execute(
            "INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at, finished_at, state)
             SELECT sid, 1, 'register', '{}', created_at, link_expires_at, created_at, created_at, 'sent' FROM session",
            (),
        )
        .expect("their messages");
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("one whole file");
    Some(dir)
}
