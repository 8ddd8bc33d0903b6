//! How much is under way for each of many, so that none of them takes what is for all.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Counts what is under way by keys. What has ended takes no memory.
#[derive(Debug)]
pub(crate) struct InFlight<K> {
    most: usize,
    counts: Mutex<HashMap<K, usize>>,
}

impl<K: Clone + Eq + Hash> InFlight<K> {
    /// At most so many of each key.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            counts: Mutex::default(),
        }
    }

    /// One more of this key, until the guard is dropped; `None` if there are too many already.
    pub(crate) fn enter(&self, key: K) -> Option<Entered<'_, K>> {
        let mut counts = self.lock();
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Entered { of: self, key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is under way.
#[derive(Debug)]
pub(crate) struct Entered<'a, K: Clone + Eq + Hash> {
    of: &'a InFlight<K>,
    key: K,
}

impl<K: Clone + Eq + Hash> Drop for Entered<'_, K> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.of.lock().entry(self.key.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_one_key_are_under_way_and_nothing_is_left_of_them() {
        let calls = InFlight::new(2);
        let (first, second) = (calls.enter("a"), calls.enter("a"));
        assert!(first.is_some() && second.is_some());
        assert!(calls.enter("a").is_none());
        assert!(calls.enter("b").is_some());

        drop(first);

        assert!(calls.enter("a").is_some());
        drop(second);
        assert!(calls.lock().is_empty());
    }
}
