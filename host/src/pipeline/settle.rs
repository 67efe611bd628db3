//! Commits the consequences of an attempt (see [`setgate_domain::attempt_effects`]) and the results of filters, in the
//! transaction `settle`.

use std::sync::Arc;
use std::time::Duration;

use super::settings::Delivery;
use metrics::{counter, histogram};
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::live::Live;
use setgate_base::telemetry::metric;
use setgate_domain::attempt_effects::{NextState, PauseReason, failing_too_long};
use setgate_domain::delivery::{DueDelivery, Settlement, State, Step};
use setgate_domain::retry::given_up_reason;
use setgate_domain::subscription::Pause;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_ledger::{Deliveries, Precondition, Registry, SettleOutcome};
use tracing::{debug, warn};

use super::metrics::DeliveryCounter;
use super::next::{Attempted, Next};
use super::operational_event::{OperationalEvent, OperationalEvents};

/// Longest delay between two tries to write a settlement, in milliseconds.
const SETTLE_RETRY_MS_MAX: u64 = 5_000;

/// Settles deliveries.
pub(super) struct Settler {
    registry: Registry,
    deliveries: Deliveries,
    operational_events: OperationalEvents,
    clock: Clock,
    settings: Live<Delivery>,
    counter: DeliveryCounter,
}

impl Settler {
    pub(super) fn new(
        registry: Registry,
        deliveries: Deliveries,
        operational_events: OperationalEvents,
        clock: Clock,
        settings: Live<Delivery>,
    ) -> Self {
        let counter = DeliveryCounter::default();
        Self { registry, deliveries, operational_events, clock, settings, counter }
    }

    /// Commits the consequences of an attempt for its delivery and its subscription.
    pub(super) async fn settle_attempt(&self, attempted: Attempted) -> Result<Next, setgate_ledger::Error> {
        let Attempted { delivery, subscription, accepted_at, attempt, consequences, passed } = attempted;
        let (now, at) = (self.clock.now(), attempt.at);
        let mut due_at = None;
        let step = match consequences.delivery {
            NextState::Delivered => {
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of one delivery")]
                histogram!(metric::END_TO_END_SECONDS).record(now.since(accepted_at) as f64 / 1e3);
                Step::Delivered { attempt }
            }
            NextState::Retry { due_at: retry_at } => {
                due_at = Some(retry_at);
                Step::Retry { attempt, due_at: retry_at }
            }
            NextState::Dead { reason } => Step::Dead { attempt: Some(attempt), reason },
            // Unsettled filter runs are lost with the attempt, so the chain runs again.
            NextState::NotAttempted { due_at } => {
                return Ok(Next::requeue(DueDelivery { due_at, filtered: passed.is_empty(), ..delivery }));
            }
        };
        let settled = self.settle_as(&delivery, Settlement { delivery: delivery.seq, at: now, step, passed }).await?;
        let of_host = self.settings.now().pause_after_s;
        let after_s = subscription.value.pacing.pause_after_s.map_or(of_host, u64::from);
        let too_long = || failing_too_long(settled.failing_since?, after_s, now);
        if let Some(pause) = consequences.subscription.or_else(too_long)
            && let Err(error) = Box::pin(self.pause(&delivery, pause, at)).await
        {
            // The delivery itself is settled, and the next attempt tries to pause the subscription again.
            warn!(delivery = %delivery.id, %error, "subscription could not be paused; the next attempt tries again");
        }
        Ok(match due_at {
            // Filter runs that had not been settled before were settled with the attempt.
            Some(due_at) => {
                Next::requeue(DueDelivery { due_at, attempts: delivery.attempts + 1, filtered: true, ..delivery })
            }
            None => Next::rest(settled.unblocked),
        })
    }

    /// Commits a settlement and retries until the commit succeeds, because the request was already sent to the receiver
    /// and must be recorded. If the host shuts down first, the delivery is due again after the restart.
    pub(super) async fn settle(
        &self,
        delivery: &DueDelivery,
        step: Step,
    ) -> Result<SettleOutcome, setgate_ledger::Error> {
        self.settle_as(delivery, Settlement::new(delivery.seq, self.clock.now(), step)).await
    }

