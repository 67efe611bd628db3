//! Circuit breaker of an endpoint. A failing endpoint gets no requests for a while, then a single delivery as a probe.
//! Queued deliveries make no attempts meanwhile, so that none of them is given up because of a shared outage. Pure:
//! `now` is an argument.

use super::attempt::{ErrorClass, Outcome};
use super::time::Timestamp;

/// Settings of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerBounds {
    /// Consecutive failures after which it opens. 0 disables it.
    pub failures_max: u32,
    /// Initial open time in milliseconds. Doubles with each failed probe.
    pub open_ms: i64,
    /// Maximum open time chosen by the breaker, in milliseconds.
    pub open_ms_max: i64,
    /// Maximum open time requested by a receiver with `Retry-After`, in milliseconds.
    pub throttle_ms_max: i64,
}

/// Signal of an attempt about the health of its endpoint, independent of the delivery's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Any response that is not a failure of the endpoint.
    Alive,
    /// No response, or one that indicates a failure of the endpoint.
    Failing,
    /// The endpoint requests fewer requests: 429, 502, 504 (Standard Webhooks, "Responses"), and 503 with
    /// `Retry-After`.
    Throttled {
        /// `Retry-After`, in seconds.
        retry_after_s: Option<u32>,
    },
}

impl Heard {
    /// The signal of an outcome. `None` if the attempt did not reach the endpoint for a reason on our side.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Answered { status: 429 | 502 | 504, retry_after_s, .. } => {
                Some(Self::Throttled { retry_after_s: *retry_after_s })
            }
            Outcome::Answered { status: 503, retry_after_s: asked @ Some(_), .. } => {
                Some(Self::Throttled { retry_after_s: *asked })
            }
            Outcome::Answered { status: 408 | 500..=599, .. } => Some(Self::Failing),
            Outcome::Answered { .. } => Some(Self::Alive),
            Outcome::Failed { class: ErrorClass::Forbidden | ErrorClass::Unsendable, .. } => None,
            Outcome::Failed { .. } => Some(Self::Failing),
        }
    }
}

/// Whether a delivery may be sent to an endpoint now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Closed: it may.
    Free,
    /// It may, as the probe whose result decides for the others. Call [`Breaker::probe`] when it is sent.
    Probe,
    /// Open: not before this time.
    Later(Timestamp),
    /// Not before the running probe has ended.
    Probing,
}

/// A state change of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It opened, until this time.
    Opened(Timestamp),
    /// It closed.
    Closed,
}

/// The circuit breaker of one endpoint. Initially closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Consecutive failures.
    failures: u32,
    /// While open: the time until which nothing is sent, and the length of that period in milliseconds.
    open: Option<(Timestamp, i64)>,
    probing: bool,
}

