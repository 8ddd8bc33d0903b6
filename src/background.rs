//! What runs beside requests: the outbox's workers, the sweeper, and what the rules do by themselves.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Threepid,
    error::{Error, Result},
    outbox::Deliveries,
};

/// How often the sweeper looks.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// How long it rests between two steps while there is more to do.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

impl Threepid {
    /// Delivers all messages that are due now, once; how many were tried. For tests, and for hosts that run no
    /// background work.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn deliver_due(&self) -> Result<usize> {
        let mut tried = 0;
        for deliveries in self.app.deliveries.iter() {
            tried += deliveries.deliver_due().await?;
        }
        Ok(tried)
    }

    /// Deletes what is over, once; how many rows went.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn sweep(&self) -> Result<usize> {
        let mut gone = 0;
        loop {
            let step = self.sweep_step().await?;
            gone += step;
            if step == 0 {
                return Ok(gone);
            }
        }
    }

    /// Looks once after registrations that were not seen to end, and after accounts that have not got their address: those
    /// of an earlier process, and those that are due now; how many there were. For tests, and for hosts that run no
    /// background work: like [`Threepid::start`] only for the one server of a store.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn finish_registrations(&self) -> Result<usize> {
        let Some(registration) = &self.app.registration else {
            return Ok(0);
        };
        registration.take_over().await?;
        registration.look_after_due().await
    }

    /// Tells homeservers of the associations that are due to be told, once: those of an earlier process too; how many there
    /// were. For tests, and for hosts that run no background work: like [`Threepid::start`] only for the one server of a
    /// store.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn tell_homeservers_due(&self) -> Result<usize> {
        let Some(identity) = &self.app.identity else {
            return Ok(0);
        };
        identity.free_onbinds().await?;
        identity.tell_homeservers_due().await
    }

    /// Rotates the pepper of lookups now; where a rotation is under way, that one is finished instead. Clients ask for the
    /// new pepper when theirs is refused (Identity Service API, "Association lookup").
    ///
    /// # Errors
    /// [`Error::Unrecognized`] without [`Builder::identity`](crate::Builder::identity); the store's: what was begun goes on
    /// with the next call.
    pub async fn rotate_pepper(&self) -> Result<()> {
        let identity = self.app.identity.as_ref().ok_or(Error::Unrecognized)?;
        identity.rotate_pepper().await
    }

    async fn sweep_step(&self) -> Result<usize> {
        let validation = &self.app.validation;
        let now = validation.clock.now();
        // A session that is over is kept as long again, to tell "run out" from "never was".
        let before = now.before(validation.settings.lifetimes.session);
        validation.limiter.forget_full(now);
        Ok(validation.store.sweep(before, now).await?)
    }

    /// Starts what runs beside requests: the outbox's workers, the sweeper, what looks after registrations, and at an
    /// identity server what rotates the pepper and tells homeservers of associations. Leases of a process that died are
    /// given back first, so it is only for the one server of a store.
    #[must_use = "the work ends when this is stopped"]
    pub fn start(&self) -> Background {
        let background = Background {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            of_clients: self.app.account.tasks.clone(),
        };
        let freed = CancellationToken::new();
        let (this, stop, freed_now) = (self.clone(), background.stop.clone(), freed.clone());
        background.tasks.spawn(async move {
            let validation = &this.app.validation;
            if let Err(error) = validation.store.free_leases(validation.clock.now()).await {
                tracing::warn!(%error, "leases of an earlier process could not be given back; they run out by themselves");
            }
            if let Err(error) = validation.store.pause_all(validation.clock.now()).await {
                tracing::warn!(%error, "claims of an earlier process keep their leases; they run out by themselves");
            }
            if let Some(registration) = &this.app.registration
                && let Err(error) = registration.take_over().await
            {
                tracing::warn!(%error, "registrations of an earlier process wait until their leases run out");
            }
            if let Some(identity) = &this.app.identity
                && let Err(error) = identity.free_onbinds().await
            {
                tracing::warn!(%error, "homeservers that an earlier process was telling wait until their leases run out");
            }
            freed_now.cancel();
            this.sweep_until(stop).await;
        });
        if let Some(registration) = self.app.registration.clone() {
            let (stop, freed) = (background.stop.clone(), freed.clone());
            background.tasks.spawn(async move {
                freed.cancelled().await;
                registration.look_after(stop).await;
            });
        }
        self.start_identity(&background, &freed);
        let workers = |deliveries: &Arc<Deliveries>| {
            std::iter::repeat_n(Arc::clone(deliveries), self.workers.of(deliveries.medium))
        };
        for deliveries in self.app.deliveries.iter().flat_map(workers) {
            let (stop, freed) = (background.stop.clone(), freed.clone());
            background.tasks.spawn(async move {
                freed.cancelled().await;
                deliveries.work(stop).await;
            });
        }
        background.tasks.close();
        background
    }

    /// Starts what the identity server does by itself.
    fn start_identity(&self, background: &Background, freed: &CancellationToken) {
        let Some(identity) = &self.app.identity else {
            return;
        };
        let (rules, stop) = (Arc::clone(identity), background.stop.clone());
        let rotating = async move { rules.rotate_pepper_until(stop).await };
        background.tasks.spawn(rotating);
        let (rules, stop) = (Arc::clone(identity), background.stop.clone());
        let freed = freed.clone();
        background.tasks.spawn(async move {
            freed.cancelled().await;
            rules.tell_homeservers(stop).await;
        });
    }

    async fn sweep_until(&self, stop: CancellationToken) {
        let mut rest = SWEEP_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
            rest = match self.sweep_step().await {
                Ok(0) => SWEEP_EVERY,
                Ok(_) => SWEEP_PAUSE,
                Err(error) => {
                    tracing::warn!(
                        cause = error.cause(),
                        "the sweeper could not work; trying again"
                    );
                    SWEEP_EVERY
                }
            };
        }
    }
}

/// Work beside requests. It ends when it is stopped; dropped, it goes on.
#[derive(Debug)]
pub struct Background {
    stop: CancellationToken,
    tasks: TaskTracker,
    /// What clients began, and did not wait for.
    of_clients: TaskTracker,
}

impl Background {
    /// Begins nothing new, finishes and records what is being sent; gives up after `deadline`. Whether all finished.
    pub async fn stop(self, deadline: Duration) -> bool {
        let finish = async {
            self.of_clients.close();
            self.of_clients.wait().await;
            self.stop.cancel();
            self.tasks.wait().await;
        };
        let finished = tokio::time::timeout(deadline, finish).await.is_ok();
        self.stop.cancel();
        finished
    }
}
