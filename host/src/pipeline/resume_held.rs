//! Loop C: runs deliveries again that were held because a filter version faulted, after a user has resumed the version
//! or activated another one.
//!
//! The versions to release are stored in the filter's document by the same write as the user's decision, and are
//! removed once all their deliveries are due again. After a crash in between, the loop repeats the work with the same
//! result.

use std::collections::BTreeSet;
use std::time::Duration;

use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::{DeliveryRecord, DueDelivery, State};
use setgate_domain::filter::Filter;
use setgate_domain::id::{DeliveryId, Digest, FilterName, TenantId};
use setgate_domain::verdict::Fault;
use setgate_ledger::{DeliveryQuery, HISTORY_LIMIT_MAX, PlanChange, Precondition, Versioned};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::canary::choices;
use super::plan::PinnedPlans;
use super::{Pipeline, dispatcher};

/// Delay before a retry after a ledger error, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Runs loop C until `stop` is cancelled.
pub async fn run(pipeline: Pipeline, dispatcher: dispatcher::Handle, stop: CancellationToken) {
    let mut changed = pipeline.ledger.registry.changed();
    pipeline.release_forgotten(&dispatcher).await;
    loop {
        pipeline.fault_counters.keep(&pipeline.ledger.registry.snapshot());
        let well = pipeline.release_all(&dispatcher).await;
        let wait = if well { Duration::MAX } else { Duration::from_millis(RETRY_MS) };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Pipeline {
    /// Makes a delivery due again that is held, or dead without a completed chain, and pins the current chain for it.
    /// If its subscription was removed, the delivery keeps its plan. `None` if the tenant has no such delivery.
    pub async fn pin_anew(
        &self,
        tenant: &TenantId,
        id: DeliveryId,
    ) -> Result<Option<DueDelivery>, setgate_ledger::Error> {
        let Some(record) = self.ledger.history.delivery(tenant, id).await? else { return Ok(None) };
        Ok(self.pin_all_anew(tenant, vec![record], None).await?.into_iter().next())
    }

    /// Like [`Pipeline::pin_anew`] for several deliveries in one transaction. Returns the deliveries that are due
    /// again. `audit` is the audit record, if a user requested this.
    pub async fn pin_all_anew(
        &self,
        tenant: &TenantId,
        records: Vec<DeliveryRecord>,
        audit: Option<AuditAction>,
    ) -> Result<Vec<DueDelivery>, setgate_ledger::Error> {
        self.rerun(tenant, records, &PinnedPlans::new(self.planner.clone()), audit).await
    }

    /// Returns true if all filters were released without an error. An error for one filter does not block the others.
    async fn release_all(&self, dispatcher: &dispatcher::Handle) -> bool {
        let snapshot = self.ledger.registry.snapshot();
        let mut well = true;
        for (tenant, view) in &snapshot.tenants {
            for (name, filter) in view.filters.iter().filter(|(_, filter)| !filter.value.releasing.is_empty()) {
                match self.release_one(tenant, name, filter, dispatcher).await {
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
        dispatcher: &dispatcher::Handle,
    ) -> Result<u64, setgate_ledger::Error> {
        let count = self.release(tenant, |held| held_by(held, name, &filter.value.releasing), dispatcher).await?;
        let mut after = filter.value.clone();
        after.releasing.clear();
        let done = AuditAction::host("filter.release").note(format!("{count} deliveries are due again"));
        match self.ledger.registry.put_filter(after, (Precondition::Version(filter.version), done)).await {
            // The filter was changed concurrently, maybe for the same versions: the change triggers another pass.
            Err(setgate_ledger::Error::VersionMismatch { .. }) => Ok(count),
            done => done.map(|_| count),
        }
    }

    /// Releases deliveries held by a version whose suspension or trial has ended. Normally the task that held the
    /// delivery checks this itself, but the host may have been killed before. Runs once at startup.
    async fn release_forgotten(&self, dispatcher: &dispatcher::Handle) {
        let snapshot = self.ledger.registry.snapshot();
        // Held deliveries count towards the backlog, which is empty for most tenants.
        for (tenant, view) in snapshot.tenants.iter().filter(|(tenant, _)| self.ledger.usage.backlog(tenant) > 0) {
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
            match self.release(tenant, forgotten, dispatcher).await {
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
        dispatcher: &dispatcher::Handle,
    ) -> Result<u64, setgate_ledger::Error> {
        let pinned = PinnedPlans::new(self.planner.clone());
        let (mut count, mut cursor) = (0, None);
        loop {
            let query = DeliveryQuery { state: Some(State::Held), ..DeliveryQuery::default() };
            let page = self.ledger.history.deliveries(tenant, query, cursor, HISTORY_LIMIT_MAX).await?;
            let held = page.items.into_iter().filter(|record| picked(record)).collect();
            let due = self.rerun(tenant, held, &pinned, None).await?;
            count += due.len() as u64;
            dispatcher.due(due).await;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(count);
            }
        }
    }

    async fn rerun(
        &self,
        tenant: &TenantId,
        held: Vec<DeliveryRecord>,
        pinned: &PinnedPlans,
        audit: Option<AuditAction>,
    ) -> Result<Vec<DueDelivery>, setgate_ledger::Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.ledger.registry.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Ok(Vec::new()) };
        let of = held.iter().filter_map(|record| {
            let subscription = &view.subscriptions.get(&record.id.subscription)?.value;
            Some((view, subscription, choices(subscription, view, record.subject.as_deref(), record.id.event)))
        });
        let mut anew = pinned.plans_of(of.collect()).await?.into_iter();
        let rerun = |record: DeliveryRecord| {
            let is_there = view.subscriptions.contains_key(&record.id.subscription);
            let plan = is_there.then(|| anew.next()).flatten().unwrap_or(record.plan);
            PlanChange { id: record.id, plan }
        };
        let reruns = held.into_iter().map(rerun).collect();
        self.ledger.deliveries.requeue_with_plan(tenant, reruns, self.clock.now(), audit).await
    }
}

/// Whether the delivery was held by one of these versions. A chain ends with the run that held it, so only the last run
/// counts.
fn held_by(record: &DeliveryRecord, filter: &FilterName, versions: &BTreeSet<Digest>) -> bool {
    record.runs.last().is_some_and(|run| run.fault.is_some() && run.filter == *filter && versions.contains(&run.digest))
}
