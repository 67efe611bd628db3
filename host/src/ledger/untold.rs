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
pub struct News {
    /// As rows, in the order they were made.
    pub due: Vec<DueDelivery>,
    /// Subscriptions that have more of them in the file.
    pub on_disk: HashSet<(TenantId, SubscriptionId)>,
}

/// Written by the writer after each commit, emptied by the dispatcher.
#[derive(Default)]
pub(super) struct Untold {
    news: Mutex<News>,
    woken: Notify,
}

impl Untold {
    pub(super) fn add(&self, due: Vec<DueDelivery>) {
        if due.is_empty() {
            return;
        }
        // Whole at each instant: a poisoned lock is as good as any.
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        for delivery in due {
            if news.due.len() < UNTOLD_MAX {
                news.due.push(delivery);
            } else {
                news.on_disk.insert((delivery.tenant, delivery.id.subscription));
            }
        }
        drop(news);
        self.woken.notify_one();
    }

    /// All there is; each once.
    pub(super) fn take(&self) -> News {
        mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there is something, or soon after it was taken. For one waiter.
    pub(super) async fn some(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, TENANT, subscription};
    use super::*;
    use crate::domain::delivery::DeliverySeq;
    use crate::domain::event::EventSeq;
    use crate::domain::id::{DeliveryId, Digest};

    #[test]
    fn beyond_its_bound_only_the_lanes_are_remembered() {
        let untold = Untold::default();
        let tenant: TenantId = TENANT.parse().unwrap();
        let due = |seq: usize| DueDelivery {
            seq: DeliverySeq(seq as i64),
            id: DeliveryId { event: super::super::tests::event(1).id, subscription: subscription(1), run: 0 },
            event: EventSeq(1),
            tenant: tenant.clone(),
            plan: Digest([0; 32]),
            due_at: NOW,
            attempts: 0,
            attempts_before: 0,
            filter_tries: 0,
            filtered: false,
        };
        untold.add((0..UNTOLD_MAX + 2).map(due).collect());
        let news = untold.take();
        assert_eq!(news.due.len(), UNTOLD_MAX);
        assert_eq!(news.on_disk.into_iter().collect::<Vec<_>>(), [(tenant.clone(), subscription(1))]);
        assert!(untold.take().due.is_empty());
    }
}
