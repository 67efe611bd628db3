//! Delivery statistics over a period: counts and durations.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::attempt::Outcome;
use super::delivery::State;

/// A log-linear histogram of durations with eight buckets per octave, so that a value read back is off by at most 1/16.
/// Small and mergeable. Serialised as a list of `[bucket, count]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "Vec<(u16, u64)>")]
pub struct Durations(BTreeMap<u16, u64>);

/// Buckets per octave.
const BUCKETS_PER_OCTAVE: u64 = 1 << BUCKETS_PER_OCTAVE_LOG2;
const BUCKETS_PER_OCTAVE_LOG2: u32 = 3;

impl Durations {
    /// Records a value. All values must have the same unit.
    pub fn record(&mut self, value: u64) {
        *self.0.entry(bucket_of(value)).or_default() += 1;
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (step, count) in &other.0 {
            *self.0.entry(*step).or_default() += count;
        }
    }

    /// Number of recorded values.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The value that `percent` of the recorded values do not exceed, to the precision of a bucket. `None` if there are
    /// no values.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        // Nearest-rank method: the smallest value with at least `rank` values less than or equal to it.
        let rank = (self.total() * percent.min(100)).div_ceil(100).max(1);
        let mut below = 0;
        self.0.iter().find_map(|(step, count)| {
            below += count;
            (below >= rank).then(|| bucket_middle(*step))
        })
    }
}

impl From<Vec<(u16, u64)>> for Durations {
    fn from(counts: Vec<(u16, u64)>) -> Self {
        Self(counts.into_iter().collect())
    }
}

impl Serialize for Durations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

/// Small values have a bucket each. For larger ones, the highest bit determines the octave and the following bits the
/// bucket within it.
fn bucket_of(value: u64) -> u16 {
    if value < 2 * BUCKETS_PER_OCTAVE {
        return value as u16;
    }
    let shift = value.ilog2() - BUCKETS_PER_OCTAVE_LOG2;
    (u64::from(shift) * BUCKETS_PER_OCTAVE + (value >> shift)) as u16
}

/// The middle value of a bucket.
fn bucket_middle(step: u16) -> u64 {
    let step = u64::from(step);
    if step < 2 * BUCKETS_PER_OCTAVE {
        return step;
    }
    // The range of u64 has 60 octaves above the first.
    let shift = (step / BUCKETS_PER_OCTAVE - 1).min(60);
    let first = (step - shift * BUCKETS_PER_OCTAVE) << shift;
    first + ((1 << shift) - 1) / 2
}

/// Counts of one period, or the sum over several periods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Attempts with a 2xx response.
    pub succeeded: u64,
    /// Other attempts by class: see [`Outcome::class`].
    pub failed: BTreeMap<String, u64>,
    /// Durations of attempts, in microseconds.
    pub attempt_us: Durations,
    /// Deliveries that are no longer due, by their state, in the order of [`State::ALL`].
    #[serde(rename = "rested")]
    pub settled: [u64; State::ALL.len()],
    /// Time from the acceptance of an event to its delivery, in milliseconds. Without replays.
    pub accepted_to_delivered_ms: Durations,
}

impl Statistics {
    /// Records an attempt.
    pub fn record_attempt(&mut self, outcome: &Outcome, latency_us: u64) {
        if outcome.is_success() {
            self.succeeded += 1;
        } else if let Some(count) = self.failed.get_mut(outcome.class()) {
            *count += 1;
        } else {
            self.failed.insert(outcome.class().to_owned(), 1);
        }
        self.attempt_us.record(latency_us);
    }

    /// Records a delivery that is no longer due.
    pub fn record_settled(&mut self, state: State) {
        let place = State::ALL.iter().position(|known| *known == state);
        self.settled[place.expect("every state is one of all")] += 1;
    }

    /// Number of deliveries that reached a state.
    pub fn settled_as(&self, state: State) -> u64 {
        State::ALL.iter().zip(self.settled).find_map(|(known, count)| (*known == state).then_some(count)).unwrap_or(0)
    }

