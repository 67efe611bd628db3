//! Loop C: runs deliveries again that were held because a filter version faulted, after a user has resumed the version
//! or activated another one.
//!
//! The versions to release are stored in the filter's document by the same write as the user's decision, and are
//! removed once all their deliveries are due again. After a crash in between, the loop repeats the work with the same
//! result.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::{DeliveryRecord, State};
use setgate_domain::filter::Filter;
use setgate_domain::id::{Digest, FilterName, TenantId};
use setgate_domain::verdict::Fault;
use setgate_ledger::{DeliveryQuery, HISTORY_LIMIT_MAX, History, Precondition, Registry, Usage, Versioned};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::due_queue::DueQueue;
use super::requeue::Requeuer;
use super::suspension::FaultCounters;

/// Delay before a retry after a ledger error, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Releases held deliveries.
pub(crate) struct ResumeHeld {
    registry: Registry,
    history: History,
    usage: Usage,
    requeuer: Requeuer,
    fault_counters: Arc<FaultCounters>,
    due: DueQueue,
}

impl ResumeHeld {
    pub(super) fn new(
        registry: Registry,
        history: History,
        usage: Usage,
        requeuer: Requeuer,
        fault_counters: Arc<FaultCounters>,
        due: DueQueue,
    ) -> Self {
        Self { registry, history, usage, requeuer, fault_counters, due }
    }

    /// Runs loop C until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changed = self.registry.changed();
        self.release_forgotten().await;
        loop {
            self.fault_counters.keep(&self.registry.snapshot());
            let well = self.release_all().await;
            let wait = if well { Duration::MAX } else { Duration::from_millis(RETRY_MS) };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Returns true if all filters were released without an error. An error for one filter does not block the others.
    async fn release_all(&self) -> bool {
        let snapshot = self.registry.snapshot();
        let mut well = true;
        for (tenant, view) in &snapshot.tenants {
            for (name, filter) in view.filters.iter().filter(|(_, filter)| !filter.value.releasing.is_empty()) {
                match self.release_one(tenant, name, filter).await {
                    Ok(count) => {
                        info!(%tenant, filter = %name, count, "deliveries held by a fault of the filter are due again")
                    }
                    Err(error) => {
                        well = false;
                        error!(%tenant, filter = %name, %error, "held deliveries could not be released; retrying");
                    }
                }
            }
        }
        well
    }

    async fn release_one(
        &self,
        tenant: &TenantId,
        name: &FilterName,
        filter: &Versioned<Filter>,
    ) -> Result<u64, setgate_ledger::Error> {
        let count = self.release(tenant, |held| held_by(held, name, &filter.value.releasing)).await?;
        let mut after = filter.value.clone();
        after.releasing.clear();
        let done = AuditAction::host("filter.release").note(format!("{count} deliveries are due again"));
        match self.registry.put_filter(after, (Precondition::Version(filter.version), done)).await {
            // The filter was changed concurrently, maybe for the same versions: the change triggers another pass.
            Err(setgate_ledger::Error::VersionMismatch { .. }) => Ok(count),
            done => done.map(|_| count),
        }
    }

    /// Releases deliveries held by a version whose suspension or trial has ended. Normally the task that held the
    /// delivery checks this itself, but the host may have been killed before. Runs once at startup.
    async fn release_forgotten(&self) {
        let snapshot = self.registry.snapshot();
        // Held deliveries count towards the backlog, which is empty for most tenants.
        for (tenant, view) in snapshot.tenants.iter().filter(|(tenant, _)| self.usage.backlog(tenant) > 0) {
            let forgotten = |held: &DeliveryRecord| {
                held.runs.last().is_some_and(|run| {
                    let filter = view.filters.get(&run.filter).map(|filter| &filter.value);
                    let suspended = matches!(run.fault, Some(Fault::Suspended { .. }));
                    filter.is_some_and(|filter| {
                        (suspended && filter.suspension(&run.digest).is_none())
                            || (run.fault.is_some() && filter.is_withdrawn(&run.digest))
                    })
                })
            };
            match self.release(tenant, forgotten).await {
                Ok(0) => {}
                Ok(count) => {
                    info!(%tenant, count, "held deliveries are due again, because the suspension or rollout that held them has ended")
                }
                Err(error) => error!(%tenant, %error, "held deliveries could not be read"),
            }
        }
    }

    /// Makes the held deliveries that `picked` selects due again, and returns their number.
    async fn release(
        &self,
        tenant: &TenantId,
        picked: impl Fn(&DeliveryRecord) -> bool,
    ) -> Result<u64, setgate_ledger::Error> {
        let pinned = self.requeuer.no_plans();
        let (mut count, mut cursor) = (0, None);
        loop {
            let query = DeliveryQuery { state: Some(State::Held), ..DeliveryQuery::default() };
            let page = self.history.deliveries(tenant, query, cursor, HISTORY_LIMIT_MAX).await?;
            let held = page.items.into_iter().filter(|record| picked(record)).collect();
            let due = self.requeuer.requeue_pinned(tenant, held, &pinned, None).await?;
            count += due.len() as u64;
            self.due.push(due).await;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(count);
            }
        }
    }
}

/// Whether the delivery was held by one of these versions. A chain ends with the run that held it, so only the last run
/// counts.
fn held_by(record: &DeliveryRecord, filter: &FilterName, versions: &BTreeSet<Digest>) -> bool {
    record.runs.last().is_some_and(|run| run.fault.is_some() && run.filter == *filter && versions.contains(&run.digest))
}
