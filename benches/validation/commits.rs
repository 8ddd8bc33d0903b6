//! The floor's database: one thread that commits what waits in one transaction, and threads that "send" the mails.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::{
    Failure,
    fill::{Chance, now_ms},
};

/// A session's id, as long as ours.
pub(crate) type Sid = [u8; 21];

/// How many pieces one commit takes.
const GROUP: usize = 256;
/// How many threads send mails, and how many mails each takes at once.
const SENDERS: usize = 4;
const BATCH: usize = 16;
/// A mail about as long as ours.
const MAIL: &str = include_str!("../../templates/pages/page.css");

const VALIDATE: &str =
    "UPDATE session SET tries = ?2, validated_at = ?3, expires_at = ?4 WHERE sid = ?1";
const BUCKET: &str = "INSERT INTO bucket (key, full_at) VALUES (?1, ?2)";

/// What a request changes.
pub(crate) enum Change {
    /// `requestToken`: a session, a bucket and a message.
    Open {
        client_secret: String,
        email: String,
        send_attempt: i64,
    },
    /// A link: the session.
    ByLink(Sid),
    /// A code: the session, and the bucket of tries.
    ByCode(Sid),
    /// The outbox: these messages are being sent.
    Lease(Vec<i64>),
    /// The outbox: these messages were sent.
    Sent(Vec<i64>),
}

/// A change, and whom to tell that it is on the disk.
pub(crate) struct Piece {
    pub(crate) change: Change,
    pub(crate) reply: oneshot::Sender<Sid>,
}

/// Starts the writer and the senders; where to hand changes in.
pub(crate) fn start(database: &Path, mails: Option<&Path>) -> Result<Sender<Piece>, Failure> {
    let connection = Connection::open(database)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8000;
         PRAGMA wal_autocheckpoint = 4000;",
    )?;
    let (queue, waiting) = channel();
    let outbox = Arc::new(Outbox::default());
    if let Some(folder) = mails {
        fs::create_dir_all(folder)?;
    }
    for _ in 0..SENDERS {
        let (outbox, queue, mails) = (
            Arc::clone(&outbox),
            queue.clone(),
            mails.map(Path::to_owned),
        );
        thread::spawn(move || while send_some(&outbox, &queue, mails.as_deref()).is_ok() {});
    }
    thread::spawn(move || {
        if let Err(error) = write_all(&connection, &waiting, &outbox) {
            eprintln!("the floor's writer ended: {error}");
            std::process::exit(1);
        }
    });
    Ok(queue)
}

/// Messages that nobody sends yet.
#[derive(Default)]
struct Outbox {
    queued: Mutex<Vec<(i64, Sid)>>,
    filled: Condvar,
}

/// Leases, sends and records up to a batch of messages.
fn send_some(outbox: &Outbox, queue: &Sender<Piece>, mails: Option<&Path>) -> Result<(), Failure> {
    let batch = {
        let queued = outbox.queued.lock().map_err(|_| "poisoned")?;
        let mut queued = outbox
            .filled
            .wait_while(queued, |queued| queued.is_empty())
            .map_err(|_| "poisoned")?;
        let rest = queued.len().saturating_sub(BATCH);
        queued.split_off(rest)
    };
    let ids: Vec<i64> = batch.iter().map(|(id, _)| *id).collect();
    commit(queue, Change::Lease(ids.clone()))?;
    if let Some(folder) = mails {
        for (id, sid) in batch {
            write_mail(folder, id, sid)?;
        }
    }
    commit(queue, Change::Sent(ids))
}

fn commit(queue: &Sender<Piece>, change: Change) -> Result<(), Failure> {
    let (reply, durable) = oneshot::channel();
    queue.send(Piece { change, reply })?;
    durable.blocking_recv()?;
    Ok(())
}

/// A file that is there whole or not at all.
fn write_mail(folder: &Path, id: i64, sid: Sid) -> Result<(), Failure> {
    let unfinished = folder.join(format!(".{id}"));
    let mut file = File::create(&unfinished)?;
    file.write_all(format!("Message-ID: {sid:?}\r\n\r\n{MAIL}").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(format!("{id}.eml")))?;
    Ok(File::open(folder)?.sync_all()?)
}