    /// Number of attempts.
    pub fn attempts(&self) -> u64 {
        self.succeeded + self.failed.values().sum::<u64>()
    }

    /// Adds the counts of another period.
    pub fn merge(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        for (class, count) in &other.failed {
            *self.failed.entry(class.clone()).or_default() += count;
        }
        self.attempt_us.merge(&other.attempt_us);
        for (sum, count) in self.settled.iter_mut().zip(other.settled) {
            *sum += count;
        }
        self.accepted_to_delivered_ms.merge(&other.accepted_to_delivered_ms);
    }
}

/// A period up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Window {
    /// The last hour, in buckets of a minute.
    #[serde(rename = "1h")]
    Hour,
    /// The last 24 hours, in buckets of an hour.
    #[default]
    #[serde(rename = "24h")]
    Day,
    /// The last seven days, in buckets of an hour.
    #[serde(rename = "7d")]
    Week,
}

impl Window {
    /// Length in milliseconds.
    pub fn ms(self) -> i64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => 24 * HOUR_MS,
            Self::Week => 7 * 24 * HOUR_MS,
        }
    }

    /// Length of its buckets in milliseconds.
    pub fn bucket_ms(self) -> i64 {
        match self {
            Self::Hour => MINUTE_MS,
            Self::Day | Self::Week => HOUR_MS,
        }
    }
}

/// Milliseconds in a minute.
pub const MINUTE_MS: i64 = 60_000;
/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::attempt::ErrorClass;

    proptest! {
        #[test]
        fn bucket_value_is_within_one_sixteenth(value in any::<u64>(), bits in 0..64_u32) {
            let value = value >> bits;
            let read = bucket_middle(bucket_of(value));
            prop_assert!(read.abs_diff(value) <= value / 16, "{value} is read back as {read}");
            prop_assert!(bucket_of(value) <= bucket_of(value.saturating_add(1)));
        }

        #[test]
        fn percentiles_match_sorted_values(
            mut values in prop::collection::vec(0..10_000_000_u64, 1..300),
            percent in 1..100_u64,
        ) {
            let mut durations = Durations::default();
            let (first, second) = values.split_at(values.len() / 2);
            let mut other = Durations::default();
            first.iter().for_each(|value| durations.record(*value));
            second.iter().for_each(|value| other.record(*value));
            durations.merge(&other);
            values.sort_unstable();
            let rank = (values.len() as u64 * percent).div_ceil(100).max(1);
            let exact = values[usize::try_from(rank - 1).unwrap()];
            let read = durations.percentile(percent).unwrap();
            prop_assert!(read.abs_diff(exact) <= exact / 16, "p{percent}: {read} for {exact}");
        }
    }

    #[test]
    fn statistics_merge_and_round_trip() {
        let mut one = Statistics::default();
        assert_eq!(one.attempt_us.percentile(50), None);
        one.record_attempt(&Outcome::status(204), 1_000);
        one.record_attempt(&Outcome::status(503), 3_000);
        one.record_settled(State::Delivered);
        let mut other = Statistics::default();
        other.record_attempt(&Outcome::status(500), 2_000);
        other.record_attempt(&Outcome::Failed { class: ErrorClass::Timeout, detail: String::new() }, 9_000);
        other.record_settled(State::Dead);
        other.accepted_to_delivered_ms.record(70);
        one.merge(&other);
        assert_eq!((one.attempts(), one.succeeded, one.attempt_us.total()), (4, 1, 4));
        assert_eq!(one.failed, BTreeMap::from([("5xx".to_owned(), 2), ("timeout".to_owned(), 1)]));
        assert_eq!((one.settled_as(State::Delivered), one.settled_as(State::Dead)), (1, 1));
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Statistics>(&text).unwrap(), one);
        // Missing fields, as written by older versions, are accepted.
        assert_eq!(serde_json::from_str::<Statistics>("{}").unwrap(), Statistics::default());
    }
}
