//! Canaries: which subjects run a candidate version, and how a canary ends automatically if the candidate faults too
//! often.
//!
//! The version is chosen when the plan is pinned, so retries and restarts run the same version. If a rollout ends
//! without promotion, some deliveries still have the candidate pinned. If the candidate has not run for them yet, they
//! run the active version instead (`withdrawal`). If they are held because the candidate faulted, they are run
//! again (`resume_held`, driven by the filter's `releasing` field). A failed trial therefore loses no events.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use setgate_base::clock::Clock;
use setgate_base::crypto::sha256;
use setgate_domain::audit::AuditAction;
use setgate_domain::filter::{Binding, Filter, Plan};
use setgate_domain::id::{Digest, EventId, FilterName, TenantId};
use setgate_domain::rollout::{EndReason, Rollout, RolloutMode};
use setgate_domain::subscription::Subscription;
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_ledger::{Precondition, Registry, TenantView};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::rollout_report::RolloutReports;

/// Delay before a retry after a ledger error, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// The index of a step in the chain and the version that it runs instead of the active one.
pub(super) type Choice = (usize, Digest);

/// The steps of a subscription's chain that run a candidate for this event. The same subject always gets the same
/// choice. An event without a subject is assigned by its own id.
pub(super) fn choices(
    subscription: &Subscription,
    view: &TenantView,
    subject: Option<&str>,
    event: EventId,
) -> Vec<Choice> {
    let mut choices = Vec::new();
    for (place, binding) in subscription.chain.iter().enumerate() {
        let Some(filter) = view.filters.get(&binding.filter).map(|filter| &filter.value) else { continue };
        let Some(rollout) = &filter.rollout else { continue };
        if !matches!(rollout.mode, RolloutMode::Canary { .. }) || !is_granted(filter, &rollout.digest, binding) {
            continue;
        }
        // A suspended candidate would hold each delivery, which would then be re-pinned and held again. Its subjects
        // run the active version instead.
        if filter.suspension(&rollout.digest).is_some() {
            continue;
        }
        let hash = match subject {
            Some(subject) => spread(&filter.name, &rollout.digest, subject),
            None => spread(&filter.name, &rollout.digest, &event.to_string()),
        };
        if rollout.mode.selects(hash) {
            choices.push((place, rollout.digest));
        }
    }
    choices
}

/// Replaces the digests of the chosen steps.
pub(super) fn put_in(plan: &mut Plan, choices: &[Choice]) {
    for (place, digest) in choices {
        // A plan that could not be pinned has no steps.
        if let Some(step) = plan.steps.get_mut(*place) {
            step.digest = *digest;
        }
    }
}

/// Whether a binding grants everything that a version needs. A binding created after the rollout began may not.
pub(super) fn is_granted(filter: &Filter, digest: &Digest, binding: &Binding) -> bool {
    filter.version(digest).is_some_and(|version| version.needs.is_subset(&binding.grants))
}

