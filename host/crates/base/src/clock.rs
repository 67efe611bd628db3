//! The only module that reads the clocks.
//!
//! The system clock can jump: it is adjusted by NTP or by an administrator, or the machine wakes from sleep. For
//! everything that it stores or schedules, the host uses its own time, [`Clock::now`], with these rules:
//!
//! 1. It is monotonic, so that ids increase, order is preserved and no delay starts again.
//! 2. It follows the system clock as long as that agrees with the monotonic clock within [`JUMP_MS_MIN`].
//! 3. If the system clock jumps, the host's time continues at its own pace, logs the jump, and follows it only after
//!    the new offset has been stable for `data.clock_settle_s`. A jump that is reverted before has no effect.
//! 4. If it is ahead of its target, it runs at half speed until they meet.
//!
//! Times that others compare with their own clocks (signatures, dates of responses) use [`Clock::system_time`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use setgate_domain::time::Timestamp;

/// Deviation of the system clock from the monotonic clock between two readings, in milliseconds, above which it counts
/// as a jump.
pub const JUMP_MS_MIN: i64 = 1_000;
/// How far ahead of the system clock the host's time may start, in milliseconds: one day. If stored times are further
/// ahead, the clock was wrong when they were stored.
pub const START_AHEAD_MS_MAX: i64 = 24 * 3600 * 1000;
/// Counter: jumps of the system clock, by `direction` (`ahead`, `back`).
pub const JUMPS: &str = "setgate_clock_jumps_total";
/// Gauge: seconds by which the system clock is ahead of the host's time.
pub const OFFSET_SECONDS: &str = "setgate_clock_offset_seconds";

/// The host's clock. Tests use a manual one.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    System(Arc<System>),
    Manual(Arc<AtomicI64>),
}

#[derive(Debug)]
struct System {
    started_at: Instant,
    time: Mutex<HostTime>,
}

impl Clock {
    /// The system's clock with the default settle time, for short-lived uses.
    pub fn system() -> Self {
        Self::with_settle_time(Duration::from_secs(600))
    }

    /// The system's clock. After a jump it follows once the new offset has been stable for `settle`.
    pub fn with_settle_time(settle: Duration) -> Self {
        let settle_us = i64::try_from(settle.as_micros()).unwrap_or(i64::MAX);
        let time = Mutex::new(HostTime::new(system_time().as_millis(), settle_us));
        Self(Kind::System(Arc::new(System { started_at: Instant::now(), time })))
    }

    /// A clock that only changes when it is set.
    pub fn manual(at: Timestamp) -> Self {
        Self(Kind::Manual(Arc::new(AtomicI64::new(at.as_millis()))))
    }

    /// Sets a manual clock. No effect on a system clock.
    pub fn set(&self, at: Timestamp) {
        if let Kind::Manual(millis) = &self.0 {
            millis.store(at.as_millis(), Ordering::SeqCst);
        }
    }

    /// Starts no earlier than `at`, the latest time that this host has stored. If `at` is more than [`START_AHEAD_MS_MAX`]
    /// ahead of the system clock, it is ignored. A manual clock accepts any time.
    pub fn advance_to(&self, at: Timestamp) {
        if let Kind::Manual(millis) = &self.0 {
            millis.fetch_max(at.as_millis(), Ordering::SeqCst);
        }
        if let Kind::System(system) = &self.0 {
            let ahead_ms = at.since(system_time());
            if ahead_ms > START_AHEAD_MS_MAX {
                tracing::error!(ahead_ms, stored = %at, "stored times are far ahead of the system clock: \
                    it was wrong when they were stored, or is wrong now. The host starts at the system clock's time");
            } else if ahead_ms > 0 {
                if ahead_ms > JUMP_MS_MIN {
                    tracing::warn!(ahead_ms, stored = %at, "the system clock is behind the stored times: the host's time \
                        starts at the latest stored time and runs at half speed until they meet");
                }
                system.time.lock().unwrap_or_else(PoisonError::into_inner).start_at(at.as_millis());
            }
        }
    }

