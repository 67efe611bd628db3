//! Circuit breaker of an endpoint. A failing endpoint gets no requests for a while, then a single delivery as a probe.
//! Queued deliveries make no attempts meanwhile, so that none of them is given up because of a shared outage. Pure:
//! `now` is an argument.

use super::time::Timestamp;

/// Settings of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Consecutive failures after which it opens. 0 disables it.
    pub failures_max: u32,
    /// Initial open time in milliseconds. Doubles with each failed probe.
    pub open_ms: i64,
    /// Maximum open time chosen by the breaker, in milliseconds.
    pub open_ms_max: i64,
    /// Maximum open time requested by a receiver with `Retry-After`, in milliseconds.
    pub throttle_ms_max: i64,
}

/// Signal of an attempt about the health of its endpoint, independent of the delivery's result. Decided in
/// [`attempt_effects`](super::attempt_effects).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
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

/// Whether a delivery may be sent to an endpoint now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Closed: it may.
    Allowed,
    /// It may, as the probe whose result decides for the others. Call [`Breaker::probe`] when it is sent.
    Probe,
    /// Open: not before this time.
    NotBefore(Timestamp),
    /// Not before the running probe has ended.
    Probing,
}

/// A state change of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
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
    pub fn is_initial(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is open or half-open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a delivery may be sent now.
    pub fn admission(&self, now: Timestamp) -> Admission {
        match self.open {
            None => Admission::Allowed,
            // If the remaining time is longer than the whole period, the clock was set back: do not wait for it.
            Some((until, wait_ms)) if now < until && until.since(now) <= wait_ms => Admission::NotBefore(until),
            Some(_) if self.probing => Admission::Probing,
            Some(_) => Admission::Probe,
        }
    }

    /// Records that the probe is sent.
    pub fn probe(&mut self) {
        self.probing = true;
    }

    /// Records the signal of an attempt. `None` if there was no signal or no attempt. `probe` is true if the attempt
    /// was the probe.
    pub fn record(
        &mut self,
        signal: Option<Signal>,
        probe: bool,
        now: Timestamp,
        settings: &BreakerSettings,
    ) -> Option<Transition> {
        if probe {
            self.probing = false;
        }
        let before = self.open;
        match signal? {
            Signal::Alive => *self = Self::default(),
            Signal::Failing => {
                self.failures = self.failures.saturating_add(1);
                match before {
                    // Sent before the breaker opened, so this is no new information.
                    Some(_) if !probe => {}
                    Some((_, wait_ms)) => self.open_for(now, self.backoff(wait_ms, settings)),
                    None if settings.failures_max > 0 && self.failures >= settings.failures_max => {
                        self.open_for(now, settings.open_ms);
                    }
                    None => {}
                }
            }
            Signal::Throttled { retry_after_s } => {
                self.failures = self.failures.saturating_add(1);
                let asked_ms =
                    retry_after_s.map_or(0, |s| i64::from(s).saturating_mul(1_000)).min(settings.throttle_ms_max);
                let own_ms = match before {
                    Some((_, wait_ms)) if probe => self.backoff(wait_ms, settings),
                    Some((_, wait_ms)) => wait_ms.min(settings.open_ms_max),
                    None => settings.open_ms,
                };
                let wait_ms = asked_ms.max(own_ms);
                // If several attempts were in flight, the longest requested time applies.
                if before.is_none_or(|(until, _)| probe || until < now.plus_millis(wait_ms)) {
                    self.open_for(now, wait_ms);
                }
            }
        }
        match (before, self.open) {
            (None, Some((until, _))) => Some(Transition::Opened(until)),
            (Some(_), None) => Some(Transition::Closed),
            _ => None,
        }
    }

    fn backoff(&self, wait_ms: i64, settings: &BreakerSettings) -> i64 {
        // Only times chosen by the breaker are doubled, not those requested by a receiver.
        wait_ms
            .min(settings.open_ms_max)
            .saturating_mul(2)
            .clamp(settings.open_ms, settings.open_ms_max.max(settings.open_ms))
    }

    fn open_for(&mut self, now: Timestamp, wait_ms: i64) {
        self.open = Some((now.plus_millis(wait_ms), wait_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const BOUNDS: BreakerSettings =
        BreakerSettings { failures_max: 3, open_ms: 1_000, open_ms_max: 8_000, throttle_ms_max: 60_000 };

    fn opened(breaker: &mut Breaker) {
        for _ in 0..2 {
            assert_eq!(breaker.record(Some(Signal::Failing), false, NOW, &BOUNDS), None);
            assert_eq!(breaker.admission(NOW), Admission::Allowed);
        }
        let until = NOW.plus_millis(1_000);
        assert_eq!(breaker.record(Some(Signal::Failing), false, NOW, &BOUNDS), Some(Transition::Opened(until)));
        assert_eq!(breaker.admission(NOW), Admission::NotBefore(until));
    }

    #[test]
    fn opens_after_consecutive_failures_and_sends_one_probe() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        // Attempts that were in flight change nothing.
        assert_eq!(breaker.record(Some(Signal::Failing), false, NOW, &BOUNDS), None);
        let mut now = NOW.plus_millis(1_000);
        for wait_ms in [2_000, 4_000, 8_000, 8_000] {
            assert_eq!(breaker.admission(now), Admission::Probe);
            breaker.probe();
            assert_eq!(breaker.admission(now), Admission::Probing);
            assert_eq!(breaker.record(Some(Signal::Failing), true, now, &BOUNDS), None);
            assert_eq!(breaker.admission(now), Admission::NotBefore(now.plus_millis(wait_ms)));
            now = now.plus_millis(wait_ms);
        }
        breaker.probe();
        assert_eq!(breaker.record(Some(Signal::Alive), true, now, &BOUNDS), Some(Transition::Closed));
        assert!(breaker.is_initial());
    }

    #[test]
    fn success_resets_failure_count() {
        let mut breaker = Breaker::default();
        for signal in [Signal::Failing, Signal::Failing, Signal::Alive, Signal::Failing, Signal::Failing] {
            assert_eq!(breaker.record(Some(signal), false, NOW, &BOUNDS), None);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn probe_without_signal_is_repeated() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        let now = NOW.plus_millis(1_000);
        breaker.probe();
        assert_eq!(breaker.record(None, true, now, &BOUNDS), None);
        assert_eq!(breaker.admission(now), Admission::Probe);
    }

    #[test]
    fn retry_after_opens_breaker_up_to_limit() {
        let throttled = |retry_after_s| Some(Signal::Throttled { retry_after_s });
        let until = |wait_ms| Admission::NotBefore(NOW.plus_millis(wait_ms));
        for (asked, wait_ms) in [(None, 1_000), (Some(0), 1_000), (Some(30), 30_000), (Some(86_400), 60_000)] {
            let mut breaker = Breaker::default();
            breaker.record(throttled(asked), false, NOW, &BOUNDS);
            assert_eq!(breaker.admission(NOW), until(wait_ms), "{asked:?}");
        }
        let mut breaker = Breaker::default();
        for asked in [Some(30), Some(10), None] {
            breaker.record(throttled(asked), false, NOW, &BOUNDS);
        }
        assert_eq!(breaker.admission(NOW), until(30_000), "the longest requested time applies");
        // A requested time does not lengthen the times chosen by the breaker later.
        let now = NOW.plus_millis(30_000);
        breaker.probe();
        breaker.record(Some(Signal::Failing), true, now, &BOUNDS);
        assert_eq!(breaker.admission(now), Admission::NotBefore(now.plus_millis(8_000)));
    }

    #[test]
    fn clock_set_back_ends_open_period() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        assert_eq!(breaker.admission(NOW.plus_millis(-3_600_000)), Admission::Probe);
    }
}
