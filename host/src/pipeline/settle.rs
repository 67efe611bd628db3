//! What an attempt means for its delivery: a pure decision, then the transaction `settle`.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use tracing::{debug, warn};

use crate::crypto;
use crate::domain::attempt::{Attempt, ErrorClass, Outcome, ReceiverWish};
use crate::domain::delivery::{DueDelivery, Settlement, State, Step};
use crate::domain::retry::RetrySchedule;
use crate::domain::subscription::{Cause, Pause};
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Fault, FilterRun};
use crate::ledger::{self, Expected, Settled};
use crate::telemetry::metric;

use super::Pipeline;
use super::deliver::Attempted;
use super::notice::Notice;

/// Longest wait between two tries to write a settlement, in milliseconds.
const SETTLE_RETRY_MS_MAX: u64 = 5_000;

/// What is done after an attempt. `jitter` is in 0.0..=1.0.
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

/// Where a delivery stands after its attempt was settled.
pub(super) struct Onward {
    /// When it is due again, where it is.
    pub(super) due_at: Option<Timestamp>,
    /// The one that it kept back until now.
    pub(super) freed: Option<DueDelivery>,
}

/// Why a receiver wants nothing more here, and in words. What is pending stays pending.
fn unwanted(outcome: &Outcome) -> Option<(Cause, &'static str)> {
    match outcome {
        // Standard Webhooks, "Responses": 410 means that the receiver wants no more.
        Outcome::Answered { status: 410, .. } => Some((Cause::Gone, "the receiver answered 410 Gone")),
        Outcome::Answered { wish: Some(ReceiverWish::Disable), .. } => {
            Some((Cause::Receiver, "the receiver answered `webhook-delivery: disable`"))
        }
        _ => None,
    }
}

/// Why the host pauses a subscription after an attempt, since when that was due, and in words.
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
    /// Decides and settles an attempt.
    pub(super) async fn settle_attempt(&self, attempted: Attempted) -> Result<Onward, ledger::Error> {
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
            // The delivery itself is settled; the next attempt will come to the same.
            warn!(delivery = %delivery.id, %error, "the subscription could not be paused");
        }
        Ok(Onward { due_at, freed: settled.freed })
    }

    /// The transaction, tried until it holds: what was exchanged with a receiver has happened and must be kept.
    /// A stop of the host ends the wait; the delivery is then due again.
    pub(super) async fn settle(&self, delivery: &DueDelivery, step: Step) -> Result<Settled, ledger::Error> {
        self.settle_as(delivery, Settlement::new(delivery.seq, self.clock.now(), step)).await
    }

    async fn settle_as(&self, delivery: &DueDelivery, settlement: Settlement) -> Result<Settled, ledger::Error> {
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
                    // The reason may hold words of the guest's, which are the tenant's own: they stay in the history.
                    warn!(tenant = %delivery.tenant, delivery = %delivery.id, state = state.as_str(), fault,
                        "a delivery needs a person");
                }
                _ => debug!(tenant = %delivery.tenant, delivery = %delivery.id, state = state.as_str(), "settled"),
            }
        }
        Ok(settled)
    }

    /// Pauses the subscription of a delivery, unless it is paused or gone, and tells its tenant. A person's change in
    /// between comes first: it is looked at again at the next attempt.
    async fn disable(
        &self,
        delivery: &DueDelivery,
        cause: Cause,
        since: Timestamp,
        reason: String,
    ) -> Result<(), ledger::Error> {
        let Some(stored) = self.subscription(&delivery.tenant, delivery.id.subscription) else { return Ok(()) };
        if stored.value.paused.is_some() {
            return Ok(());
        }
        // Before the pause: killed in between, the host comes here again and the notice is the same.
        let about = Notice::Disabled { subscription: &stored.value, cause, reason: &reason, since };
        self.give_notice(&delivery.tenant, about).await;
        let now = self.clock.now();
        let mut subscription = stored.value.clone();
        subscription.paused = Some(Pause { cause, reason: reason.clone(), since: now });
        subscription.updated_at = now;
        match self.ledger.put_subscription(subscription, Expected::Version(stored.version)).await {
            Err(ledger::Error::VersionMismatch { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let (tenant, subscription) = (&delivery.tenant, delivery.id.subscription);
                counter!(metric::DISABLED, "tenant" => tenant.to_string(), "cause" => cause.as_str()).increment(1);
                warn!(%tenant, %subscription, cause = cause.as_str(), reason, "a subscription is paused; what is pending waits");
                Ok(())
            }
        }
    }

    /// A filter asked for another try: by the schedule of the delivery's subscription, else given up as a dead letter.
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

    /// An attempt that could not even be built or signed: recorded and retried like any other, since its cause is a
    /// setting that a person can mend.
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
