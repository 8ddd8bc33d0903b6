//! The store on SQLite: WAL, durable commits, one writer that groups them, readers beside it.

use std::{
    fs::OpenOptions,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::time::Instant;

use self::{lock::Lock, readers::Readers, writer::Writer};
use super::StoreResult;

mod accounts;
mod associations;
mod buckets;
mod check;
mod claims;
mod contacts;
mod identity_accounts;
mod invites;
mod lock;
mod outbox;
mod proxied;
mod readers;
mod registrations;
mod row;
mod sessions;
mod sweep;
mod writer;

mod migrations {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// What a process wants to be to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one server: holds the lock for its life, runs migrations.
    Server,
    /// A command beside a server that may be running: writes in short transactions.
    Beside,
}

/// Why a database can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves it.
    #[error(
        "{path} is in use by {holder}. Stop that one first, or give this one a database of its own."
    )]
    Locked {
        /// The lock file.
        path: String,
        /// The process, as it wrote itself into the lock file.
        holder: String,
    },
    /// A newer program has migrated it.
    #[error(
        "{path} was written by a newer version (schema {found}; this program knows {known}). Install that version."
    )]
    Newer {
        /// The database.
        path: String,
        /// Its schema.
        found: i32,
        /// The newest schema that this program knows.
        known: i32,
    },
    /// It needs a migration, which only the server or `threepid migrate` runs.
    #[error(
        "{path} needs a migration. Restart the server, or run \"threepid migrate\" while it is stopped."
    )]
    Older {
        /// The database.
        path: String,
    },
    /// The file system, or SQLite, refuses.
    #[error("{path} can not be opened: {cause}")]
    Refused {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
}

/// What [`SqliteStore::migrate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MigrationReport {
    /// How many migrations ran now.
    pub applied: usize,
    /// The schema that the database has now.
    pub version: i32,
}

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    /// Where the sweeper left off.
    swept_to: Mutex<sweep::SweptTo>,
    /// The next hashes of a rotation of the pepper.
    rehashing: Mutex<Option<Arc<associations::Batch>>>,
    /// When it was last checked whether we can write, and what was found.
    checked: Mutex<Option<(Instant, StoreResult<()>)>>,
    /// Released when the store is dropped, after the last write.
    _lock: Option<Lock>,
}

impl SqliteStore {
    /// Opens the database, and makes it if there is none.
    ///
    /// # Errors
    /// [`OpenError`], whose text tells an operator what to do.
    pub fn open(path: &Path, role: Role) -> Result<Arc<Self>, OpenError> {
        let refused = |error: &dyn std::fmt::Display| refused(path, error);
        make_folder(path)?;
        // The lock comes first: a process that is refused has not touched the database.
        let lock = if role == Role::Server {
            Some(lock::lock(path)?)
        } else {
            None
        };
        make_file(path).map_err(|error| refused(&error))?;
        let mut connection = connect(path, false).map_err(|error| refused(&error))?;
        let found = schema(path, &connection)?;
        if role == Role::Server || found > newest() {
            migrate(path, &mut connection)?;
        } else if found < newest() {
            // A fresh or older database is brought up to date if no server holds it.
            let _lock = lock::lock(path).map_err(|_| OpenError::Older {
                path: path.display().to_string(),
            })?;
            migrate(path, &mut connection)?;
        }
        let readers = Readers::open(path.to_owned()).map_err(|error| refused(&error))?;
        let writer =
            Writer::start(connection, role == Role::Server).map_err(|error| refused(&error))?;
        Ok(Arc::new(Self {
            writer: Arc::new(writer),
            readers: Arc::new(readers),
            swept_to: Mutex::default(),
            rehashing: Mutex::default(),
            checked: Mutex::default(),
            _lock: lock,
        }))
    }

    /// Brings the database up to date, under the lock, and closes it again.
    ///
    /// # Errors
    /// [`OpenError`], whose text tells an operator what to do.
    pub fn migrate(path: &Path) -> Result<MigrationReport, OpenError> {
        make_folder(path)?;
        let _lock = lock::lock(path)?;
        make_file(path).map_err(|error| refused(path, &error))?;
        let mut connection = connect(path, false).map_err(|error| refused(path, &error))?;
        let applied = migrate(path, &mut connection)?;
        Ok(MigrationReport {
            applied,
            version: schema(path, &connection)?,
        })
    }

    /// The fingerprint of the newest server key that this database was used with; `None` for a fresh one.
    ///
    /// # Errors
    /// [`crate::store::StoreError`] if the database does not answer.
    pub fn key_fingerprint(&self) -> StoreResult<Option<String>> {
        self.readers
            .ask(|connection| meta(connection, "key_fingerprint"))
    }