    /// The host's own time, for everything that is stored, scheduled, or compared with stored times.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System(system) => {
                // The clocks are read under the lock, so that no thread applies an older reading than the last one.
                let mut time = system.time.lock().unwrap_or_else(PoisonError::into_inner);
                let monotonic_us = i64::try_from(system.started_at.elapsed().as_micros()).unwrap_or(i64::MAX);
                let (at, event) = time.read(monotonic_us, system_time().as_millis());
                drop(time);
                if let Some(event) = event {
                    event.log();
                }
                Timestamp::from_millis(at)
            }
            Kind::Manual(millis) => Timestamp::from_millis(millis.load(Ordering::SeqCst)),
        }
    }

    /// The current system time, including jumps, for times that others compare with their own clocks.
    pub fn system_time(&self) -> Timestamp {
        match &self.0 {
            Kind::System(_) => system_time(),
            Kind::Manual(_) => self.now(),
        }
    }

    /// The system time in nanoseconds since 1970-01-01T00:00:00Z, for spans.
    pub fn unix_nanos(&self) -> u64 {
        let nanos = match &self.0 {
            Kind::System(_) => since_epoch().as_nanos(),
            Kind::Manual(_) => u128::try_from(self.now().as_millis()).unwrap_or(0) * 1_000_000,
        };
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

fn system_time() -> Timestamp {
    Timestamp::from_millis(i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX))
}

#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The rules in the module documentation, without a clock. Microseconds, because half of a millisecond would be rounded
/// to zero.
#[derive(Debug)]
struct HostTime {
    settle_us: i64,
    /// The last returned time, and its monotonic reading.
    time_us: i64,
    monotonic_us: i64,
    /// The current target: the system clock minus the monotonic clock.
    offset_us: i64,
    /// Another offset of the system clock, and the monotonic reading at which it began.
    candidate: Option<(i64, i64)>,
}

/// An event for the log.
#[derive(Debug, PartialEq, Eq)]
enum ClockEvent {
    /// The system clock jumped away from the host's time by this many microseconds.
    Jumped(i64),
    /// The system clock returned to the old offset.
    Reverted,
    /// The new offset was stable, and the host now follows it.
    Followed(i64),
}

impl HostTime {
    fn new(system_ms: i64, settle_us: i64) -> Self {
        let time_us = system_ms.saturating_mul(1_000);
        Self { settle_us, time_us, monotonic_us: 0, offset_us: time_us, candidate: None }
    }

    fn start_at(&mut self, at_ms: i64) {
        self.time_us = self.time_us.max(at_ms.saturating_mul(1_000));
    }

    /// The time in milliseconds for these readings of the two clocks.
    fn read(&mut self, monotonic_us: i64, system_ms: i64) -> (i64, Option<ClockEvent>) {
        let elapsed_us = (monotonic_us - self.monotonic_us).max(0);
        self.monotonic_us = self.monotonic_us.max(monotonic_us);
        let offset_us = system_ms.saturating_mul(1_000).saturating_sub(self.monotonic_us);
        let event = self.follow(offset_us);
        let target_us = self.offset_us.saturating_add(self.monotonic_us);
        self.time_us = target_us.max(self.time_us + elapsed_us / 2);
        (self.time_us.div_euclid(1_000), event)
    }

    fn follow(&mut self, offset_us: i64) -> Option<ClockEvent> {
        let near = |one: i64, other: i64| one.abs_diff(other) <= JUMP_MS_MIN.unsigned_abs() * 1_000;
        if near(offset_us, self.offset_us) {
            self.offset_us = offset_us;
            return self.candidate.take().map(|_| ClockEvent::Reverted);
        }
        match &mut self.candidate {
            Some((candidate, since)) if near(offset_us, *candidate) => {
                *candidate = offset_us;
                if self.monotonic_us - *since < self.settle_us {
                    return None;
                }
                let by = offset_us.saturating_sub(self.offset_us);
                self.offset_us = offset_us;
                self.candidate = None;
                Some(ClockEvent::Followed(by))
            }
            _ => {
                self.candidate = Some((offset_us, self.monotonic_us));
                Some(ClockEvent::Jumped(offset_us.saturating_sub(self.offset_us)))
            }
        }
    }
}

