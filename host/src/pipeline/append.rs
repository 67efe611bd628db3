//! Appends an event to the journal, in one transaction with its deliveries.

use std::sync::Arc;

use super::settings::Ingest;
use setgate_base::fair::{FairLimits, FairSemaphore};
use setgate_domain::event::NewEvent;
use setgate_domain::time::Timestamp;
use setgate_ledger::{AppendOutcome, Appended, Events, Registry};

use super::matching::Matcher;
use super::plan::{OfEvent, PinnedPlans, Wanted};
use super::refused::Refused;
use super::spans::Spans;
use crate::traces::attribute;

/// Appends events.
pub(super) struct Appender {
    registry: Registry,
    events: Events,
    matcher: Matcher,
    pinned: Arc<PinnedPlans>,
    spans: Spans,
    /// Admits appends to the ledger, so that one tenant's burst does not delay the other tenants.
    turns: FairSemaphore,
    /// Limit for a tenant's events that are queued in `turns`.
    queued_max: usize,
}

impl Appender {
    pub(super) fn new(
        registry: Registry,
        events: Events,
        matcher: Matcher,
        pinned: Arc<PinnedPlans>,
        spans: Spans,
        limits: &Ingest,
    ) -> Self {
        let queued_max = limits.appends_queued_per_tenant_max();
        let turns = FairSemaphore::new(FairLimits {
            permits: limits.appends_max,
            per_tenant_max: limits.appends_per_tenant_max(),
            reserve_for_idle_tenants: false,
            queued_per_tenant_max: queued_max,
            estimated_cost: 1,
        });
        Self { registry, events, matcher, pinned, spans, turns, queued_max }
    }

    /// Appends the event together with the deliveries for the current subscriptions.
    pub(super) async fn append(&self, event: NewEvent, now: Timestamp) -> Result<Appended, Refused> {
        let snapshot = self.registry.snapshot();
        // The tenant was removed in the meantime: the ledger returns the error for that.
        let Some(view) = snapshot.tenant(&event.tenant) else { return Ok(self.events.append(event).await?) };
        let tenant = &view.tenant.value.id;
        let mut span = self.spans.fanning_out(tenant, event.id, event.trace.as_ref());
        let limit = self.queued_max;
        let flood = |_| Refused::Flood { tenant: tenant.clone(), limit };
        let wanting = self.matcher.wanting(view, &event.source, &event.set.types, true).await;
        let wanting = wanting.map_err(flood).inspect_err(|_| span.never_was())?;
        let deliveries = if wanting.len() <= self.events.append_deliveries_max() {
            let event = OfEvent::from(&event);
            let wanted = wanting.iter().map(|subscription| Wanted { view, subscription, event }).collect();
            let pinned = self.pinned.deliveries(wanted, now).await;
            Some(pinned.inspect_err(|_| span.failed("not_stored"))?)
        } else {
            // Too many deliveries for one append: loop A creates them and pins their plans.
            None
        };
        let turn = self.turns.acquire_bounded(tenant).await;
        let _turn = turn.map_err(flood).inspect_err(|_| span.never_was())?;
        let at_once = deliveries.is_some();
        let taken = match deliveries {
            Some(deliveries) => self.events.append_with(event, deliveries).await,
            None => self.events.append(event).await.map(|appended| AppendOutcome { appended, fanned_out: false }),
        };
        let AppendOutcome { appended, fanned_out } = taken.inspect_err(|_| span.failed("not_stored"))?;
        if fanned_out {
            span.count(attribute::DELIVERIES, wanting.len() as u64);
            return Ok(appended);
        }
        // No fan-out took place here: the event is a duplicate, or loop A creates its deliveries.
        span.never_was();
        if at_once && matches!(appended, Appended::New(_)) {
            // Retention may have swept one of the plans, so drop the cached ones. Loop A pins new plans.
            self.pinned.forget_all_of(tenant);
        }
        Ok(appended)
    }
}
