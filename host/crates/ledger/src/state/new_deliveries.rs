//! Queue of new due deliveries for the dispatcher: those inserted together with their events that it has not fetched yet.
//!
//! The request that appended an event may be cancelled before its reply, so the ledger notifies the dispatcher itself.
//! Unlike the cache [`RecentWrites`](crate::state::recent_writes::RecentWrites), the queue may not lose an entry. It is
//! bounded: beyond the limit only the subscription is recorded, and the dispatcher reads the rows from the file.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

use setgate_domain::delivery::DueDelivery;
use setgate_domain::id::{SubscriptionId, TenantId};
use tokio::sync::Notify;

/// Maximum number of deliveries held in memory.
const NEW_DELIVERIES_MAX: usize = 10_000;

/// Deliveries that became due.
#[derive(Debug, Default)]
pub struct NewDue {
    /// Deliveries in insertion order.
    pub due: Vec<DueDelivery>,
    /// Subscriptions with further deliveries that must be read from the file.
    pub on_disk: HashSet<(TenantId, SubscriptionId)>,
}

/// Filled by the writer after each commit, emptied by the dispatcher.
#[derive(Default)]
pub(crate) struct NewDeliveries {
    queued: Mutex<NewDue>,
    woken: Notify,
}

impl NewDeliveries {
    pub(crate) fn add(&self, due: Vec<DueDelivery>) {
        if due.is_empty() {
            return;
        }
        // Each update is complete in itself, so a poisoned lock is safe to use.
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        for delivery in due {
            if queued.due.len() < NEW_DELIVERIES_MAX {
                queued.due.push(delivery);
            } else {
                queued.on_disk.insert((delivery.tenant, delivery.id.subscription));
            }
        }
        drop(queued);
        self.woken.notify_one();
    }

    pub(crate) fn take(&self) -> NewDue {
        mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there is something to take; may return once too often after it was taken. For a single waiter.
    pub(crate) async fn ready(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{TENANT, new_delivery, subscription};
    use setgate_domain::delivery::DeliverySeq;
    use setgate_domain::id::Digest;

    fn due(seq: i64) -> DueDelivery {
        new_delivery(1, 1, Digest([0; 32])).due(DeliverySeq(seq))
    }

    #[test]
    fn full_queue_records_only_the_subscription() {
        let new = NewDeliveries::default();
        let tenant: TenantId = TENANT.parse().unwrap();
        new.add((0..NEW_DELIVERIES_MAX as i64 + 2).map(due).collect());
        let queued = new.take();
        assert_eq!(queued.due.len(), NEW_DELIVERIES_MAX);
        assert_eq!(queued.on_disk.into_iter().collect::<Vec<_>>(), [(tenant.clone(), subscription(1))]);
        assert!(new.take().due.is_empty());
    }

    #[tokio::test]
    async fn waiter_is_woken_by_earlier_deliveries() {
        let new = NewDeliveries::default();
        new.add(Vec::new());
        assert!(futures_util::poll!(std::pin::pin!(new.ready())).is_pending());
        new.add(vec![due(1)]);
        new.add(vec![due(2)]);
        new.ready().await;
        assert_eq!(new.take().due.len(), 2);
        assert!(futures_util::poll!(std::pin::pin!(new.ready())).is_pending());
    }
}
