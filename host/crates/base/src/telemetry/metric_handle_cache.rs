//! Cache of handles of labelled metrics.
//!
//! Looking up such a series takes a microsecond and a dozen allocations, because its labels are built each time.
//! Handles are therefore cached, but only for a minute: the recorder evicts idle series (after a time set by `app`),
//! and a handle of an evicted series counts into nothing. A minute is far below that time, so a count is lost only if
//! an idle series is evicted in the same microsecond in which it is used again.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time until a cached handle is dropped, whether in use or not.
const LIFETIME: Duration = Duration::from_secs(60);

/// Cached handles of type `H`, which are cheap to clone, by the values of their labels.
#[derive(Debug)]
pub struct MetricHandleCache<K, H>(Mutex<Cached<K, H>>);

#[derive(Debug)]
struct Cached<K, H> {
    handles: HashMap<K, (Instant, H)>,
    /// Time of the last eviction of old handles.
    swept_at: Instant,
}

impl<K, H> Default for MetricHandleCache<K, H> {
    fn default() -> Self {
        Self(Mutex::new(Cached { handles: HashMap::new(), swept_at: Instant::now() }))
    }
}

impl<K: Eq + Hash, H: Clone> MetricHandleCache<K, H> {
    /// The cached handle of a key. If there is none, `make` creates it.
    pub fn get_or_create<Q>(&self, key: &Q, make: impl FnOnce() -> H) -> H
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        self.get_or_create_at(Instant::now(), key, make)
    }

    fn get_or_create_at<Q>(&self, now: Instant, key: &Q, make: impl FnOnce() -> H) -> H
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        let fresh = |made_at: Instant| now.saturating_duration_since(made_at) < LIFETIME;
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = cached.handles.get(key).filter(|(made_at, _)| fresh(*made_at)) {
            return handle.clone();
        }
        if !fresh(cached.swept_at) {
            cached.swept_at = now;
            cached.handles.retain(|_, (made_at, _)| fresh(*made_at));
        }
        let handle = make();
        cached.handles.insert(key.to_owned(), (now, handle.clone()));
        handle
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn handles_are_cached_for_one_minute() {
        let handles = MetricHandleCache::<String, Arc<()>>::default();
        let of = |at, key: &str| handles.get_or_create_at(at, key, Arc::default);
        let begin = Instant::now();
        let first = of(begin, "first");
        assert!(Arc::ptr_eq(&first, &of(begin + LIFETIME / 2, "first")));
        for n in 0..100 {
            of(begin, &n.to_string());
        }
        assert!(!Arc::ptr_eq(&first, &of(begin + LIFETIME, "first")), "even if it is in use");
        assert!(Arc::ptr_eq(&of(begin + LIFETIME, "second"), &of(begin + LIFETIME, "second")));
        assert_eq!(handles.0.lock().unwrap().handles.len(), 2, "the others had expired");
    }
}
