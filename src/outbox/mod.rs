//! The outbox's workers: claim, write, deliver, record.
//!
//! A mail is sent twice only if the process dies between the next hop's acceptance and its record; a text message also
//! if a gateway took it and did not say so in time.

mod ended;
mod written;

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    clock::{Clock, Timestamp},
    courier::{Courier, DeliveryError},
    error::Result,
    keys::Keyring,
    secret::{random, random_fraction},
    session::Lifetimes,
    store::{Queued, Store, StoreResult},
    threepid::Medium,
    validation::Contents,
};
use ended::{Ended, backoff};

/// How often an idle worker looks for what has become due.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// The most messages that a worker takes at once, while deliveries are quick.
const MOST_AT_ONCE: u32 = 16;
/// A delivery over this is slow: then a worker takes one message at a time, and leaves the others to its fellows.
const QUICK: Duration = Duration::from_millis(20);
/// After a delivery over this, a worker gives the rest of its batch back.
const SLOW: Duration = Duration::from_secs(1);

/// What the words of a message need.
#[derive(Clone, Debug)]
pub(crate) struct Letterhead {
    pub(crate) app_name: String,
    pub(crate) server_name: String,
    pub(crate) public_url: Url,
    /// What messages of the medium hold.
    pub(crate) contents: Contents,
    pub(crate) lifetimes: Lifetimes,
}

/// What the deliveries of all media share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// How the next hop does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RelayHealth {
    /// Since when no delivery has succeeded although some were tried, those apart where the next hop put off the recipient
    /// alone; `None` while all is well.
    pub(crate) failing_since: Option<Timestamp>,
}

/// Delivers what the store has queued for one medium: a gateway that hangs holds up no mail, and the other way round.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub(crate) medium: Medium,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) courier: Arc<dyn Courier>,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Wakes a worker.
    pub(crate) wake: Arc<Notify>,
    pub(crate) letterhead: Letterhead,
    /// Names this process's leases.
    holder: String,
    /// The messages in hand.
    in_hand: Arc<Mutex<HashSet<i64>>>,
    /// Records under way.
    records: TaskTracker,
    health: Mutex<RelayHealth>,
}

impl Deliveries {
    pub(crate) fn new(
        medium: Medium,
        courier: Arc<dyn Courier>,
        shared: &Shared,
        letterhead: Letterhead,
    ) -> Self {
        let holder = format!(
            "{}-{:08x}",
            std::process::id(),
            u32::from_le_bytes(random())
        );
        let (in_hand, records) = (Arc::default(), TaskTracker::new());
        Self {
            medium,
            store: Arc::clone(&shared.store),
            courier,
            keys: Arc::clone(&shared.keys),
            clock: Arc::clone(&shared.clock),
            wake: Arc::default(),
            letterhead,
            holder,
            in_hand,
            records,
            health: Mutex::default(),
        }
    }

    /// How the next hop does.
    pub(crate) fn health(&self) -> RelayHealth {
        *lock(&self.health)
    }

    /// One worker's life: until it is told to stop, and then until what it is sending is recorded.
    pub(crate) async fn work(&self, stop: CancellationToken) {
        let mut most = 1;
        while !stop.is_cancelled() {
            match self.deliver_some(most, &stop).await {
                Ok(Some(slowest)) => {
                    most = if slowest < QUICK {
                        (most * 2).min(MOST_AT_ONCE)
                    } else {
                        1
                    }
                }
                Ok(None) => self.wait_for_work(&stop).await,
                Err(error) => {
                    tracing::warn!(
                        cause = error.cause(),
                        "the outbox can not be read; trying again"
                    );
                    sleep_unless(&stop, IDLE_LOOK).await;
                }
            }
        }
    }

    /// Delivers all that is due now; how many messages were tried.
    pub(crate) async fn deliver_due(&self) -> Result<usize> {
        let never = CancellationToken::new();
        let mut tried = 0;
        while let Some(batch) = self.lease(MOST_AT_ONCE).await? {
            tried += batch.len();
            self.deliver_all(batch, &never).await;
        }
        Ok(tried)
    }

