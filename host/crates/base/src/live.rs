//! A value that can be replaced while others use it, such as the settings of a part.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

/// Shared handle of the current value. Clones share it. A component reads it on every use, so that a change takes effect
/// without rebuilding the component. A read takes no lock and changes no shared counter, because several happen per
/// event.
#[derive(Debug)]
pub struct Live<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    now: ArcSwap<T>,
    version: watch::Sender<u64>,
}

impl<T> Live<T> {
    /// The initial value, at version 0.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Inner { now: ArcSwap::from_pointee(value), version: watch::Sender::new(0) }))
    }

    /// The current value, for immediate use. A guard held across an await keeps the old value alive and does not see
    /// changes.
    pub fn now(&self) -> Guard<Arc<T>> {
        self.0.now.load()
    }

    /// Incremented by each change, to invalidate anything derived from the value.
    pub fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    /// Notifies subscribers of each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Replaces the value.
    pub fn put(&self, value: T) {
        self.0.now.store(Arc::new(value));
        self.0.version.send_modify(|version| *version += 1);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn change_reaches_all_clones_and_wakes_subscribers() {
        let live = Live::new(1);
        let (other, mut changes, before) = (live.clone(), live.changes(), live.version());
        live.put(7);
        changes.changed().await.unwrap();
        assert_eq!(**other.now(), 7);
        assert_ne!(other.version(), before);
    }
}
