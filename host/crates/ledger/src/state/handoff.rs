//! Deliveries that were inserted together with their events and that the dispatcher has not fetched yet.
//!
//! The request that appended an event may be cancelled before its reply, so the ledger notifies the dispatcher itself.
//! Bounded: beyond the limit only the subscription is recorded, and the dispatcher reads the rows from the file.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

use setgate_domain::delivery::DueDelivery;
use setgate_domain::id::{SubscriptionId, TenantId};
use tokio::sync::Notify;

/// Maximum number of deliveries held in memory.
const UNTOLD_MAX: usize = 10_000;

/// Deliveries that became due.
#[derive(Debug, Default)]
pub struct Made {
    /// Deliveries in insertion order.
    pub due: Vec<DueDelivery>,
    /// Subscriptions with further deliveries that must be read from the file.
    pub on_disk: HashSet<(TenantId, SubscriptionId)>,
}

/// Filled by the writer after each commit, emptied by the dispatcher.
#[derive(Default)]
pub(crate) struct Untold {
    made: Mutex<Made>,
    woken: Notify,
}

impl Untold {
    pub(crate) fn add(&self, due: Vec<DueDelivery>) {
        if due.is_empty() {
            return;
        }
        // Each update is complete in itself, so a poisoned lock is safe to use.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        for delivery in due {
            if made.due.len() < UNTOLD_MAX {
                made.due.push(delivery);
            } else {
                made.on_disk.insert((delivery.tenant, delivery.id.subscription));
            }
        }
        drop(made);
        self.woken.notify_one();
    }

    pub(crate) fn take(&self) -> Made {
        mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there is something to take; may return once too often after it was taken. For a single waiter.
    pub(crate) async fn some(&self) {
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
    fn beyond_its_bound_only_the_lanes_are_remembered() {
        let untold = Untold::default();
        let tenant: TenantId = TENANT.parse().unwrap();
        untold.add((0..UNTOLD_MAX as i64 + 2).map(due).collect());
        let made = untold.take();
        assert_eq!(made.due.len(), UNTOLD_MAX);
        assert_eq!(made.on_disk.into_iter().collect::<Vec<_>>(), [(tenant.clone(), subscription(1))]);
        assert!(untold.take().due.is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_told_also_of_what_came_before() {
        let untold = Untold::default();
        untold.add(Vec::new());
        assert!(futures_util::poll!(std::pin::pin!(untold.some())).is_pending());
        untold.add(vec![due(1)]);
        untold.add(vec![due(2)]);
        untold.some().await;
        assert_eq!(untold.take().due.len(), 2);
        assert!(futures_util::poll!(std::pin::pin!(untold.some())).is_pending());
    }
}
