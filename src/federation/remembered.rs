//! What is known for a while of servers that strangers name.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::clock::Timestamp;

/// How much is remembered at most. Beyond it, any one is forgotten: none that lives longer than others is safer, so that
/// strangers can not keep what they like, and nothing else.
const MOST: usize = 1024;

/// Values, each until a moment of its own.
pub(super) struct Remembered<K, V>(Mutex<HashMap<K, (V, Timestamp)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> fmt::Debug for Remembered<K, V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Remembered(…)")
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Remembered<K, V> {
    /// What is known of `key`, and until when.
    pub(super) fn get(&self, key: &K, now: Timestamp) -> Option<(V, Timestamp)> {
        let known = self.lock().get(key).cloned();
        known.filter(|(_, until)| *until > now)
    }

    /// Remembers `value` until that moment.
    pub(super) fn put(&self, key: K, value: V, until: Timestamp, now: Timestamp) {
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&key) {
            known.retain(|_, (_, until)| *until > now);
        }
        if known.len() >= MOST && !known.contains_key(&key) {
            let any = known.keys().next().cloned();
            any.and_then(|any| known.remove(&any));
        }
        known.insert(key, (value, until));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (V, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_until_its_moment() {
        let known = Remembered::default();
        known.put("a", 1, Timestamp(10), Timestamp(0));
        assert_eq!(known.get(&"a", Timestamp(9)), Some((1, Timestamp(10))));
        assert_eq!(known.get(&"a", Timestamp(10)), None);
        assert_eq!(known.get(&"b", Timestamp(0)), None);
    }

    #[test]
    fn memory_is_bounded_and_what_is_over_goes_first() {
        let known = Remembered::default();
        let soon = Timestamp(1);
        for number in 0..MOST * 2 {
            known.put(number, (), soon, Timestamp(0));
            assert!(known.get(&number, Timestamp(0)).is_some());
        }
        assert_eq!(known.lock().len(), MOST);

        known.put(MOST * 2, (), Timestamp(2), soon);
        assert_eq!(known.lock().len(), 1);
    }
}
