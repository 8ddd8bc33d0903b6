//! Homeservers are told of associations, in the background (Identity Service API, "Establishing associations";
//! Server-Server API, `3pid/onbind`).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{IdentityRules, associations::whose};
use crate::{
    clock::Timestamp,
    error::Result,
    federation::Told,
    secret::random_fraction,
    server_name::ServerName,
    store::{DueOnbind, Invite},
    user_id::server_of,
};

/// How many are leased at once.
const BATCH: u32 = 16;
/// How many groups are told at once before the next batch is leased: with a whole batch more there are still calls for all
/// of them in the background.
const MOST_AT_ONCE: usize = 16;
/// How many of those may be tried again: many homeservers that do not answer hold up none that was never tried.
const MOST_RETRIES: u32 = 8;
/// How many groups may be one homeserver's, so that one that is slow holds up no other.
const MOST_PER_SERVER: usize = 4;
/// How long one lease lasts: longer than a slow homeserver takes for a whole batch.
const LEASE: Duration = Duration::from_mins(15);
/// How long it rests at most, whatever is due.
const LONGEST_REST: Duration = Duration::from_mins(1);
/// The wait after the first try, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// How often a homeserver is tried: with those waits for about a day.
const MOST_TRIES: u32 = 33;

/// Associations that one homeserver must be told of.
struct Group {
    /// `None` for user ids that name none.
    server: Option<ServerName>,
    /// Whether all of them were tried before; else none was.
    is_retry: bool,
    due: Vec<DueOnbind>,
}

/// Groups that are being told, and whom.
#[derive(Default)]
struct Telling {
    tasks: JoinSet<()>,
    servers: HashMap<Id, Option<ServerName>>,
    retries: HashSet<Id>,
}

impl Telling {
    fn is_full(&self) -> bool {
        self.tasks.len() >= MOST_AT_ONCE
    }

    /// How many groups more may be tried again.
    fn room_for_retries(&self) -> u32 {
        let taken = u32::try_from(self.retries.len()).unwrap_or(MOST_RETRIES);
        MOST_RETRIES.saturating_sub(taken)
    }

    fn is_busy(&self, server: Option<&ServerName>) -> bool {
        let same = |one: &&Option<ServerName>| one.as_ref() == server;
        self.servers.values().filter(same).count() >= MOST_PER_SERVER
    }

    /// Tells a group in a task of its own; if that would be too much of one homeserver, the group waits as after a failure.
    fn begin(&mut self, rules: &Arc<IdentityRules>, group: Group, stop: &CancellationToken) {
        let failed = self
            .is_busy(group.server.as_ref())
            .then(|| "it is slow, and being told of others".to_owned());
        let (rules, stop, due) = (Arc::clone(rules), stop.clone(), group.due);
        let telling = async move { rules.tell_of_all(due, failed, &stop).await };
        let task = self.tasks.spawn(telling);
        self.servers.insert(task.id(), group.server);
        if group.is_retry {
            self.retries.insert(task.id());
        }
    }

    /// Waits until one has been told; `false` if none is being told.
    async fn one_ended(&mut self) -> bool {
        let ended = self.tasks.join_next_with_id().await;
        let id = match &ended {
            None => return false,
            Some(Ok((id, ()))) => *id,
            Some(Err(panicked)) => panicked.id(),
        };
        self.servers.remove(&id);
        self.retries.remove(&id);
        true
    }
}

impl IdentityRules {
    /// Makes all due that another process has left behind.
    pub(crate) async fn free_onbinds(&self) -> Result<()> {
        let now = self.validation.clock.now();
        self.validation.store.free_onbinds(now).await?;
        Ok(())
    }

