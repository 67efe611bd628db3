//! Leases of SETs that polling receivers have fetched and not acknowledged yet. They are in memory: after a restart, a
//! SET that was not acknowledged is offered again, which RFC 8936 section 2.4 expects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use setgate_domain::delivery::DeliverySeq;
use setgate_domain::id::SubscriptionId;
use setgate_domain::time::Timestamp;
use tokio::sync::Notify;

/// Time in milliseconds after which a SET that was fetched and not acknowledged is offered again.
pub(super) const LEASE_MS: i64 = 60_000;
/// Limit for the leases of one subscription. A receiver that has fetched this many has to acknowledge some first.
const LEASES_MAX: usize = 1_000;

/// The state of all polled subscriptions. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::pipeline) struct Streams(Arc<Mutex<HashMap<SubscriptionId, Stream>>>);

#[derive(Default)]
struct Stream {
    /// When each lease was granted.
    leases: HashMap<DeliverySeq, Timestamp>,
    /// Number of the newest held poll.
    newest: u64,
    wake: Arc<Notify>,
}

impl Stream {
    fn is_idle(&self) -> bool {
        // A held poll has the second reference.
        self.leases.is_empty() && Arc::strong_count(&self.wake) == 1
    }
}

/// A poll that may be held.
pub(super) struct Held {
    streams: Streams,
    subscription: SubscriptionId,
    number: u64,
    pub(super) wake: Arc<Notify>,
}

/// A lease that ends on drop, unless it is kept.
pub(super) struct Lease {
    streams: Streams,
    subscription: SubscriptionId,
    delivery: DeliverySeq,
    kept: bool,
}

impl Streams {
    /// Wakes the held poll of a subscription.
    pub(in crate::pipeline) fn wake(&self, subscription: SubscriptionId) {
        if let Some(stream) = self.lock().get(&subscription) {
            stream.wake.notify_one();
        }
    }

    /// Forgets the leases of a subscription whose receiver does not poll any more.
    pub(in crate::pipeline) fn forget(&self, subscription: SubscriptionId) {
        self.lock().remove(&subscription);
    }

    /// Begins a poll. A poll of the same subscription that is still held ends with an empty answer.
    pub(super) fn begin(&self, subscription: SubscriptionId) -> Held {
        let mut streams = self.lock();
        let stream = streams.entry(subscription).or_default();
        stream.newest += 1;
        // Its permit is lost if nothing is held: then this poll finds itself to be the newest and goes on.
        stream.wake.notify_one();
        let (number, wake) = (stream.newest, Arc::clone(&stream.wake));
        Held { streams: self.clone(), subscription, number, wake }
    }

    /// Leases a delivery. `None` if it is leased, unless `again` is set, or if the subscription has too many leases.
    pub(super) fn lease(
        &self,
        subscription: SubscriptionId,
        delivery: DeliverySeq,
        now: Timestamp,
        again: bool,
    ) -> Option<Lease> {
        let mut streams = self.lock();
        let stream = streams.entry(subscription).or_default();
        match stream.leases.get(&delivery) {
            Some(granted) if is_running(*granted, now) && !again => return None,
            Some(_) => {}
            None => {
                if stream.leases.len() >= LEASES_MAX {
                    stream.leases.retain(|_, granted| is_running(*granted, now));
                }
                if stream.leases.len() >= LEASES_MAX {
                    return None;
                }
            }
        }
        stream.leases.insert(delivery, now);
        Some(Lease { streams: self.clone(), subscription, delivery, kept: false })
    }

    /// Ends the lease of a delivery. Returns when it was granted.
    pub(super) fn end(&self, subscription: SubscriptionId, delivery: DeliverySeq) -> Option<Timestamp> {
        let mut streams = self.lock();
        let stream = streams.get_mut(&subscription)?;
        let granted = stream.leases.remove(&delivery);
        if stream.is_idle() {
            streams.remove(&subscription);
        }
        granted
    }

    /// When the first running lease of a subscription ends.
    pub(super) fn next_end(&self, subscription: SubscriptionId, now: Timestamp) -> Option<Timestamp> {
        let streams = self.lock();
        let leases = &streams.get(&subscription)?.leases;
        leases.values().map(|granted| granted.plus_millis(LEASE_MS)).filter(|end| *end > now).min()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Stream>> {
        // Each change is a single insert or remove, so a poisoned lock still guards consistent data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_running(granted: Timestamp, now: Timestamp) -> bool {
    now.since(granted) < LEASE_MS
}

impl Held {
    /// Whether no later poll of the subscription has begun.
    pub(super) fn is_newest(&self) -> bool {
        self.streams.lock().get(&self.subscription).is_some_and(|stream| stream.newest == self.number)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut streams = self.streams.lock();
        // Two references: this one and the stream's own.
        let ends = streams.get(&self.subscription).is_some_and(|stream| {
            stream.leases.is_empty() && Arc::strong_count(&stream.wake) == 2 && stream.newest == self.number
        });
        if ends {
            streams.remove(&self.subscription);
        }
    }
}

impl Lease {
    /// Keeps the lease for [`LEASE_MS`].
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.kept {
            self.streams.end(self.subscription, self.delivery);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn stream() -> (Streams, SubscriptionId) {
        (Streams::default(), SubscriptionId::new(NOW, 1))
    }

    #[test]
    fn a_lease_ends_by_time_by_drop_or_by_acknowledgement() {
        let (streams, id) = stream();
        let take = |at: Timestamp, again| streams.lease(id, DeliverySeq(7), at, again);
        take(NOW, false).unwrap().keep();
        assert!(take(NOW.plus_millis(LEASE_MS - 1), false).is_none(), "it is leased");
        assert_eq!(streams.next_end(id, NOW), Some(NOW.plus_millis(LEASE_MS)));
        drop(take(NOW.plus_millis(LEASE_MS), false).expect("the lease has ended"));
        assert!(streams.next_end(id, NOW).is_none(), "it was not kept");
        take(NOW, false).unwrap().keep();
        take(NOW.plus_millis(5), true).expect("on request, a leased one is offered again").keep();
        assert_eq!(streams.end(id, DeliverySeq(7)), Some(NOW.plus_millis(5)));
        assert_eq!(streams.end(id, DeliverySeq(7)), None);
        assert!(streams.lock().is_empty(), "nothing is left of it");
    }

    #[test]
    fn leases_of_a_subscription_are_limited() {
        let (streams, id) = stream();
        for seq in 0..i64::try_from(LEASES_MAX).unwrap() {
            streams.lease(id, DeliverySeq(seq), NOW, false).unwrap().keep();
        }
        let more = |at| streams.lease(id, DeliverySeq(-1), at, false);
        assert!(more(NOW).is_none());
        assert!(streams.lease(SubscriptionId::new(NOW, 2), DeliverySeq(-1), NOW, false).is_some(), "of each");
        assert!(more(NOW.plus_millis(LEASE_MS)).is_some(), "ended leases make room");
        streams.forget(id);
        assert_eq!(streams.lock().keys().copied().collect::<Vec<_>>(), []);
    }

    #[tokio::test]
    async fn a_newer_poll_ends_the_one_that_is_held() {
        let (streams, id) = stream();
        let first = streams.begin(id);
        first.wake.notified().await;
        assert!(first.is_newest());
        let second = streams.begin(id);
        first.wake.notified().await;
        assert!(!first.is_newest() && second.is_newest());
        drop(first);
        assert!(second.is_newest());
        drop(second);
        assert!(streams.lock().is_empty(), "nothing is left of it");
    }
}
