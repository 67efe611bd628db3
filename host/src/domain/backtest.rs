//! Backtests: what would have become of stored events with another version of a filter.

use schemars::JsonSchema;
use serde::Serialize;

use super::id::{Digest, FilterName, SourceName, SubscriptionId, TenantId};
use super::rollout::Difference;

/// Events of one backtest at the most, for each subscription.
pub const EVENTS_MAX: usize = 1_000;
/// Events of one backtest, where the request does not say.
pub const EVENTS_DEFAULT: usize = 100;
/// Differences that a backtest lists; the others are counted.
pub const CHANGES_MAX: usize = 100;

/// What is to be tried, checked: the filter has the version, and the subscriptions bind the filter.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whose.
    pub tenant: TenantId,
    /// The filter.
    pub filter: FilterName,
    /// The version that would take the active one's place.
    pub candidate: Digest,
    /// Events of each subscription, newest first.
    pub events: usize,
    /// The subscriptions whose chains are run.
    pub subscriptions: Vec<SubscriptionId>,
    /// Only events of this source.
    pub source: Option<SourceName>,
}

/// What a backtest found. Each event counts once for each subscription that wants it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "BacktestReport")]
pub struct Report {
    /// The filter.
    pub filter: FilterName,
    /// Whether all that was asked for was run; else the time was over.
    pub complete: bool,
    /// Subscriptions whose chains were run.
    pub subscriptions: usize,
    /// Events run with both versions.
    pub events: u64,
    /// Of them, those with the same verdict, the same end and the same bytes.
    pub unchanged: u64,
    /// Of them, the others.
    pub changed: u64,
    /// The changes, newest event first; at most [`CHANGES_MAX`].
    pub changes: Vec<Difference>,
    /// The active version's calls.
    pub active: Calls,
    /// The candidate's calls.
    pub candidate: Calls,
}

/// What the calls of one version came to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "BacktestCalls")]
pub struct Calls {
    /// The version.
    pub digest: Digest,
    /// How many; fewer than events where a filter before it ended the chain.
    pub calls: u64,
    /// Of them, those that faulted.
    pub faults: u64,
    /// Fuel of a call.
    pub fuel: Spread,
    /// Microseconds of a call, waiting for a slot included.
    pub time_us: Spread,
}

/// Numbers in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Spread {
    /// All together.
    pub sum: u64,
    /// The one in the middle: half of all are not greater.
    pub p50: u64,
    /// The greatest.
    pub max: u64,
}

impl Spread {
    /// Of these numbers.
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
    fn the_middle_is_one_of_the_numbers() {
        assert_eq!(Spread::of(vec![]), Spread::default());
        assert_eq!(Spread::of(vec![7]), Spread { sum: 7, p50: 7, max: 7 });
        assert_eq!(Spread::of(vec![9, 1, 5, 3]), Spread { sum: 18, p50: 3, max: 9 });
        assert_eq!(Spread::of(vec![u64::MAX, 2]), Spread { sum: u64::MAX, p50: 2, max: u64::MAX });
    }
}