    /// Tells homeservers what is due, until it is stopped: then what is being told is told to its end.
    pub(crate) async fn tell_homeservers(self: &Arc<Self>, stop: CancellationToken) {
        let mut telling = Telling::default();
        loop {
            let is_full = telling.is_full();
            let mut rest = if is_full {
                LONGEST_REST
            } else {
                self.rest_of_onbinds(telling.room_for_retries() > 0).await
            };
            // Whoever wakes us may leave us nothing to do: a look costs less than a lease.
            if rest.is_zero()
                && let Err(error) = self.begin_due(&mut telling, &stop).await
            {
                let cause = error.cause();
                tracing::warn!(
                    cause,
                    "homeservers could not be told of associations; trying again"
                );
                rest = LONGEST_REST;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                true = telling.one_ended() => {}
                () = tokio::time::sleep(rest) => {}
                () = self.onbind_wake.notified(), if !is_full => {}
            }
        }
        while telling.one_ended().await {}
    }

    async fn rest_of_onbinds(&self, with_retries: bool) -> Duration {
        match self.validation.store.next_onbind(with_retries).await {
            Ok(Some(due_at)) => due_at.since(self.validation.clock.now()).min(LONGEST_REST),
            Ok(None) => LONGEST_REST,
            Err(error) => {
                tracing::warn!(%error, "when homeservers are to be told could not be read; trying again");
                LONGEST_REST
            }
        }
    }

    async fn begin_due(
        self: &Arc<Self>,
        telling: &mut Telling,
        stop: &CancellationToken,
    ) -> Result<()> {
        let now = self.validation.clock.now();
        for group in self.lease_due(now, telling.room_for_retries()).await? {
            telling.begin(self, group, stop);
        }
        Ok(())
    }

    /// Tells homeservers all that is due now; how much it was.
    ///
    /// # Errors
    /// Only the store's.
    pub(crate) async fn tell_homeservers_due(self: &Arc<Self>) -> Result<usize> {
        let (now, never) = (self.validation.clock.now(), CancellationToken::new());
        let mut count = 0;
        loop {
            let mut telling = Telling::default();
            for group in self.lease_due(now, MOST_RETRIES).await? {
                count += group.due.len();
                telling.begin(self, group, &never);
            }
            if !telling.one_ended().await {
                return Ok(count);
            }
            while telling.one_ended().await {}
        }
    }

    /// What is due, by homeserver, apart what was never tried; at most `retries` that were tried before.
    async fn lease_due(&self, now: Timestamp, retries: u32) -> Result<Vec<Group>> {
        let store = &self.validation.store;
        let due = store.lease_onbinds(now, now + LEASE, BATCH, retries);
        let due = due.await?;
        let mut groups: HashMap<(Option<ServerName>, bool), Vec<DueOnbind>> = HashMap::new();
        for onbind in due {
            let server = server_of(&onbind.association.user_id);
            let is_retry = onbind.tries > 0;
            groups.entry((server, is_retry)).or_default().push(onbind);
        }
        let group = |((server, is_retry), due)| Group {
            server,
            is_retry,
            due,
        };
        Ok(groups.into_iter().map(group).collect())
    }

    /// Tells one homeserver one after the other. Once it has `failed`, the rest waits as if it had been tried, so that a
    /// homeserver that hangs takes no more of our time.
    async fn tell_of_all(
        &self,
        group: Vec<DueOnbind>,
        mut failed: Option<String>,
        stop: &CancellationToken,
    ) {
        for due in group {
            if stop.is_cancelled() {
                return;
            }
            let told = match failed.clone() {
                Some(cause) => self.record(&due, Told::NotNow(cause), Vec::new()).await,
                None => self.tell(&due, &mut failed).await,
            };
            if let Err(error) = told {
                // It comes again when its lease has run out.
                let cause = error.cause();
                tracing::warn!(cause, "the end of telling a homeserver was not recorded");
            }
        }
    }

    /// Tells one homeserver of one association, unless that has ended since it was leased. Why it was not told is put down
    /// in `failed`, if it may be told later.
    async fn tell(&self, due: &DueOnbind, failed: &mut Option<String>) -> Result<()> {
        let association = &due.association;
        let current = self.validation.store.association(&association.threepid);
        if current.await?.as_ref() != Some(association) {
            return Ok(());
        }
        let (body, invites) = self.onbind_body(due).await?;
        let told = match server_of(&association.user_id) {
            Some(server) => self.federation.onbind(&server, body).await,
            None => Told::Refused("its user id names no homeserver".to_owned()),
        };
        if let Told::NotNow(cause) = &told {
            *failed = Some(cause.clone());
        }
        self.record(due, told, invites).await
    }

