//! How often: limits per source and for all, in memory, and the rates of those that the store counts.

mod buckets;
mod settings;

use std::time::Duration;

use self::buckets::Buckets;
pub use self::settings::{Ceilings, Settings};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    in_flight::{Entered, InFlight},
    source::Source,
};

/// How many registrations at the identity server one source may have under way: each waits for a homeserver that it names.
const MOST_REGISTERING: usize = 4;
/// How many homeservers may be under way to be asked for their keys, of those that one source says have signed something.
const MOST_ASKED_FOR_KEYS: usize = 4;
/// How many lookups of one account may be read at one time: all accounts share the turns in which large ones are.
const MOST_LOOKING_UP: usize = 4;
/// After how long who has too many under way may try again.
const SHORTLY: Duration = Duration::from_secs(1);

/// A user of the identity server, as limits see one.
#[derive(Clone, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) user_id: &'a str,
    /// The host of their homeserver; `None` if it is not counted.
    pub(crate) homeserver: Option<String>,
    /// Where they ask from.
    pub(crate) source: Source,
}

/// The limits that are counted in memory.
#[derive(Debug)]
pub(crate) struct Limiter {
    requests: Buckets<Source>,
    submissions: Buckets<Source>,
    refused_tokens: Buckets<Source>,
    registrations: Buckets<Source>,
    registering: InFlight<Source>,
    asked_for_keys: InFlight<Source>,
    accounts: Buckets<String>,
    lookups: OfUsers,
    lookups_of_sources: Buckets<Source>,
    looking_up: InFlight<String>,
    invites: OfUsers,
    global: Buckets<()>,
}

impl Limiter {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            requests: Buckets::new(settings.per_source),
            submissions: Buckets::new(settings.per_source_submit),
            refused_tokens: Buckets::new(settings.per_source_submit),
            registrations: Buckets::new(settings.per_source_register),
            registering: InFlight::new(MOST_REGISTERING),
            asked_for_keys: InFlight::new(MOST_ASKED_FOR_KEYS),
            accounts: Buckets::new(settings.per_account),
            lookups: OfUsers {
                accounts: Buckets::new(settings.lookups_per_account),
                homeservers: Buckets::new(settings.lookups_per_homeserver),
            },
            lookups_of_sources: Buckets::new(settings.lookups_per_homeserver),
            looking_up: InFlight::new(MOST_LOOKING_UP),
            invites: OfUsers {
                accounts: Buckets::new(settings.invites_per_account),
                homeservers: Buckets::new(settings.invites_per_homeserver),
            },
            global: Buckets::new(settings.global),
        }
    }

    /// Counts one `requestToken`, or what asks for a message likewise.
    pub(crate) fn count_request(&self, source: Source, now: Timestamp) -> Result<()> {
        count_source(&self.requests, source, 1, now)?;
        self.global.take((), 1, now)
    }

    /// Takes the count of a `requestToken` back, which turned out to repeat an accepted one.
    pub(crate) fn give_request_back(&self, source: Source) {
        give_source_back(&self.requests, source, 1);
        self.global.give_back((), 1);
    }

    /// Counts one `submitToken`.
    pub(crate) fn count_submission(&self, source: Source, now: Timestamp) -> Result<()> {
        count_source(&self.submissions, source, 1, now)
    }

    /// Takes the count of a submission back, which turned out to be what need not be counted.
    pub(crate) fn give_submission_back(&self, source: Source) {
        give_source_back(&self.submissions, source, 1);
    }

    /// Counts an unknown access token. Apart from submissions: whoever shares a source with such a token, as many do behind
    /// one homeserver, can still show codes.
    pub(crate) fn count_refused_token(&self, source: Source, now: Timestamp) -> Result<()> {
        count_source(&self.refused_tokens, source, 1, now)
    }

    /// Counts one registration that is begun.
    pub(crate) fn count_registration(&self, source: Source, now: Timestamp) -> Result<()> {
        count_source(&self.registrations, source, 1, now)
    }

    /// Begins a registration that waits for another server, until the guard is dropped. Without a limit of registrations
    /// there is none here.
    pub(crate) fn begin_registration(&self, source: Source) -> Result<Option<Entered<'_, Source>>> {
        if source == Source::Homeserver || self.registrations.are_off() {
            return Ok(None);
        }
        let entered = self.registering.enter(source);
        entered.map(Some).ok_or_else(|| limited(SHORTLY))
    }

    /// Begins to ask a homeserver for its keys, since a source says that it has signed something; until the guard is dropped.
    /// Without a limit of submissions there is none here.
    pub(crate) fn begin_asking_for_keys(
        &self,
        source: Source,
    ) -> Result<Option<Entered<'_, Source>>> {
        if source == Source::Homeserver || self.submissions.are_off() {
            return Ok(None);
        }
        let entered = self.asked_for_keys.enter(source);
        entered.map(Some).ok_or_else(|| limited(SHORTLY))
    }

    /// Counts one change that an account asks for.
    pub(crate) fn count_change(&self, user_id: &str, now: Timestamp) -> Result<()> {
        self.accounts.take(user_id.to_owned(), 1, now)
    }

    /// Counts the addresses that somebody looks up: for where they ask from, for their homeserver and for themselves; or, if
    /// one of these is over its limit, for none.
    pub(crate) fn count_lookup(
        &self,
        asker: &Asker<'_>,
        addresses: u32,
        now: Timestamp,
    ) -> Result<()> {
        count_source(&self.lookups_of_sources, asker.source, addresses, now)?;
        let counted = self.lookups.count(asker, addresses, now);
        if counted.is_err() {
            give_source_back(&self.lookups_of_sources, asker.source, addresses);
        }
        counted
    }

    /// Takes the count of addresses back that were not looked up after all.
    pub(crate) fn give_lookup_back(&self, asker: &Asker<'_>, addresses: u32) {
        give_source_back(&self.lookups_of_sources, asker.source, addresses);
        self.lookups.give_back(asker, addresses);
    }

    /// Begins to read what an account looks up, until the guard is dropped. Without a limit of lookups there is none here.
    pub(crate) fn begin_lookup(&self, user_id: &str) -> Result<Option<Entered<'_, String>>> {
        if self.lookups.accounts.are_off() {
            return Ok(None);
        }
        let entered = self.looking_up.enter(user_id.to_owned());
        entered.map(Some).ok_or_else(|| limited(SHORTLY))
    }

    /// Counts one invitation that somebody sends, for their homeserver and for themselves, or for neither.
    pub(crate) fn count_invite(&self, asker: &Asker<'_>, now: Timestamp) -> Result<()> {
        self.invites.count(asker, 1, now)
    }

    /// Forgets sources and accounts whose bucket is full again.
    pub(crate) fn forget_full(&self, now: Timestamp) {
        self.requests.forget_full(now);
        self.submissions.forget_full(now);
        self.refused_tokens.forget_full(now);
        self.registrations.forget_full(now);
        self.accounts.forget_full(now);
        self.lookups.forget_full(now);
        self.lookups_of_sources.forget_full(now);
        self.invites.forget_full(now);
    }
}

