//! Rate, order and timeout of the deliveries to a receiver.

use std::num::{NonZeroU16, NonZeroU32};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Highest rate that a subscription can configure, in deliveries per second.
pub const PER_SECOND_MAX: u32 = 100_000;
/// Longest timeout of an attempt that a subscription can configure, in milliseconds. The host's own limit applies too.
pub const RESPONSE_MS_MAX: u32 = 60_000;

/// Order in which the deliveries of a subscription arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeliveryOrdering")]
pub enum Ordering {
    /// Unordered: a failed delivery does not block others.
    #[default]
    None,
    /// First in, first out for each subject: a delivery that is to be retried or is held blocks later ones for the same
    /// subject, so that a lock and an unlock never arrive in the wrong order. A delivery that is given up (dead) blocks
    /// none.
    Subject,
}

/// How the deliveries of a subscription are sent. Rate and concurrency apply to its endpoint (scheme, host and port),
/// which other subscriptions of the tenant may share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pacing {
    /// Order of deliveries.
    pub ordering: Ordering,
    /// Maximum attempts per second, spread evenly. Unlimited if absent.
    #[schemars(range(min = 1, max = PER_SECOND_MAX))]
    pub per_second: Option<NonZeroU32>,
    /// Maximum concurrent attempts. The host's `delivery.in_flight_per_endpoint_max` is the default and the upper
    /// bound.
    pub in_flight_max: Option<NonZeroU16>,
    /// Timeout of an attempt in milliseconds. The host's `egress.response_ms_max` is the default and the upper bound.
    #[schemars(range(min = 1, max = RESPONSE_MS_MAX))]
    pub response_ms_max: Option<NonZeroU32>,
    /// Seconds without a successful delivery after which the subscription is paused and an operational event is sent. 0
    /// disables this; the default is the host's `delivery.pause_after_s`.
    pub pause_after_s: Option<u32>,
}

impl Pacing {
    /// Checks the limits. The error is the invalid field's path and a message.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.per_second.is_some_and(|rate| rate.get() > PER_SECOND_MAX) {
            return Err(("pacing/per_second", format!("at most {PER_SECOND_MAX}")));
        }
        if self.response_ms_max.is_some_and(|ms| ms.get() > RESPONSE_MS_MAX) {
            return Err(("pacing/response_ms_max", format!("at most {RESPONSE_MS_MAX}")));
        }
        Ok(())
    }
}

/// Rate limiter that spreads attempts evenly: each attempt advances the earliest time of the next one. In microseconds,
/// since the interval at a high rate is below a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimiter {
    next_us: i64,
}

/// Lateness that may be caught up with a burst, in microseconds: timers fire some milliseconds late, which must not
/// lower the rate.
const SLACK_US: i64 = 20_000;

impl RateLimiter {
    /// Earliest time of the next attempt, in milliseconds since the epoch. `None` if it may start at `now_ms`.
    pub fn next_at_ms(&self, now_ms: i64, per_second: NonZeroU32) -> Option<i64> {
        let now_us = now_ms.saturating_mul(1_000);
        let until_us = self.next_us.saturating_sub(SLACK_US);
        // Never further ahead than the interval, unless the clock was set back. In that case do not wait.
        let ahead = until_us.saturating_sub(now_us);
        (ahead > 0 && ahead <= interval_us(per_second)).then(|| until_us.saturating_add(999) / 1_000)
    }

    /// Records an attempt at `now_ms`.
    pub fn record(&mut self, now_ms: i64, per_second: NonZeroU32) {
        let now_us = now_ms.saturating_mul(1_000);
        let interval = interval_us(per_second);
        let from = if self.next_us > now_us.saturating_add(SLACK_US).saturating_add(interval) {
            now_us
        } else {
            self.next_us.max(now_us)
        };
        self.next_us = from.saturating_add(interval);
    }

    /// Whether it is equivalent to a new one at this time.
    pub fn is_idle(&self, now_ms: i64) -> bool {
        self.next_us <= now_ms.saturating_mul(1_000)
    }
}

fn interval_us(per_second: NonZeroU32) -> i64 {
    1_000_000 / i64::from(per_second.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_in(per_second: u32, millis: i64) -> usize {
        let per_second = NonZeroU32::new(per_second).unwrap();
        let mut rate = RateLimiter::default();
        let (mut now, mut sent) = (1_000_000, 0);
        let end = now + millis;
        while now < end {
            match rate.next_at_ms(now, per_second) {
                Some(at) => now = at.max(now + 1),
                None => {
                    rate.record(now, per_second);
                    sent += 1;
                }
            }
        }
        sent
    }

    #[test]
    fn rate_is_not_exceeded() {
        // Includes the burst for lateness, which occurs once.
        for (per_second, expected) in [(1, 10), (10, 100), (50, 501), (1_000, 10_020), (3_000, 30_060)] {
            let sent = sent_in(per_second, 10_000);
            assert!(sent.abs_diff(expected) <= 1 + expected / 50, "{per_second} a second: {sent} in ten seconds");
        }
    }

    #[test]
    fn clock_set_back_causes_no_wait() {
        let per_second = NonZeroU32::new(1).unwrap();
        let mut rate = RateLimiter::default();
        rate.record(10_000_000, per_second);
        assert!(rate.next_at_ms(10_000_000, per_second).is_some());
        assert_eq!(rate.next_at_ms(1_000_000, per_second), None);
        rate.record(1_000_000, per_second);
        assert!(rate.next_at_ms(1_000_000, per_second).is_some(), "the rate applies from then on");
    }
}
