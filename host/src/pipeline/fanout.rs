//! Fan-out: creates one delivery for each subscription that matches an event. Most deliveries are created in the
//! transaction that appends the event (`append`).
//!
//! Loop A creates the deliveries of events that were appended without them: events with very many matching
//! subscriptions, events with a plan that retention swept, the host's own notices, and events from an older version.
//! One transaction writes the deliveries of up to [`EVENTS_PER_BATCH`] events and advances the cursor. After a crash in
//! between, the batch runs again with the same result.

use std::sync::Arc;
use std::time::Duration;

use setgate_base::clock::Clock;
use setgate_base::live::Live;
use setgate_domain::tenant::Quota;
use setgate_ledger::{Events, FAN_OUT_DELIVERIES_MAX, FanOut, FanoutCursor, Registry, Upkeep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::due_queue::DueQueue;
use super::matching::Matcher;
use super::plan::{OfEvent, PinnedPlans, Wanted};
use super::reuse::IdleInstances;
use super::spans::Spans;
use crate::traces::attribute;

/// Number of events read from the journal at a time.
const EVENTS_PER_BATCH: usize = 256;
/// Delay before a retry after a ledger error, in milliseconds.
const RETRY_MS: u64 = 500;

/// Creates the deliveries of events.
pub(crate) struct Fanout {
    pub(super) registry: Registry,
    pub(super) events: Events,
    /// Skips damaged events.
    pub(super) upkeep: Upkeep,
    pub(super) matcher: Matcher,
    pub(super) pinned: Arc<PinnedPlans>,
    pub(super) idle_instances: IdleInstances,
    pub(super) clock: Clock,
    pub(super) default_quota: Live<Quota>,
    pub(super) spans: Spans,
    pub(super) due: DueQueue,
}

impl Fanout {
    /// Runs loop A until `stop` is cancelled. After a restart it resumes from the stored cursor.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut fanout_cursor = self.events.fanout_cursor();
        let mut registry = self.registry.changed();
        let mut default_quota = self.default_quota.changes();
        loop {
            if registry.has_changed().unwrap_or(false) || default_quota.has_changed().unwrap_or(false) {
                registry.mark_unchanged();
                default_quota.mark_unchanged();
                self.evict_outdated();
            }
            match self.one_batch().await {
                Ok(0) => tokio::select! {
                    () = stop.cancelled() => return,
                    _ = fanout_cursor.wait_for(FanoutCursor::has_pending) => {}
                    // Marked as changed again, so that the check at the top of the loop handles the change.
                    Ok(()) = registry.changed() => registry.mark_changed(),
                    Ok(()) = default_quota.changed() => default_quota.mark_changed(),
                },
                Ok(_) if stop.is_cancelled() => return,
                Ok(_) => {}
                Err(error) => {
                    if !error.is_logged() {
                        error!(%error, "fan-out failed; accepted events wait in the journal and it is tried again");
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(RETRY_MS)) => {}
                    }
                }
            }
        }
    }

    /// Creates the deliveries of the next events. Returns 0 if all events have theirs.
    pub(super) async fn one_batch(&self) -> Result<usize, setgate_ledger::Error> {
        let fanout_cursor = *self.events.fanout_cursor().borrow();
        if !fanout_cursor.has_pending() {
            return Ok(0);
        }
        let events = match self.events.next_events(EVENTS_PER_BATCH).await {
            // One of the events is damaged: read the others one by one, and skip the damaged one.
            Err(error) if error.is_damage() => match self.events.events_after(self.events.cursor(), 1).await {
                Err(error) if error.is_damage() => {
                    let passed = self.upkeep.skip_damaged().await?;
                    return if passed > 0 { Ok(EVENTS_PER_BATCH) } else { Err(error) };
                }
                one => one?.into_iter().map(Arc::new).collect(),
            },
            read => read?,
        };
        // Events after the last pending one have their deliveries already, or belong to the next batch.
        let events: Vec<_> = events.into_iter().take_while(|event| event.seq <= fanout_cursor.last_pending()).collect();
        let Some(first) = events.first() else {
            // The pending events were removed together with their tenant.
            self.events.fan_out(FanOut { through: fanout_cursor.last_pending(), deliveries: Vec::new() }).await?;
            return Ok(1);
        };
        let mut through = first.seq;

        let snapshot = self.registry.snapshot();
        let now = self.clock.now();
        let mut wanted = Vec::new();
        let mut spans = Vec::new();
        for event in &events {
            // Bounds the transaction, however many subscriptions there are. The yield below keeps matching from blocking
            // other tasks.
            if wanted.len() >= FAN_OUT_DELIVERIES_MAX {
                break;
            }
            tokio::task::yield_now().await;
            through = event.seq;
            // The tenant was removed after acceptance, and its events are removed with it.
            let Some(view) = snapshot.tenant(&event.tenant) else { continue };
            let span = self.spans.fanning_out(&event.tenant, event.id, event.trace.as_ref());
            let before = wanted.len();
            let of = OfEvent::from(event.as_ref());
            let wanting = self.matcher.wanting(view, &event.source, &event.set.types, false).await;
            let wanting = wanting.map_err(|_| setgate_ledger::Error::Closed)?;
            wanted.extend(wanting.into_iter().map(|subscription| Wanted { view, subscription, event: of }));
            if span.is_recorded() {
                // Kept open until the transaction ends.
                spans.push((span, wanted.len() - before));
            }
        }
        let deliveries = self.pinned.deliveries(wanted, now).await?;
        let due = match self.events.fan_out(FanOut { through, deliveries }).await {
            Ok(due) => due,
            Err(error) => {
                spans.iter_mut().for_each(|(span, _)| span.failed("not_stored"));
                if let setgate_ledger::Error::UnknownPlan(plan) = &error {
                    // Retention swept the plan after it was pinned: drop it from the cache and pin it again in the next
                    // batch.
                    self.pinned.forget(plan);
                    return Ok(events.len());
                }
                return Err(error);
            }
        };
        for (mut span, count) in spans {
            span.count(attribute::DELIVERIES, count as u64);
        }
        self.due.push(due).await;
        Ok(events.len())
    }

    /// Evicts outdated plans and idle instances after a change of the registry or of the settings.
    fn evict_outdated(&self) {
        self.pinned.keep(&self.registry.snapshot());
        self.idle_instances.evict_outdated();
    }
}
