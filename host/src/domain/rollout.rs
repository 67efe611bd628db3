//! Rolling out a version of a filter: the candidate runs in the shadow of the active version, or for a share of the
//! subjects, before it takes the active version's place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, EventId, SubscriptionId};
use super::time::Timestamp;
use super::verdict::{Fault, VerdictKind};

/// Calls of a candidate before its fault rate counts, where nobody chose otherwise.
pub const CALLS_MIN_DEFAULT: u64 = 20;
/// Percent of a candidate's calls that may fault, where nobody chose otherwise.
pub const FAULTS_PERCENT_MAX_DEFAULT: Percent = Percent(500);
/// Differences that a shadow keeps; the oldest make room.
pub const SAMPLES_MAX: usize = 20;
/// Bytes in which one difference says how the claims differ.
pub const DIFFERENCE_BYTES_MAX: usize = 2 << 10;

/// A share of 0 to 100 percent with at most two decimals, kept in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(extend("minimum" = 0, "maximum" = 100))]
pub struct Percent(u16);

impl Percent {
    /// Hundredths of a percent, 0 to 10,000.
    pub fn hundredths(self) -> u16 {
        self.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = String;

    fn try_from(given: f64) -> Result<Self, String> {
        let hundredths = (given * 100.0).round();
        if !(0.0..=10_000.0).contains(&hundredths) || (given * 100.0 - hundredths).abs() > 1e-6 {
            return Err(format!("{given} is no percentage from 0 to 100 with at most two decimals"));
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

/// How a candidate is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
#[schemars(rename = "RolloutMode")]
pub enum Mode {
    /// It runs beside the active version over the same input. What it says is counted and goes nowhere.
    Shadow,
    /// It runs in place of the active version for a share of the subjects.
    Canary {
        /// The share.
        percent: Percent,
        /// Share of its calls that may end in a fault of its own; beyond, it is rolled back.
        faults_percent_max: Percent,
        /// Calls before that share counts.
        calls_min: u64,
    },
}

impl Mode {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary { .. } => "canary",
        }
    }

    /// Whether a subject runs the candidate. `hash` is evenly spread over subjects and stays the same for one subject
    /// and candidate, so that a greater share takes more subjects in and lets none out.
    pub fn picks(self, hash: u64) -> bool {
        match self {
            Self::Shadow => false,
            Self::Canary { percent, .. } => (u128::from(hash) * 10_000) >> 64 < u128::from(percent.0),
        }
    }

    /// Whether so many faults in so many calls end the rollout.
    pub fn is_over(self, calls: u64, faults: u64) -> bool {
        match self {
            Self::Shadow => false,
            Self::Canary { faults_percent_max, calls_min, .. } => {
                calls >= calls_min.max(1)
                    && u128::from(faults) * 10_000 > u128::from(calls) * u128::from(faults_percent_max.0)
            }
        }
    }
}

/// A rollout that is under way; a filter has one at the most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// The candidate.
    pub digest: Digest,
    /// How it is tried.
    #[serde(flatten)]
    pub mode: Mode,
    /// Since when. A change of the numbers of a canary does not begin it anew.
    pub started_at: Timestamp,
}

/// Why a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The candidate became the active version.
    Promoted,
    /// A person ended it.
    Ended,
    /// A person rolled the filter back.
    RolledBack,
    /// The candidate faulted too often: the host ended it.
    Faults,
}

impl EndReason {
    /// The word in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Ended => "ended",
            Self::RolledBack => "rolled_back",
            Self::Faults => "faults",
        }
    }
}

/// A rollout that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EndedRollout")]
pub struct Ended {
    /// What it was.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// When it ended.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// Calls of the candidate by live deliveries that decided or faulted, as far as they were counted.
    pub calls: u64,
    /// Of them, those that ended in a fault of the candidate's own.
    pub faults: u64,
}

/// What live deliveries did with a candidate, since the rollout or the host was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(rename = "RolloutCounts")]
pub struct Counted {
    /// Calls that decided or faulted.
    pub calls: u64,
    /// Of them, those that ended in a fault of the filter's own.
    pub faults: u64,
}

/// What a version said about one event.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "VersionVerdict")]
pub struct Said {
    /// Its verdict; none where it faulted or was not reached.
    pub verdict: Option<VerdictKind>,
    /// Why it dropped, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What went wrong, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Where the delivery ended with it: `through`, `dropped`, `held` or `again`; told by a backtest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<&'static str>,
}

