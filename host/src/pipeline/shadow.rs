//! Shadows: a candidate runs beside the active version over the same input, after the delivery's own chain has run.
//! What it says is compared and counted, and goes nowhere.
//!
//! A delivery never waits for it. Where as many shadow runs of the tenant as may be are under way, the event is left out
//! and counted as such.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;

use crate::domain::event::Event;
use crate::domain::filter::{Plan, PlanStep};
use crate::domain::id::{DeliveryId, TenantId};
use crate::domain::redact::Redactor;
use crate::domain::rollout::{Difference, Mode, Rollout, Said};
use crate::domain::set::{Applied, SetToken};
use crate::domain::verdict::{Fault, FilterRun, Verdict};
use crate::sandbox::Ran;
use crate::telemetry::metric;

use super::Pipeline;
use super::apply::compare;
use super::canary::is_granted;
use super::filter::Given;

/// Looks at the steps of one run of a chain whose filters have a shadow.
#[derive(Default)]
pub(super) struct Witness {
    /// Their places in the chain, and their rollouts.
    watched: Vec<(usize, Rollout)>,
    seen: Vec<Seen>,
}

/// What a step that has a shadow got, and what came of it.
struct Seen {
    place: usize,
    rollout: Rollout,
    before: SetToken,
    decided: Result<Verdict, Fault>,
    run: FilterRun,
}

impl Witness {
    /// Called for each step, with what it got and what it decided.
    pub(super) fn see(&mut self, place: usize, before: &SetToken, decided: &Result<Verdict, Fault>, run: &FilterRun) {
        if let Some((_, rollout)) = self.watched.iter().find(|(watched, _)| *watched == place) {
            // Called twice where a kept instance faulted: the second time counts.
            self.seen.retain(|seen| seen.place != place);
            let (rollout, before) = (rollout.clone(), before.clone());
            self.seen.push(Seen { place, rollout, before, decided: decided.clone(), run: run.clone() });
        }
    }
}

/// Shadow runs under way, by tenant; tenants without any are absent.
pub(super) struct InFlight {
    per_tenant_max: usize,
    tenants: Mutex<HashMap<TenantId, usize>>,
}

/// The right to one shadow run, until dropped.
struct Place(Arc<InFlight>, TenantId);

impl InFlight {
    pub(super) fn new(per_tenant_max: usize) -> Arc<Self> {
        Arc::new(Self { per_tenant_max, tenants: Mutex::default() })
    }

    fn take(self: &Arc<Self>, tenant: &TenantId) -> Option<Place> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let count = tenants.get(tenant).copied().unwrap_or(0);
        if count >= self.per_tenant_max {
            return None;
        }
        tenants.insert(tenant.clone(), count + 1);
        Some(Place(self.clone(), tenant.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tenants = self.0.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = tenants.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                tenants.remove(&self.1);
            }
        }
    }
}