/// What users of the identity server do, counted for each and for all of a homeserver.
#[derive(Debug)]
struct OfUsers {
    accounts: Buckets<String>,
    homeservers: Buckets<String>,
}

impl OfUsers {
    /// Counts for both or for neither. For the homeserver first: one that is over its limit fills the memory with no accounts.
    fn count(&self, asker: &Asker<'_>, many: u32, now: Timestamp) -> Result<()> {
        if let Some(homeserver) = &asker.homeserver {
            self.homeservers.take(homeserver.clone(), many, now)?;
        }
        let counted = self.accounts.take(asker.user_id.to_owned(), many, now);
        if counted.is_err() {
            self.give_homeserver_back(asker, many);
        }
        counted
    }

    fn give_back(&self, asker: &Asker<'_>, many: u32) {
        self.give_homeserver_back(asker, many);
        self.accounts.give_back(asker.user_id.to_owned(), many);
    }

    fn give_homeserver_back(&self, asker: &Asker<'_>, many: u32) {
        if let Some(homeserver) = &asker.homeserver {
            self.homeservers.give_back(homeserver.clone(), many);
        }
    }

    fn forget_full(&self, now: Timestamp) {
        self.accounts.forget_full(now);
        self.homeservers.forget_full(now);
    }
}

pub(crate) fn limited(retry_after: Duration) -> Error {
    Error::Limited { retry_after }
}

/// Counts for a source, unless it is a homeserver, which asks for all its users.
fn count_source(
    buckets: &Buckets<Source>,
    source: Source,
    many: u32,
    now: Timestamp,
) -> Result<()> {
    match source {
        Source::Homeserver => Ok(()),
        source => buckets.take(source, many, now),
    }
}

