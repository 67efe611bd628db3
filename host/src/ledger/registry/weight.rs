//! What documents weigh: each is in memory for as long as the host runs, and event patterns are held against each event.

use std::ops::{AddAssign, SubAssign};

use super::{Doc, Versioned};
use crate::domain::filter::{Filter, Table};
use crate::domain::source::Source;
use crate::domain::subscription::{Pattern, Subscription};
use crate::domain::tenant::{ApiKey, Quota, Tenant};

/// Bytes that a document takes in memory beside its text, about: the maps and lists that it is parsed into.
pub const DOCUMENT_BYTES: i64 = 1 << 10;
/// Bytes of one document's text at the most.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// A sum over documents, or what a change adds to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Bytes of the documents' texts, with [`DOCUMENT_BYTES`] for each document.
    pub documents_bytes: i64,
    /// Event patterns of subscriptions.
    pub patterns: i64,
    /// Bytes of their texts.
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

    /// The quota that the sum does not fit into, and that `added` makes worse: its name, the sum and the bound. What is over a
    /// quota that was lowered can still be made smaller.
    pub(super) fn over(&self, added: &Self, quota: &Quota) -> Option<(&'static str, i64, u64)> {
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

/// A document that knows its weight.
pub(super) trait Weighed {
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
    /// What it weighs with a text of so many bytes.
    pub(super) fn weight(&self, bytes: usize) -> Weight {
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