    async fn settle_as(
        &self,
        delivery: &DueDelivery,
        settlement: Settlement,
    ) -> Result<SettleOutcome, setgate_ledger::Error> {
        let fault = match &settlement.step {
            Step::Held { runs, .. } => runs.iter().filter_map(|run| run.fault.as_ref()).next_back().map(Fault::kind),
            _ => None,
        };
        let rest = match &settlement.step {
            Step::Filtered { .. } | Step::FilterRetry { .. } | Step::Retry { .. } => None,
            Step::Dropped { .. } => Some(State::Dropped),
            Step::Held { .. } => Some(State::Held),
            Step::Delivered { .. } => Some(State::Delivered),
            Step::Dead { .. } => Some(State::Dead),
        };
        let settlement = Arc::new(settlement);
        let mut wait_ms = 50;
        let settled = loop {
            match self.deliveries.settle(settlement.clone()).await {
                Ok(settled) => break settled,
                Err(error) if !error.is_temporary() => return Err(error),
                Err(error) => {
                    if !error.is_logged() {
                        warn!(delivery = %delivery.id, %error, "settlement could not be committed; retrying");
                    }
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    wait_ms = (wait_ms * 2).min(SETTLE_RETRY_MS_MAX);
                }
            }
        };
        if let Some(state) = rest {
            self.counter.add(&delivery.tenant, state);
            match state {
                State::Held | State::Dead => {
                    // The reason may contain the guest's own text, which belongs to the tenant and therefore stays out
                    // of the log.
                    let (tenant, id) = (&delivery.tenant, delivery.id);
                    warn!(%tenant, delivery = %id, state = state.as_str(), fault, "delivery is {}: manual action required",
                        state.as_str());
                }
                _ => debug!(tenant = %delivery.tenant, delivery = %delivery.id, state = state.as_str(), "settled"),
            }
        }
        Ok(settled)
    }

    /// Pauses the subscription of a delivery, unless it is paused or removed, and notifies its tenant. If the
    /// subscription was changed concurrently, the next attempt decides again.
    async fn pause(
        &self,
        delivery: &DueDelivery,
        reason: PauseReason,
        attempt_at: Timestamp,
    ) -> Result<(), setgate_ledger::Error> {
        let PauseReason { cause, since, text: reason } = reason;
        let since = since.unwrap_or(attempt_at);
        let snapshot = self.registry.snapshot();
        let Some(stored) = snapshot.subscription(&delivery.tenant, delivery.id.subscription) else { return Ok(()) };
        if stored.value.paused.is_some() {
            return Ok(());
        }
        // Appended before the pause: if the host is killed in between, the next attempt repeats both, and deduplication
        // drops the second notice.
        let about = OperationalEvent::Disabled { subscription: &stored.value, cause, reason: &reason, since };
        self.operational_events.append(&delivery.tenant, about).await;
        let now = self.clock.now();
        let mut subscription = stored.value.clone();
        subscription.paused = Some(Pause { cause, reason: reason.clone(), since: now });
        subscription.updated_at = now;
        match self.registry.put_subscription(subscription, Precondition::Version(stored.version)).await {
            Err(setgate_ledger::Error::VersionMismatch { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let (tenant, subscription) = (&delivery.tenant, delivery.id.subscription);
                counter!(metric::DISABLED, "tenant" => tenant.to_string(), "cause" => cause.as_str()).increment(1);
                warn!(%tenant, %subscription, cause = cause.as_str(), reason,
                    "subscription paused by the host; its deliveries stay due");
                Ok(())
            }
        }
    }

    /// A filter asked for another try: schedules it by the subscription's retry schedule, or holds the delivery if the
    /// schedule is used up.
    pub(super) fn filter_again(&self, delivery: &DueDelivery, runs: Vec<FilterRun>, reason: String) -> Step {
        let snapshot = self.registry.snapshot();
        let schedule = snapshot
            .subscription(&delivery.tenant, delivery.id.subscription)
            .map(|subscription| subscription.value.retry.clone())
            .unwrap_or_default();
        match schedule.next(delivery.filter_tries + 1, self.clock.now(), None, crypto::random_unit()) {
            Some(due_at) => Step::FilterRetry { runs, due_at },
            None => {
                let reason = format!("{}: {reason}", given_up_reason(delivery.filter_tries + 1));
                Step::Held { runs, reason }
            }
        }
    }
}
