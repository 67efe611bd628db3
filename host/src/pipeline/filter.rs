//! The chain: each filter over what the one before left, once per delivery. The bytes it makes are kept before the
//! first send, so that every retry and every restart sends the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::counter;

use crate::domain::chain::{self, Chain, ChainEnd, Chained};
use crate::domain::delivery::{DueDelivery, State, Step};
use crate::domain::event::Event;
use crate::domain::filter::{Grant, Plan, PlanStep};
use crate::domain::id::{DeliveryId, TenantId};
use crate::domain::reproduction;
use crate::domain::secret::binding_context;
use crate::domain::set::SetToken;
use crate::domain::tenant::Quota;
use crate::domain::time::Timestamp;
use crate::domain::trace::TraceContext;
use crate::domain::verdict::{Fault, FilterRun};
use crate::ledger;
use crate::sandbox::{Call, EventView, Keep, Ran};
use crate::telemetry::metric;

use super::Pipeline;
use super::health::Suspensions;
use super::reuse::Reusing;
use super::shadow::Witness;
use super::spans;
use super::tables::PinnedTables;

/// Longest wait for fuel before it is looked at again, in milliseconds: the quota may have been raised.
const SPENT_MS_MAX: i64 = 1_000;

/// A delivery whose chain has run: what `seal` takes.
#[derive(Debug)]
pub struct Filtered {
    pub(super) delivery: DueDelivery,
    pub(super) event: Arc<Event>,
    /// None: the SET as normalized.
    pub(super) claims: Option<String>,
    /// What each filter did, where none of them changed anything and each would come to that again: the bytes are those of
    /// the journal, and the runs are settled with the attempt. Empty where they are settled already.
    pub(super) passed: Vec<FilterRun>,
}

impl Filtered {
    pub(super) fn accepted_at(&self) -> Timestamp {
        self.event.accepted_at
    }
}

/// What a chain meets besides its event.
#[derive(Clone, Copy)]
struct Around<'a> {
    suspensions: &'a Suspensions,
    reusing: &'a Reusing,
    /// Where its spans belong.
    under: Option<&'a TraceContext>,
}

/// Whether a delivery goes on or came to rest.
pub(super) enum Progress {
    On(Box<Filtered>),
    /// Due again, as this row.
    Again(Box<DueDelivery>),
    /// At its end, held, or kept back by another: with the one that is due because of that.
    Rests(Option<Box<DueDelivery>>),
}

/// What every call of one chain is given.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) event: &'a Event,
    pub(super) delivery: DeliveryId,
    pub(super) tables: &'a Arc<PinnedTables>,
    pub(super) quota: &'a Quota,
}

