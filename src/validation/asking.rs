//! One request at a time for each scope at an identity server: such servers are known to send a repeated attempt twice.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::Validation;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    limits::limited,
    secret::SessionId,
    store::{Bucket, Requested, Reservation, Reserved, Store},
};

/// The longest that one request keeps its scope reserved: longer than any call to an identity server may take.
const LONGEST_CALL: Duration = Duration::from_mins(1);
/// How soon the same request, sent twice at once, looks for the answer to the first one; each time after twice as long.
const LOOK_FIRST: Duration = Duration::from_millis(50);
/// How often it looks whether the first one has gone away without an answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A scope that is reserved. It is given free also if the client goes away in the middle.
pub(super) struct Asking {
    store: Arc<dyn Store>,
    scope: [u8; 16],
    until: Timestamp,
    is_over: bool,
}

/// What a request to reserve a scope ended in.
pub(super) enum Turn {
    /// It is the caller's.
    Yours(Asking),
    /// The same request was answered meanwhile.
    Answered(SessionId),
}

impl Asking {
    /// The answer is remembered, and with it the scope was given free.
    pub(super) fn answered(mut self) {
        self.is_over = true;
    }

    /// There is no answer.
    pub(super) async fn give_up(mut self) -> Result<()> {
        self.store.remove(self.scope, self.until).await?;
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.is_over, Handle::try_current()) else {
            return;
        };
        let (store, scope, until) = (Arc::clone(&self.store), self.scope, self.until);
        runtime.spawn(async move {
            if let Err(error) = store.remove(scope, until).await {
                tracing::warn!(%error, "a reservation could not be given back; it runs out by itself");
            }
        });
    }
}

impl Validation {
    /// Waits until no other request of the scope is under way; of several, one is passed on.
    pub(super) async fn take_turn(
        &self,
        scope: [u8; 16],
        send_attempt: i64,
        buckets: Vec<Bucket>,
    ) -> Result<Turn> {
        let mut waited = Duration::ZERO;
        loop {
            let now = self.clock.now();
            // Made before it is reserved, so that there is no moment at which nobody would give it back.
            let asking = Asking {
                store: Arc::clone(&self.store),
                scope,
                until: now + LONGEST_CALL,
                is_over: false,
            };
            let reservation = Reservation {
                scope,
                send_attempt,
                buckets: buckets.clone(),
                code_tries: self.settings.lifetimes.code_tries,
                now,
                until: asking.until,
            };
            let reserved = self.store.reserve(reservation).await?;
            if reserved == Reserved::Yes {
                return Ok(Turn::Yours(asking));
            }
            asking.answered();
            match reserved {
                Reserved::Limited(wait) => return Err(limited(wait)),
                Reserved::Answered(sid) => return Ok(Turn::Answered(sid)),
                Reserved::Taken if waited >= LONGEST_CALL => {
                    let cause = "the same request was under way for too long";
                    return Err(Error::UpstreamTimeout(cause.to_owned()));
                }
                Reserved::Taken | Reserved::Yes => {}
            }
            if let Some(sid) = self.wait_for_answer(scope, send_attempt).await? {
                return Ok(Turn::Answered(sid));
            }
            waited += ASK_AGAIN;
        }
    }

    /// Looks for the answer to the request that is under way, for a while. Reads alone: a crowd that waits for one slow
    /// server must not keep the writer busy.
    async fn wait_for_answer(
        &self,
        scope: [u8; 16],
        send_attempt: i64,
    ) -> Result<Option<SessionId>> {
        let tries = self.settings.lifetimes.code_tries;
        let (mut waited, mut pause) = (Duration::ZERO, LOOK_FIRST);
        while waited < ASK_AGAIN {
            tokio::time::sleep(pause).await;
            waited += pause;
            pause *= 2;
            let now = self.clock.now();
            let met = self
                .store
                .peek(scope, send_attempt, Vec::new(), tries, now)
                .await?;
            if let Some(Requested::Repeated(sid)) = met {
                return Ok(Some(sid));
            }
        }
        Ok(None)
    }
}
