//! The one writer: a thread that commits in groups.
//!
//! Requests hand it a piece of work and wait. It runs all that are waiting inside one transaction, each in a savepoint
//! of its own, and answers them after the commit is durable: under load one fsync pays for many requests, alone a
//! request waits for nobody.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use crate::store::{StoreError, StoreResult};

/// How many pieces of work may wait; beyond it, requests are refused before memory grows.
const QUEUE: usize = 2048;
/// How many members one group has at most, and how long it takes new ones.
const GROUP_MEMBERS: usize = 256;
const GROUP_TIME: Duration = Duration::from_millis(10);

/// What a piece of work wants done with its changes.
pub(super) enum Verdict<T> {
    /// Commit them.
    Keep(T),
    /// Roll them back, and answer all the same.
    Undo(T),
}

/// Whether a piece of work is one statement, which undoes itself when it fails, or several.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    One,
    Many,
}

/// The handle to the writer thread.
pub(super) struct Writer {
    queue: Mutex<Option<SyncSender<Box<dyn Member>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Writer")
    }
}

impl Writer {
    /// Starts the thread, which owns `connection` from now on; whether it `tidies` the database at its end.
    pub(super) fn start(connection: Connection, tidies: bool) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("threepid-writer".to_owned())
            .spawn(move || write_all(&connection, &waiting, tidies))?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `work` in the next group. Returns when its changes are durable, or that nothing was changed.
    pub(super) async fn run<T, W>(&self, size: Size, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<Verdict<T>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Box::new(Work {
            size,
            run: Some(work),
            result: None,
            reply,
        }))?;
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the writer has stopped".to_owned())))
    }

    fn enqueue(&self, member: Box<dyn Member>) -> StoreResult<()> {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let queue = queue
            .as_ref()
            .ok_or_else(|| StoreError::Unavailable("the store is closed".to_owned()))?;
        queue.try_send(member).map_err(|error| {
            StoreError::Unavailable(match error {
                TrySendError::Full(_) => format!("{QUEUE} requests wait for the database already"),
                TrySendError::Disconnected(_) => "the writer has stopped".to_owned(),
            })
        })
    }

    /// Finishes what waits and ends the thread.
    pub(super) fn stop(&self) {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the database writer ended by a panic");
        }
    }
}

/// One piece of work in a group.
trait Member: Send {
    fn size(&self) -> Size;
    /// Runs it; whether its changes stay.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers it, when the fate of the group is known.
    fn answer(self: Box<Self>, committed: StoreResult<()>);
}

struct Work<T, W> {
    size: Size,
    run: Option<W>,
    result: Option<StoreResult<T>>,
    reply: oneshot::Sender<StoreResult<T>>,
}

impl<T, W> Member for Work<T, W>
where
    T: Send,
    W: FnOnce(&Connection) -> rusqlite::Result<Verdict<T>> + Send,
{
    fn size(&self) -> Size {
        self.size
    }

    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.run.take() else {
            return false;
        };
        // Whoever asked has gone and was told nothing: nothing is to be done.
        if self.reply.is_closed() {
            return false;
        }
        let (result, keep) = match catch_unwind(AssertUnwindSafe(|| work(connection))) {
            Ok(Ok(Verdict::Keep(value))) => (Ok(value), true),
            Ok(Ok(Verdict::Undo(value))) => (Ok(value), false),
            Ok(Err(error)) => (Err(store_error(&error)), false),
            Err(_) => (
                Err(StoreError::Failed(
                    "a piece of database work panicked".to_owned(),
                )),
                false,
            ),
        };
        self.result = Some(result);
        keep
    }

    fn answer(self: Box<Self>, committed: StoreResult<()>) {
        let never_ran = || {
            Err(StoreError::Unavailable(
                "the transaction was lost".to_owned(),
            ))
        };
        let result = match (committed, self.result) {
            // What failed by itself keeps its own reason; what changed nothing needs no commit.
            (Ok(()), result) => result.unwrap_or_else(never_ran),
            (Err(_), Some(Err(own))) => Err(own),
            (Err(lost), _) => Err(lost),
        };
        // Whoever asked may have gone away.
        let _ = self.reply.send(result);
    }
}

/// The thread's whole life.
fn write_all(connection: &Connection, waiting: &Receiver<Box<dyn Member>>, tidies: bool) {
    while let Ok(first) = waiting.recv() {
        let mut group = Vec::with_capacity(8);
        group.push(first);
        let committed = write_group(connection, waiting, &mut group);
        if let Err(error) = &committed {
            tracing::warn!(members = group.len(), %error, "a group of database writes was lost");
        }
        for member in group {
            member.answer(committed.clone());
        }
    }
    if tidies {
        let _ = connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

/// Runs `group`, and all that wait by now, in one transaction, and commits it.
#[expect(
    clippy::disallowed_methods,
    reason = "the length of a group is no time that a rule sees"
)]
fn write_group(
    connection: &Connection,
    waiting: &Receiver<Box<dyn Member>>,
    group: &mut Vec<Box<dyn Member>>,
) -> StoreResult<()> {
    // A transaction that an error left behind, if any.
    roll_back(connection);
    // Another process that holds the lock held all of us up: those who came meanwhile need not wait as long again.
    execute(connection, "BEGIN IMMEDIATE").inspect_err(|_| group.extend(waiting.try_iter()))?;
    let began = Instant::now();
    let mut ran = 0;
    loop {
        while let Some(member) = group.get_mut(ran) {
            run_member(connection, member.as_mut())?;
            ran += 1;
        }
        if ran >= GROUP_MEMBERS || began.elapsed() >= GROUP_TIME {
            break;
        }
        let Ok(next) = waiting.try_recv() else { break };
        group.push(next);
    }
    execute(connection, "COMMIT").inspect_err(|_| {
        if !connection.is_autocommit() {
            let _ = execute(connection, "ROLLBACK");
        }
    })
}

/// Runs one member in its savepoint. An error means that the whole transaction is gone.
fn run_member(connection: &Connection, member: &mut dyn Member) -> StoreResult<()> {
    let many = member.size() == Size::Many;
    if many {
        execute(connection, "SAVEPOINT member").inspect_err(|_| roll_back(connection))?;
    }
    let keep = member.run(connection);
    if connection.is_autocommit() {
        return Err(StoreError::Unavailable(
            "the database gave up the transaction".to_owned(),
        ));
    }
    if many && !keep {
        execute(connection, "ROLLBACK TO member").inspect_err(|_| roll_back(connection))?;
    }
    if many {
        execute(connection, "RELEASE member").inspect_err(|_| roll_back(connection))?;
    }
    Ok(())
}

fn roll_back(connection: &Connection) {
    if !connection.is_autocommit() {
        let _ = execute(connection, "ROLLBACK");
    }
}

fn execute(connection: &Connection, statement: &str) -> StoreResult<()> {
    let done = connection
        .prepare_cached(statement)
        .and_then(|mut prepared| prepared.execute([]));
    done.map(drop).map_err(|error| store_error(&error))
}

/// Tells a database that can not answer just now from a fault.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    let passing = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed
        )
    );
    if passing {
        StoreError::Unavailable(error.to_string())
    } else {
        StoreError::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests;
