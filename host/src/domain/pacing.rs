//! How fast, in which order and for how long deliveries go to a receiver.

use std::num::{NonZeroU16, NonZeroU32};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Deliveries of one second that a rate can allow at the most.
pub const PER_SECOND_MAX: u32 = 100_000;
/// Longest time of one attempt that a subscription may ask for, in milliseconds; the host's own limit holds too.
pub const RESPONSE_MS_MAX: u32 = 60_000;

/// In which order the deliveries of a subscription arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeliveryOrdering")]
pub enum Ordering {
    /// As they come: one that fails keeps no other one waiting.
    #[default]
    None,
    /// First in, first out for each subject: one that is due again or held keeps back the later ones about the same
    /// subject, so that a lock and an unlock never arrive swapped. One that is given up (dead) does not.
    Subject,
}

/// What a subscription asks of the way its deliveries are sent. Rate and places count for its endpoint (scheme, host
/// and port), which other subscriptions of the tenant may share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pacing {
    /// In which order.
    pub ordering: Ordering,
    /// Attempts of one second at the most, evenly spread; absent: as many as come.
    #[schemars(range(min = 1, max = PER_SECOND_MAX))]
    pub per_second: Option<NonZeroU32>,
    /// Attempts at once at the most; absent: the host's `delivery.in_flight_per_endpoint_max`, which is never exceeded.
    pub in_flight_max: Option<NonZeroU16>,
    /// Milliseconds of one attempt; absent: the host's `egress.response_ms_max`, which is never exceeded.
    #[schemars(range(min = 1, max = RESPONSE_MS_MAX))]
    pub response_ms_max: Option<NonZeroU32>,
    /// Seconds without any success after which the subscription is paused, with a notice; 0: never;
    /// absent: the host's `delivery.disable_after_s`.
    pub disable_after_s: Option<u32>,
}

impl Pacing {
    /// What is out of bounds, in words.
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

/// Spreads attempts evenly: each moves on the instant from which the next may go. Microseconds, since a millisecond is
/// longer than the distance of two attempts at a high rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    next_us: i64,
}

/// What may be caught up with at once, in microseconds: timers are late by some milliseconds, and that must not lower
/// the rate.
const SLACK_US: i64 = 20_000;

impl Rate {
    /// When the next attempt may go, in milliseconds since the epoch; none: now. `now_ms` likewise.
    pub fn wait_until_ms(&self, now_ms: i64, per_second: NonZeroU32) -> Option<i64> {
        let now_us = now_ms.saturating_mul(1_000);
        let until_us = self.next_us.saturating_sub(SLACK_US);
        // Never further ahead than the distance itself, unless the clock was set back: then nobody waits for it.
        let ahead = until_us.saturating_sub(now_us);
        (ahead > 0 && ahead <= interval_us(per_second)).then(|| until_us.saturating_add(999) / 1_000)
    }

    /// One goes now.
    pub fn took(&mut self, now_ms: i64, per_second: NonZeroU32) {
        let now_us = now_ms.saturating_mul(1_000);
        let interval = interval_us(per_second);
        let from = if self.next_us > now_us.saturating_add(SLACK_US).saturating_add(interval) {
            now_us
        } else {
            self.next_us.max(now_us)
        };
        self.next_us = from.saturating_add(interval);
    }

    /// Whether it has nothing to remember at this time.
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
        let mut rate = Rate::default();
        let (mut now, mut sent) = (1_000_000, 0);
        let end = now + millis;
        while now < end {
            match rate.wait_until_ms(now, per_second) {
                Some(at) => now = at.max(now + 1),
                None => {
                    rate.took(now, per_second);
                    sent += 1;
                }
            }
        }
        sent
    }

    #[test]
    fn a_rate_is_kept_to() {
        // And the slack, which is caught up with once.
        for (per_second, expected) in [(1, 10), (10, 100), (50, 501), (1_000, 10_020), (3_000, 30_060)] {
            let sent = sent_in(per_second, 10_000);
            assert!(sent.abs_diff(expected) <= 1 + expected / 50, "{per_second} a second: {sent} in ten seconds");
        }
    }

    #[test]
    fn a_clock_set_back_keeps_nobody_waiting() {
        let per_second = NonZeroU32::new(1).unwrap();
        let mut rate = Rate::default();
        rate.took(10_000_000, per_second);
        assert!(rate.wait_until_ms(10_000_000, per_second).is_some());
        assert_eq!(rate.wait_until_ms(1_000_000, per_second), None);
        rate.took(1_000_000, per_second);
        assert!(rate.wait_until_ms(1_000_000, per_second).is_some(), "and from there on it is kept to");
    }
}
