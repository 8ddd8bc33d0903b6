//! A small pool of threads with read-only connections.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::writer::store_error;
use crate::store::{StoreError, StoreResult};

/// How many questions may wait.
const QUEUE: usize = 2048;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The handle to the reader threads.
pub(super) struct Readers {
    queue: Mutex<Option<SyncSender<Question>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Readers")
    }
}

impl Readers {
    /// Starts one thread for each connection.
    pub(super) fn start(connections: Vec<Connection>) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = connections
            .into_iter()
            .map(|connection| {
                let waiting = Arc::clone(&waiting);
                thread::Builder::new()
                    .name("threepid-reader".to_owned())
                    .spawn(move || read_all(&connection, &waiting))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            threads: Mutex::new(threads),
        })
    }

    /// Asks the database.
    pub(super) async fn ask<T, Q>(&self, question: Q) -> StoreResult<T>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            let _ = reply.send(question(connection).map_err(|error| store_error(&error)));
        });
        let busy =
            || StoreError::Unavailable("too many questions wait for the database".to_owned());
        {
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let queue = queue
                .as_ref()
                .ok_or_else(|| StoreError::Unavailable("the store is closed".to_owned()))?;
            queue.try_send(question).map_err(|_| busy())?;
        }
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::Failed(
                "a question to the database panicked".to_owned(),
            ))
        })
    }

    /// Answers what waits and ends the threads.
    pub(super) fn stop(&self) {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn read_all(connection: &Connection, waiting: &Mutex<Receiver<Question>>) {
    loop {
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(question) = next else { return };
        let asked = std::panic::AssertUnwindSafe(|| question(connection));
        if std::panic::catch_unwind(asked).is_err() {
            tracing::error!("a question to the database panicked");
        }
    }
}