/// One event over which two versions do not agree.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "VersionDifference")]
pub struct Difference {
    /// The event.
    pub event: EventId,
    /// Whose chain ran.
    pub subscription: SubscriptionId,
    /// What the active version said.
    pub active: Said,
    /// What the candidate said.
    pub candidate: Said,
    /// How the claims differ then: members that only the active version leaves (`-`) or only the candidate (`+`), by
    /// JSON pointer (RFC 6901), in at most [`DIFFERENCE_BYTES_MAX`] bytes.
    pub claims: Vec<String>,
}

/// What a shadow found.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ShadowReport {
    /// Events over which both versions were compared.
    pub runs: u64,
    /// Of them, those with the same verdict and the same bytes.
    pub same: u64,
    /// Of them, the others.
    pub different: u64,
    /// Events left out because as many shadow runs as may be were under way.
    pub skipped: u64,
    /// Events that one of the versions could not decide now: a transient failure, or it could not be started.
    pub undecided: u64,
    /// What the active version's calls cost.
    pub active: ShadowCost,
    /// What the candidate's calls cost.
    pub candidate: ShadowCost,
    /// The latest differences.
    pub samples: Vec<Difference>,
}

/// What the compared calls of one version cost.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct ShadowCost {
    /// Calls that ended in a fault of the filter's own.
    pub faults: u64,
    /// Fuel of all calls.
    pub fuel: u64,
    /// Most fuel of one call.
    pub fuel_max: u64,
    /// Microseconds of all calls, waiting for a slot included.
    pub time_us: u64,
    /// Most microseconds of one call.
    pub time_us_max: u64,
}

impl ShadowCost {
    /// One call more.
    pub fn add(&mut self, fuel: u64, time_us: u64, faulted: bool) {
        self.faults += u64::from(faulted);
        self.fuel = self.fuel.saturating_add(fuel);
        self.fuel_max = self.fuel_max.max(fuel);
        self.time_us = self.time_us.saturating_add(time_us);
        self.time_us_max = self.time_us_max.max(time_us);
    }
}

/// What a rollout has shown so far. In memory: it begins anew with the host.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TrialReport {
    /// Since when it counts.
    pub counted_since: Timestamp,
    /// The candidate's calls by live deliveries, of a canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Counted>,
    /// What was compared, of a shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(given: f64) -> Percent {
        Percent::try_from(given).unwrap()
    }

    fn canary(share: f64) -> Mode {
        Mode::Canary { percent: percent(share), faults_percent_max: FAULTS_PERCENT_MAX_DEFAULT, calls_min: 20 }
    }

    #[test]
    fn a_percentage_has_two_decimals_and_ends_at_100() {
        for (given, hundredths) in [(0.0, 0), (0.01, 1), (12.5, 1_250), (33.33, 3_333), (100.0, 10_000)] {
            assert_eq!(percent(given).hundredths(), hundredths, "{given}");
            assert_eq!(f64::from(percent(given)).to_string(), given.to_string());
        }
        for bad in [-0.01, 100.01, 1.001, f64::NAN, f64::INFINITY] {
            assert!(Percent::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_at_0_and_everybody_at_100() {
        for hash in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!canary(0.0).picks(hash));
            assert!(canary(100.0).picks(hash));
            assert!(!Mode::Shadow.picks(hash));
        }
        assert!(canary(0.01).picks(0));
        assert!(!canary(99.99).picks(u64::MAX));
    }

    #[test]
    fn faults_count_once_there_are_enough_calls() {
        for (calls, faults, over) in
            [(0, 0, false), (19, 19, false), (20, 1, false), (20, 2, true), (100, 5, false), (100, 6, true)]
        {
            assert_eq!(canary(50.0).is_over(calls, faults), over, "{faults} of {calls}");
        }
        let strict = Mode::Canary { percent: percent(1.0), faults_percent_max: percent(0.0), calls_min: 0 };
        assert!(!strict.is_over(0, 0) && !strict.is_over(7, 0) && strict.is_over(1, 1));
        assert!(!Mode::Shadow.is_over(100, 100));
    }

    #[test]
    fn it_reads_back_as_it_was_written() {
        for mode in [Mode::Shadow, canary(12.5)] {
            let rollout = Rollout { digest: Digest([7; 32]), mode, started_at: Timestamp::from_millis(1_000) };
            let text = serde_json::to_string(&rollout).unwrap();
            assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), rollout, "{text}");
            let ended =
                Ended { rollout, at: Timestamp::from_millis(2_000), reason: EndReason::Faults, calls: 9, faults: 8 };
            let text = serde_json::to_string(&ended).unwrap();
            assert_eq!(serde_json::from_str::<Ended>(&text).unwrap(), ended, "{text}");
            assert!(text.contains("\"reason\":\"faults\""), "{text}");
        }
    }
}