impl ClockEvent {
    fn log(&self) {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a gauge")]
        let seconds = |us: i64| us as f64 / 1e6;
        match self {
            Self::Jumped(by) => {
                let by_s = seconds(*by);
                metrics::counter!(JUMPS, "direction" => if *by > 0 { "ahead" } else { "back" }).increment(1);
                metrics::gauge!(OFFSET_SECONDS).set(by_s);
                tracing::warn!(
                    by_s,
                    "the system clock jumped: the host's own time continues at its pace, and follows \
                    once the new offset has been stable for `data.clock_settle_s`"
                );
            }
            Self::Reverted => {
                metrics::gauge!(OFFSET_SECONDS).set(0.0);
                tracing::info!("the system clock agrees with the host's own time again");
            }
            Self::Followed(by) => {
                metrics::gauge!(OFFSET_SECONDS).set(0.0);
                let by_s = seconds(*by);
                tracing::warn!(
                    by_s,
                    "the system clock kept its new offset: the host's own time follows it{}",
                    if *by > 0 { "" } else { ", at half speed until they meet" }
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;
    const HOUR_MS: i64 = 3_600_000;
    const START: i64 = 1_751_705_149_000;

    /// A clock that settles in ten seconds and is read once per second. The wall clock is `ahead_ms` ahead of the
    /// monotonic one.
    struct Story {
        time: HostTime,
        at_s: i64,
    }

    impl Story {
        fn new() -> Self {
            Self { time: HostTime::new(START, 10 * S), at_s: 0 }
        }

        /// Reads the clock for that many seconds. Returns the last time in milliseconds since the start, and the
        /// events.
        fn live(&mut self, seconds: i64, ahead_ms: i64) -> (i64, Vec<ClockEvent>) {
            let (mut last, mut event) = (i64::MIN, Vec::new());
            for _ in 0..seconds {
                self.at_s += 1;
                let (at, new) = self.time.read(self.at_s * S, START + self.at_s * 1_000 + ahead_ms);
                assert!(at >= last, "the time went back");
                last = at;
                event.extend(new);
            }
            (last - START, event)
        }
    }

    #[test]
    fn follows_small_steps_and_never_goes_back() {
        let mut story = Story::new();
        assert_eq!(story.live(5, 400), (5_400, vec![]));
        assert_eq!(story.live(1, -500), (5_900, vec![]), "half speed, without a step back");
        assert_eq!(story.live(5, -500), (10_500, vec![]));
    }

    #[test]
    fn reverted_jump_has_no_effect() {
        for jump in [365 * 24 * HOUR_MS, -HOUR_MS] {
            let mut story = Story::new();
            story.live(5, 0);
            assert_eq!(story.live(9, jump), (14_000, vec![ClockEvent::Jumped(jump * 1_000)]));
            assert_eq!(story.live(9, 0), (23_000, vec![ClockEvent::Reverted]));
        }
    }

    #[test]
    fn stable_forward_jump_is_followed() {
        let mut story = Story::new();
        assert_eq!(story.live(10, HOUR_MS).0, 10_000);
        assert_eq!(story.live(1, HOUR_MS), (11_000 + HOUR_MS, vec![ClockEvent::Followed(HOUR_MS * 1_000)]));
    }

    #[test]
    fn stable_backward_jump_is_followed_at_half_speed() {
        let mut story = Story::new();
        story.live(11, -60_000);
        assert_eq!(story.live(60, -60_000).0, 10_000 + 61 * 500, "half speed");
        assert_eq!(story.live(120, -60_000).0, 191_000 - 60_000, "the times have met");
    }

    #[test]
    fn unstable_clock_is_never_followed() {
        let mut story = Story::new();
        for n in 0..20 {
            story.live(9, (n % 2 + 1) * HOUR_MS);
        }
        assert_eq!(story.live(1, 0).0, 181_000);
    }

    #[test]
    fn starts_at_latest_stored_time() {
        let mut story = Story::new();
        story.time.start_at(START + 60_000);
        assert_eq!(story.live(60, 0).0, 90_000);
        assert_eq!(story.live(60, 0).0, 120_000, "the times have met");
    }

    #[test]
    fn ignores_stored_time_too_far_ahead() {
        let clock = Clock::system();
        clock.advance_to(clock.system_time().plus_millis(START_AHEAD_MS_MAX + 60_000));
        assert!(clock.now().since(clock.system_time()) < 60_000);
        clock.advance_to(clock.system_time().plus_millis(HOUR_MS));
        assert!(clock.now().since(clock.system_time()) > HOUR_MS / 2);
    }
}
