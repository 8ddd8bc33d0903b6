//! Read-only connections, for whoever asks.
//!
//! A look-up by an index takes some microseconds, less than handing it to another thread and back: it is answered where
//! it is asked. What may take longer is asked aside.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{connect, writer::store_error};
use crate::store::{StoreError, StoreResult};

/// How many connections are kept while nobody asks.
const KEPT: usize = 4;
/// How many questions are asked aside at one time: each has a connection, and a thread of those that may wait.
const MOST_ASIDE: usize = 6;

/// The connections that nobody uses just now; `None` once the store is closed.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Option<Vec<Connection>>>,
    aside: Arc<Semaphore>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Readers")
    }
}

impl Readers {
    /// Opens the first connection, to see that it works; others follow when they are needed.
    pub(super) fn open(path: PathBuf) -> rusqlite::Result<Self> {
        let first = connect(&path, true)?;
        let idle = Mutex::new(Some(vec![first]));
        let aside = Arc::new(Semaphore::new(MOST_ASIDE));
        Ok(Self { path, idle, aside })
    }

    /// Asks the database what an index answers.
    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> StoreResult<T> {
        let connection = self.take()?;
        let answer = catch_unwind(AssertUnwindSafe(|| question(&connection)));
        self.put_back(connection);
        match answer {
            Ok(answer) => answer.map_err(|error| store_error(&error)),
            Err(_) => Err(StoreError::Failed(
                "a question to the database panicked".to_owned(),
            )),
        }
    }

    /// Asks the database what may take a while, on a thread that may wait; when many are asked, the others wait for
    /// their turn.
    pub(super) async fn ask_aside<T, Q>(self: &Arc<Self>, question: Q) -> StoreResult<T>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let turn = Arc::clone(&self.aside).acquire_owned().await;
        let readers = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || {
            // Held to the end of the question, even if nobody waits for the answer any more.
            let _turn = turn;
            readers.ask(question)
        });
        answer
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Closes all connections; further questions are refused.
    pub(super) fn close(&self) {
        drop(
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    fn take(&self) -> StoreResult<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.as_mut();
        let idle = idle.ok_or_else(|| StoreError::Unavailable("the store is closed".to_owned()))?;
        match idle.pop() {
            Some(connection) => Ok(connection),
            None => connect(&self.path, true).map_err(|error| store_error(&error)),
        }
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idle) = idle.as_mut().filter(|idle| idle.len() < KEPT) {
            idle.push(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn so_many_questions_are_asked_aside_and_the_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        Connection::open(&path)
            .and_then(|made| made.pragma_update(None, "user_version", 1))
            .unwrap();
        let readers = Arc::new(Readers::open(path).unwrap());
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let questions = (0..MOST_ASIDE * 4).map(|_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            readers.ask_aside(move |connection| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Long enough that all that may be asked meet.
                std::thread::sleep(std::time::Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                connection.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))
            })
        });

        let answers = join_all(questions).await;

        assert!(answers.iter().all(|answer| matches!(answer, Ok(1))));
        assert!((1..=MOST_ASIDE).contains(&most.load(Ordering::SeqCst)));
    }
}
