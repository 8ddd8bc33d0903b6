//! Registrations that nobody saw end, and accounts that have not got their address yet: looked after in the background.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{RegistrationRules, kept::Kept, op_id};
use crate::{
    account::LEASE,
    clock::Timestamp,
    error::{Error, Result},
    homeserver::registration::NewAccount,
    store::DueRegistration,
    threepid::Threepid,
};

/// How many are looked after in one go.
const BATCH: u32 = 16;
/// How long it rests at most, whatever is due.
const LONGEST_REST: Duration = Duration::from_mins(1);
/// The pause after the first try, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// When it is asked first what came of a registration that another process began: it may be under way yet.
const HEAD_START: Duration = Duration::from_secs(10);
/// How long it is tried to bind an address.
const GIVE_UP_AFTER: Duration = Duration::from_hours(24 * 7);
/// How long a homeserver is asked what it made. Until then nobody else can use the address.
const GIVE_UP_ASKING_AFTER: Duration = Duration::from_hours(24);

impl RegistrationRules {
    /// Makes all due that another process has left behind.
    pub(crate) async fn take_over(&self) -> Result<()> {
        let validation = &self.account.validation;
        let now = validation.clock.now();
        let ask_at = now + HEAD_START;
        validation.store.free_registrations(now, ask_at).await?;
        Ok(())
    }

    /// Looks after what is due, until it is stopped.
    pub(crate) async fn look_after(self: &Arc<Self>, stop: CancellationToken) {
        loop {
            let mut rest = self.rest().await;
            // Whoever wakes us seldom leaves us anything to do at once: a look costs less than a lease.
            if rest.is_zero()
                && let Err(error) = self.look_after_due().await
            {
                let cause = error.cause();
                tracing::warn!(
                    cause,
                    "registrations could not be looked after; trying again"
                );
                rest = LONGEST_REST;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    async fn rest(&self) -> Duration {
        let validation = &self.account.validation;
        match validation.store.next_registration().await {
            Ok(Some(due_at)) => due_at.since(validation.clock.now()).min(LONGEST_REST),
            _ => LONGEST_REST,
        }
    }

    /// Looks once after what is due now; how many there were.
    ///
    /// # Errors
    /// Only the store's.
    pub(crate) async fn look_after_due(self: &Arc<Self>) -> Result<usize> {
        let validation = &self.account.validation;
        let now = validation.clock.now();
        let due = validation
            .store
            .lease_registrations(now, now + LEASE, BATCH)
            .await?;
        let count = due.len();
        for registration in due {
            let id = registration.id;
            let (tries, begun_at) = (registration.tries, registration.begun_at);
            let is_older = |span| now >= begun_at + span;
            match self.look_after_one(&registration).await {
                Ok(true) => {}
                Ok(false) if is_older(GIVE_UP_AFTER) => self.give_up(&registration).await?,
                Ok(false) => self.defer(id, tries, now).await?,
                Err(_) if is_older(GIVE_UP_ASKING_AFTER) => self.give_up(&registration).await?,
                Err(error) => {
                    let cause = error.cause();
                    tracing::warn!(cause, "what became of a registration is not known yet");
                    self.defer(id, tries, now).await?;
                }
            }
        }
        Ok(count)
    }

    /// Whether nothing is left to be done.
    async fn look_after_one(self: &Arc<Self>, due: &DueRegistration) -> Result<bool> {
        let user_id = match (&due.user_id, &due.sealed) {
            (Some(user_id), _) => user_id.clone(),
            (None, Some(sealed)) => match self.ask(due, sealed).await? {
                Some(user_id) => user_id,
                None => return Ok(true),
            },
            (None, None) => return Ok(true),
        };
        Ok(self.bind_all(due.id, &user_id, &due.threepids).await)
    }

    /// Asks the homeserver whether it made the account; puts down what it says. The account, if there is one.
    async fn ask(self: &Arc<Self>, due: &DueRegistration, sealed: &[u8]) -> Result<Option<String>> {
        let validation = &self.account.validation;
        let key = validation.keys.find(due.key_id);
        let key = key.ok_or_else(|| Error::Internal("its key is gone".to_owned()))?;
        let (session, params) = read(&key.open(&due.id, sealed)?)?;
        let _turn = self.turn(&session).await;
        let kept = self.kept(&session).await?;
        if kept.as_ref().is_some_and(|kept| kept.finished.is_some()) {
            // Its client has ended it while we waited for our turn.
            return Ok(None);
        }
        let threepids: Vec<Threepid> = due
            .threepids
            .iter()
            .map(|(threepid, _)| threepid.clone())
            .collect();
        let op_id = op_id(due.id);
        let account = NewAccount {
            session: &session,
            op_id: &op_id,
            params: &params,
            threepids: &threepids,
            last: None,
        };
        let Some(user_id) = self.registrar.made(account).await? else {
            validation.store.abandon_registration(due.id).await?;
            return Ok(None);
        };
        let mut kept = kept.unwrap_or(Kept {
            session,
            params,
            ..Kept::default()
        });
        // We asked for no login, and that may be the last that the homeserver remembers.
        kept.params
            .entry("inhibit_login")
            .or_insert(Value::Bool(false));
        let row = self.row_of(&self.tombstone(&kept))?;
        let now = validation.clock.now();
        let due_at = now + LEASE;
        let store = &validation.store;
        let is_news = store.registered(due.id, &user_id, row, now, due_at);
        if !is_news.await? {
            return Ok(None);
        }
        tracing::info!(
            user_id,
            "an account whose making was not seen to end has been found"
        );
        Ok(Some(user_id))
    }

    async fn defer(&self, id: [u8; 32], tries: u32, now: Timestamp) -> Result<()> {
        let pause = FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(tries))
            .min(LONGEST_PAUSE);
        let store = &self.account.validation.store;
        Ok(store.defer_registration(id, now + pause).await?)
    }

    async fn give_up(&self, due: &DueRegistration) -> Result<()> {
        let store = &self.account.validation.store;
        tracing::error!(
            user_id = due.user_id,
            "an account's addresses could not be bound; giving up"
        );
        store.abandon_registration(due.id).await?;
        for (threepid, _) in &due.threepids {
            store.forget_registration(due.id, threepid).await?;
        }
        Ok(())
    }
}

/// The session, and what was asked for in it.
fn read(plain: &[u8]) -> Result<(String, Map<String, Value>)> {
    let broken =
        || Error::Internal("what was put down of a registration can not be read".to_owned());
    let value: Value = serde_json::from_slice(plain).map_err(|_| broken())?;
    let session = value["session"].as_str().ok_or_else(broken)?;
    let params = value["params"].as_object().ok_or_else(broken)?;
    Ok((session.to_owned(), params.clone()))
}
