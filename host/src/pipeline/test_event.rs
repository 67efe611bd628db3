//! Sends a test event to one subscription. The event and its single delivery are created in one transaction, so that
//! loop A skips the event.

use serde_json::json;
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_dialects::normalize;
use setgate_domain::audit::AuditAction;
use setgate_domain::builtin_event;
use setgate_domain::delivery::DueDelivery;
use setgate_domain::event::{Dedupe, NewEvent};
use setgate_domain::id::{EventId, SourceName, SubscriptionId, TenantId};
use setgate_domain::json::JsonLimits;
use setgate_domain::set::SetToken;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Events, Registry};

use super::plan::{OfEvent, PinnedPlans, Planner, Wanted};
use super::spans::Spans;

/// Creates test events.
pub(super) struct TestEvents {
    registry: Registry,
    events: Events,
    planner: Planner,
    clock: Clock,
    spans: Spans,
}

impl TestEvents {
    pub(super) fn new(registry: Registry, events: Events, planner: Planner, clock: Clock, spans: Spans) -> Self {
        Self { registry, events, planner, clock, spans }
    }

    /// Appends a test event with its delivery to this subscription, regardless of the subscription's event types and
    /// sources. It runs through the current chain and is signed like any other delivery. `None` if the subscription
    /// does not exist.
    pub(super) async fn append(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        audit: AuditAction,
    ) -> Result<Option<DueDelivery>, setgate_ledger::Error> {
        let snapshot = self.registry.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Ok(None) };
        let Some(subscription) = view.subscriptions.get(&id).map(|stored| &stored.value) else { return Ok(None) };
        let now = self.clock.now();
        let event = test_event(tenant, id, now)?;
        let (_span, trace) = self.spans.making(tenant, &event.source, event.id);
        let event = NewEvent { trace, ..event };
        let wanted = Wanted { view, subscription, event: OfEvent::from(&event) };
        let deliveries = PinnedPlans::new(self.planner.clone()).deliveries(vec![wanted], now).await?;
        let Some(delivery) = deliveries.into_iter().next() else { return Ok(None) };
        self.events.append_for(event, delivery, audit).await.map(Some)
    }
}

fn test_event(
    tenant: &TenantId,
    subscription: SubscriptionId,
    now: Timestamp,
) -> Result<NewEvent, setgate_ledger::Error> {
    let source = SourceName::setgate();
    let id = EventId::new(now, crypto::random_u128());
    let text = json!({
        "iss": normalize::default_issuer(tenant, &source),
        "jti": id,
        "iat": now.as_seconds(),
        "events": {builtin_event::PING: {"subscription": subscription}},
    })
    .to_string();
    let set = SetToken::parse(text, JsonLimits::default())
        .map_err(|fault| setgate_ledger::Error::Corrupt { what: format!("the SET of a test: {fault}") })?;
    Ok(NewEvent {
        id,
        tenant: tenant.clone(),
        original: set.text.clone().into(),
        content_type: "application/json".into(),
        dedupe: Dedupe {
            key: normalize::dedupe_key(tenant, &source, &set.jti),
            body: crypto::sha256(set.text.as_bytes()),
            window_ms: None,
        },
        source,
        set,
        subject: None,
        accepted_at: now,
        trace: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_a_sound_set_of_our_own() {
        let now = Timestamp::from_millis(1_790_000_000_500);
        let event = test_event(&"acme".parse().unwrap(), SubscriptionId::new(now, 7), now).unwrap();
        assert_eq!(event.set.types, [builtin_event::PING]);
        assert_eq!(event.set.jti, event.id.to_string());
        assert_eq!(event.set.issued_at, 1_790_000_000);
        assert_eq!(event.set.issuer, "https://schemas.setgate.dev/sources/acme/setgate");
        assert_eq!(setgate_dialects::catalogue::short_name(builtin_event::PING).as_deref(), Some("test/ping"));
    }
}
