//! Backtests: rerun stored events with another version of a filter and compare the results.

use schemars::JsonSchema;
use serde::Serialize;

use super::id::{Digest, FilterName, SourceName, SubscriptionId, TenantId};
use super::rollout::VersionDifference;

/// Maximum number of events in a backtest, for each subscription.
pub const EVENTS_MAX: usize = 1_000;
/// Default number of events in a backtest.
pub const EVENTS_DEFAULT: usize = 100;
/// Maximum number of differences listed in a report. Further ones are only counted.
pub const CHANGES_MAX: usize = 100;

/// A validated backtest request: the filter has the version, and the subscriptions bind the filter.
#[derive(Debug, Clone)]
pub struct BacktestRequest {
    /// The tenant.
    pub tenant: TenantId,
    /// Name of the filter.
    pub filter: FilterName,
    /// The version to compare with the active one.
    pub candidate: Digest,
    /// Number of events for each subscription, newest first.
    pub events: usize,
    /// The subscriptions whose chains to run.
    pub subscriptions: Vec<SubscriptionId>,
    /// If set, only events of this source.
    pub source: Option<SourceName>,
}

/// Result of a backtest. An event counts once for each matching subscription.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BacktestReport {
    /// Name of the filter.
    pub filter: FilterName,
    /// Whether all requested events were run. If false, the time limit was reached.
    pub complete: bool,
    /// Number of subscriptions whose chains were run.
    pub subscriptions: usize,
    /// Number of events run with both versions.
    pub events: u64,
    /// Number of these events with the same verdict, the same end and identical bytes.
    pub unchanged: u64,
    /// Number of these events with a difference.
    pub changed: u64,
    /// The differences, newest event first. At most [`CHANGES_MAX`].
    pub changes: Vec<VersionDifference>,
    /// Calls of the active version.
    pub active: BacktestCalls,
    /// Calls of the candidate.
    pub candidate: BacktestCalls,
}

/// Statistics of the calls of one version.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BacktestCalls {
    /// Digest of the version.
    pub digest: Digest,
    /// Number of calls. Lower than the number of events if an earlier filter ended some chains.
    pub calls: u64,
    /// Number of these calls that faulted.
    pub faults: u64,
    /// Fuel for each call.
    pub fuel: Distribution,
    /// Time for each call in microseconds, including waits for a slot.
    pub time_us: Distribution,
}

/// Summary of a set of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(rename = "Spread")]
pub struct Distribution {
    /// Sum.
    pub sum: u64,
    /// Median: half of the numbers are less than or equal to it.
    pub p50: u64,
    /// Maximum.
    pub max: u64,
}

impl Distribution {
    /// Summarises these numbers.
    pub fn of(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        Self {
            sum: numbers.iter().fold(0, |sum, number| sum.saturating_add(*number)),
            p50: numbers.len().checked_sub(1).map_or(0, |last| numbers[last / 2]),
            max: numbers.last().copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_one_of_the_numbers() {
        assert_eq!(Distribution::of(vec![]), Distribution::default());
        assert_eq!(Distribution::of(vec![7]), Distribution { sum: 7, p50: 7, max: 7 });
        assert_eq!(Distribution::of(vec![9, 1, 5, 3]), Distribution { sum: 18, p50: 3, max: 9 });
        assert_eq!(Distribution::of(vec![u64::MAX, 2]), Distribution { sum: u64::MAX, p50: 2, max: u64::MAX });
    }
}