impl Pipeline {
    /// Who looks at a run of this plan: a step is looked at where it runs the active version of a filter with a shadow.
    pub(super) fn witness(&self, plan: &Plan, tenant: &TenantId) -> Witness {
        let snapshot = self.ledger.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Witness::default() };
        let rollout_of = |step: &PlanStep| {
            let filter = &view.filters.get(&step.binding.filter)?.value;
            let rollout = filter.rollout.as_ref().filter(|rollout| rollout.mode == Mode::Shadow)?;
            let fits = filter.active == Some(step.digest) && is_granted(filter, &rollout.digest, &step.binding);
            fits.then(|| rollout.clone())
        };
        let steps = plan.steps.iter().enumerate();
        let watched = steps.filter_map(|(place, step)| Some((place, rollout_of(step)?))).collect();
        Witness { watched, seen: Vec::new() }
    }

    /// Starts the shadow runs of what was seen, as far as there is room, and goes on at once.
    pub(super) fn shadow(&self, witness: Witness, plan: &Arc<Plan>, event: &Event, delivery: DeliveryId) {
        for seen in witness.seen {
            let name = seen.run.filter.clone();
            let Some(place) = self.shadows.take(&event.tenant) else {
                let now = self.clock.now();
                self.trials.compare((&event.tenant, &name), &seen.rollout, now, |report| report.skipped += 1);
                self.count_shadow(&event.tenant, "skipped");
                continue;
            };
            let (pipeline, plan, event) = (self.clone(), plan.clone(), event.clone());
            // Not waited for when the host stops: the sandbox ends the call, and what was not compared is not counted.
            tokio::spawn(async move {
                pipeline.run_shadow(seen, &plan, &event, delivery).await;
                drop(place);
            });
        }
    }

    async fn run_shadow(&self, seen: Seen, plan: &Plan, event: &Event, delivery: DeliveryId) {
        let Seen { place, rollout, before, decided, run: mut active } = seen;
        // Of a chain whose tables could not be read, no step was seen.
        let Ok(tables) = self.tables_of(plan, &event.tenant).await else { return };
        let quota = self.quota_for(plan, &event.tenant);
        let step = PlanStep { digest: rollout.digest, ..plan.steps[place].clone() };
        let given = Given { event, delivery, tables: &tables, quota: &quota };
        let Ran { verdict: candidate_decided, run: mut candidate, redactor, used: _ } =
            self.run_step(&step, &before, given, None).await;
        // Both run with the binding's secrets.
        let (tenant, bytes_max) = (&event.tenant, quota.output_bytes_max);
        let active_applied = self.applied(tenant, &before, decided, &mut active, bytes_max, redactor.clone()).await;
        let candidate_applied =
            self.applied(tenant, &before, candidate_decided, &mut candidate, bytes_max, redactor).await;
        let undecided = [&active, &candidate].iter().any(|run| run.fault.as_ref().is_some_and(|f| !f.is_filters_own()));
        let same = is_same(&active, &active_applied, &candidate, &candidate_applied);
        let result = match (undecided, same) {
            (true, _) => "undecided",
            (_, true) => "same",
            (_, false) => "different",
        };
        // Large texts are compared before the numbers are locked.
        let claims = |applied: &Result<Applied, Fault>| match applied {
            Ok(Applied::Changed(after)) => Some(after.text.clone()),
            Ok(Applied::Unchanged) => Some(before.text.clone()),
            Ok(Applied::Dropped(_)) | Err(_) => None,
        };
        let sample = (result == "different").then(|| Difference {
            event: event.id,
            subscription: delivery.subscription,
            active: said(&active),
            candidate: said(&candidate),
            claims: match (claims(&active_applied), claims(&candidate_applied)) {
                (Some(active), Some(candidate)) => compare(&active, &candidate),
                _ => Vec::new(),
            },
        });
        let now = self.clock.now();
        self.trials.compare((&event.tenant, &candidate.filter), &rollout, now, |report| {
            if undecided {
                report.undecided += 1;
                return;
            }
            report.runs += 1;
            report.same += u64::from(same);
            report.different += u64::from(!same);
            report.active.add(active.fuel, active.elapsed_us, active.fault.is_some());
            report.candidate.add(candidate.fuel, candidate.elapsed_us, candidate.fault.is_some());
            report.samples.extend(sample);
        });
        self.count_shadow(&event.tenant, result);
    }

    /// What a decision makes of the claims. A verdict that makes no valid SET is a fault, as it is in a chain.
    async fn applied(
        &self,
        tenant: &TenantId,
        before: &SetToken,
        decided: Result<Verdict, Fault>,
        run: &mut FilterRun,
        bytes_max: u64,
        redactor: Arc<Redactor>,
    ) -> Result<Applied, Fault> {
        let applied = match decided {
            Ok(verdict) => self.apply(tenant, before, verdict, bytes_max, redactor).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &applied {
            run.verdict = None;
            run.fault = Some(fault.clone());
        }
        applied
    }

    fn count_shadow(&self, tenant: &TenantId, result: &'static str) {
        counter!(metric::SHADOW_RUNS, "tenant" => tenant.to_string(), "result" => result).increment(1);
    }
}

/// Whether two versions agree: the same verdict, and the same bytes after it; or the same kind of fault.
fn is_same(
    active: &FilterRun,
    active_applied: &Result<Applied, Fault>,
    candidate: &FilterRun,
    candidate_applied: &Result<Applied, Fault>,
) -> bool {
    let bytes = match (active_applied, candidate_applied) {
        (Ok(Applied::Dropped(_)), Ok(Applied::Dropped(_))) => true,
        (Ok(active), Ok(candidate)) => active == candidate,
        (Err(active), Err(candidate)) => active.kind() == candidate.kind(),
        _ => false,
    };
    bytes && active.verdict == candidate.verdict
}

/// A run in short.
pub(super) fn said(run: &FilterRun) -> Said {
    Said { verdict: run.verdict, reason: run.reason.clone(), fault: run.fault.clone(), end: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_so_many_places_and_takes_nobody_elses() {
        let shadows = InFlight::new(2);
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let first = shadows.take(&acme).unwrap();
        let _second = shadows.take(&acme).unwrap();
        assert!(shadows.take(&acme).is_none(), "the third is left out");
        assert!(shadows.take(&other).is_some());
        drop(first);
        assert!(shadows.take(&acme).is_some());
        assert!(!shadows.tenants.lock().unwrap().contains_key(&other), "who has none is forgotten");
        assert!(InFlight::new(0).take(&acme).is_none(), "0 is: never");
    }
}
