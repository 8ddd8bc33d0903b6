//! Rotating the pepper of lookups: who has collected hashes can not look them up with the next one.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::IdentityRules;
use crate::{error::Result, lookup_hash::generate_pepper, store::Rotation};

/// How long a rotation rests between two steps, so that requests need not wait for it.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it is looked whether a rotation is due, and how long it is waited after an error.
const LOOK_EVERY: Duration = Duration::from_mins(1);

impl IdentityRules {
    /// Rotates the pepper whenever it has been used long enough, until it is stopped. A rotation that another process has
    /// left behind goes on first.
    pub(crate) async fn rotate_pepper_until(&self, stop: CancellationToken) {
        loop {
            let rest = self.rotate_a_little().await.unwrap_or_else(|error| {
                let cause = error.cause();
                tracing::warn!(
                    cause,
                    "the pepper of lookups could not be rotated; trying again"
                );
                LOOK_EVERY
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Rotates the pepper now; where a rotation is under way, that one is finished instead.
    pub(crate) async fn rotate_pepper(&self) -> Result<()> {
        self.begin_rotation().await?;
        while self.rotation_step().await? == Rotation::GoesOn {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// One step, or a look whether a rotation is due; how long to rest after it.
    async fn rotate_a_little(&self) -> Result<Duration> {
        if self.rotation_step().await? == Rotation::GoesOn {
            return Ok(PAUSE);
        }
        let Some(lifetime) = self.settings.pepper_lifetime else {
            return Ok(LOOK_EVERY);
        };
        let is_due = self.pepper().await?.since + lifetime <= self.validation.clock.now();
        if is_due && self.begin_rotation().await? {
            tracing::info!("the pepper of lookups is being rotated");
            return Ok(PAUSE);
        }
        Ok(LOOK_EVERY)
    }

    async fn begin_rotation(&self) -> Result<bool> {
        // There must be one that can be rotated.
        self.pepper().await?;
        let (store, now) = (&self.validation.store, self.validation.clock.now());
        Ok(store.begin_rotation(&generate_pepper(), now).await?)
    }

    async fn rotation_step(&self) -> Result<Rotation> {
        let (store, now) = (&self.validation.store, self.validation.clock.now());
        Ok(store.rotation_step(now).await?)
    }
}
