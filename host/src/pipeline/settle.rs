//! Decides the next state of a delivery after an attempt, as a pure function, and commits it in the transaction
//! `settle`.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use setgate_base::crypto;
use setgate_base::telemetry::metric;
use setgate_domain::attempt::{Attempt, ErrorClass, Outcome, ReceiverWish};
use setgate_domain::delivery::{DueDelivery, Settlement, State, Step};
use setgate_domain::retry::RetrySchedule;
use setgate_domain::subscription::{Cause, Pause};
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_ledger::{Expected, Settled};
use tracing::{debug, warn};

use super::Pipeline;
use super::deliver::Attempted;
use super::notice::Notice;

/// Longest delay between two tries to write a settlement, in milliseconds.
const SETTLE_RETRY_MS_MAX: u64 = 5_000;

/// The next step after an attempt. `jitter` is in 0.0..=1.0.
pub(super) fn decide(
    schedule: &RetrySchedule,
    failed_before: u32,
    attempt: Attempt,
    now: Timestamp,
    jitter: f64,
) -> Step {
    let retry_after_s = match &attempt.outcome {
        outcome if outcome.is_success() => return Step::Delivered { attempt },
        Outcome::Answered { status: 410, .. } => {
            return Step::Dead { attempt: Some(attempt), reason: "the receiver answered 410 Gone".into() };
        }
        Outcome::Answered { wish: Some(ReceiverWish::Abort), .. } => {
            let reason = "the receiver answered `webhook-delivery: abort`".into();
            return Step::Dead { attempt: Some(attempt), reason };
        }
        Outcome::Answered { retry_after_s, .. } => *retry_after_s,
        Outcome::Failed { .. } => None,
    };
    match schedule.next(failed_before + 1, now, retry_after_s, jitter) {
        Some(due_at) => Step::Retry { attempt, due_at },
        None => {
            let last = attempt.outcome.in_words();
            let reason = format!("given up after {}: the last one {last}", counted(failed_before + 1, "attempt"));
            Step::Dead { attempt: Some(attempt), reason }
        }
    }
}

