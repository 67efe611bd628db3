//! Counters for alerts. `increase()` misses the first increment of a counter that first appears with 1, and the
//! recorder evicts idle counters. These counters are therefore retained as long as the counted object exists, and the
//! exporter adds zeros for counters that do not exist yet, which costs no memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A metric's name, and its labels in export format: `tenant="acme",state="dead"`.
type Name = (&'static str, String);

static COUNTERS: Mutex<BTreeMap<Name, Arc<PersistentCounter>>> = Mutex::new(BTreeMap::new());

/// A counter.
#[derive(Debug, Default)]
pub struct PersistentCounter {
    value: AtomicU64,
    /// Whether the counted object was removed. If one with the same name exists now, it has a new counter.
    removed: AtomicBool,
}

impl PersistentCounter {
    /// Adds to the counter. If it returns false, the counter was removed and must be looked up again.
    pub fn add(&self, count: u64) -> bool {
        self.value.fetch_add(count, Ordering::Relaxed);
        !self.removed.load(Ordering::Acquire)
    }
}

/// The counter with this name, created with 0. Label values are names, which need no escaping.
pub fn counter(metric: &'static str, labels: String) -> Arc<PersistentCounter> {
    COUNTERS.lock().unwrap_or_else(PoisonError::into_inner).entry((metric, labels)).or_default().clone()
}

/// The values of all counters by metric and labels. Removes counters that `keep` rejects.
pub fn values(mut keep: impl FnMut(&str) -> bool) -> BTreeMap<Name, u64> {
    let mut counts = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    counts.retain(|(_, labels), count| {
        let kept = keep(labels);
        if !kept {
            count.removed.store(true, Ordering::Release);
        }
        kept
    });
    counts.iter().map(|(name, count)| (name.clone(), count.value.load(Ordering::Relaxed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_is_retained_until_its_object_is_removed() {
        let name = || ("persistent_test_total", "tenant=\"one\"".to_owned());
        let first = counter(name().0, name().1);
        assert!(first.add(2) && counter(name().0, name().1).add(1));
        assert_eq!(values(|_| true).get(&name()), Some(&3));
        assert_eq!(values(|labels| labels != name().1).get(&name()), None);
        assert!(!first.add(1), "the holder has to look it up again");
        assert!(counter(name().0, name().1).add(1));
        assert_eq!(values(|_| true).get(&name()), Some(&1), "a new tenant of that name has a new counter");
    }
}
