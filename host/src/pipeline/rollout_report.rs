//! Counters of rollouts, kept in memory. They start at zero after a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::counter;
use setgate_base::clock::Clock;
use setgate_base::telemetry::metric;
use setgate_domain::id::{Digest, FilterName, TenantId};
use setgate_domain::rollout::{
    EndReason, Rollout, RolloutCounts, RolloutMode, RolloutReport, SAMPLES_MAX, ShadowReport,
};
use setgate_domain::time::Timestamp;
use setgate_ledger::{Registry, Snapshot};

/// The counters of each filter with a rollout since the host started.
#[derive(Default)]
pub(super) struct RolloutReports(Mutex<HashMap<TenantId, HashMap<FilterName, Trial>>>);

/// The counters of one rollout.
struct Trial {
    /// Identifies the rollout together with `started_at`, because the same version may be tried again.
    digest: Digest,
    started_at: Timestamp,
    counted_since: Timestamp,
    canary: RolloutCounts,
    shadow: ShadowReport,
}

impl RolloutReports {
    /// Counts a candidate's call in a live delivery, and returns the current counts.
    pub(super) fn count(
        &self,
        (tenant, filter): (&TenantId, &FilterName),
        rollout: &Rollout,
        faulted: bool,
        now: Timestamp,
    ) -> RolloutCounts {
        self.with(tenant, filter, rollout, now, |trial| {
            trial.canary.calls += 1;
            trial.canary.faults += u64::from(faulted);
            trial.canary
        })
    }

    /// Records the result of a shadow run.
    pub(super) fn compare(
        &self,
        (tenant, filter): (&TenantId, &FilterName),
        rollout: &Rollout,
        now: Timestamp,
        write: impl FnOnce(&mut ShadowReport),
    ) {
        self.with(tenant, filter, rollout, now, |trial| {
            write(&mut trial.shadow);
            let over = trial.shadow.samples.len().saturating_sub(SAMPLES_MAX);
            trial.shadow.samples.drain(..over);
        });
    }

    /// The state of a rollout so far.
    pub(super) fn report(
        &self,
        tenant: &TenantId,
        filter: &FilterName,
        rollout: &Rollout,
        now: Timestamp,
    ) -> RolloutReport {
        self.with(tenant, filter, rollout, now, |trial| {
            let counted_since = trial.counted_since;
            match rollout.mode {
                RolloutMode::Shadow => {
                    RolloutReport { counted_since, canary: None, shadow: Some(trial.shadow.clone()) }
                }
                RolloutMode::Canary { .. } => RolloutReport { counted_since, canary: Some(trial.canary), shadow: None },
            }
        })
    }

    /// Counts the end of a rollout and drops its counters. Call this after the end is durable.
    pub(super) fn ended(&self, tenant: &TenantId, filter: &FilterName, reason: EndReason) {
        counter!(metric::ROLLOUTS_ENDED, "tenant" => tenant.to_string(), "reason" => reason.as_str()).increment(1);
        let mut tenants = self.lock();
        if let Some(trials) = tenants.get_mut(tenant) {
            trials.remove(filter);
            if trials.is_empty() {
                tenants.remove(tenant);
            }
        }
    }

    /// Drops the counters of filters without a rollout.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        self.lock().retain(|tenant, trials| {
            let Some(view) = snapshot.tenant(tenant) else { return false };
            trials.retain(|name, _| view.filters.get(name).is_some_and(|filter| filter.value.rollout.is_some()));
            !trials.is_empty()
        });
    }

    fn with<T>(
        &self,
        tenant: &TenantId,
        filter: &FilterName,
        rollout: &Rollout,
        now: Timestamp,
        look: impl FnOnce(&mut Trial) -> T,
    ) -> T {
        let anew = || Trial {
            digest: rollout.digest,
            started_at: rollout.started_at,
            counted_since: now,
            canary: RolloutCounts::default(),
            shadow: ShadowReport::default(),
        };
        let mut tenants = self.lock();
        let trial = tenants.entry(tenant.clone()).or_default().entry(filter.clone()).or_insert_with(anew);
        if (trial.digest, trial.started_at) != (rollout.digest, rollout.started_at) {
            *trial = anew();
        }
        look(trial)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, HashMap<FilterName, Trial>>> {
        // Counters cannot be left half updated, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The results of rollouts for users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RolloutResults {
    registry: Registry,
    clock: Clock,
    reports: Arc<RolloutReports>,
}

impl RolloutResults {
    pub(super) fn new(registry: Registry, clock: Clock, reports: Arc<RolloutReports>) -> Self {
        Self { registry, clock, reports }
    }

    /// The state of a filter's rollout so far. `None` if it has no rollout.
    pub(crate) fn report(&self, tenant: &TenantId, filter: &FilterName) -> Option<RolloutReport> {
        let snapshot = self.registry.snapshot();
        let rollout = snapshot.tenant(tenant)?.filters.get(filter)?.value.rollout.as_ref()?;
        Some(self.reports.report(tenant, filter, rollout, self.clock.now()))
    }

    /// The counters of a canary's candidate so far.
    pub(crate) fn counted(&self, tenant: &TenantId, filter: &FilterName) -> RolloutCounts {
        self.report(tenant, filter).and_then(|report| report.canary).unwrap_or_default()
    }

    /// Counts the end of a rollout and drops its counters. Call this after the end is durable.
    pub(crate) fn ended(&self, tenant: &TenantId, filter: &FilterName, reason: EndReason) {
        self.reports.ended(tenant, filter, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(5_000);

    #[test]
    fn each_rollout_counts_from_its_own_start() {
        let (acme, gate): (TenantId, FilterName) = ("acme".parse().unwrap(), "gate".parse().unwrap());
        let percent = 50.0.try_into().unwrap();
        let mode = RolloutMode::Canary { percent, faults_percent_max: percent, calls_min: 2 };
        let first = Rollout { digest: Digest([1; 32]), mode, started_at: Timestamp::from_millis(1_000) };
        let trials = RolloutReports::default();
        trials.count((&acme, &gate), &first, false, NOW);
        assert_eq!(trials.count((&acme, &gate), &first, true, NOW), RolloutCounts { calls: 2, faults: 1 });
        let other = Rollout { started_at: Timestamp::from_millis(2_000), ..first.clone() };
        assert_eq!(trials.count((&acme, &gate), &other, true, NOW), RolloutCounts { calls: 1, faults: 1 });
        let report = trials.report(&acme, &gate, &other, NOW.plus_millis(9));
        assert_eq!((report.counted_since, report.canary), (NOW, Some(RolloutCounts { calls: 1, faults: 1 })));
        trials.ended(&acme, &gate, EndReason::Ended);
        assert_eq!(trials.report(&acme, &gate, &other, NOW).canary, Some(RolloutCounts::default()));
    }
}