impl Breaker {
    /// Whether it is in its initial state, so that it need not be retained.
    pub fn is_fresh(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is open or half-open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a delivery may be sent now.
    pub fn passage(&self, now: Timestamp) -> Passage {
        match self.open {
            None => Passage::Free,
            // If the remaining time is longer than the whole period, the clock was set back: do not wait for it.
            Some((until, wait_ms)) if now < until && until.since(now) <= wait_ms => Passage::Later(until),
            Some(_) if self.probing => Passage::Probing,
            Some(_) => Passage::Probe,
        }
    }

    /// Records that the probe is sent.
    pub fn probe(&mut self) {
        self.probing = true;
    }

    /// Records the signal of an attempt. `None` if there was no signal or no attempt. `probe` is true if the attempt
    /// was the probe.
    pub fn heard(&mut self, heard: Option<Heard>, probe: bool, now: Timestamp, bounds: &BreakerBounds) -> Option<Turn> {
        if probe {
            self.probing = false;
        }
        let before = self.open;
        match heard? {
            Heard::Alive => *self = Self::default(),
            Heard::Failing => {
                self.failures = self.failures.saturating_add(1);
                match before {
                    // Sent before the breaker opened, so this is no new information.
                    Some(_) if !probe => {}
                    Some((_, wait_ms)) => self.open_for(now, self.longer(wait_ms, bounds)),
                    None if bounds.failures_max > 0 && self.failures >= bounds.failures_max => {
                        self.open_for(now, bounds.open_ms);
                    }
                    None => {}
                }
            }
            Heard::Throttled { retry_after_s } => {
                self.failures = self.failures.saturating_add(1);
                let asked_ms =
                    retry_after_s.map_or(0, |s| i64::from(s).saturating_mul(1_000)).min(bounds.throttle_ms_max);
                let own_ms = match before {
                    Some((_, wait_ms)) if probe => self.longer(wait_ms, bounds),
                    Some((_, wait_ms)) => wait_ms.min(bounds.open_ms_max),
                    None => bounds.open_ms,
                };
                let wait_ms = asked_ms.max(own_ms);
                // If several attempts were in flight, the longest requested time applies.
                if before.is_none_or(|(until, _)| probe || until < now.plus_millis(wait_ms)) {
                    self.open_for(now, wait_ms);
                }
            }
        }
        match (before, self.open) {
            (None, Some((until, _))) => Some(Turn::Opened(until)),
            (Some(_), None) => Some(Turn::Closed),
            _ => None,
        }
    }

    fn longer(&self, wait_ms: i64, bounds: &BreakerBounds) -> i64 {
        // Only times chosen by the breaker are doubled, not those requested by a receiver.
        wait_ms.min(bounds.open_ms_max).saturating_mul(2).clamp(bounds.open_ms, bounds.open_ms_max.max(bounds.open_ms))
    }

    fn open_for(&mut self, now: Timestamp, wait_ms: i64) {
        self.open = Some((now.plus_millis(wait_ms), wait_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const BOUNDS: BreakerBounds =
        BreakerBounds { failures_max: 3, open_ms: 1_000, open_ms_max: 8_000, throttle_ms_max: 60_000 };

    fn opened(breaker: &mut Breaker) {
        for _ in 0..2 {
            assert_eq!(breaker.heard(Some(Heard::Failing), false, NOW, &BOUNDS), None);
            assert_eq!(breaker.passage(NOW), Passage::Free);
        }
        let until = NOW.plus_millis(1_000);
        assert_eq!(breaker.heard(Some(Heard::Failing), false, NOW, &BOUNDS), Some(Turn::Opened(until)));
        assert_eq!(breaker.passage(NOW), Passage::Later(until));
    }

    #[test]
    fn opens_after_failures_in_a_row_and_asks_with_one() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        // Attempts that were in flight change nothing.
        assert_eq!(breaker.heard(Some(Heard::Failing), false, NOW, &BOUNDS), None);
        let mut now = NOW.plus_millis(1_000);
        for wait_ms in [2_000, 4_000, 8_000, 8_000] {
            assert_eq!(breaker.passage(now), Passage::Probe);
            breaker.probe();
            assert_eq!(breaker.passage(now), Passage::Probing);
            assert_eq!(breaker.heard(Some(Heard::Failing), true, now, &BOUNDS), None);
            assert_eq!(breaker.passage(now), Passage::Later(now.plus_millis(wait_ms)));
            now = now.plus_millis(wait_ms);
        }
        breaker.probe();
        assert_eq!(breaker.heard(Some(Heard::Alive), true, now, &BOUNDS), Some(Turn::Closed));
        assert!(breaker.is_fresh());
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let mut breaker = Breaker::default();
        for heard in [Heard::Failing, Heard::Failing, Heard::Alive, Heard::Failing, Heard::Failing] {
            assert_eq!(breaker.heard(Some(heard), false, NOW, &BOUNDS), None);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_told_nothing_is_followed_by_another() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        let now = NOW.plus_millis(1_000);
        breaker.probe();
        assert_eq!(breaker.heard(None, true, now, &BOUNDS), None);
        assert_eq!(breaker.passage(now), Passage::Probe);
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_at_once_and_up_to_a_limit() {
        let throttled = |retry_after_s| Some(Heard::Throttled { retry_after_s });
        let until = |wait_ms| Passage::Later(NOW.plus_millis(wait_ms));
        for (asked, wait_ms) in [(None, 1_000), (Some(0), 1_000), (Some(30), 30_000), (Some(86_400), 60_000)] {
            let mut breaker = Breaker::default();
            breaker.heard(throttled(asked), false, NOW, &BOUNDS);
            assert_eq!(breaker.passage(NOW), until(wait_ms), "{asked:?}");
        }
        let mut breaker = Breaker::default();
        for asked in [Some(30), Some(10), None] {
            breaker.heard(throttled(asked), false, NOW, &BOUNDS);
        }
        assert_eq!(breaker.passage(NOW), until(30_000), "the longest wish holds");
        // A requested time does not lengthen the times chosen by the breaker later.
        let now = NOW.plus_millis(30_000);
        breaker.probe();
        breaker.heard(Some(Heard::Failing), true, now, &BOUNDS);
        assert_eq!(breaker.passage(now), Passage::Later(now.plus_millis(8_000)));
    }

    #[test]
    fn a_clock_set_back_keeps_nobody_waiting() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        assert_eq!(breaker.passage(NOW.plus_millis(-3_600_000)), Passage::Probe);
    }

    #[test]
    fn what_is_no_fault_of_the_endpoint_does_not_count() {
        let answered = |status, retry_after_s| {
            let mut outcome = Outcome::status(status);
            if let Outcome::Answered { retry_after_s: asked, .. } = &mut outcome {
                *asked = retry_after_s;
            }
            Heard::of(&outcome)
        };
        for (status, heard) in [
            (200, Heard::Alive),
            (404, Heard::Alive),
            (302, Heard::Alive),
            (500, Heard::Failing),
            (503, Heard::Failing),
            (429, Heard::Throttled { retry_after_s: None }),
            (502, Heard::Throttled { retry_after_s: None }),
            (504, Heard::Throttled { retry_after_s: None }),
        ] {
            assert_eq!(answered(status, None), Some(heard), "{status}");
        }
        assert_eq!(answered(503, Some(7)), Some(Heard::Throttled { retry_after_s: Some(7) }));
        let failed = |class| Heard::of(&Outcome::Failed { class, detail: String::new() });
        assert_eq!(failed(ErrorClass::Connect), Some(Heard::Failing));
        assert_eq!(failed(ErrorClass::Unsendable), None);
        assert_eq!(failed(ErrorClass::Forbidden), None);
    }
}
