//! Fault counters of each filter version, and automatic suspension of a version that faults too often.
//!
//! A version that keeps faulting only uses up its tenant's fuel and fills its history. A suspended version is no longer
//! called, and its events are held (with the `open` policy they continue without it), until the tenant resumes the
//! version or activates another one. The counters are kept in memory and start at zero after a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use setgate_base::clock::Clock;
use setgate_base::telemetry::{metric, persistent_counters};
use setgate_domain::audit::AuditAction;
use setgate_domain::filter::{FAULT_WINDOW_CALLS, Plan, PlanStep, Suspension};
use setgate_domain::id::{Digest, FilterName, TenantId};
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_ledger::{Precondition, Registry, TenantView};
use tracing::{info, warn};

use super::quotas::Quotas;

/// Fault counters of each version that was called since the host started.
#[derive(Default)]
pub(super) struct FaultCounters(Mutex<HashMap<TenantId, HashMap<Version, Window>>>);

type Version = (FilterName, Digest);

/// Outcomes of a version's most recent calls.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// One bit per call, with the latest call in the lowest bit. Set if the call ended in a fault of the filter's own.
    faulted: u128,
    calls: u32,
}

/// Number of calls in the window and of faults among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    calls: u32,
    faults: u32,
}

impl Window {
    fn count(&mut self, faulted: bool) -> Tally {
        const KEPT: u128 = (1 << FAULT_WINDOW_CALLS) - 1;
        self.faulted = (self.faulted << 1 | u128::from(faulted)) & KEPT;
        self.calls = (self.calls + 1).min(FAULT_WINDOW_CALLS);
        Tally { calls: self.calls, faults: self.faulted.count_ones() }
    }
}

impl FaultCounters {
    fn count(&self, tenant: &TenantId, run: &FilterRun, faulted: bool) -> Tally {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !tenants.contains_key(tenant) {
            tenants.insert(tenant.clone(), HashMap::new());
        }
        let versions = tenants.get_mut(tenant).expect("inserted above");
        versions.entry((run.filter.clone(), run.digest)).or_default().count(faulted)
    }

    fn forget(&self, tenant: &TenantId, filter: &FilterName, digest: Digest) {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(versions) = tenants.get_mut(tenant) {
            versions.remove(&(filter.clone(), digest));
        }
    }

    /// Removes versions that no longer exist.
    pub(super) fn keep(&self, snapshot: &setgate_ledger::Snapshot) {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|tenant, versions| {
            let Some(view) = snapshot.tenant(tenant) else { return false };
            versions.retain(|(name, digest), _| {
                view.filters.get(name).is_some_and(|filter| filter.value.version(digest).is_some())
            });
            !versions.is_empty()
        });
    }
}

/// The versions of a tenant's filters that are suspended and must not be called.
pub(super) struct Suspensions(Option<Arc<TenantView>>);

impl Suspensions {
    /// Those of a tenant. None if it was removed.
    pub(super) fn of(view: Option<Arc<TenantView>>) -> Self {
        Self(view)
    }

    /// Ignores all suspensions. For runs that decide nothing about a delivery.
    pub(super) fn ignored() -> Self {
        Self(None)
    }

    pub(super) fn fault(&self, step: &PlanStep) -> Option<Fault> {
        let filter = self.0.as_ref()?.filters.get(&step.binding.filter)?;
        let suspended = filter.value.suspension(&step.digest)?;
        Some(Fault::Suspended { reason: suspended.reason.clone() })
    }

    /// Whether a plan contains a suspended version.
    pub(super) fn concern(&self, plan: &Plan) -> bool {
        plan.steps.iter().any(|step| self.fault(step).is_some())
    }
}

/// Suspends versions that fault too often.
pub(super) struct Suspender {
    registry: Registry,
    clock: Clock,
    quotas: Quotas,
    counters: Arc<FaultCounters>,
}

impl Suspender {
    pub(super) fn new(registry: Registry, clock: Clock, quotas: Quotas, counters: Arc<FaultCounters>) -> Self {
        Self { registry, clock, quotas, counters }
    }

    /// Counts the faults of a delivery's chain, and suspends a version that has faulted too often.
    pub(super) async fn judge(&self, tenant: &TenantId, runs: &[FilterRun]) {
        for run in runs {
            let fault = run.fault.as_ref();
            if fault.is_some_and(|fault| !fault.is_caused_by_filter()) {
                continue;
            }
            let tally = self.counters.count(tenant, run, fault.is_some());
            let Some(fault) = fault else { continue };
            let max = self.quotas.of(tenant).filter_faults_max;
            if max > 0
                && tally.faults >= max.min(FAULT_WINDOW_CALLS)
                && let Err(error) = Box::pin(self.suspend(tenant, run, fault, tally)).await
            {
                // Retried on the version's next fault.
                warn!(%tenant, filter = %run.filter, %error, "a filter that keeps faulting could not be suspended");
            }
        }
    }

    async fn suspend(
        &self,
        tenant: &TenantId,
        run: &FilterRun,
        fault: &Fault,
        tally: Tally,
    ) -> Result<(), setgate_ledger::Error> {
        let Tally { calls, faults } = tally;
        let reason = format!("{faults} of its last {calls} calls faulted, the last one: {fault}");
        loop {
            let view = self.registry.snapshot().tenant(tenant).cloned();
            let Some(stored) = view.and_then(|view| view.filters.get(&run.filter).cloned()) else { return Ok(()) };
            let mut filter = stored.value.clone();
            match filter.version_mut(&run.digest) {
                Some(version) if version.suspended.is_none() => {
                    let since = self.clock.now();
                    version.suspended = Some(Suspension { since, reason: reason.clone(), calls, faults });
                }
                _ => return Ok(()),
            }
            let audit =
                AuditAction::host("filter.suspend").note(format!("{}: {faults} of {calls} calls faulted", run.digest));
            match self.registry.put_filter(filter, (Precondition::Version(stored.version), audit)).await {
                Err(setgate_ledger::Error::VersionMismatch { .. }) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
        // A resumed version starts with empty counters.
        self.counters.forget(tenant, &run.filter, run.digest);
        persistent_counters::counter(metric::SUSPENSIONS, format!("tenant=\"{tenant}\",filter=\"{}\"", run.filter))
            .add(1);
        info!(%tenant, filter = %run.filter, digest = %run.digest, calls, faults, "a filter is suspended: it keeps faulting");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_calls_count() {
        let mut window = Window::default();
        for _ in 0..30 {
            window.count(true);
        }
        assert_eq!(window.count(false), Tally { calls: 31, faults: 30 });
        for _ in 0..69 {
            window.count(false);
        }
        assert_eq!(window.count(true), Tally { calls: 100, faults: 30 }, "one came in and one went out");
        for _ in 0..99 {
            window.count(false);
        }
        assert_eq!(window.count(false), Tally { calls: 100, faults: 0 });
    }
}
