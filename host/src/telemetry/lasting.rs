//! Counters that alerts look at. `increase()` sees nothing of a counter that is exported with 1 from the first, and the recorder
//! forgets a counter that rests. So these are kept here for as long as what they count is there, whoever exports them adds the
//! zeros of those that have not counted yet, and a zero costs no memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A metric's name, and labels as they are exported: `tenant="acme",state="dead"`.
type Name = (&'static str, String);

static COUNTS: Mutex<BTreeMap<Name, Arc<Count>>> = Mutex::new(BTreeMap::new());

/// One counter.
#[derive(Debug, Default)]
pub struct Count {
    value: AtomicU64,
    /// Whether what it counts was removed: then another one of that name has taken its place.
    removed: AtomicBool,
}

impl Count {
    /// Counts so many. False: it was removed, look it up again.
    pub fn add(&self, count: u64) -> bool {
        self.value.fetch_add(count, Ordering::Relaxed);
        !self.removed.load(Ordering::Acquire)
    }
}

/// The counter of that name, begun at 0. The labels' values are names, which need no escape.
pub fn count(metric: &'static str, labels: String) -> Arc<Count> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry((metric, labels)).or_default().clone()
}

/// What was counted so far, by metric and labels. Counters that are not to be kept are removed.
pub fn counted(mut keep: impl FnMut(&str) -> bool) -> BTreeMap<Name, u64> {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn a_counter_stays_until_what_it_counts_is_gone() {
        let name = || ("lasting_test_total", "tenant=\"one\"".to_owned());
        let first = count(name().0, name().1);
        assert!(first.add(2) && count(name().0, name().1).add(1));
        assert_eq!(counted(|_| true).get(&name()), Some(&3));
        assert_eq!(counted(|labels| labels != name().1).get(&name()), None);
        assert!(!first.add(1), "its holder is told");
        assert!(count(name().0, name().1).add(1));
        assert_eq!(counted(|_| true).get(&name()), Some(&1), "another tenant of that name begins anew");
    }
}
