//! Changes of which nobody knows the end: the homeserver may make them yet, and with each it replaces a whole list.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::list::{Change, Entry};
use crate::{
    error::{Error, Result},
    threepid::Threepid,
};

/// How long a homeserver may take to make a change after it was given up.
const LIFE: Duration = Duration::from_secs(30);

/// The last such change of each account.
#[derive(Debug, Default)]
pub(super) struct Unsettled(Mutex<HashMap<String, Pending>>);

#[derive(Debug)]
struct Pending {
    threepid: Threepid,
    is_addition: bool,
    until: Instant,
}

impl Pending {
    fn is(&self, change: Change<'_>) -> bool {
        let (threepid, is_addition) = change.parts();
        self.is_addition == is_addition && self.threepid == *threepid
    }

    /// Whether it is made, as the list shows.
    fn is_seen(&self, there: &[Entry]) -> bool {
        there.iter().any(|entry| entry.is(&self.threepid)) == self.is_addition
    }
}

impl Change<'_> {
    /// The address, and whether it is added.
    fn parts(&self) -> (&Threepid, bool) {
        match self {
            Self::Add(threepid) => (threepid, true),
            Self::Remove(threepid) => (threepid, false),
        }
    }
}

impl Unsettled {
    /// Whether a change may be made of the list that is there: another one could otherwise be undone by one that comes
    /// late. The same one may be made again at once.
    ///
    /// # Errors
    /// [`Error::HomeserverFailed`]: nothing was done.
    pub(super) fn check(&self, user_id: &str, there: &[Entry], change: Change<'_>) -> Result<()> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pending.retain(|_, pending| pending.until > now);
        match pending.get(user_id) {
            Some(pending) if !pending.is(change) && !pending.is_seen(there) => {
                let cause = "an earlier change of the same account's addresses may be under way at the homeserver";
                Err(Error::HomeserverFailed(cause.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Notes how a change ended.
    pub(super) fn note(&self, user_id: &str, change: Change<'_>, ended: &Result<()>) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(Error::HomeserverTimeout(_)) = ended {
            let (threepid, is_addition) = change.parts();
            let late = Pending {
                threepid: threepid.clone(),
                is_addition,
                until: Instant::now() + LIFE,
            };
            pending.insert(user_id.to_owned(), late);
        } else if ended.is_ok() {
            pending.remove(user_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "@alice:example.org";

    fn email(address: &str) -> Threepid {
        Threepid::email(address).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn another_change_waits_until_the_late_one_is_seen_or_too_late() {
        let (unsettled, late, other) =
            (Unsettled::default(), email("late@b.org"), email("o@b.org"));
        let check = |there: &[Entry], change| unsettled.check(ALICE, there, change).is_ok();
        let timed_out = Err(Error::HomeserverTimeout(String::new()));
        unsettled.note(ALICE, Change::Add(&late), &timed_out);

        assert!(!check(&[], Change::Add(&other)));
        assert!(!check(&[], Change::Remove(&late)));
        assert!(check(&[], Change::Add(&late)), "the same one, again");
        let made = Entry {
            medium: "email".to_owned(),
            address: "late@b.org".to_owned(),
            validated_at: None,
            added_at: None,
        };
        assert!(check(&[made], Change::Add(&other)), "it is made");
        assert!(
            unsettled
                .check("@bob:example.org", &[], Change::Add(&other))
                .is_ok()
        );
        tokio::time::advance(LIFE).await;
        assert!(check(&[], Change::Add(&other)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_ended_holds_nothing_up() {
        let (unsettled, first, other) = (Unsettled::default(), email("a@b.org"), email("o@b.org"));
        let timed_out = Err(Error::HomeserverTimeout(String::new()));
        unsettled.note(ALICE, Change::Add(&first), &timed_out);
        unsettled.note(ALICE, Change::Add(&first), &Ok(()));

        assert!(unsettled.check(ALICE, &[], Change::Add(&other)).is_ok());
    }
}
