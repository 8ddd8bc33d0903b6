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

use super::{connect, writer::store_error};
use crate::store::{StoreError, StoreResult};

/// How many connections are kept while nobody asks.
const KEPT: usize = 4;

/// The connections that nobody uses just now; `None` once the store is closed.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Option<Vec<Connection>>>,
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
        Ok(Self { path, idle })
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

    /// Asks the database what may take a while, on a thread that may wait.
    pub(super) async fn ask_aside<T, Q>(self: &Arc<Self>, question: Q) -> StoreResult<T>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let readers = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || readers.ask(question));
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
