//! Deliveries that were made together with their events: what the dispatcher has not yet been told of.
//!
//! Whoever appended an event may be gone before its answer comes, so it is not the one to tell. Bounded: beyond, only the
//! lanes are remembered, and the rows are found in the file.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::domain::delivery::DueDelivery;
use crate::domain::id::{SubscriptionId, TenantId};

/// Deliveries that are kept at the most.
const UNTOLD_MAX: usize = 10_000;

/// Deliveries that became due.
#[derive(Debug, Default)]
pub struct Made {
    /// As rows, in the order they were made.
    pub due: Vec<DueDelivery>,
    /// Subscriptions that have more of them in the file.
    pub on_disk: HashSet<(TenantId, SubscriptionId)>,
}

/// Written by the writer after each commit, emptied by the dispatcher.
#[derive(Default)]
pub(super) struct Untold {
    made: Mutex<Made>,
    woken: Notify,
}

impl Untold {
    pub(super) fn add(&self, due: Vec<DueDelivery>) {
        if due.is_empty() {
            return;
        }
        // Whole at each instant: a poisoned lock is as good as any.
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

    /// All there is; each once.
    pub(super) fn take(&self) -> Made {
        mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there is something, or soon after it was taken. For one waiter.
    pub(super) async fn some(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TENANT, new_delivery, subscription};
    use super::*;
    use crate::domain::delivery::DeliverySeq;
    use crate::domain::id::Digest;

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