fn counted(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The state of a delivery after its attempt was settled.
pub(super) struct Onward {
    /// The time of the next attempt, if there is one.
    pub(super) due_at: Option<Timestamp>,
    /// The delivery that was blocked by this one in FIFO order.
    pub(super) freed: Option<DueDelivery>,
}

/// The cause and the reason, if the response asks for no further deliveries to this subscription. Pending deliveries
/// stay pending.
fn unwanted(outcome: &Outcome) -> Option<(Cause, &'static str)> {
    match outcome {
        // Standard Webhooks, "Responses": 410 disables the endpoint.
        Outcome::Answered { status: 410, .. } => Some((Cause::Gone, "the receiver answered 410 Gone")),
        Outcome::Answered { wish: Some(ReceiverWish::Disable), .. } => {
            Some((Cause::Receiver, "the receiver answered `webhook-delivery: disable`"))
        }
        _ => None,
    }
}

/// The cause, the start and the reason, if the host must pause the subscription after this attempt.
fn disabling(
    unwanted: Option<(Cause, &'static str)>,
    at: Timestamp,
    failing_since: Option<Timestamp>,
    now: Timestamp,
    after_s: u64,
) -> Option<(Cause, Timestamp, String)> {
    if let Some((cause, reason)) = unwanted {
        return Some((cause, at, reason.to_owned()));
    }
    let since = failing_since?;
    let failing_s = u64::try_from(now.since(since) / 1_000).unwrap_or(0);
    (after_s > 0 && failing_s >= after_s).then(|| {
        let reason = format!("no attempt has succeeded since {since}: `disable_after_s` is {after_s}");
        (Cause::Failing, since, reason)
    })
}

impl Pipeline {
    /// Decides and commits the result of an attempt.
    pub(super) async fn settle_attempt(&self, attempted: Attempted) -> Result<Onward, setgate_ledger::Error> {
        let Attempted { delivery, subscription, accepted_at, attempt, passed } = attempted;
        let now = self.clock.now();
        let (at, unwanted) = (attempt.at, unwanted(&attempt.outcome));
        let step = decide(
            &subscription.value.retry,
            delivery.attempts.saturating_sub(delivery.attempts_before),
            attempt,
            now,
            crypto::random_unit(),
        );
        let due_at = match &step {
            Step::Retry { due_at, .. } => Some(*due_at),
            _ => None,
        };
        if matches!(step, Step::Delivered { .. }) {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of one delivery")]
            histogram!(metric::END_TO_END_SECONDS).record(now.since(accepted_at) as f64 / 1e3);
        }
        let settlement = Settlement { delivery: delivery.seq, at: self.clock.now(), step, passed };
        let settled = self.settle_as(&delivery, settlement).await?;
        let of_host = self.settings.now().delivery.disable_after_s;
        let after_s = subscription.value.pacing.disable_after_s.map_or(of_host, u64::from);
        if let Some((cause, since, reason)) = disabling(unwanted, at, settled.failing_since, now, after_s)
            && let Err(error) = Box::pin(self.disable(&delivery, cause, since, reason)).await
        {
            // The delivery itself is settled, and the next attempt tries to pause the subscription again.
            warn!(delivery = %delivery.id, %error, "the subscription could not be paused");
        }
        Ok(Onward { due_at, freed: settled.freed })
    }

    /// Commits a settlement and retries until the commit succeeds, because the request was already sent to the receiver
    /// and must be recorded. If the host shuts down first, the delivery is due again after the restart.
    pub(super) async fn settle(&self, delivery: &DueDelivery, step: Step) -> Result<Settled, setgate_ledger::Error> {
        self.settle_as(delivery, Settlement::new(delivery.seq, self.clock.now(), step)).await
    }

    async fn settle_as(
        &self,
        delivery: &DueDelivery,
        settlement: Settlement,
    ) -> Result<Settled, setgate_ledger::Error> {
        let fault = match &settlement.step {
            Step::Held { runs, .. } => runs.iter().filter_map(|run| run.fault.as_ref()).next_back().map(Fault::kind),
            _ => None,
        };
        let rest = match &settlement.step {
            Step::Filtered { .. } | Step::FilterAgain { .. } | Step::Retry { .. } => None,
            Step::Dropped { .. } => Some(State::Dropped),
            Step::Held { .. } => Some(State::Held),
            Step::Delivered { .. } => Some(State::Delivered),
            Step::Dead { .. } => Some(State::Dead),
        };
        let settlement = Arc::new(settlement);
        let mut wait_ms = 50;
        let settled = loop {
            match self.ledger.settle(settlement.clone()).await {
                Ok(settled) => break settled,
                Err(error) if !error.is_temporary() => return Err(error),
                Err(error) => {
                    if !error.is_told() {
                        warn!(delivery = %delivery.id, %error, "a settlement is not durable yet; it is tried again");
                    }
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    wait_ms = (wait_ms * 2).min(SETTLE_RETRY_MS_MAX);
                }
            }
        };
        if let Some(state) = rest {
            self.counts.delivery(&delivery.tenant, state);
            match state {
                State::Held | State::Dead => {
                    // The reason may contain the guest's own text, which belongs to the tenant and therefore stays out
                    // of the log.
                    warn!(tenant = %delivery.tenant, delivery = %delivery.id, state = state.as_str(), fault,
                        "a delivery needs a person");
                }
                _ => debug!(tenant = %delivery.tenant, delivery = %delivery.id, state = state.as_str(), "settled"),
            }
        }
        Ok(settled)
    }

    /// Pauses the subscription of a delivery, unless it is paused or removed, and notifies its tenant. If the
    /// subscription was changed concurrently, the next attempt decides again.
    async fn disable(
        &self,
        delivery: &DueDelivery,
        cause: Cause,
        since: Timestamp,
        reason: String,
    ) -> Result<(), setgate_ledger::Error> {
        let Some(stored) = self.subscription(&delivery.tenant, delivery.id.subscription) else { return Ok(()) };
        if stored.value.paused.is_some() {
            return Ok(());
        }
        // Appended before the pause: if the host is killed in between, the next attempt repeats both, and deduplication
        // drops the second notice.
        let about = Notice::Disabled { subscription: &stored.value, cause, reason: &reason, since };
        self.give_notice(&delivery.tenant, about).await;
        let now = self.clock.now();
        let mut subscription = stored.value.clone();
        subscription.paused = Some(Pause { cause, reason: reason.clone(), since: now });
        subscription.updated_at = now;
        match self.ledger.put_subscription(subscription, Expected::Version(stored.version)).await {
            Err(setgate_ledger::Error::VersionMismatch { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let (tenant, subscription) = (&delivery.tenant, delivery.id.subscription);
                counter!(metric::DISABLED, "tenant" => tenant.to_string(), "cause" => cause.as_str()).increment(1);
                warn!(%tenant, %subscription, cause = cause.as_str(), reason, "a subscription is paused; what is pending waits");
                Ok(())
            }
        }
    }

    /// A filter asked for another try: schedules it by the subscription's retry schedule, or holds the delivery if the
    /// schedule is used up.
    pub(super) fn again(&self, delivery: &DueDelivery, runs: Vec<FilterRun>, reason: String) -> Step {
        let schedule = self
            .subscription(&delivery.tenant, delivery.id.subscription)
            .map(|subscription| subscription.value.retry.clone())
            .unwrap_or_default();
        match schedule.next(delivery.filter_tries + 1, self.clock.now(), None, crypto::random_unit()) {
            Some(due_at) => Step::FilterAgain { runs, due_at },
            None => {
                let tries = counted(delivery.filter_tries + 1, "attempt");
                Step::Held { runs, reason: format!("given up after {tries}: {reason}") }
            }
        }
    }

    /// The record of an attempt that could not be built or signed. It is retried like any other attempt, because its
    /// cause is a setting that a user can fix.
    pub(super) fn unsendable(&self, delivery: &DueDelivery, detail: String) -> Attempt {
        let outcome = Outcome::Failed { class: ErrorClass::Unsendable, detail };
        let number = delivery.attempts + 1;
        let at = self.clock.now();
        Attempt { number, at, latency_us: 0, outcome, signed_with: Vec::new(), sent: None, connection: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn answered(status: u16, retry_after_s: Option<u32>) -> Attempt {
        let mut outcome = Outcome::status(status);
        if let Outcome::Answered { retry_after_s: asked, .. } = &mut outcome {
            *asked = retry_after_s;
        }
        Attempt { number: 1, at: NOW, latency_us: 1, outcome, signed_with: Vec::new(), sent: None, connection: None }
    }

    #[test]
    fn only_2xx_is_success_and_410_ends() {
        let schedule = RetrySchedule::default();
        for (status, expected) in
            [(200, "delivered"), (204, "delivered"), (302, "retry"), (500, "retry"), (410, "dead")]
        {
            let step = match decide(&schedule, 0, answered(status, None), NOW, 0.5) {
                Step::Delivered { .. } => "delivered",
                Step::Retry { .. } => "retry",
                Step::Dead { .. } => "dead",
                other => panic!("{other:?}"),
            };
            assert_eq!(step, expected, "{status}");
        }
    }

    #[test]
    fn gives_up_when_the_schedule_is_spent_and_waits_as_asked() {
        let schedule = RetrySchedule::try_from(vec![1]).unwrap();
        let Step::Dead { reason, .. } = decide(&schedule, 1, answered(500, None), NOW, 0.5) else { panic!() };
        assert_eq!(reason, "given up after 2 attempts: the last one was answered 500");
        let Step::Retry { due_at, .. } = decide(&schedule, 0, answered(503, Some(60)), NOW, 0.0) else { panic!() };
        assert_eq!(due_at.since(NOW), 60_000);
    }
}
