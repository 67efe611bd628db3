//! Sends a test event to one subscription.

use schemars::JsonSchema;
use serde::Serialize;
use setgate_base::live::Live;
use setgate_domain::audit::Actor;
use setgate_domain::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use setgate_domain::tenant::Quota;
use setgate_ledger::{Registry, Usage};

use super::documents::not_found;
use crate::control::Error;
use crate::control::checks::{find_tenant, quota_of};
use crate::control::rate::ReceiverRequests;
use crate::pipeline::TestEventSender;

/// A test event that was queued.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TestSent {
    /// The event.
    pub event: EventId,
    /// Its delivery. The result can be read from the delivery history.
    pub delivery: DeliveryId,
}

/// Sends test events.
#[derive(Clone)]
pub struct TestEvents {
    pub(in crate::control) registry: Registry,
    pub(in crate::control) usage: Usage,
    pub(in crate::control) default_quota: Live<Quota>,
    pub(in crate::control) sender: TestEventSender,
    pub(in crate::control) requests: ReceiverRequests,
}

impl TestEvents {
    /// Sends a test event through the subscription's own chain and signature, regardless of its event types and
    /// sources. It is a regular delivery, including retries, and is marked as a test.
    pub async fn send(&self, actor: &Actor, tenant: &TenantId, id: SubscriptionId) -> Result<TestSent, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        if let Some(pause) = &stored.value.paused {
            return Err(Error::Conflict(format!(
                "the subscription is paused ({}), and a test would wait as all else does: resume it first",
                pause.reason
            )));
        }
        let (backlog, max) = (self.usage.backlog(tenant), quota_of(&self.default_quota, &view).backlog_deliveries_max);
        if backlog >= max {
            let why = format!("{backlog} deliveries are waiting: the tenant's quota `backlog_deliveries_max` is {max}");
            return Err(Error::Conflict(why));
        }
        self.requests.take(id)?;
        let delivery = self.sender.send(tenant, id, actor.action("subscription.test")).await?;
        let delivery = delivery.ok_or_else(|| not_found(id))?;
        Ok(TestSent { event: delivery.event, delivery })
    }
}