    async fn record(&self, due: &DueOnbind, told: Told, invites: Vec<[u8; 16]>) -> Result<()> {
        let (store, now) = (&self.validation.store, self.validation.clock.now());
        let address = due.association.threepid.masked();
        let used = match told {
            Told::Yes => invites,
            Told::Refused(cause) => {
                tracing::info!(address, cause, "a homeserver refused to be told");
                Vec::new()
            }
            Told::NotNow(cause) if due.tries + 1 >= MOST_TRIES => {
                tracing::info!(address, cause, "a homeserver could not be told; giving up");
                Vec::new()
            }
            Told::NotNow(cause) => {
                tracing::debug!(address, cause, "a homeserver could not be told yet");
                let due_at = now + pause(due.tries, random_fraction());
                return Ok(store.defer_onbind(due.id, due_at).await?);
            }
        };
        Ok(store.finish_onbind(due.id, used, now).await?)
    }

    /// What a homeserver is told, and the invitations that are in it. The specification asks for a signature of the request
    /// and has no key for it: it stands where all signatures of JSON stand.
    ///
    /// Left out is what was withdrawn or has run out since it was leased, and what can not be read.
    async fn onbind_body(&self, due: &DueOnbind) -> Result<(Vec<u8>, Vec<[u8; 16]>)> {
        let association = &due.association;
        let (mut invites, mut ids) = (Vec::new(), Vec::new());
        for invite in &due.invites {
            let now = self.validation.clock.now();
            let open = self.validation.store.invite(invite.id, now);
            if open.await?.is_none() {
                continue;
            }
            match self.invite_told(invite, &association.user_id) {
                Ok(told) => {
                    invites.push(told);
                    ids.push(invite.id);
                }
                Err(error) => {
                    let cause = error.cause();
                    tracing::warn!(?invite, cause, "an invitation can not be read");
                }
            }
        }
        let mut body = whose(&association.threepid, &association.user_id);
        body.insert("invites".to_owned(), Value::Array(invites));
        Ok((self.signed(body)?.to_string().into_bytes(), ids))
    }

    /// An invitation as a homeserver is told of it. Unlike the answer to `POST sign-ed25519`, what is signed does not name
    /// the sender (Server-Server API, "Third-party invites").
    fn invite_told(&self, invite: &Invite, user_id: &str) -> Result<Value> {
        let mut signed = Map::new();
        signed.insert("mxid".to_owned(), json!(user_id));
        signed.insert("token".to_owned(), json!(self.open_token(invite)?));
        let mut told = whose(&invite.threepid, user_id);
        told.insert("room_id".to_owned(), json!(invite.room_id));
        told.insert("sender".to_owned(), json!(invite.sender));
        told.insert("signed".to_owned(), self.signed(signed)?);
        Ok(Value::Object(told))
    }
}

/// How long it is waited after a try that failed, `tries` having failed before: doubled each time, spread by `chance` from
/// half to one and a half.
fn pause(tries: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(tries));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_spread() {
        for (tries, chance, seconds) in [
            (0, 0.5, 5.0),
            (1, 0.5, 10.0),
            (0, 0.0, 2.5),
            (3, 1.0, 60.0),
            (99, 0.5, 3600.0),
        ] {
            assert_eq!(pause(tries, chance), Duration::from_secs_f64(seconds));
        }
    }

    #[test]
    fn a_homeserver_is_tried_for_about_a_day() {
        let waits = (0..MOST_TRIES - 1).map(|tries| pause(tries, 0.5));
        let hours = waits.sum::<Duration>().as_secs() / 3600;
        assert!((23..26).contains(&hours), "{hours} hours");
    }
}
