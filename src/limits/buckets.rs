//! Buckets in memory.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::limited;
use crate::{clock::Timestamp, error::Result, rate::Rate};

/// How many are told apart; those beyond share one bucket, so that strangers can not fill the memory.
pub(super) const MOST: usize = 65_536;

/// A bucket for each of many, of one rate.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    /// When each is full again; that of `None` is for those who are not told apart.
    full_at: Mutex<HashMap<Option<K>, Timestamp>>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: Mutex::default(),
        }
    }

    /// Whether all may take as much as they like.
    pub(super) fn are_off(&self) -> bool {
        self.rate == Rate::OFF
    }

    /// Takes several at once, or none.
    pub(super) fn take(&self, who: K, many: u32, now: Timestamp) -> Result<()> {
        if self.are_off() {
            return Ok(());
        }
        let mut buckets = self.lock();
        let who = told_apart(&buckets, who);
        let taken = self.rate.take_many(many, buckets.get(&who).copied(), now);
        buckets.insert(who, taken.map_err(limited)?);
        Ok(())
    }

    /// Puts several back that were taken.
    pub(super) fn give_back(&self, who: K, many: u32) {
        let mut buckets = self.lock();
        let who = told_apart(&buckets, who);
        if let Some(full_at) = buckets.get_mut(&who) {
            *full_at = self.rate.give_back(many, *full_at);
        }
    }

    /// Forgets those that are full again.
    pub(super) fn forget_full(&self, now: Timestamp) {
        let mut buckets = self.lock();
        buckets.retain(|_, full_at| *full_at > now);
        buckets.shrink_to(1024);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<K>, Timestamp>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose bucket it is.
fn told_apart<K: Eq + Hash>(buckets: &HashMap<Option<K>, Timestamp>, who: K) -> Option<K> {
    let who = Some(who);
    if buckets.len() < MOST || buckets.contains_key(&who) {
        who
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn memory_is_bounded_and_full_buckets_are_forgotten() {
        let buckets = Buckets::new(Rate::new(1, MINUTE));
        for number in 0..MOST + 10 {
            let _ = buckets.take(number, 1, Timestamp(0));
        }
        assert!(buckets.len() <= MOST + 1);
        buckets.forget_full(Timestamp(0) + MINUTE);
        assert_eq!(buckets.len(), 0);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let buckets = Buckets::new(Rate::new(10, MINUTE));
        let now = Timestamp(0);
        buckets.take("a", 8, now).unwrap();
        buckets.give_back("a", 5);
        buckets.take("a", 7, now).unwrap();
        assert!(buckets.take("a", 1, now).is_err());
        buckets.give_back("a", 1);
        buckets.give_back("b", 10);
        buckets.take("a", 1, now).unwrap();
        assert!(buckets.take("a", 1, now).is_err());
        assert_eq!(buckets.len(), 1);
    }
}
