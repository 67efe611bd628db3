//! Sends a test event to one subscription.

use schemars::JsonSchema;
use serde::Serialize;
use setgate_domain::id::{DeliveryId, EventId, SubscriptionId, TenantId};

use super::not_found;
use crate::control::rate::TESTS_PER_MINUTE_MAX;
use crate::control::{Control, Error};

/// A test event that was queued.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TestSent {
    /// The event.
    pub event: EventId,
    /// Its delivery. The result can be read from the delivery history.
    pub delivery: DeliveryId,
}

impl Control {
    /// Sends a test event through the subscription's own chain and signature, regardless of its event types and
    /// sources. It is a regular delivery, including retries, and is marked as a test.
    pub async fn test_subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Result<TestSent, Error> {
        let view = self.tenant(tenant)?;
        let stored = view.subscriptions.get(&id).ok_or_else(|| not_found(id))?;
        if let Some(pause) = &stored.value.paused {
            return Err(Error::Conflict(format!(
                "the subscription is paused ({}), and a test would wait as all else does: resume it first",
                pause.reason
            )));
        }
        let (backlog, max) = (self.ledger.usage.backlog(tenant), self.quota_of(&view).backlog_deliveries_max);
        if backlog >= max {
            let why = format!("{backlog} deliveries are waiting: the tenant's quota `backlog_deliveries_max` is {max}");
            return Err(Error::Conflict(why));
        }
        self.take_test(id)?;
        let delivery = self.data_plane.send_test_event(tenant, id, self.audit("subscription.test")).await?;
        let delivery = delivery.ok_or_else(|| not_found(id))?;
        Ok(TestSent { event: delivery.event, delivery })
    }

    /// Test events and verifications share one rate limit, because both send a request to the receiver at the caller's
    /// demand.
    pub(super) fn take_test(&self, id: SubscriptionId) -> Result<(), Error> {
        let max = TESTS_PER_MINUTE_MAX;
        if self.tests.take(id, max, self.clock.now()) { Ok(()) } else { Err(Error::TooOften { max }) }
    }
}
