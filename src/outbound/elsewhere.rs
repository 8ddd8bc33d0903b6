//! Clients that dial another host than URLs name, kept for the next call, with their connections.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many are kept.
const MOST: usize = 32;
/// How long one is kept.
const LIFETIME: Duration = Duration::from_mins(10);

/// By the host that is dialled. A client finds its idle connections by the host and port in the URL, and all of them lead to
/// the one host that it dials: so none is taken for a connection to another host, or to the same under another name.
#[derive(Debug)]
pub(super) struct Elsewhere<C>(Mutex<HashMap<String, (C, Instant)>>);

impl<C> Default for Elsewhere<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Clone> Elsewhere<C> {
    /// The client that dials this host.
    pub(super) fn get(&self, host: &str) -> Option<C> {
        let kept = self.lock();
        let (client, until) = kept.get(host)?;
        (*until > Instant::now()).then(|| client.clone())
    }

    /// Keeps a client; if there are too many, any other one goes.
    pub(super) fn put(&self, host: String, client: C) {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.retain(|_, (_, until)| *until > now);
        if kept.len() >= MOST
            && !kept.contains_key(&host)
            && let Some(any) = kept.keys().next().cloned()
        {
            kept.remove(&any);
        }
        kept.insert(host, (client, now + LIFETIME));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (C, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_are_kept_for_a_while_and_no_more_than_the_bound() {
        let kept = Elsewhere::default();
        for number in 0..MOST * 2 {
            kept.put(format!("host{number}.example"), number);
        }
        let last = format!("host{}.example", MOST * 2 - 1);
        assert_eq!(kept.lock().len(), MOST);
        assert_eq!(kept.get(&last), Some(MOST * 2 - 1));
        assert_eq!(kept.get("other.example"), None);

        tokio::time::advance(LIFETIME).await;

        assert_eq!(kept.get(&last), None);
        kept.put("other.example".to_owned(), 1);
        assert_eq!(kept.lock().len(), 1);
    }
}
