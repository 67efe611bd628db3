//! Weight of documents. It is limited because each document stays in memory while the host runs, and event patterns are
//! matched against every event.

use std::ops::{AddAssign, SubAssign};

use setgate_domain::filter::{Filter, Table};
use setgate_domain::source::Source;
use setgate_domain::subscription::{Pattern, Subscription};
use setgate_domain::tenant::{ApiKey, Quota, Tenant};

use crate::state::snapshot::{Doc, Versioned};

/// Approximate memory overhead of a document beside its text, in bytes: the maps and lists it is parsed into.
pub const DOCUMENT_BYTES: i64 = 1 << 10;
/// Maximum size of one document's text, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Total weight of documents, or the change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Bytes of the documents' texts, plus [`DOCUMENT_BYTES`] for each document.
    pub documents_bytes: i64,
    /// Number of event patterns of subscriptions.
    pub patterns: i64,
    /// Bytes of the event patterns.
    pub patterns_bytes: i64,
}

impl Weight {
    fn of_text(bytes: usize) -> Self {
        Self { documents_bytes: i64::try_from(bytes).unwrap_or(i64::MAX / 2) + DOCUMENT_BYTES, ..Self::default() }
    }

    fn with_patterns(self, patterns: &[Pattern]) -> Self {
        let bytes: usize = patterns.iter().map(|pattern| pattern.as_str().len()).sum();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX / 2);
        Self { patterns: count(patterns.len()), patterns_bytes: count(bytes), ..self }
    }

    /// The first quota that the total exceeds and that `added` increases: its name, the total and the limit. A change
    /// that reduces a total is always accepted, even above a quota that has been lowered.
    pub(crate) fn over(&self, added: &Self, quota: &Quota) -> Option<(&'static str, i64, u64)> {
        [
            ("documents_bytes_max", self.documents_bytes, added.documents_bytes, quota.documents_bytes_max),
            ("patterns_max", self.patterns, added.patterns, quota.patterns_max),
            ("patterns_bytes_max", self.patterns_bytes, added.patterns_bytes, quota.patterns_bytes_max),
        ]
        .into_iter()
        .find(|(_, sum, added, max)| *added > 0 && u64::try_from(*sum).is_ok_and(|sum| sum > *max))
        .map(|(name, sum, _, max)| (name, sum, max))
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        self.documents_bytes += other.documents_bytes;
        self.patterns += other.patterns;
        self.patterns_bytes += other.patterns_bytes;
    }
}

impl SubAssign for Weight {
    fn sub_assign(&mut self, other: Self) {
        self.documents_bytes -= other.documents_bytes;
        self.patterns -= other.patterns;
        self.patterns_bytes -= other.patterns_bytes;
    }
}

pub(crate) trait Weighed {
    fn weight(&self) -> Weight;
}

macro_rules! weigh_by_text {
    ($($document:ty),+) => {$(
        impl Weighed for Versioned<$document> {
            fn weight(&self) -> Weight {
                Weight::of_text(self.bytes)
            }
        }
    )+};
}

weigh_by_text!(Tenant, Source, Filter, Table, ApiKey);

impl Weighed for Versioned<Subscription> {
    fn weight(&self) -> Weight {
        Weight::of_text(self.bytes).with_patterns(&self.value.events)
    }
}

impl Doc {
    /// Weight of the document if its text has this many bytes.
    pub(crate) fn weight(&self, bytes: usize) -> Weight {
        match self {
            Self::Subscription(subscription) => Weight::of_text(bytes).with_patterns(&subscription.events),
            _ => Weight::of_text(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_sum_smaller_is_never_over() {
        let quota = Quota { documents_bytes_max: 100, patterns_max: 1, ..Quota::default() };
        let weight = |documents_bytes, patterns| Weight { documents_bytes, patterns, ..Weight::default() };
        assert_eq!(weight(100, 1).over(&weight(100, 1), &quota), None);
        assert_eq!(weight(101, 1).over(&weight(1, 0), &quota), Some(("documents_bytes_max", 101, 100)));
        assert_eq!(weight(100, 2).over(&weight(0, 1), &quota), Some(("patterns_max", 2, 1)));
        assert_eq!(weight(900, 9).over(&weight(-1, 0), &quota), None, "over a quota that was lowered, and smaller now");
        assert_eq!(weight(900, 9).over(&weight(-1, 1), &quota), Some(("patterns_max", 9, 1)));
    }
}
