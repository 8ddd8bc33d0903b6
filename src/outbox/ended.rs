//! How a try to deliver a message ended, and how long the next one waits.

use std::time::Duration;

/// The first wait after a failure that may pass; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest such wait.
const LONGEST_RETRY: Duration = Duration::from_mins(10);

/// How one try ended.
pub(super) enum Ended {
    Sent(String),
    Later(String),
    Failed(String),
    GivenBack,
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
    fn waits_double_and_are_spread() {
        assert_eq!(backoff(1, 0.5), Duration::from_secs(5));
        assert_eq!(backoff(3, 0.5), Duration::from_secs(20));
        assert_eq!(backoff(1, 0.0), Duration::from_millis(2500));
        assert_eq!(backoff(99, 0.5), LONGEST_RETRY);
    }
}
