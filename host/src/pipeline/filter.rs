//! Runs the chain of a delivery: each filter gets the output of the previous one. The chain runs once per delivery, and
//! its output is stored before the first send, so that every retry and every restart sends the same bytes.

use std::sync::Arc;

use metrics::counter;
use setgate_base::clock::Clock;
use setgate_base::telemetry::metric;
use setgate_domain::chain::{ChainEnd, ChainResult};
use setgate_domain::delivery::{DueDelivery, State, Step};
use setgate_domain::filter::Plan;
use setgate_domain::reproduction;
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_ledger::{Deliveries, Plans, Registry};

use super::canary::Canaries;
use super::chain::{Around, ChainRunner};
use super::next::{Filtered, Next};
use super::plan::Planner;
use super::requeue::Requeuer;
use super::reuse::Reusing;
use super::settle::Settler;
use super::shadow::Shadows;
use super::suspension::{Suspender, Suspensions};
use super::withdrawal::Withdrawals;

/// Longest delay in milliseconds before the fuel budget is checked again, because the quota may be raised in the
/// meantime.
const SPENT_MS_MAX: i64 = 1_000;

/// Runs the chains of due deliveries.
pub(super) struct FilterStage {
    pub(super) registry: Registry,
    pub(super) deliveries: Deliveries,
    pub(super) plans: Plans,
    pub(super) planner: Planner,
    pub(super) chain: Arc<ChainRunner>,
    pub(super) withdrawals: Withdrawals,
    pub(super) shadows: Shadows,
    pub(super) canaries: Arc<Canaries>,
    pub(super) suspender: Suspender,
    pub(super) settler: Arc<Settler>,
    pub(super) requeuer: Requeuer,
    pub(super) clock: Clock,
}