    async fn wait_for_work(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => return,
                () = tokio::time::sleep(IDLE_LOOK) => {}
            }
            if matches!(self.store.next_due(self.medium).await, Ok(Some(due)) if due <= self.clock.now())
            {
                return;
            }
        }
    }

    /// Delivers up to `most` messages; how long the slowest took, or `None` if nothing was due.
    async fn deliver_some(&self, most: u32, stop: &CancellationToken) -> Result<Option<Duration>> {
        match self.lease(most).await? {
            Some(batch) => Ok(Some(self.deliver_all(batch, stop).await)),
            None => Ok(None),
        }
    }

    /// Up to `most` due messages that nobody in this process has in hand; `None` if nothing was due.
    async fn lease(&self, most: u32) -> Result<Option<Vec<InHand>>> {
        let now = self.clock.now();
        let until = now + self.courier.longest() * 2 + Duration::from_mins(1);
        // Before the lease: what leaves the set after this is finished in the store.
        let in_hand = lock(&self.in_hand).clone();
        let leased = self
            .store
            .lease(self.medium, &self.holder, most, now, until)
            .await?;
        if leased.is_empty() {
            return Ok(None);
        }
        let mut batch = Vec::with_capacity(leased.ready.len());
        for queued in leased.ready {
            let id = queued.id;
            let free = !in_hand.contains(&id);
            if let Some(message) = free.then(|| InHand::take(queued, &self.in_hand)).flatten() {
                batch.push(message);
            } else {
                // Its lease ran out, or it was given back this very moment: whoever has it settles it.
                let soon = now + IDLE_LOOK;
                self.store
                    .retry_at(id, &self.holder, "in hand", soon)
                    .await?;
            }
        }
        Ok(Some(batch))
    }

    /// Delivers a batch one by one, while the records of those before are made durable; how long the slowest took.
    async fn deliver_all(&self, batch: Vec<InHand>, stop: &CancellationToken) -> Duration {
        let mut records = Vec::with_capacity(batch.len());
        let mut slowest = Duration::ZERO;
        for message in batch {
            let began = self.clock.now();
            // Behind a slow delivery the others would wait for nothing: they go to whoever is free.
            let ended = if stop.is_cancelled() || slowest > SLOW {
                Ended::GivenBack
            } else {
                let delivery = AssertUnwindSafe(self.deliver(&message.queued)).catch_unwind();
                let panicked = DeliveryError::transient("the courier panicked");
                let ended = delivery.await;
                ended.unwrap_or_else(|_| Ended::of(Err(panicked), message.queued.deliveries))
            };
            let now = self.clock.now();
            slowest = slowest.max(now.since(began));
            self.note_health(&ended, began);
            // On its own, so that it is made even if nobody waits for this batch any more.
            records.push(self.records.spawn(self.record(message, ended, now)));
        }
        for record in records {
            if record.await.is_err() {
                tracing::error!("the record of a delivery panicked");
            }
        }
        slowest
    }

    async fn deliver(&self, queued: &Queued) -> Ended {
        let now = self.clock.now();
        if now >= queued.useless_at {
            return Ended::Failed("given up: by now it would be useless".to_owned());
        }
        let message = match self.write(queued, now) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(
                    message = queued.id,
                    cause = error.cause(),
                    "a message could not be written"
                );
                return Ended::Failed("it could not be written".to_owned());
            }
        };
        let sending = self.courier.deliver(&queued.to, &message);
        let longest = self.courier.longest() + Duration::from_secs(5);
        let sent = tokio::time::timeout(longest, sending).await;
        let sent = sent.unwrap_or_else(|_| {
            Err(match self.medium {
                Medium::Email => DeliveryError::transient("timed out"),
                Medium::Msisdn => DeliveryError::unsure("timed out"),
            })
        });
        Ended::of(sent, queued.deliveries)
    }

    fn note_health(&self, ended: &Ended, began: Timestamp) {
        let mut health = lock(&self.health);
        match ended {
            Ended::Sent(_) => health.failing_since = None,
            Ended::Later {
                of_recipient: false,
                ..
            } => health.failing_since = health.failing_since.or(Some(began)),
            // A few addresses that are put off are no reason to refuse all others.
            Ended::Later { .. } | Ended::Failed(_) | Ended::GivenBack => {}
        }
    }

    /// The record of one message, to be made beside the next deliveries.
    fn record(
        &self,
        message: InHand,
        ended: Ended,
        now: Timestamp,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (store, holder) = (Arc::clone(&self.store), self.holder.clone());
        async move {
            let id = message.queued.id;
            let recorded = match ended {
                Ended::Sent(outcome) => {
                    // The lease may run out meanwhile; what is in hand is not sent again by this process.
                    while let Err(error) = store.delivered(id, &outcome, now).await {
                        tracing::warn!(message = id, %error, "a delivery could not be recorded; trying again");
                        tokio::time::sleep(IDLE_LOOK).await;
                    }
                    Ok(true)
                }
                Ended::GivenBack => store.give_back(id, &holder, now).await,
                Ended::Later { outcome, .. } => {
                    let due_at = now + backoff(message.queued.deliveries, random_fraction());
                    if due_at < message.queued.useless_at {
                        store.retry_at(id, &holder, &outcome, due_at).await
                    } else {
                        give_up(&*store, &message.queued, &holder, &outcome, now).await
                    }
                }
                Ended::Failed(outcome) => {
                    give_up(&*store, &message.queued, &holder, &outcome, now).await
                }
            };
            if let Err(error) = recorded {
                // The lease runs out by itself, and the message is tried again: it was not delivered.
                tracing::warn!(message = id, %error, "the end of a delivery could not be recorded");
            }
        }
    }
}

async fn give_up(
    store: &dyn Store,
    queued: &Queued,
    holder: &str,
    outcome: &str,
    now: Timestamp,
) -> StoreResult<bool> {
    let to = queued.to.masked();
    tracing::warn!(message = queued.id, to, outcome, "a message was given up");
    store.give_up(queued.id, holder, outcome, now).await
}

/// A message that this process has leased, and has not recorded the end of. While it is in hand, nobody here takes it
/// once more, whatever becomes of its lease.
struct InHand {
    queued: Queued,
    all: Arc<Mutex<HashSet<i64>>>,
}

impl InHand {
    fn take(queued: Queued, all: &Arc<Mutex<HashSet<i64>>>) -> Option<Self> {
        let all = Arc::clone(all);
        let is_new = lock(&all).insert(queued.id);
        is_new.then(|| Self { queued, all })
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.queued.id);
    }
}

fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sleep_unless(stop: &CancellationToken, span: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(span) => {}
    }
}
