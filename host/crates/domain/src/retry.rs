//! Retry schedule: pure functions of the number of attempts, `Retry-After` and jitter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Delays before the second, third, ... attempt, in seconds. The default is the schedule recommended by Standard
/// Webhooks ("Retry schedule"): 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
#[schemars(extend("maxItems" = RETRY_WAITS_MAX,
    "items" = serde_json::json!({"type": "integer", "minimum": 0, "maximum": RETRY_WAIT_SECONDS_MAX})))]
pub struct RetrySchedule(Vec<u32>);

/// Maximum number of delays in a schedule.
pub const RETRY_WAITS_MAX: usize = 30;
/// Longest delay in a schedule, and longest `Retry-After` that is honoured, in seconds.
pub const RETRY_WAIT_SECONDS_MAX: u32 = 7 * 24 * 3600;

impl Default for RetrySchedule {
    fn default() -> Self {
        const H: u32 = 3600;
        Self(vec![5, 300, 1800, 2 * H, 5 * H, 10 * H, 14 * H, 20 * H, 24 * H])
    }
}

impl TryFrom<Vec<u32>> for RetrySchedule {
    type Error = String;

    fn try_from(waits: Vec<u32>) -> Result<Self, String> {
        if waits.len() > RETRY_WAITS_MAX || waits.iter().any(|w| *w > RETRY_WAIT_SECONDS_MAX) {
            return Err(format!(
                "a retry schedule has at most {RETRY_WAITS_MAX} delays of at most {RETRY_WAIT_SECONDS_MAX} seconds"
            ));
        }
        Ok(Self(waits))
    }
}

impl From<RetrySchedule> for Vec<u32> {
    fn from(schedule: RetrySchedule) -> Vec<u32> {
        schedule.0
    }
}

impl RetrySchedule {
    /// Time of the next attempt after `failed` failed attempts, the last of which ended at `now`. `None` if the
    /// schedule is exhausted.
    ///
    /// `jitter` from 0.0 to 1.0 spreads the delay by +-20%. The delay is at least `retry_after_s`, up to
    /// [`RETRY_WAIT_SECONDS_MAX`]. Jitter only lengthens that, so that a retry is never earlier than requested.
    pub fn next(&self, failed: u32, now: Timestamp, retry_after_s: Option<u32>, jitter: f64) -> Option<Timestamp> {
        let index = usize::try_from(failed.checked_sub(1)?).ok()?;
        let wait_ms = f64::from(*self.0.get(index)?) * 1000.0 * (0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        let asked_ms = retry_after_s
            .map_or(0.0, |s| f64::from(s.min(RETRY_WAIT_SECONDS_MAX)) * 1000.0 * (1.0 + 0.2 * jitter.clamp(0.0, 1.0)));
        #[expect(clippy::cast_possible_truncation, reason = "at most 1.2 weeks in milliseconds")]
        Some(now.plus_millis(wait_ms.max(asked_ms) as i64))
    }

    /// Seconds from the first attempt to the one with number `attempt`, starting at 1, without jitter.
    pub fn elapsed_s(&self, attempt: u32) -> u64 {
        let waits = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        self.0.iter().take(waits).map(|wait| u64::from(*wait)).sum()
    }
}

/// Start of the reason of a delivery that has used up its schedule.
pub fn given_up_reason(attempts: u32) -> String {
    format!("given up after {attempts} attempt{}", if attempts == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn follows_schedule_then_gives_up() {
        let schedule = RetrySchedule::default();
        assert_eq!(schedule.next(1, NOW, None, 0.5), Some(NOW.plus_millis(5_000)));
        assert_eq!(schedule.next(2, NOW, None, 0.0), Some(NOW.plus_millis(240_000)));
        assert_eq!(schedule.next(9, NOW, None, 1.0), Some(NOW.plus_millis(103_680_000)));
        assert_eq!(schedule.next(10, NOW, None, 0.5), None);
    }

    #[test]
    fn retry_is_never_earlier_than_retry_after() {
        let at = RetrySchedule::default().next(1, NOW, Some(120), 0.0).unwrap();
        assert_eq!(at.since(NOW), 120_000);
    }
}