impl Pipeline {
    /// Runs the chain of a due delivery, unless it has run, and settles what came of it.
    pub(super) async fn filter(&self, delivery: DueDelivery) -> Result<Progress, ledger::Error> {
        let Some(content) = self.ledger.load(delivery.seq).await? else {
            // Removed with its tenant meanwhile.
            return Ok(Progress::Rests(None));
        };
        // A lease may be older than the row: what was due when it was listed may have ended or been put off since.
        if content.state != State::Due {
            return Ok(Progress::Rests(None));
        }
        // One before it was revived since it was listed. Whoever ends that one gives this one back.
        if content.kept_back {
            return Ok(Progress::Rests(None));
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
            // Nobody else may hold the row, so it goes back to its lane as it is now.
            let row = DueDelivery { due_at: content.due_at, attempts: content.attempts, ..delivery };
            return Ok(Progress::Again(Box::new(row)));
        }
        let event = content.event;
        if delivery.filtered {
            let (claims, passed) = (content.claims, Vec::new());
            return Ok(Progress::On(Box::new(Filtered { delivery, event, claims, passed })));
        }
        let Some(plan) = self.ledger.plan(&delivery.plan).await? else {
            let reason = format!("the plan {} is not in the ledger", delivery.plan);
            self.settle(&delivery, Step::Held { runs: Vec::new(), reason }).await?;
            return Ok(Progress::Rests(None));
        };
        if let Some(reason) = plan.broken.clone() {
            self.settle(&delivery, Step::Held { runs: Vec::new(), reason }).await?;
            return Ok(Progress::Rests(None));
        }
        if !plan.steps.is_empty()
            && let Some(wait) = self.sandbox.spent(&event.tenant, &self.quota_of(&event.tenant))
        {
            // Waiting here would take a place from other tenants' deliveries. Only the lease knows: on disk it is due.
            let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).clamp(1, SPENT_MS_MAX);
            let due_at = self.clock.now().plus_millis(wait_ms);
            counter!(metric::PUT_OFF, "tenant" => event.tenant.to_string()).increment(1);
            return Ok(Progress::Again(Box::new(DueDelivery { due_at, ..delivery })));
        }
        let (plan, delivery) = self.without_withdrawn(plan, delivery).await?;
        let suspensions = self.suspensions(&event.tenant);
        let mut witness = self.witness(&plan, &event.tenant);
        let reusing = self.reusing(&delivery, &event);
        let around = Around { suspensions: &suspensions, reusing: &reusing, under: event.trace.as_ref() };
        let Chained { end, runs } = self.chain(&plan, &event, delivery.id, around, &mut witness).await;
        self.count_candidates(&event.tenant, &runs);
        self.judge(&event.tenant, &runs).await;
        self.shadow(witness, &plan, &event, delivery.id);
        let step = match end {
            ChainEnd::Through(claims) => {
                let passed = if may_wait(claims.as_deref(), plan.steps.len(), &runs) {
                    runs
                } else {
                    self.settle(&delivery, Step::Filtered { claims: claims.clone(), runs }).await?;
                    Vec::new()
                };
                return Ok(Progress::On(Box::new(Filtered { delivery, event, claims, passed })));
            }
            ChainEnd::Dropped(reason) => Step::Dropped { runs, reason },
            ChainEnd::Held(reason) => Step::Held { runs, reason },
            ChainEnd::Again(reason) => self.again(&delivery, runs, reason),
        };
        let again = match &step {
            Step::FilterAgain { due_at, .. } => Some(*due_at),
            _ => None,
        };
        let suspended = matches!(&step, Step::Held { runs, .. } if runs.last().is_some_and(is_suspended));
        let holding = match &step {
            Step::Held { runs, .. } => runs.last().map(|run| (run.filter.clone(), run.digest)),
            _ => None,
        };
        let freed = self.settle(&delivery, step).await?.freed;
        // Whoever withdrew the version may have looked before the delivery was held.
        if let Some((filter, digest)) = holding
            && self.is_withdrawn(&delivery.tenant, &filter, digest)
            && let Some(row) = self.pin_anew(&delivery.tenant, delivery.id).await?
        {
            return Ok(Progress::Again(Box::new(row)));
        }
        if suspended && let Some(row) = self.chain_is_free_again(&plan, &delivery).await? {
            return Ok(Progress::Again(Box::new(row)));
        }
        Ok(match again {
            None => Progress::Rests(freed.map(Box::new)),
            Some(due_at) => {
                let filter_tries = delivery.filter_tries + 1;
                Progress::Again(Box::new(DueDelivery { due_at, filter_tries, ..delivery }))
            }
        })
    }

    /// A delivery was held because a version is suspended. Where that is over meanwhile, or its subscription's chain has
    /// another version by now, whoever ended it may have looked before the delivery was held: it is run again here.
    async fn chain_is_free_again(
        &self,
        plan: &Plan,
        delivery: &DueDelivery,
    ) -> Result<Option<DueDelivery>, ledger::Error> {
        let suspensions = self.suspensions(&delivery.tenant);
        let now = match self.subscription(&delivery.tenant, delivery.id.subscription) {
            Some(subscription) => self.pinned_now(&subscription.value),
            None => None,
        };
        if suspensions.concern(now.as_ref().unwrap_or(plan)) {
            return Ok(None);
        }
        self.pin_anew(&delivery.tenant, delivery.id).await
    }

    /// Runs a plan over an event, within the limits that were pinned with it, suspended versions and all, each filter in a
    /// fresh instance. Decides nothing about the delivery and stores nothing, so that a chain can be run again at any time.
    pub async fn run_chain(&self, plan: &Plan, event: &Event, delivery: DeliveryId) -> Chained {
        let around = Around { suspensions: &Suspensions::ignored(), reusing: &Reusing::never(), under: None };
        self.chain(plan, event, delivery, around, &mut Witness::default()).await
    }

    async fn chain(
        &self,
        plan: &Plan,
        event: &Event,
        delivery: DeliveryId,
        around: Around<'_>,
        witness: &mut Witness,
    ) -> Chained {
        let mut chain = Chain::over(&event.set);
        let tables = match self.tables_of(plan, &event.tenant).await {
            Ok(tables) => tables,
            Err(detail) => return chain.ended(ChainEnd::Again(detail)),
        };
        let quota = self.quota_for(plan, &event.tenant);
        let given = Given { event, delivery, tables: &tables, quota: &quota };
        for (place, step) in plan.steps.iter().enumerate() {
            let span = self.filtering(around.under, &event.tenant, delivery, step);
            let mut keep = around.reusing.keep(place, step);
            let (applied, run) = loop {
                let Ran { verdict: decided, run, redactor, used } = match around.suspensions.fault(step) {
                    Some(fault) => not_run(step, fault),
                    None => self.run_step(step, chain.claims(), given, keep).await,
                };
                witness.see(place, chain.claims(), &decided, &run);
                let applied = match decided {
                    Ok(verdict) => {
                        self.apply(&event.tenant, chain.claims(), verdict, quota.output_bytes_max, redactor).await
                    }
                    Err(fault) => Err(fault),
                };
                // Dropped without this, and its instance with it.
                if let (Some(used), Ok(_)) = (used, &applied) {
                    used.keep();
                }
                // It may be what earlier events left there that went wrong: the event is asked about by itself.
                if applied.is_err() && run.is_reused() && keep.take().is_some() {
                    continue;
                }
                break (applied, run);
            };
            let of = chain::Step::from(&step.binding);
            let end = chain.step(of, applied, run);
            spans::filtered(span, chain.last());
            if let Some(end) = end {
                return chain.ended(end);
            }
        }
        chain.through()
    }

    /// The tenant's quota, with the limits that were pinned with a plan.
    pub(super) fn quota_for(&self, plan: &Plan, tenant: &TenantId) -> Quota {
        let quota = self.quota_of(tenant);
        plan.limits.as_ref().map_or(quota.clone(), |limits| quota.with(limits))
    }

    pub(super) async fn run_step(
        &self,
        step: &PlanStep,
        before: &SetToken,
        given: Given<'_>,
        keep: Option<Keep>,
    ) -> Ran {
        let Given { event, delivery, tables, quota } = given;
        let binding = &step.binding;
        let context = binding_context(&event.tenant, &delivery.subscription);
        let mut secrets = BTreeMap::new();
        if binding.grants.contains(&Grant::Config) {
            for (name, sealed) in &binding.secrets {
                match self.master.open(&context, sealed) {
                    Ok(secret) => drop(secrets.insert(name.clone(), secret)),
                    Err(_) => {
                        let detail = format!("its secret `{name}` cannot be opened with the host's master key");
                        return not_run(step, Fault::Unavailable { detail });
                    }
                }
            }
        }
        self.sandbox
            .run(Call {
                digest: step.digest,
                filter: binding.filter.clone(),
                event: EventView {
                    id: event.id,
                    issuer: before.issuer.clone(),
                    issued_at: before.issued_at,
                    accepted_at: event.accepted_at,
                    types: before.types.clone(),
                    subject: event.subject.clone(),
                    tenant: event.tenant.clone(),
                    source: event.source.clone(),
                    subscription: delivery.subscription,
                    delivery,
                    claims: before.text.clone(),
                },
                config: binding.config.get().into(),
                secrets,
                grants: binding.grants.clone(),
                tables: tables.clone(),
                quota: quota.clone(),
                keep,
            })
            .await
    }
}