    /// Records the fingerprint of the newest server key.
    ///
    /// # Errors
    /// [`crate::store::StoreError`] if the database does not answer.
    pub async fn set_key_fingerprint(&self, fingerprint: String) -> StoreResult<()> {
        self.write_one(move |connection| set_meta(connection, "key_fingerprint", &fingerprint))
            .await
    }

    /// The public key, in base64, that the identity server signed with last; `None` if it never did.
    ///
    /// # Errors
    /// [`crate::store::StoreError`] if the database does not answer.
    pub fn signing_key(&self) -> StoreResult<Option<String>> {
        self.readers
            .ask(|connection| meta(connection, "signing_key"))
    }

    /// The public keys, in base64, that the identity server signed with before that one.
    ///
    /// # Errors
    /// [`crate::store::StoreError`] if the database does not answer.
    pub fn older_signing_keys(&self) -> StoreResult<Vec<String>> {
        let older = self
            .readers
            .ask(|connection| meta(connection, "older_signing_keys"))?;
        let older = older.unwrap_or_default();
        Ok(older.split_whitespace().map(str::to_owned).collect())
    }

    /// Records the public key, in base64, that the identity server signs with from now on.
    ///
    /// # Errors
    /// [`crate::store::StoreError`] if the database does not answer.
    pub async fn set_signing_key(&self, public_key: String) -> StoreResult<()> {
        self.writer
            .run(writer::Size::Many, move |connection| {
                let last = meta(connection, "signing_key")?;
                if let Some(last) = last.filter(|last| *last != public_key) {
                    let older = meta(connection, "older_signing_keys")?.unwrap_or_default();
                    if !older.split_whitespace().any(|one| one == last) {
                        set_meta(connection, "older_signing_keys", &format!("{older} {last}"))?;
                    }
                }
                set_meta(connection, "signing_key", &public_key)?;
                Ok(writer::Verdict::Keep(()))
            })
            .await
    }

    /// Finishes what waits, and closes the database.
    pub async fn close(self: Arc<Self>) {
        let closing = tokio::task::spawn_blocking(move || {
            self.writer.stop();
            self.readers.close();
        });
        let _ = closing.await;
    }

    /// Runs one statement in the next group.
    async fn write_one<T, W>(&self, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer
            .run(writer::Size::One, |connection| {
                work(connection).map(writer::Verdict::Keep)
            })
            .await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writer.stop();
        self.readers.close();
    }
}

fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .map(Some)
        .or_else(none_if_no_row)
}

fn set_meta(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [name, value],
        )
        .map(drop)
}

fn none_if_no_row<T>(error: rusqlite::Error) -> rusqlite::Result<Option<T>> {
    if error == rusqlite::Error::QueryReturnedNoRows {
        Ok(None)
    } else {
        Err(error)
    }
}

fn refused(path: &Path, cause: &dyn std::fmt::Display) -> OpenError {
    OpenError::Refused {
        path: path.display().to_string(),
        cause: cause.to_string(),
    }
}

/// Makes the database's folder, for its owner alone.
fn make_folder(path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder
        .create(folder)
        .map_err(|error| refused(folder, &error))
}

/// Makes an empty database for its owner alone, if there is none; SQLite gives its other files that mode too.
///
/// One that exists is not even opened: closing it again would drop all locks that this process holds on it.
fn make_file(path: &Path) -> std::io::Result<()> {
    match private_options().create_new(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.read(true).write(true);
    options
}

fn connect(path: &Path, read_only: bool) -> rusqlite::Result<Connection> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    rusqlite::vtab::array::load_module(&connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Without it SQLite plans a statement anew whenever a bound value might suggest another plan: each time, here.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    if read_only {
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2000;")?;
    } else {
        // synchronous=FULL: a commit is on the disk before it is answered.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8000;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY;",
        )?;
    }
    Ok(connection)
}

/// The newest schema that this program knows.
fn newest() -> i32 {
    migrations::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0)
}

/// The schema that the database has; 0 for a fresh one.
fn schema(path: &Path, connection: &Connection) -> Result<i32, OpenError> {
    let exists: bool = connection
        .query_row(
            "SELECT count(*) FROM sqlite_master WHERE name = 'refinery_schema_history'",
            [],
            |row| row.get(0),
        )
        .map_err(|error| refused(path, &error))?;
    if !exists {
        return Ok(0);
    }
    connection
        .query_row(
            "SELECT coalesce(max(version), 0) FROM refinery_schema_history",
            [],
            |row| row.get(0),
        )
        .map_err(|error| refused(path, &error))
}

