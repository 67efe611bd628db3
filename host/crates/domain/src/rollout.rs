//! Rollout of a filter version: the candidate runs as a shadow of the active version, or as a canary for a share of the
//! subjects, before it becomes the active version.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, EventId, SubscriptionId};
use super::time::Timestamp;
use super::verdict::{Fault, VerdictKind};

/// Default number of candidate calls before its fault rate is evaluated.
pub const CALLS_MIN_DEFAULT: u64 = 20;
/// Default maximum fault rate of a candidate: 5 percent.
pub const FAULTS_PERCENT_MAX_DEFAULT: Percent = Percent(500);
/// Number of differences that a shadow rollout stores. The oldest are dropped.
pub const SAMPLES_MAX: usize = 20;
/// Maximum length of the description of one difference in claims, in bytes.
pub const DIFFERENCE_BYTES_MAX: usize = 2 << 10;

/// A percentage from 0 to 100 with at most two decimals. Stored in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(extend("minimum" = 0, "maximum" = 100))]
pub struct Percent(u16);

impl Percent {
    /// Hundredths of a percent, from 0 to 10,000.
    pub fn hundredths(self) -> u16 {
        self.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = String;

    fn try_from(given: f64) -> Result<Self, String> {
        let hundredths = (given * 100.0).round();
        if !(0.0..=10_000.0).contains(&hundredths) || (given * 100.0 - hundredths).abs() > 1e-6 {
            return Err(format!("{given} is not a percentage from 0 to 100 with at most two decimals"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 0 to 10,000")]
        Ok(Self(hundredths as u16))
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> Self {
        Self::from(percent.0) / 100.0
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", f64::from(*self))
    }
}

/// Mode of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum RolloutMode {
    /// The candidate runs in addition to the active version, on the same input. Its verdicts are counted and discarded.
    Shadow,
    /// The candidate runs instead of the active version for a share of the subjects.
    Canary {
        /// Share of the subjects.
        percent: Percent,
        /// Maximum share of the candidate's calls that may fault. If it is exceeded, the candidate is rolled back.
        faults_percent_max: Percent,
        /// Number of calls before the fault rate is evaluated.
        calls_min: u64,
    },
}

impl RolloutMode {
    /// Name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary { .. } => "canary",
        }
    }

    /// Whether a subject is assigned to the candidate. `hash` must be distributed evenly over subjects and be stable
    /// for a subject and a candidate, so that a larger share adds subjects and removes none.
    pub fn selects(self, hash: u64) -> bool {
        match self {
            Self::Shadow => false,
            Self::Canary { percent, .. } => (u128::from(hash) * 10_000) >> 64 < u128::from(percent.0),
        }
    }

    /// Whether this fault rate ends the rollout.
    pub fn exceeds_fault_limit(self, calls: u64, faults: u64) -> bool {
        match self {
            Self::Shadow => false,
            Self::Canary { faults_percent_max, calls_min, .. } => {
                calls >= calls_min.max(1)
                    && u128::from(faults) * 10_000 > u128::from(calls) * u128::from(faults_percent_max.0)
            }
        }
    }
}

/// A rollout in progress. A filter has at most one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// Digest of the candidate.
    pub digest: Digest,
    /// Mode.
    #[serde(flatten)]
    pub mode: RolloutMode,
    /// Start time. Changing the parameters of a canary does not reset it.
    pub started_at: Timestamp,
}

/// Why a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The candidate was promoted to active version.
    Promoted,
    /// An operator ended it.
    Ended,
    /// An operator rolled the filter back.
    RolledBack,
    /// The host ended it because the candidate faulted too often.
    Faults,
}

impl EndReason {
    /// Name in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Ended => "ended",
            Self::RolledBack => "rolled_back",
            Self::Faults => "faults",
        }
    }
}

/// A finished rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndedRollout {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// End time.
    pub at: Timestamp,
    /// Reason of the end.
    pub reason: EndReason,
    /// Number of candidate calls by live deliveries that returned a verdict or faulted, as far as they were counted.
    pub calls: u64,
    /// Number of these calls that ended in a fault of the candidate itself.
    pub faults: u64,
}

/// Calls of a candidate by live deliveries, since the start of the rollout or of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct RolloutCounts {
    /// Number of calls that returned a verdict or faulted.
    pub calls: u64,
    /// Number of these calls that ended in a fault of the filter itself.
    pub faults: u64,
}

/// Result of a version for one event.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct VersionVerdict {
    /// The verdict. Absent if the version faulted or was not called.
    pub verdict: Option<VerdictKind>,
    /// Reason of a drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The fault, if the version faulted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// End of the delivery's chain: `through`, `dropped`, `held` or `again`. Set by backtests only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<&'static str>,
}