/// A hash that is uniform over subjects and independent for each filter and candidate.
fn spread(filter: &FilterName, candidate: &Digest, subject: &str) -> u64 {
    // A filter name contains no zero byte and a digest has a fixed length, so the concatenation is unambiguous.
    let text = [filter.as_str().as_bytes(), &[0], &candidate.0, subject.as_bytes()].concat();
    let [a, b, c, d, e, f, g, h, ..] = sha256(&text);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Work list of [`Canaries::run`]. A set, so that its size is bounded by the number of versions on trial.
#[derive(Default)]
struct Pending {
    versions: Mutex<BTreeSet<(TenantId, FilterName, Digest)>>,
    woken: Notify,
}

impl Pending {
    fn add(&self, version: (TenantId, FilterName, Digest)) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).insert(version);
        self.woken.notify_one();
    }

    fn take(&self) -> BTreeSet<(TenantId, FilterName, Digest)> {
        std::mem::take(&mut *self.versions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts the faults of canaries, and ends those that fault too often.
pub(crate) struct Canaries {
    registry: Registry,
    clock: Clock,
    reports: Arc<RolloutReports>,
    pending: Pending,
}

impl Canaries {
    pub(super) fn new(registry: Registry, clock: Clock, reports: Arc<RolloutReports>) -> Self {
        Self { registry, clock, reports, pending: Pending::default() }
    }

    /// Ends canaries that fault too often. Runs until `stop` is cancelled.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            self.reports.keep(&self.registry.snapshot());
            for (tenant, filter, digest) in self.pending.take() {
                if let Err(error) = self.end_canary(&tenant, &filter, digest).await {
                    error!(%tenant, %filter, %error, "a canary that faults too often could not be ended; it is tried again");
                    self.pending.add((tenant, filter, digest));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(RETRY_MS)) => {}
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pending.woken.notified() => {}
            }
        }
    }

    /// Counts the calls of canary candidates in a delivery's chain. Faults that are not the filter's own are ignored,
    /// because they say nothing about the candidate.
    pub(super) fn count(&self, tenant: &TenantId, runs: &[FilterRun]) {
        let snapshot = self.registry.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return };
        for run in runs.iter().filter(|run| run.fault.as_ref().is_none_or(Fault::is_caused_by_filter)) {
            let Some(rollout) = canary_of(view, &run.filter, run.digest) else { continue };
            let now = self.clock.now();
            let counted = self.reports.count((tenant, &run.filter), rollout, run.fault.is_some(), now);
            if rollout.mode.exceeds_fault_limit(counted.calls, counted.faults) {
                self.pending.add((tenant.clone(), run.filter.clone(), run.digest));
            }
        }
    }

    /// Ends the canary of this candidate if it faults too often. If the filter was changed concurrently, the new state
    /// is checked again.
    async fn end_canary(
        &self,
        tenant: &TenantId,
        name: &FilterName,
        digest: Digest,
    ) -> Result<(), setgate_ledger::Error> {
        loop {
            let snapshot = self.registry.snapshot();
            let Some(stored) = snapshot.tenant(tenant).and_then(|view| view.filters.get(name)) else { return Ok(()) };
            let Some(rollout) = stored.value.rollout.as_ref().filter(|rollout| rollout.digest == digest) else {
                return Ok(());
            };
            let now = self.clock.now();
            let counted = self.reports.report(tenant, name, rollout, now).canary.unwrap_or_default();
            if !rollout.mode.exceeds_fault_limit(counted.calls, counted.faults) {
                return Ok(());
            }
            let mut filter = stored.value.clone();
            filter.end_rollout(now, EndReason::Faults, counted);
            let audit = AuditAction::host("rollout.end").note(format!("{digest} faulted too often"));
            match self.registry.put_filter(filter, (Precondition::Version(stored.version), audit)).await {
                Err(setgate_ledger::Error::VersionMismatch { .. }) => {}
                done => {
                    done?;
                    self.reports.ended(tenant, name, EndReason::Faults);
                    let (calls, faults) = (counted.calls, counted.faults);
                    warn!(%tenant, filter = %name, %digest, calls, faults, "canary exceeded its fault limit and was rolled back");
                    return Ok(());
                }
            }
        }
    }
}

/// The filter's rollout, if it is a canary with this version as its candidate.
pub(super) fn canary_of<'a>(view: &'a TenantView, filter: &FilterName, digest: Digest) -> Option<&'a Rollout> {
    let rollout = view.filters.get(filter)?.value.rollout.as_ref()?;
    (rollout.digest == digest && matches!(rollout.mode, RolloutMode::Canary { .. })).then_some(rollout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::rollout::Percent;

    fn picked(percent: f64, filter: &str, candidate: u8) -> BTreeSet<usize> {
        let percent = Percent::try_from(percent).unwrap();
        let mode = RolloutMode::Canary { percent, faults_percent_max: percent, calls_min: 20 };
        let name: FilterName = filter.parse().unwrap();
        let hash = |n: usize| spread(&name, &Digest([candidate; 32]), &format!("user-{n}"));
        (0..20_000).filter(|n| mode.selects(hash(*n))).collect()
    }

    #[test]
    fn the_share_is_what_was_asked_for_and_stays() {
        for (percent, expected) in [(0.0, 0), (0.5, 100), (5.0, 1_000), (50.0, 10_000), (100.0, 20_000)] {
            let found = picked(percent, "gate", 1).len();
            // A tolerance of more than five standard deviations for 20,000 samples.
            assert!(found.abs_diff(expected) <= expected.min(350), "{percent}%: {found} of 20000");
        }
        assert_eq!(picked(12.34, "gate", 1), picked(12.34, "gate", 1), "nothing but the names decides");
    }

    #[test]
    fn a_greater_share_takes_more_in_and_lets_none_out() {
        let shares = [0.01, 1.0, 5.0, 5.01, 33.3, 80.0, 99.99, 100.0];
        for pair in shares.windows(2) {
            let (small, great) = (picked(pair[0], "gate", 1), picked(pair[1], "gate", 1));
            assert!(small.is_subset(&great), "{pair:?}");
        }
    }

    #[test]
    fn filters_and_candidates_choose_by_themselves() {
        let half = picked(50.0, "gate", 1);
        for other in [picked(50.0, "redact", 1), picked(50.0, "gate", 2)] {
            let both = half.intersection(&other).count();
            assert!(both.abs_diff(5_000) <= 350, "a quarter is in both: {both}");
        }
    }
}
