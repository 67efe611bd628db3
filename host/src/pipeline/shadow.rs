//! Shadow runs: a candidate runs over the same input as the active version, after the delivery's own chain has
//! finished. The results are compared and counted, and never sent.
//!
//! A delivery never waits for a shadow run. If the tenant has reached its limit of concurrent shadow runs, the event is
//! skipped and counted as skipped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use setgate_base::clock::Clock;
use setgate_base::telemetry::metric;
use setgate_domain::event::Event;
use setgate_domain::filter::{Plan, PlanStep};
use setgate_domain::id::{DeliveryId, TenantId};
use setgate_domain::redact::Redactor;
use setgate_domain::rollout::{RolloutMode, VersionDifference, VersionVerdict};
use setgate_domain::set::{Applied, SetToken};
use setgate_domain::verdict::{Fault, FilterRun, Verdict};
use setgate_ledger::Registry;
use setgate_sandbox::CallResult;

use super::apply::{Applier, compare};
use super::canary::is_granted;
use super::chain::{ChainRunner, Given};
use super::quotas::Quotas;
use super::rollout_report::RolloutReports;
use super::tables::TableCache;
use super::witness::{Seen, Witness};

/// Concurrent shadow runs of one tenant; events that arrive while all are busy are skipped.
const IN_FLIGHT_PER_TENANT_MAX: usize = 2;

/// Number of running shadow runs by tenant. Tenants without any have no entry.
struct InFlight {
    per_tenant_max: usize,
    tenants: Mutex<HashMap<TenantId, usize>>,
}

/// A slot for one shadow run, released on drop.
struct Place(Arc<InFlight>, TenantId);

impl InFlight {
    fn new(per_tenant_max: usize) -> Arc<Self> {
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

/// Runs shadows. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shadows {
    registry: Registry,
    clock: Clock,
    reports: Arc<RolloutReports>,
    chain: Arc<ChainRunner>,
    tables: Arc<TableCache>,
    applier: Applier,
    quotas: Quotas,
    in_flight: Arc<InFlight>,
}

impl Shadows {
    pub(super) fn new(
        registry: Registry,
        clock: Clock,
        reports: Arc<RolloutReports>,
        chain: Arc<ChainRunner>,
        tables: Arc<TableCache>,
        applier: Applier,
        quotas: Quotas,
    ) -> Self {
        let in_flight = InFlight::new(IN_FLIGHT_PER_TENANT_MAX);
        Self { registry, clock, reports, chain, tables, applier, quotas, in_flight }
    }

    /// A recorder for a run of this plan. It records each step that runs the active version of a filter with a shadow.
    pub(super) fn witness(&self, plan: &Plan, tenant: &TenantId) -> Witness {
        let snapshot = self.registry.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Witness::default() };
        let rollout_of = |step: &PlanStep| {
            let filter = &view.filters.get(&step.binding.filter)?.value;
            let rollout = filter.rollout.as_ref().filter(|rollout| rollout.mode == RolloutMode::Shadow)?;
            let fits = filter.active == Some(step.digest) && is_granted(filter, &rollout.digest, &step.binding);
            fits.then(|| rollout.clone())
        };
        let steps = plan.steps.iter().enumerate();
        let watched = steps.filter_map(|(place, step)| Some((place, rollout_of(step)?))).collect();
        Witness::new(watched)
    }

    /// Starts the shadow runs in the background, as far as slots are free.
    pub(super) fn start(&self, witness: Witness, plan: &Arc<Plan>, event: &Event, delivery: DeliveryId) {
        for seen in witness.into_seen() {
            let name = seen.run.filter.clone();
            let Some(place) = self.in_flight.take(&event.tenant) else {
                let now = self.clock.now();
                self.reports.compare((&event.tenant, &name), &seen.rollout, now, |report| report.skipped += 1);
                count(&event.tenant, "skipped");
                continue;
            };
            let (shadows, plan, event) = (self.clone(), plan.clone(), event.clone());
            // Not awaited on shutdown: the sandbox ends the call, and its result is not counted.
            tokio::spawn(async move {
                shadows.run(seen, &plan, &event, delivery).await;
                drop(place);
            });
        }
    }

    async fn run(&self, seen: Seen, plan: &Plan, event: &Event, delivery: DeliveryId) {
        let Seen { place, rollout, before, decided, run: mut active } = seen;
        // No step was recorded if the tables could not be read.
        let Ok(tables) = self.tables.of_plan(plan, &event.tenant).await else { return };
        let quota = self.quotas.of_plan(plan, &event.tenant);
        let step = PlanStep { digest: rollout.digest, ..plan.steps[place].clone() };
        let given = Given { event, delivery, tables: &tables, quota: &quota };
        let CallResult { verdict: candidate_decided, run: mut candidate, redactor, used: _ } =
            self.chain.run_step(&step, &before, given, None).await;
        // The redactor covers the binding's secrets, which are the same for both versions.
        let (tenant, bytes_max) = (&event.tenant, quota.output_bytes_max);
        let active_applied = self.applied(tenant, &before, decided, &mut active, bytes_max, redactor.clone()).await;
        let candidate_applied =
            self.applied(tenant, &before, candidate_decided, &mut candidate, bytes_max, redactor).await;
        let undecided =
            [&active, &candidate].iter().any(|run| run.fault.as_ref().is_some_and(|f| !f.is_caused_by_filter()));
        let same = is_same(&active, &active_applied, &candidate, &candidate_applied);
        let result = match (undecided, same) {
            (true, _) => "undecided",
            (_, true) => "same",
            (_, false) => "different",
        };
        // Compared here, before the counters are locked, because the texts may be large.
        let claims = |applied: &Result<Applied, Fault>| match applied {
            Ok(Applied::Changed(after)) => Some(after.text.clone()),
            Ok(Applied::Unchanged) => Some(before.text.clone()),
            Ok(Applied::Dropped(_)) | Err(_) => None,
        };
        let sample = (result == "different").then(|| VersionDifference {
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
        self.reports.compare((&event.tenant, &candidate.filter), &rollout, now, |report| {
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
        count(&event.tenant, result);
    }

    /// Applies a decision to the claims. As in a chain, a verdict that does not produce a valid SET is a fault.
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
            Ok(verdict) => self.applier.apply(tenant, before, verdict, bytes_max, redactor).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &applied {
            run.verdict = None;
            run.fault = Some(fault.clone());
        }
        applied
    }
}

fn count(tenant: &TenantId, result: &'static str) {
    counter!(metric::SHADOW_RUNS, "tenant" => tenant.to_string(), "result" => result).increment(1);
}

/// Whether two versions agree: the same verdict with the same resulting bytes, or the same kind of fault.
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

pub(super) fn said(run: &FilterRun) -> VersionVerdict {
    VersionVerdict { verdict: run.verdict, reason: run.reason.clone(), fault: run.fault.clone(), end: None }
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
