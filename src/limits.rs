//! How often: limits per source and for all, in memory, and the rates of those that the store counts.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    in_flight::{Entered, InFlight},
    rate::Rate,
    source::Source,
};

/// How many sources, and how many accounts, are told apart; those beyond share one bucket, so that strangers can not fill the memory.
const MOST_SOURCES: usize = 65_536;

/// How many registrations at the identity server one source may have under way: each waits for a homeserver that it names.
const MOST_REGISTERING: usize = 4;
/// How many homeservers may be under way to be asked for their keys, of those that one source says have signed something.
const MOST_ASKED_FOR_KEYS: usize = 4;
/// After how long who has too many under way may try again.
const SHORTLY: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// What text messages may cost at most: `[sms.ceilings]`. Each list holds for itself; all are counted in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Messages that one source asks for (IPv6: one /64), so that none can spend what is everybody's.
    pub per_source: Vec<Rate>,
    /// Messages to one number.
    pub per_number: Vec<Rate>,
    /// Messages to all numbers of one calling code.
    pub per_calling_code: Vec<Rate>,
    /// Messages in all.
    pub total: Vec<Rate>,
}

impl Default for Ceilings {
    fn default() -> Self {
        let day = HOUR * 24;
        Self {
            per_source: vec![Rate::new(80, HOUR), Rate::new(200, day)],
            per_number: vec![Rate::new(5, HOUR), Rate::new(10, day)],
            per_calling_code: vec![Rate::new(100, HOUR), Rate::new(300, day)],
            total: vec![Rate::new(200, HOUR), Rate::new(600, day)],
        }
    }
}

impl Ceilings {
    /// No ceilings at all.
    pub const OFF: Self = Self {
        per_source: Vec::new(),
        per_number: Vec::new(),
        per_calling_code: Vec::new(),
        total: Vec::new(),
    };
}

/// All limits: `[limits]`, and `[sms.ceilings]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `requestToken`, per source address (IPv6: per /64).
    pub per_source: Rate,
    /// `submitToken`, per source address (IPv6: per /64).
    pub per_source_submit: Rate,
    /// Registrations that are begun, per source address (IPv6: per /64).
    pub per_source_register: Rate,
    /// Changes of an account's addresses, per account.
    pub per_account: Rate,
    /// Addresses that an account of the identity server looks up.
    pub lookups_per_account: Rate,
    /// Addresses that all accounts of one homeserver look up, and those that are looked up from one source address (IPv6: per
    /// /64): whoever has a homeserver has as many accounts as they like.
    pub lookups_per_homeserver: Rate,
    /// Invitations that an account of the identity server sends.
    pub invites_per_account: Rate,
    /// `requestToken`, all together.
    pub global: Rate,
    /// Messages to one mailbox; counted in the store.
    pub per_address: Rate,
    /// Messages of one session; counted in the store.
    pub per_session: Rate,
    /// Codes tried for one mailbox, over all its sessions; counted in the store.
    pub code_tries_per_address: Rate,
    /// Text messages; counted in the store.
    pub sms: Ceilings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            per_source: Rate::new(100, HOUR),
            per_source_submit: Rate::new(300, HOUR),
            per_source_register: Rate::new(300, HOUR),
            per_account: Rate::new(300, HOUR),
            lookups_per_account: Rate::new(100_000, HOUR * 24),
            lookups_per_homeserver: Rate::new(1_000_000, HOUR * 24),
            invites_per_account: Rate::new(50, HOUR),
            global: Rate::new(1000, MINUTE),
            per_address: Rate::new(10, HOUR),
            per_session: Rate::new(5, Duration::from_mins(30)),
            code_tries_per_address: Rate::new(30, HOUR),
            sms: Ceilings::default(),
        }
    }
}

impl Settings {
    /// No limits at all.
    pub const OFF: Self = Self {
        per_source: Rate::OFF,
        per_source_submit: Rate::OFF,
        per_source_register: Rate::OFF,
        per_account: Rate::OFF,
        lookups_per_account: Rate::OFF,
        lookups_per_homeserver: Rate::OFF,
        invites_per_account: Rate::OFF,
        global: Rate::OFF,
        per_address: Rate::OFF,
        per_session: Rate::OFF,
        code_tries_per_address: Rate::OFF,
        sms: Ceilings::OFF,
    };
}