fn give_source_back(buckets: &Buckets<Source>, source: Source, many: u32) {
    if source != Source::Homeserver {
        buckets.give_back(source, many);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;

    const MINUTE: Duration = Duration::from_mins(1);

    fn source(number: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn one_source_does_not_spend_what_is_another_s() {
        let limiter = Limiter::new(&Settings {
            per_source: Rate::new(2, MINUTE),
            ..Settings::OFF
        });
        let now = Timestamp(0);
        assert!(
            limiter.count_request(source(1), now).is_ok()
                && limiter.count_request(source(1), now).is_ok()
        );
        let wait = Duration::from_secs(30);
        assert_eq!(
            limiter.count_request(source(1), now),
            Err(Error::Limited { retry_after: wait })
        );
        assert!(limiter.count_request(source(2), now).is_ok());
        assert!(limiter.count_request(source(1), now + wait).is_ok());
    }

    #[test]
    fn a_source_over_its_limit_does_not_spend_what_is_everybody_s() {
        let settings = Settings {
            per_source: Rate::new(1, MINUTE),
            global: Rate::new(3, MINUTE),
            ..Settings::OFF
        };
        let limiter = Limiter::new(&settings);
        for _ in 0..10 {
            let _ = limiter.count_request(source(1), Timestamp(0));
        }
        assert!(limiter.count_request(source(2), Timestamp(0)).is_ok());
        assert!(limiter.count_request(source(3), Timestamp(0)).is_ok());
        assert!(limiter.count_request(source(4), Timestamp(0)).is_err());
    }

    #[test]
    fn one_account_does_not_spend_what_is_another_s() {
        let limiter = Limiter::new(&Settings {
            per_account: Rate::new(1, MINUTE),
            ..Settings::OFF
        });
        let now = Timestamp(0);
        assert!(limiter.count_change("@a:b", now).is_ok());
        assert!(limiter.count_change("@a:b", now).is_err());
        assert!(limiter.count_change("@c:b", now).is_ok());
        assert!(limiter.count_change("@a:b", now + MINUTE).is_ok());
    }

    #[test]
    fn a_homeserver_is_no_source_but_counts_for_all() {
        let settings = Settings {
            per_source: Rate::new(1, MINUTE),
            per_source_submit: Rate::new(1, MINUTE),
            global: Rate::new(3, MINUTE),
            ..Settings::OFF
        };
        let limiter = Limiter::new(&settings);
        let now = Timestamp(0);
        for _ in 0..3 {
            assert!(limiter.count_request(Source::Homeserver, now).is_ok());
            assert!(limiter.count_submission(Source::Homeserver, now).is_ok());
        }
        assert!(limiter.count_request(Source::Homeserver, now).is_err());
    }

    fn asker(user_id: &str, homeserver: u32, from: u32) -> Asker<'_> {
        Asker {
            user_id,
            homeserver: Some(homeserver.to_string()),
            source: source(from),
        }
    }

    #[test]
    fn a_lookup_that_is_refused_spends_nothing_of_anybody_s() {
        let limiter = Limiter::new(&Settings {
            lookups_per_account: Rate::new(5, MINUTE),
            lookups_per_homeserver: Rate::new(10, MINUTE),
            ..Settings::OFF
        });
        let count = |asker: &Asker<'_>, many| limiter.count_lookup(asker, many, Timestamp(0));
        count(&asker("a", 1, 1), 5).unwrap();
        for _ in 0..9 {
            assert!(count(&asker("a", 1, 1), 5).is_err(), "the account's");
        }
        count(&asker("b", 1, 1), 5).unwrap();
        for (homeserver, from) in [(1, 2), (2, 1)] {
            assert!(count(&asker("c", homeserver, from), 5).is_err());
        }
        count(&asker("c", 2, 2), 5).unwrap();
        count(&asker("d", 2, 2), 5).unwrap();
    }

    #[test]
    fn what_is_given_back_of_a_lookup_is_everybody_s_again() {
        let limiter = Limiter::new(&Settings {
            lookups_per_account: Rate::new(5, MINUTE),
            lookups_per_homeserver: Rate::new(5, MINUTE),
            ..Settings::OFF
        });
        let asker = asker("a", 1, 1);
        limiter.count_lookup(&asker, 5, Timestamp(0)).unwrap();

        limiter.give_lookup_back(&asker, 4);

        limiter.count_lookup(&asker, 4, Timestamp(0)).unwrap();
        assert!(limiter.count_lookup(&asker, 1, Timestamp(0)).is_err());
    }

    #[test]
    fn who_can_not_ask_from_there_is_not_remembered() {
        let limiter = Limiter::new(&Settings {
            lookups_per_account: Rate::new(5, MINUTE),
            lookups_per_homeserver: Rate::new(1, MINUTE),
            ..Settings::OFF
        });
        let user_ids: Vec<_> = (0..9).map(|number| number.to_string()).collect();
        for user_id in &user_ids {
            let _ = limiter.count_lookup(&asker(user_id, 1, 1), 1, Timestamp(0));
        }

        assert_eq!(limiter.lookups.accounts.len(), 1);
    }

    #[test]
    fn a_homeserver_that_is_not_counted_is_no_limit_of_its_accounts() {
        let limiter = Limiter::new(&Settings {
            invites_per_account: Rate::new(2, MINUTE),
            invites_per_homeserver: Rate::new(1, MINUTE),
            ..Settings::OFF
        });
        let named = Asker {
            homeserver: None,
            ..asker("a", 1, 1)
        };
        let other = asker("b", 1, 1);
        let count = |asker| limiter.count_invite(asker, Timestamp(0)).is_ok();
        assert!(count(&named) && count(&named) && !count(&named));
        assert!(count(&other) && !count(&other));
    }
}
