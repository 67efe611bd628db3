//! Subscriptions whose receivers poll: their deliveries are in no lane.

use std::collections::HashSet;

use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_ledger::Snapshot;

use crate::pipeline::poll::Streams;

/// The polled subscriptions that have, or had, due deliveries.
pub(in crate::pipeline) struct Polled {
    streams: Streams,
    known: HashSet<(TenantId, SubscriptionId)>,
}

impl Polled {
    pub(in crate::pipeline) fn new(streams: Streams) -> Self {
        Self { streams, known: HashSet::new() }
    }

    /// Whether the due deliveries of a subscription are left to its receiver, which is woken if it polls now.
    pub(super) fn take(&mut self, snapshot: &Snapshot, tenant: &TenantId, subscription: SubscriptionId) -> bool {
        let is_polled = is_polled(snapshot, tenant, subscription);
        if is_polled {
            self.known.insert((tenant.clone(), subscription));
            self.streams.wake(subscription);
        }
        is_polled
    }

    /// Subscriptions that are not polled any more: they were removed, or have an endpoint now. Each is returned once.
    pub(super) fn ended(&mut self, snapshot: &Snapshot) -> Vec<(TenantId, SubscriptionId)> {
        let ended: Vec<_> = self.known.extract_if(|(tenant, id)| !is_polled(snapshot, tenant, *id)).collect();
        ended.iter().for_each(|(_, id)| self.streams.forget(*id));
        ended
    }
}

fn is_polled(snapshot: &Snapshot, tenant: &TenantId, subscription: SubscriptionId) -> bool {
    snapshot.subscription(tenant, subscription).is_some_and(|stored| stored.value.poll.is_some())
}
