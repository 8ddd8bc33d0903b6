//! How often something may happen: the arithmetic of a token bucket, in memory and in the store alike.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::{Timestamp, millis};

/// How much further ahead than its period a bucket must lie before the clock is taken to have been set back, in
/// milliseconds: requests that overtake each other, and clocks of several machines, differ by less.
pub(crate) const SET_BACK: i64 = 60_000;
/// The longest period that a rate may have.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// At most `burst` at once, and `burst` again in each `period`: written `10/1h`, or `off`.
///
/// A bucket is one number, the moment at which it is full again. Taking one moves it by `period / burst`; it may not
/// lie more than `period` ahead. If it does, because the clock was set back since, one is taken to be left: that one
/// sets the bucket right, and nobody is locked out until the clock is where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    limit: Option<(u32, Duration)>,
}

impl Rate {
    /// No limit.
    pub const OFF: Self = Self { limit: None };

    /// At most `burst` at once, and `burst` again in each `period`; at least one.
    #[must_use]
    pub const fn new(burst: u32, period: Duration) -> Self {
        Self {
            limit: Some((if burst == 0 { 1 } else { burst }, period)),
        }
    }

    /// What taking one costs, and how far ahead a bucket may lie, both in milliseconds; `None` without a limit.
    pub(crate) fn step_and_period(self) -> Option<(i64, i64)> {
        let (burst, period) = self.limit?;
        let period = millis(period).max(1);
        Some(((period / i64::from(burst)).max(1), period))
    }

    /// Puts back several of those that were taken last.
    pub(crate) fn give_back(self, many: u32, full_at: Timestamp) -> Timestamp {
        let cost = self.cost_and_period(many).map_or(0, |(cost, _)| cost);
        Timestamp(full_at.0.saturating_sub(cost))
    }

    /// What several cost, at most a full bucket, and how far ahead a bucket may lie; `None` without a limit.
    fn cost_and_period(self, many: u32) -> Option<(i64, i64)> {
        let (step, period) = self.step_and_period()?;
        Some((step.saturating_mul(i64::from(many)).min(period), period))
    }

    /// Takes one at `now` from a bucket that is full at `full_at`: the new moment, or how long to wait for one.
    pub(crate) fn take(
        self,
        full_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Timestamp, Duration> {
        self.take_many(1, full_at, now)
    }

    /// Takes several at once, or none; more than a full bucket holds count as a full bucket.
    pub(crate) fn take_many(
        self,
        many: u32,
        full_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Timestamp, Duration> {
        let Some((cost, period)) = self.cost_and_period(many) else {
            return Ok(now);
        };
        let furthest = now.0.saturating_add(period);
        let full_at = full_at.unwrap_or(now).0;
        if full_at > furthest.saturating_add(SET_BACK) {
            return Ok(Timestamp(furthest));
        }
        let moved = full_at.max(now.0).saturating_add(cost);
        let ahead = moved.saturating_sub(now.0);
        if ahead <= period {
            return Ok(Timestamp(moved));
        }
        Err(Duration::from_millis(
            u64::try_from(ahead - period).unwrap_or(0),
        ))
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as \"burst/period\", for example \"10/1h\", or \"off\"";
        if text == "off" {
            return Ok(Self::OFF);
        }
        let (burst, period) = text.split_once('/').ok_or(FORM)?;
        let burst: u32 = burst.trim().parse().map_err(|_| FORM)?;
        let period: jiff::SignedDuration = period.trim().parse().map_err(|_| FORM)?;
        let period = Duration::try_from(period).map_err(|_| FORM)?;
        if period > LONGEST {
            return Err(format!("a period is a year at most; {FORM}"));
        }
        if burst == 0 || period.is_zero() {
            return Err(format!("a limit of nothing would refuse everybody; {FORM}"));
        }
        Ok(Self::new(burst, period))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((burst, period)) = self.limit else {
            return out.write_str("off");
        };
        let period = jiff::SignedDuration::try_from(period).unwrap_or(jiff::SignedDuration::MAX);
        write!(out, "{burst}/{period:#}")
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_AN_HOUR: Rate = Rate::new(5, Duration::from_hours(1));

    fn take_all(rate: Rate, mut full_at: Option<Timestamp>, now: Timestamp) -> (u32, Duration) {
        for taken in 0.. {
            match rate.take(full_at, now) {
                Ok(moved) => full_at = Some(moved),
                Err(wait) => return (taken, wait),
            }
        }
        unreachable!("a limit ends")
    }

    #[test]
    fn a_burst_passes_and_then_one_in_each_step() {
        let now = Timestamp(1_000_000_000);
        assert_eq!(
            take_all(FIVE_AN_HOUR, None, now),
            (5, Duration::from_mins(12))
        );
        let emptied = Timestamp(now.0 + 3_600_000);
        assert_eq!(
            take_all(FIVE_AN_HOUR, Some(emptied), now + Duration::from_mins(12)).0,
            1
        );
        assert_eq!(
            take_all(FIVE_AN_HOUR, Some(emptied), now + Duration::from_hours(1)).0,
            5
        );
    }

    #[test]
    fn a_clock_set_back_costs_one_step_at_most() {
        let now = Timestamp(1_000_000_000);
        let day = Duration::from_hours(24);
        let righted = FIVE_AN_HOUR.take(Some(now + day), now);
        assert_eq!(righted, Ok(now + Duration::from_hours(1)));
        let step = Duration::from_mins(12);
        assert_eq!(take_all(FIVE_AN_HOUR, righted.ok(), now), (0, step));
        assert_eq!(take_all(FIVE_AN_HOUR, righted.ok(), now + step), (1, step));
    }

    #[test]
    fn rates_are_read_and_written() {
        assert_eq!("5/1h".parse::<Rate>(), Ok(FIVE_AN_HOUR));
        assert_eq!("off".parse::<Rate>(), Ok(Rate::OFF));
        assert_eq!(FIVE_AN_HOUR.to_string(), "5/1h");
        for bad in [
            "", "5", "0/1h", "5/0s", "5/-1h", "-1/1h", "five/1h", "5/soon", "5/9000h",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
