//! The homeserver's password policy, and how long it is remembered.

use std::{sync::Mutex, time::Duration};

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::password::PasswordPolicy;

/// How long what was read is used again.
const LIFE: Duration = Duration::from_mins(5);

/// The policy as it was read last.
#[derive(Debug, Default)]
pub(in crate::homeserver) struct Remembered(Mutex<Option<(Instant, PasswordPolicy)>>);

impl Remembered {
    /// What is remembered, unless it is old.
    pub(in crate::homeserver) fn recall(&self) -> Option<PasswordPolicy> {
        let remembered = *self.0.lock().ok()?;
        let (read_at, policy) = remembered?;
        (read_at.elapsed() < LIFE).then_some(policy)
    }

    pub(in crate::homeserver) fn remember(&self, policy: PasswordPolicy) {
        if let Ok(mut remembered) = self.0.lock() {
            *remembered = Some((Instant::now(), policy));
        }
    }
}

/// Reads what a homeserver tells of its policy. What is not there, or of another type, is not demanded: the homeserver
/// judges by itself where it can.
pub(in crate::homeserver) fn read(body: &Map<String, Value>) -> PasswordPolicy {
    let is = |key: &str| body.get(key) == Some(&Value::Bool(true));
    let length = body.get("m.minimum_length").and_then(Value::as_u64);
    PasswordPolicy {
        minimum_length: length.map_or(0, |length| u32::try_from(length).unwrap_or(u32::MAX)),
        require_digit: is("m.require_digit"),
        require_symbol: is("m.require_symbol"),
        require_lowercase: is("m.require_lowercase"),
        require_uppercase: is("m.require_uppercase"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_demand_is_none() {
        for body in [
            json!({}),
            json!({ "m.minimum_length": "8", "m.require_digit": "yes", "m.require_symbol": 1 }),
            json!({ "m.minimum_length": -1, "m.require_digit": null, "policy": { "x": [] } }),
        ] {
            assert_eq!(
                read(body.as_object().unwrap()),
                PasswordPolicy::default(),
                "{body}"
            );
        }
        let body =
            json!({ "m.minimum_length": 8, "m.require_digit": true, "m.require_symbol": false });
        let policy = read(body.as_object().unwrap());
        assert_eq!((policy.minimum_length, policy.require_digit), (8, true));
        assert!(!policy.require_symbol);
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_is_read_again_after_a_while() {
        let remembered = Remembered::default();
        assert_eq!(remembered.recall(), None);
        remembered.remember(PasswordPolicy::default());

        tokio::time::advance(LIFE / 2).await;
        assert!(remembered.recall().is_some());
        tokio::time::advance(LIFE / 2).await;
        assert_eq!(remembered.recall(), None);
    }
}
