//! Asking for a token at the identity server.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use super::IdentityRules;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    threepid::Medium,
    validation::{Opened, TokenRequest},
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
    /// Whether this request is let through; of requests at once one is.
    fn lets(&self, medium: Medium, failing_since: Timestamp, now: Timestamp) -> bool {
        let last = match medium {
            Medium::Email => &self.email,
            Medium::Msisdn => &self.msisdn,
        };
        let let_through = |last: i64| {
            let begin = (failing_since + FAILING_FOR).max(Timestamp(last));
            (now >= begin + LET_ONE_THROUGH).then_some(now.0)
        };
        let order = Ordering::Relaxed;
        last.fetch_update(order, order, let_through).is_ok()
    }
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
        let (medium, source) = (request.threepid.medium(), request.source);
        let (limiter, now) = (&self.validation.limiter, self.validation.clock.now());
        limiter.count_change(&user_id, now)?;
        // Counted before one is let through, and once more with the request itself.
        limiter.count_request(source, now)?;
        self.check_sending(medium, now)?;
        limiter.give_request_back(source);
        let request = TokenRequest {
            user_id: Some(user_id),
            // Whoever asks an identity server asks nobody else.
            id_server: None,
            id_access_token: None,
            ..request
        };
        let opened = self.validation.request_token(request).await;
        let opened = opened.map_err(|error| told(error, medium))?;
        // Codes are shown to this API, and clients know where.
        Ok(Opened {
            submit_url: None,
            ..opened
        })
    }

    /// That messages of a medium can be sent, as far as is known.
    pub(super) fn check_sending(&self, medium: Medium, now: Timestamp) -> Result<()> {
        let mut deliveries = self.deliveries.iter();
        let deliveries = deliveries.find(|deliveries| deliveries.medium == medium);
        let deliveries = deliveries.ok_or(Error::CanNotSend(medium))?;
        match deliveries.health().failing_since {
            Some(since)
                if now >= since + FAILING_FOR && !self.let_through.lets(medium, since, now) =>
            {
                Err(Error::CanNotSend(medium))
            }
            _ => Ok(()),
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
        let ask =
            |medium, minutes| let_through.lets(medium, since, since + Duration::from_mins(minutes));
        assert!(!ask(Medium::Email, 5));
        assert!(ask(Medium::Email, 6));
        assert!(!ask(Medium::Email, 6));
        assert!(ask(Medium::Msisdn, 6), "the other medium is another relay");
        assert!(ask(Medium::Email, 7));
        assert!(!let_through.lets(Medium::Email, since + FAILING_FOR, since + FAILING_FOR * 2));
    }
}
