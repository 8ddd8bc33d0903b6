//! One after the other: for steps at another server that has no way to make two of them meet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::OwnedMutexGuard;

/// Beyond this many keys, those that nobody waits for are forgotten.
const MANY: usize = 1024;

/// Lets callers with one key go one after the other, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the caller's turn, which ends when the guard is dropped.
    pub(crate) async fn wait(&self, key: &str) -> OwnedMutexGuard<()> {
        self.queue(key).lock_owned().await
    }

    fn queue(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(key).and_then(Weak::upgrade) {
            return queue;
        }
        if queues.len() >= MANY {
            queues.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::default();
        queues.insert(key.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_key_is_one_queue() {
        let turns = Turns::default();
        let first = turns.wait("a").await;
        let _other = turns.wait("b").await;

        assert!(turns.queue("a").try_lock().is_err());
        drop(first);
        assert!(turns.queue("a").try_lock().is_ok());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_forgotten() {
        let turns = Turns::default();
        for key in 0..MANY * 2 {
            drop(turns.wait(&key.to_string()).await);
        }
        assert!(turns.0.lock().unwrap().len() <= MANY);
    }
}
