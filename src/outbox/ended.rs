//! How a try to deliver a message ended, and how long the next one waits.

use std::time::Duration;

use crate::courier::DeliveryError;

/// The first wait after a failure that may pass; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest such wait.
const LONGEST_RETRY: Duration = Duration::from_mins(10);
/// The last delivery whose unsure end is followed by another.
const LAST_UNSURE: u32 = 2;

/// How one try ended.
pub(super) enum Ended {
    Sent(String),
    Later {
        outcome: String,
        /// Whether the next hop puts off this recipient alone, and may take all others.
        of_recipient: bool,
    },
    Failed(String),
    GivenBack,
}

impl Ended {
    /// What follows from the word of the courier on the `deliveries`-th try.
    pub(super) fn of(delivered: Result<String, DeliveryError>, deliveries: u32) -> Self {
        match delivered {
            Ok(outcome) => Self::Sent(outcome),
            // Each such try may cost money and reach the person, while the ceilings counted one message. Only the
            // first two may be followed by others, and these end with the next that may have been sent: three at most,
            // in whatever order gateways fail, and without a memory that a restart could lose.
            Err(error) if error.unsure && deliveries > LAST_UNSURE => Self::Failed(error.outcome),
            Err(error) if error.transient => Self::Later {
                outcome: error.outcome,
                of_recipient: error.of_recipient,
            },
            Err(error) => Self::Failed(error.outcome),
        }
    }
}

/// The wait after the `deliveries`-th failure: doubled each time, spread by `chance` from half to one and a half.
pub(super) fn backoff(deliveries: u32, chance: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << deliveries.saturating_sub(1).min(10));
    doubled.min(LONGEST_RETRY).mul_f64(0.5 + chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_two_unsure_tries_are_followed_by_another() {
        let unsure = || Err(DeliveryError::unsure("main: timed out"));
        let transient = || Err(DeliveryError::transient("main: 503"));
        for (delivered, deliveries, is_last) in [
            (unsure(), 1, false),
            (unsure(), 2, false),
            (unsure(), 3, true),
            (unsure(), 4, true),
            (transient(), 1, false),
            (transient(), 9, false),
            (Err(DeliveryError::permanent("main: 400")), 1, true),
        ] {
            let ended = Ended::of(delivered, deliveries);
            assert_eq!(matches!(ended, Ended::Failed(_)), is_last, "{deliveries}");
        }
    }

    #[test]
    fn waits_double_and_are_spread() {
        assert_eq!(backoff(1, 0.5), Duration::from_secs(5));
        assert_eq!(backoff(3, 0.5), Duration::from_secs(20));
        assert_eq!(backoff(1, 0.0), Duration::from_millis(2500));
        assert_eq!(backoff(99, 0.5), LONGEST_RETRY);
    }
}