/// Runs the migrations that are missing, each in a transaction of its own; how many.
fn migrate(path: &Path, connection: &mut Connection) -> Result<usize, OpenError> {
    let (found, known) = (schema(path, connection)?, newest());
    if found > known {
        return Err(OpenError::Newer {
            path: path.display().to_string(),
            found,
            known,
        });
    }
    let report = migrations::migrations::runner()
        .run(connection)
        .map_err(|error| refused(path, &error))?;
    Ok(report.applied_migrations().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, store::Outbox, threepid::Medium};

    #[test]
    fn a_second_server_is_refused_and_told_who_holds_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data").join("threepid.db");
        let first = SqliteStore::open(&path, Role::Server).unwrap();

        let second = SqliteStore::open(&path, Role::Server)
            .unwrap_err()
            .to_string();
        let migration = SqliteStore::migrate(&path).unwrap_err().to_string();

        let holder = format!("process {}", std::process::id());
        assert!(
            second.contains(&holder) && migration.contains(&holder),
            "{second} / {migration}"
        );
        drop(first);
        assert!(SqliteStore::open(&path, Role::Server).is_ok());
    }

    #[tokio::test]
    async fn a_refused_second_open_takes_nothing_from_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("threepid.db");
        let first = SqliteStore::open(&path, Role::Server).unwrap();
        first
            .set_key_fingerprint("before".to_owned())
            .await
            .unwrap();
        assert!(SqliteStore::open(&path, Role::Server).is_err());
        drop(SqliteStore::open(&path, Role::Beside).unwrap());
        let other_process = |sql: &str| {
            let script = format!(
                "import sqlite3; c = sqlite3.connect({:?}); print(c.execute({sql:?}).fetchall()); c.close()",
                path.display().to_string()
            );
            let output = std::process::Command::new("python3")
                .args(["-c", &script])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        other_process("SELECT 1");

        first.set_key_fingerprint("after".to_owned()).await.unwrap();

        assert!(other_process("SELECT value FROM meta").contains("after"));
    }

    #[test]
    fn the_database_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("threepid.db");
        let _store = SqliteStore::open(&path, Role::Server).unwrap();
        for name in [
            "threepid.db",
            "threepid.db-wal",
            "threepid.db-shm",
            "threepid.db.lock",
        ] {
            let mode = std::fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions();
            assert_eq!(
                std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
                0o600,
                "{name}"
            );
        }
    }

    #[test]
    fn a_command_opens_beside_a_server_and_makes_a_fresh_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("threepid.db");
        drop(SqliteStore::open(&path, Role::Beside).unwrap());
        let _server = SqliteStore::open(&path, Role::Server).unwrap();
        assert!(SqliteStore::open(&path, Role::Beside).is_ok());
    }

    #[tokio::test]
    async fn mails_that_an_older_version_queued_are_still_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("threepid.db");
        let mut old = Connection::open(&path).unwrap();
        migrations::migrations::runner()
            .set_target(refinery::Target::Version(1))
            .run(&mut old)
            .unwrap();
        old.execute_batch(
            "INSERT INTO session (sid, scope, key_id, secret_hash, purpose, medium, address, genuine, send_attempt,
                                  send_full_at, created_at, link_expires_at, code_expires_at, expires_at)
             VALUES (randomblob(21), randomblob(16), randomblob(4), randomblob(32), 'add', 'email', 'a@b.org', 1, 1,
                     0, 0, 9000, 9000, 9000);
             INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at)
             SELECT sid, 1, 'add', '{}', 0, 9000, 0 FROM session;",
        )
        .unwrap();
        drop(old);

        let store = SqliteStore::open(&path, Role::Server).unwrap();
        let (now, until) = (Timestamp(1000), Timestamp(2000));
        let texts = store.lease(Medium::Msisdn, "w", 9, now, until).await;
        let mails = store.lease(Medium::Email, "w", 9, now, until).await;

        assert!(texts.unwrap().is_empty());
        assert_eq!(mails.unwrap().ready[0].to.address(), "a@b.org");
    }

    #[test]
    fn a_database_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("threepid.db");
        assert_eq!(
            SqliteStore::migrate(&path).unwrap(),
            MigrationReport {
                applied: usize::try_from(newest()).unwrap(),
                version: newest()
            }
        );
        assert_eq!(SqliteStore::migrate(&path).unwrap().applied, 0);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute(
                "UPDATE refinery_schema_history SET version = version + 100",
                [],
            )
            .unwrap();

        let refused = SqliteStore::open(&path, Role::Server).unwrap_err();

        assert!(matches!(refused, OpenError::Newer { .. }), "{refused}");
        let refused = SqliteStore::open(&path, Role::Beside).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { .. }), "{refused}");
    }
}