fn write_all(
    connection: &Connection,
    waiting: &Receiver<Piece>,
    outbox: &Outbox,
) -> Result<(), Failure> {
    let mut random = Chance(u64::try_from(now_ms()?)?);
    let (mut done, mut messages) = (Vec::new(), Vec::new());
    while let Ok(first) = waiting.recv() {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut next = Some(first);
        while let Some(piece) = next {
            let sid = apply(connection, &piece.change, &mut random, &mut messages)?;
            done.push((piece.reply, sid));
            next = (done.len() < GROUP)
                .then(|| waiting.try_recv().ok())
                .flatten();
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        for (reply, sid) in done.drain(..) {
            let _ = reply.send(sid);
        }
        if !messages.is_empty() {
            outbox
                .queued
                .lock()
                .map_err(|_| "poisoned")?
                .append(&mut messages);
            outbox.filled.notify_all();
        }
    }
    Ok(())
}

fn apply(
    connection: &Connection,
    change: &Change,
    random: &mut Chance,
    messages: &mut Vec<(i64, Sid)>,
) -> Result<Sid, Failure> {
    let now = now_ms()?;
    let run = |statement: &str, values: &[&dyn rusqlite::ToSql]| {
        connection
            .prepare_cached(statement)
            .and_then(|mut prepared| prepared.execute(values))
    };
    match change {
        Change::Open {
            client_secret,
            email,
            send_attempt,
        } => {
            let mut sid: Sid = random.bytes();
            sid[..4].copy_from_slice(&u32::try_from(now / 1000)?.to_be_bytes());
            open(
                connection,
                sid,
                (client_secret, email, *send_attempt),
                random,
                now,
            )?;
            run(BUCKET, params![random.bytes::<16>(), now + 360_000])?;
            messages.push((queue(connection, sid, *send_attempt, now)?, sid));
            return Ok(sid);
        }
        Change::ByLink(sid) => {
            run(VALIDATE, params![sid, 0, now, now + 86_400_000])?;
        }
        Change::ByCode(sid) => {
            run(VALIDATE, params![sid, 1, now, now + 86_400_000])?;
            run(BUCKET, params![random.bytes::<16>(), now + 120_000])?;
        }
        Change::Lease(ids) => {
            for id in ids {
                run(
                    "UPDATE outbox SET holder = '12345-12345678', due_at = ?2, state = 'sending', deliveries = 1
                     WHERE id = ?1",
                    params![id, now + 120_000],
                )?;
            }
        }
        Change::Sent(ids) => {
            for id in ids {
                run(
                    "UPDATE outbox SET holder = NULL, finished_at = ?2, state = 'sent', outcome = 'written'
                     WHERE id = ?1",
                    params![id, now],
                )?;
            }
        }
    }
    Ok([0; 21])
}

fn open(
    connection: &Connection,
    sid: Sid,
    (client_secret, email, send_attempt): (&str, &str, i64),
    random: &mut Chance,
    now: i64,
) -> rusqlite::Result<usize> {
    let mut hash: [u8; 32] = random.bytes();
    hash[0] = client_secret.as_bytes()[0];
    connection
        .prepare_cached(
            "INSERT INTO session (sid, scope, key_id, secret_hash, purpose, medium, address, genuine, send_attempt,
                                  send_full_at, created_at, link_expires_at, code_expires_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, 'register', 'email', ?5, 1, ?6, ?7, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            sid,
            random.bytes::<16>(),
            b"fill",
            hash,
            email,
            send_attempt,
            now,
            now + 3_600_000,
            now + 900_000,
            now + 86_400_000,
        ])
}

fn queue(connection: &Connection, sid: Sid, attempt: i64, now: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at)
             VALUES (?1, ?2, 'register', '{\"network\":\"127.0.0.1\"}', ?3, ?4, ?3)",
        )?
        .execute(params![sid, attempt, now, now + 3_600_000])?;
    Ok(connection.last_insert_rowid())
}