/// Whether what a chain did may be settled with the attempt, after the send. What nobody changed is in the journal; and killed
/// before that, the host runs the chain again, over the same bytes, so it has to come to the same again.
fn may_wait(claims: Option<&str>, steps: usize, runs: &[FilterRun]) -> bool {
    claims.is_none() && reproduction::why_not(steps, None, runs).is_none()
}

fn is_suspended(run: &FilterRun) -> bool {
    matches!(run.fault, Some(Fault::Suspended { .. }))
}

fn not_run(step: &PlanStep, fault: Fault) -> Ran {
    let run = FilterRun::not_called(step.binding.filter.clone(), step.digest);
    Ran { verdict: Err(fault), run, redactor: Arc::default(), used: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Digest;
    use crate::domain::verdict::VerdictKind;

    #[test]
    fn what_need_not_come_out_the_same_is_kept_before_the_send() {
        let passed = || FilterRun {
            verdict: Some(VerdictKind::Pass),
            ..FilterRun::not_called("f".parse().unwrap(), Digest([1; 32]))
        };
        assert!(may_wait(None, 0, &[]), "there is nothing to keep");
        assert!(may_wait(None, 1, &[passed()]));
        assert!(!may_wait(Some("{}"), 1, &[passed()]), "the bytes are nowhere else");
        // The chain went on without the filter (`on_fault` is open); next time it may be quick enough.
        let slow = FilterRun { fault: Some(Fault::Wall { limit_ms: 1 }), ..passed() };
        assert!(!may_wait(None, 2, &[passed(), slow]));
        let reused = FilterRun { instance_events: Some(2), ..passed() };
        assert!(!may_wait(None, 1, &[reused]), "it may go by what earlier events left there");
    }
}