/// The limits that are counted in memory.
#[derive(Debug)]
pub(crate) struct Limiter {
    settings: Settings,
    requests: Mutex<HashMap<Source, Timestamp>>,
    submissions: Mutex<HashMap<Source, Timestamp>>,
    registrations: Mutex<HashMap<Source, Timestamp>>,
    registering: InFlight<Source>,
    asked_for_keys: InFlight<Source>,
    accounts: Mutex<HashMap<String, Timestamp>>,
    lookups: Mutex<HashMap<String, Timestamp>>,
    lookups_of_homeservers: Mutex<HashMap<String, Timestamp>>,
    lookups_of_sources: Mutex<HashMap<Source, Timestamp>>,
    invites: Mutex<HashMap<String, Timestamp>>,
    global: Mutex<Option<Timestamp>>,
}

impl Limiter {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            requests: Mutex::default(),
            submissions: Mutex::default(),
            registrations: Mutex::default(),
            registering: InFlight::new(MOST_REGISTERING),
            asked_for_keys: InFlight::new(MOST_ASKED_FOR_KEYS),
            accounts: Mutex::default(),
            lookups: Mutex::default(),
            lookups_of_homeservers: Mutex::default(),
            lookups_of_sources: Mutex::default(),
            invites: Mutex::default(),
            global: Mutex::default(),
        }
    }

    /// Counts one `requestToken`.
    pub(crate) fn count_request(&self, source: Source, now: Timestamp) -> Result<()> {
        count_source(self.settings.per_source, &self.requests, source, now)?;
        let mut full_at = lock(&self.global);
        *full_at = Some(self.settings.global.take(*full_at, now).map_err(limited)?);
        Ok(())
    }

    /// Takes the count of a `requestToken` back, which turned out to repeat an accepted one.
    pub(crate) fn give_request_back(&self, source: Source) {
        let mut requests = lock(&self.requests);
        if let Some(full_at) = requests.get_mut(&source) {
            *full_at = self.settings.per_source.give_back(*full_at);
        }
        let mut global = lock(&self.global);
        *global = global.map(|full_at| self.settings.global.give_back(full_at));
    }

    /// Counts one `submitToken`.
    pub(crate) fn count_submission(&self, source: Source, now: Timestamp) -> Result<()> {
        count_source(
            self.settings.per_source_submit,
            &self.submissions,
            source,
            now,
        )
    }

    /// Takes the count of a submission back, which turned out to be what need not be counted.
    pub(crate) fn give_submission_back(&self, source: Source) {
        if let Some(full_at) = lock(&self.submissions).get_mut(&source) {
            *full_at = self.settings.per_source_submit.give_back(*full_at);
        }
    }

    /// Counts one registration that is begun.
    pub(crate) fn count_registration(&self, source: Source, now: Timestamp) -> Result<()> {
        let rate = self.settings.per_source_register;
        count_source(rate, &self.registrations, source, now)
    }

    /// Begins a registration that waits for another server, until the guard is dropped. Without a limit of registrations
    /// there is none here.
    pub(crate) fn begin_registration(&self, source: Source) -> Result<Option<Entered<'_, Source>>> {
        if source == Source::Homeserver || self.settings.per_source_register == Rate::OFF {
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
        if source == Source::Homeserver || self.settings.per_source_submit == Rate::OFF {
            return Ok(None);
        }
        let entered = self.asked_for_keys.enter(source);
        entered.map(Some).ok_or_else(|| limited(SHORTLY))
    }

    /// Counts one change that an account asks for.
    pub(crate) fn count_change(&self, user_id: &str, now: Timestamp) -> Result<()> {
        let (rate, account) = (self.settings.per_account, user_id.to_owned());
        count_one(rate, &self.accounts, account, String::new(), now)
    }

    /// Counts the addresses that an account of a homeserver looks up from somewhere. An account that is over its limit spends
    /// nothing of what it shares with others.
    pub(crate) fn count_lookup(
        &self,
        (user_id, homeserver): (&str, &str),
        source: Source,
        addresses: u32,
        now: Timestamp,
    ) -> Result<()> {
        let account = (user_id.to_owned(), String::new());
        let rate = self.settings.lookups_per_account;
        count_many(rate, &self.lookups, account, addresses, now)?;
        let rate = self.settings.lookups_per_homeserver;
        if source != Source::Homeserver {
            let source = (source, Source::Unknown);
            count_many(rate, &self.lookups_of_sources, source, addresses, now)?;
        }
        let homeserver = (homeserver.to_owned(), String::new());
        count_many(
            rate,
            &self.lookups_of_homeservers,
            homeserver,
            addresses,
            now,
        )
    }

    /// Counts one invitation that an account sends.
    pub(crate) fn count_invite(&self, user_id: &str, now: Timestamp) -> Result<()> {
        let (rate, account) = (self.settings.invites_per_account, user_id.to_owned());
        count_one(rate, &self.invites, account, String::new(), now)
    }

    /// Forgets sources and accounts whose bucket is full again.
    pub(crate) fn forget_full(&self, now: Timestamp) {
        forget(&self.requests, now);
        forget(&self.submissions, now);
        forget(&self.registrations, now);
        forget(&self.accounts, now);
        forget(&self.lookups, now);
        forget(&self.lookups_of_homeservers, now);
        forget(&self.lookups_of_sources, now);
        forget(&self.invites, now);
    }
}

fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn limited(retry_after: Duration) -> Error {
    Error::Limited { retry_after }
}

fn count_source(
    rate: Rate,
    buckets: &Mutex<HashMap<Source, Timestamp>>,
    source: Source,
    now: Timestamp,
) -> Result<()> {
    if source == Source::Homeserver {
        return Ok(());
    }
    count_one(rate, buckets, source, Source::Unknown, now)
}

/// Counts one for `who`; where too many are told apart already, for `others`.
fn count_one<K: Eq + Hash>(
    rate: Rate,
    buckets: &Mutex<HashMap<K, Timestamp>>,
    who: K,
    others: K,
    now: Timestamp,
) -> Result<()> {
    count_many(rate, buckets, (who, others), 1, now)
}

fn count_many<K: Eq + Hash>(
    rate: Rate,
    buckets: &Mutex<HashMap<K, Timestamp>>,
    (who, others): (K, K),
    many: u32,
    now: Timestamp,
) -> Result<()> {
    if rate == Rate::OFF {
        return Ok(());
    }
    let mut buckets = lock(buckets);
    let is_told_apart = buckets.len() < MOST_SOURCES || buckets.contains_key(&who);
    let who = if is_told_apart { who } else { others };
    let full_at = rate
        .take_many(many, buckets.get(&who).copied(), now)
        .map_err(limited)?;
    buckets.insert(who, full_at);
    Ok(())
}

fn forget<K: Eq + Hash>(buckets: &Mutex<HashMap<K, Timestamp>>, now: Timestamp) {
    let mut buckets = lock(buckets);
    buckets.retain(|_, full_at| *full_at > now);
    buckets.shrink_to(1024);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn one_source_does_not_spend_what_is_another_s() {
        let limiter = Limiter::new(Settings {
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
        let limiter = Limiter::new(settings);
        for _ in 0..10 {
            let _ = limiter.count_request(source(1), Timestamp(0));
        }
        assert!(limiter.count_request(source(2), Timestamp(0)).is_ok());
        assert!(limiter.count_request(source(3), Timestamp(0)).is_ok());
        assert!(limiter.count_request(source(4), Timestamp(0)).is_err());
    }

    #[test]
    fn one_account_does_not_spend_what_is_another_s() {
        let limiter = Limiter::new(Settings {
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
        let limiter = Limiter::new(settings);
        let now = Timestamp(0);
        for _ in 0..3 {
            assert!(limiter.count_request(Source::Homeserver, now).is_ok());
            assert!(limiter.count_submission(Source::Homeserver, now).is_ok());
        }
        assert!(limiter.count_request(Source::Homeserver, now).is_err());
    }

    #[test]
    fn memory_is_bounded_and_full_buckets_are_forgotten() {
        let limiter = Limiter::new(Settings {
            per_source: Rate::new(1, MINUTE),
            ..Settings::OFF
        });
        let bound = u32::try_from(MOST_SOURCES).unwrap();
        for number in 0..bound + 10 {
            let _ = limiter.count_request(source(number), Timestamp(0));
        }
        assert!(limiter.requests.lock().unwrap().len() <= MOST_SOURCES + 1);
        limiter.forget_full(Timestamp(0) + MINUTE);
        assert!(limiter.requests.lock().unwrap().is_empty());
    }
}
