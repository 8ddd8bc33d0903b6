//! Asking for a token at the identity server.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use super::IdentityRules;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    session::Purpose,
    threepid::Medium,
    validation::{Opened, TokenRequest, Validate},
};

/// How long no message could be sent before requests are refused. Relays that put strangers off for a few minutes
/// (greylisting) are no reason to tell users that nothing can be sent.
const FAILING_FOR: Duration = Duration::from_mins(5);
/// How often a request is let through after that. Its message shows whether the relay takes others than those that it did
/// not take: nobody can stop all messages with one address to which none can be sent.
const LET_ONE_THROUGH: Duration = Duration::from_mins(1);

/// When a request was last let through although no message could be sent, for each medium.
#[derive(Debug, Default)]
pub(crate) struct LetThrough {
    email: AtomicI64,
    msisdn: AtomicI64,
}

impl LetThrough {
    /// When one was let through before, if this request is let through; of parallel requests one is.
    fn lets(&self, medium: Medium, failing_since: Timestamp, now: Timestamp) -> Option<i64> {
        let last = self.last(medium);
        let let_through = |last: i64| {
            let begin = (failing_since + FAILING_FOR).max(Timestamp(last));
            (now >= begin + LET_ONE_THROUGH).then_some(now.0)
        };
        let order = Ordering::Relaxed;
        last.fetch_update(order, order, let_through).ok()
    }

    fn last(&self, medium: Medium) -> &AtomicI64 {
        match medium {
            Medium::Email => &self.email,
            Medium::Msisdn => &self.msisdn,
        }
    }
}

/// That a request was let through although no message could be sent.
#[derive(Debug)]
pub(super) struct Slot {
    medium: Medium,
    /// When that was the case before.
    before: i64,
    now: Timestamp,
}

impl IdentityRules {
    /// Asks for a token in the name of a user, whoever else has the address.
    ///
    /// # Errors
    /// [`Error::CanNotSend`] where nothing is queued because it would not arrive; [`Error::DestinationRejected`] for a phone
    /// number that the operator does not admit, [`Error::Denied`] for such an email address; [`Error::Limited`].
    pub(crate) async fn request_token(
        &self,
        user_id: String,
        request: TokenRequest,
    ) -> Result<Opened> {
        let medium = request.threepid.medium();
        let (limiter, now) = (&self.validation.limiter, self.validation.clock.now());
        limiter.count_change(&user_id, now)?;
        let request = TokenRequest {
            user_id: Some(user_id),
            // Whoever asks an identity server asks nobody else.
            id_server: None,
            id_access_token: None,
            ..request
        };
        let mut slot = None;
        let may_send = || {
            slot = self.check_sending(medium, now)?;
            Ok(())
        };
        let opened = self.validation.request_token_if(request, may_send).await;
        if opened.is_err() {
            self.give_back(slot.as_ref());
        }
        let opened = opened.map_err(|error| told(error, medium))?;
        // Codes are shown to this API, and clients know where.
        Ok(Opened {
            submit_url: None,
            ..opened
        })
    }

    /// That messages of a medium are sent and can be, as far as is known; a slot if one is let through although they can
    /// not. It is for the message that is queued next, or is given back.
    pub(super) fn check_sending(&self, medium: Medium, now: Timestamp) -> Result<Option<Slot>> {
        let validates = self.validation.settings.of(medium).validates;
        if validates.of(Purpose::Identity) == Validate::Off {
            return Err(Error::CanNotSend(medium));
        }
        let mut deliveries = self.deliveries.iter();
        let deliveries = deliveries.find(|deliveries| deliveries.medium == medium);
        let deliveries = deliveries.ok_or(Error::CanNotSend(medium))?;
        match deliveries.health().failing_since {
            Some(since) if now >= since + FAILING_FOR => {
                let before = self.let_through.lets(medium, since, now);
                let before = before.ok_or(Error::CanNotSend(medium))?;
                Ok(Some(Slot {
                    medium,
                    before,
                    now,
                }))
            }
            _ => Ok(None),
        }
    }

    /// Lets another one through in the place of one that queued no message.
    pub(super) fn give_back(&self, slot: Option<&Slot>) {
        if let Some(slot) = slot {
            let (last, order) = (self.let_through.last(slot.medium), Ordering::Relaxed);
            // If another one has been let through since, there is nothing to give back.
            let _ = last.compare_exchange(slot.now.0, slot.before, order, order);
        }
    }
}

/// The words of an identity server for a refusal.
fn told(error: Error, medium: Medium) -> Error {
    match (error, medium) {
        (Error::Denied, Medium::Msisdn) => Error::DestinationRejected,
        (Error::MediumNotSupported, medium) => Error::CanNotSend(medium),
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_a_minute_is_let_through() {
        let let_through = LetThrough::default();
        let since = Timestamp(1_000_000);
        let ask = |medium, minutes| {
            let_through
                .lets(medium, since, since + Duration::from_mins(minutes))
                .is_some()
        };
        assert!(!ask(Medium::Email, 5));
        assert!(ask(Medium::Email, 6));
        assert!(!ask(Medium::Email, 6));
        assert!(ask(Medium::Msisdn, 6), "the other medium is another relay");
        assert!(ask(Medium::Email, 7));
        let again = let_through.lets(Medium::Email, since + FAILING_FOR, since + FAILING_FOR * 2);
        assert_eq!(again, None);
    }
}
