//! Size of a tenant's documents. Quotas limit it, because each document stays in memory while the host runs, and event
//! patterns are matched against every event.

use std::ops::{AddAssign, SubAssign};

use setgate_domain::filter::{Filter, Table};
use setgate_domain::issuer_key::IssuerKey;
use setgate_domain::source::Source;
use setgate_domain::subscription::{Pattern, Subscription};
use setgate_domain::tenant::{ApiKey, Quota, Tenant};

use crate::state::snapshot::{Doc, Versioned};

/// Approximate memory overhead of a document beside its text, in bytes: the maps and lists it is parsed into.
pub const DOCUMENT_BYTES: i64 = 1 << 10;
/// Maximum size of one document's text, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Size of a tenant's documents, or the change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DocumentUsage {
    /// Bytes of the documents' texts, plus [`DOCUMENT_BYTES`] for each document.
    pub documents_bytes: i64,
    /// Number of event patterns of subscriptions.
    pub patterns: i64,
    /// Bytes of the event patterns.
    pub patterns_bytes: i64,
}

impl DocumentUsage {
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
    pub(crate) fn exceeded_quota(&self, added: &Self, quota: &Quota) -> Option<(&'static str, i64, u64)> {
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

impl AddAssign for DocumentUsage {
    fn add_assign(&mut self, other: Self) {
        self.documents_bytes += other.documents_bytes;
        self.patterns += other.patterns;
        self.patterns_bytes += other.patterns_bytes;
    }
}

impl SubAssign for DocumentUsage {
    fn sub_assign(&mut self, other: Self) {
        self.documents_bytes -= other.documents_bytes;
        self.patterns -= other.patterns;
        self.patterns_bytes -= other.patterns_bytes;
    }
}

pub(crate) trait MeasuredDocument {
    fn document_usage(&self) -> DocumentUsage;
}

macro_rules! measure_by_text {
    ($($document:ty),+) => {$(
        impl MeasuredDocument for Versioned<$document> {
            fn document_usage(&self) -> DocumentUsage {
                DocumentUsage::of_text(self.bytes)
            }
        }
    )+};
}

measure_by_text!(Tenant, Source, Filter, Table, ApiKey, IssuerKey);

impl MeasuredDocument for Versioned<Subscription> {
    fn document_usage(&self) -> DocumentUsage {
        DocumentUsage::of_text(self.bytes).with_patterns(&self.value.events)
    }
}

impl Doc {
    /// Usage of the document if its text has this many bytes.
    pub(crate) fn document_usage(&self, bytes: usize) -> DocumentUsage {
        match self {
            Self::Subscription(subscription) => DocumentUsage::of_text(bytes).with_patterns(&subscription.events),
            _ => DocumentUsage::of_text(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduction_is_always_accepted() {
        let quota = Quota { documents_bytes_max: 100, patterns_max: 1, ..Quota::default() };
        let usage = |documents_bytes, patterns| DocumentUsage { documents_bytes, patterns, ..DocumentUsage::default() };
        assert_eq!(usage(100, 1).exceeded_quota(&usage(100, 1), &quota), None);
        assert_eq!(usage(101, 1).exceeded_quota(&usage(1, 0), &quota), Some(("documents_bytes_max", 101, 100)));
        assert_eq!(usage(100, 2).exceeded_quota(&usage(0, 1), &quota), Some(("patterns_max", 2, 1)));
        assert_eq!(
            usage(900, 9).exceeded_quota(&usage(-1, 0), &quota),
            None,
            "over a quota that was lowered, and smaller now"
        );
        assert_eq!(usage(900, 9).exceeded_quota(&usage(-1, 1), &quota), Some(("patterns_max", 9, 1)));
    }
}