impl FilterStage {
    /// Runs the chain of a due delivery, unless it has run before, and settles the result.
    pub(super) async fn run(&self, delivery: DueDelivery) -> Result<Next, setgate_ledger::Error> {
        let Some(content) = self.deliveries.load(&delivery.tenant, delivery.seq).await? else {
            // The delivery was removed together with its tenant.
            return Ok(Next::Rest(None));
        };
        // A lease may be older than the row: the delivery may have ended or been postponed since it was listed.
        if content.state != State::Due {
            return Ok(Next::Rest(None));
        }
        // An earlier delivery was revived since this one was listed. Settling the earlier one unblocks this one.
        if content.blocked {
            return Ok(Next::Rest(None));
        }
        let stale = content.attempts != delivery.attempts || content.due_at > delivery.due_at;
        let delivery = DueDelivery {
            filtered: content.filtered,
            filter_tries: content.filter_tries,
            plan: content.plan,
            attempts_before: content.attempts_before,
            ..delivery
        };
        if stale {
            // This lease is the only one for the row, so the current row can go back to its lane.
            let row = DueDelivery { due_at: content.due_at, attempts: content.attempts, ..delivery };
            return Ok(Next::requeue(row));
        }
        let event = content.event;
        let delivery = delivery.with_loaded_bytes(&event, content.claims.as_deref());
        if delivery.filtered {
            let (claims, passed) = (content.claims, Vec::new());
            return Ok(Next::Send(Box::new(Filtered { delivery, event, claims, passed })));
        }
        let Some(plan) = self.plans.get(&delivery.tenant, &delivery.plan).await? else {
            let reason = format!("the plan {} is not in the ledger", delivery.plan);
            self.settler.settle(&delivery, Step::Held { runs: Vec::new(), reason }).await?;
            return Ok(Next::Rest(None));
        };
        if let Some(reason) = plan.broken.clone() {
            self.settler.settle(&delivery, Step::Held { runs: Vec::new(), reason }).await?;
            return Ok(Next::Rest(None));
        }
        if !plan.steps.is_empty()
            && let Some(wait) = self.chain.fuel_wait(&event.tenant)
        {
            // Waiting here would occupy a slot that other tenants' deliveries need. The delay exists only in memory: on
            // disk the delivery stays due.
            let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).clamp(1, SPENT_MS_MAX);
            let due_at = self.clock.now().plus_millis(wait_ms);
            counter!(metric::PUT_OFF, "tenant" => event.tenant.to_string()).increment(1);
            return Ok(Next::requeue(DueDelivery { due_at, ..delivery }));
        }
        let (plan, delivery) = self.withdrawals.replace(plan, delivery).await?;
        let view = self.registry.snapshot().tenant(&event.tenant).cloned();
        let suspensions = Suspensions::of(view.clone());
        let mut witness = self.shadows.witness(&plan, &event.tenant);
        let reusing = Reusing::of(view, &delivery, &event);
        let around = Around { suspensions: &suspensions, reusing: &reusing, under: event.trace.as_ref() };
        let ChainResult { end, runs } = self.chain.run(&plan, &event, delivery.id, around, &mut witness).await;
        self.canaries.count(&event.tenant, &runs);
        self.suspender.judge(&event.tenant, &runs).await;
        self.shadows.start(witness, &plan, &event, delivery.id);
        let step = match end {
            ChainEnd::Completed(claims) => {
                let passed = if may_wait(claims.as_deref(), plan.steps.len(), &runs) {
                    runs
                } else {
                    self.settler.settle(&delivery, Step::Filtered { claims: claims.clone(), runs }).await?;
                    Vec::new()
                };
                let delivery = delivery.with_loaded_bytes(&event, claims.as_deref());
                return Ok(Next::Send(Box::new(Filtered { delivery, event, claims, passed })));
            }
            ChainEnd::Dropped(reason) => Step::Dropped { runs, reason },
            ChainEnd::Held(reason) => Step::Held { runs, reason },
            ChainEnd::Retry(reason) => self.settler.filter_again(&delivery, runs, reason),
        };
        let again = match &step {
            Step::FilterRetry { due_at, .. } => Some(*due_at),
            _ => None,
        };
        let suspended = matches!(&step, Step::Held { runs, .. } if runs.last().is_some_and(is_suspended));
        let holding = match &step {
            Step::Held { runs, .. } => runs.last().map(|run| (run.filter.clone(), run.digest)),
            _ => None,
        };
        let unblocked = self.settler.settle(&delivery, step).await?.unblocked;
        // The version may have been withdrawn after the chain ran, and the release loop may have looked before this
        // delivery was held.
        if let Some((filter, digest)) = holding
            && self.withdrawals.is_withdrawn(&delivery.tenant, &filter, digest)
            && let Some(row) = self.requeuer.requeue_one(&delivery.tenant, delivery.id).await?
        {
            return Ok(Next::requeue(row));
        }
        if suspended && let Some(row) = self.chain_is_free_again(&plan, &delivery).await? {
            return Ok(Next::requeue(row));
        }
        Ok(match again {
            None => Next::rest(unblocked),
            Some(due_at) => {
                let filter_tries = delivery.filter_tries + 1;
                Next::requeue(DueDelivery { due_at, filter_tries, ..delivery })
            }
        })
    }

    /// Called after a delivery was held because a version is suspended. If the suspension has ended, or if the
    /// subscription's chain now uses another version, the release loop may have looked before the delivery was held. In
    /// that case the delivery is run again from here.
    async fn chain_is_free_again(
        &self,
        plan: &Plan,
        delivery: &DueDelivery,
    ) -> Result<Option<DueDelivery>, setgate_ledger::Error> {
        let snapshot = self.registry.snapshot();
        let suspensions = Suspensions::of(snapshot.tenant(&delivery.tenant).cloned());
        let subscription = snapshot.subscription(&delivery.tenant, delivery.id.subscription);
        let now = subscription.and_then(|subscription| self.planner.plan_of(&subscription.value));
        if suspensions.concern(now.as_ref().unwrap_or(plan)) {
            return Ok(None);
        }
        self.requeuer.requeue_one(&delivery.tenant, delivery.id).await
    }
}

/// Whether the chain's result may be settled with the attempt, after the send. Unchanged claims are in the journal. If
/// the host is killed before the settlement, the chain runs again over the same bytes, so it must be reproducible.
fn may_wait(claims: Option<&str>, steps: usize, runs: &[FilterRun]) -> bool {
    claims.is_none() && reproduction::irreproducible_reason(steps, None, runs).is_none()
}

fn is_suspended(run: &FilterRun) -> bool {
    matches!(run.fault, Some(Fault::Suspended { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::id::Digest;
    use setgate_domain::verdict::VerdictKind;

    #[test]
    fn what_need_not_come_out_the_same_is_kept_before_the_send() {
        let passed = || FilterRun {
            verdict: Some(VerdictKind::Pass),
            ..FilterRun::not_called("f".parse().unwrap(), Digest([1; 32]))
        };
        assert!(may_wait(None, 0, &[]), "there is nothing to keep");
        assert!(may_wait(None, 1, &[passed()]));
        assert!(!may_wait(Some("{}"), 1, &[passed()]), "the bytes are nowhere else");
        // The chain continued without the filter (`on_fault` is `open`). On a second run the filter may be fast enough.
        let slow = FilterRun { fault: Some(Fault::Wall { limit_ms: 1 }), ..passed() };
        assert!(!may_wait(None, 2, &[passed(), slow]));
        let reused = FilterRun { instance_events: Some(2), ..passed() };
        assert!(!may_wait(None, 1, &[reused]), "it may go by what earlier events left there");
    }
}