/// An event for which the results of two versions differ.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct VersionDifference {
    /// ID of the event.
    pub event: EventId,
    /// Subscription whose chain ran.
    pub subscription: SubscriptionId,
    /// Result of the active version.
    pub active: VersionVerdict,
    /// Result of the candidate.
    pub candidate: VersionVerdict,
    /// Difference of the claims: members that only the active version (`-`) or only the candidate (`+`) produced, as
    /// JSON Pointers (RFC 6901), in at most [`DIFFERENCE_BYTES_MAX`] bytes.
    pub claims: Vec<String>,
}

/// Results of a shadow rollout.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ShadowReport {
    /// Number of compared events.
    pub runs: u64,
    /// Number of these events with the same verdict and identical bytes.
    pub same: u64,
    /// Number of these events with different results.
    pub different: u64,
    /// Number of events not compared, because the limit of concurrent shadow runs was reached.
    pub skipped: u64,
    /// Number of events not compared, because one of the versions had a transient failure or could not be started.
    pub undecided: u64,
    /// Cost of the active version.
    pub active: ShadowCost,
    /// Cost of the candidate.
    pub candidate: ShadowCost,
    /// The most recent differences.
    pub samples: Vec<VersionDifference>,
}

/// Cost of the compared calls of one version.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct ShadowCost {
    /// Number of calls that ended in a fault of the filter itself.
    pub faults: u64,
    /// Total fuel.
    pub fuel: u64,
    /// Highest fuel of a call.
    pub fuel_max: u64,
    /// Total time in microseconds, including waits for a slot.
    pub time_us: u64,
    /// Longest time of a call in microseconds.
    pub time_us_max: u64,
}

impl ShadowCost {
    /// Adds a call.
    pub fn add(&mut self, fuel: u64, time_us: u64, faulted: bool) {
        self.faults += u64::from(faulted);
        self.fuel = self.fuel.saturating_add(fuel);
        self.fuel_max = self.fuel_max.max(fuel);
        self.time_us = self.time_us.saturating_add(time_us);
        self.time_us_max = self.time_us_max.max(time_us);
    }
}

/// Results of a rollout so far. Kept in memory and reset when the host restarts.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "TrialReport")]
pub struct RolloutReport {
    /// Start of the counts.
    pub counted_since: Timestamp,
    /// Calls of a canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<RolloutCounts>,
    /// Results of a shadow rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(given: f64) -> Percent {
        Percent::try_from(given).unwrap()
    }

    fn canary(share: f64) -> RolloutMode {
        RolloutMode::Canary { percent: percent(share), faults_percent_max: FAULTS_PERCENT_MAX_DEFAULT, calls_min: 20 }
    }

    #[test]
    fn percent_has_two_decimals_up_to_100() {
        for (given, hundredths) in [(0.0, 0), (0.01, 1), (12.5, 1_250), (33.33, 3_333), (100.0, 10_000)] {
            assert_eq!(percent(given).hundredths(), hundredths, "{given}");
            assert_eq!(f64::from(percent(given)).to_string(), given.to_string());
        }
        for bad in [-0.01, 100.01, 1.001, f64::NAN, f64::INFINITY] {
            assert!(Percent::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_0_selects_none_and_100_all() {
        for hash in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!canary(0.0).selects(hash));
            assert!(canary(100.0).selects(hash));
            assert!(!RolloutMode::Shadow.selects(hash));
        }
        assert!(canary(0.01).selects(0));
        assert!(!canary(99.99).selects(u64::MAX));
    }

    #[test]
    fn fault_limit_applies_after_calls_min() {
        for (calls, faults, over) in
            [(0, 0, false), (19, 19, false), (20, 1, false), (20, 2, true), (100, 5, false), (100, 6, true)]
        {
            assert_eq!(canary(50.0).exceeds_fault_limit(calls, faults), over, "{faults} of {calls}");
        }
        let strict = RolloutMode::Canary { percent: percent(1.0), faults_percent_max: percent(0.0), calls_min: 0 };
        assert!(
            !strict.exceeds_fault_limit(0, 0) && !strict.exceeds_fault_limit(7, 0) && strict.exceeds_fault_limit(1, 1)
        );
        assert!(!RolloutMode::Shadow.exceeds_fault_limit(100, 100));
    }

    #[test]
    fn rollout_round_trips() {
        for mode in [RolloutMode::Shadow, canary(12.5)] {
            let rollout = Rollout { digest: Digest([7; 32]), mode, started_at: Timestamp::from_millis(1_000) };
            let text = serde_json::to_string(&rollout).unwrap();
            assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), rollout, "{text}");
            let ended = EndedRollout {
                rollout,
                at: Timestamp::from_millis(2_000),
                reason: EndReason::Faults,
                calls: 9,
                faults: 8,
            };
            let text = serde_json::to_string(&ended).unwrap();
            assert_eq!(serde_json::from_str::<EndedRollout>(&text).unwrap(), ended, "{text}");
            assert!(text.contains("\"reason\":\"faults\""), "{text}");
        }
    }
}
