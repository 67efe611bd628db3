//! Loop C: runs anew what faults of a version hold, once a person has resumed that version or made another one active.
//!
//! What is to be released stands in the filter's own document, written together with the decision, and is taken out
//! when all is due again; a crash in between makes the loop go over it once more, which changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::domain::audit::Deed;
use crate::domain::delivery::{DeliveryRecord, DueDelivery, State};
use crate::domain::filter::Filter;
use crate::domain::id::{DeliveryId, Digest, FilterName, TenantId};
use crate::domain::verdict::Fault;
use crate::ledger::{self, DeliveryQuery, Expected, HISTORY_LIMIT_MAX, Rerun, Versioned};

use super::Pipeline;
use super::canary::choices;
use super::dispatcher;
use super::plan::Pinned;

/// Wait before trying again after the ledger failed, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Runs until `stop`.
pub async fn run(pipeline: Pipeline, dispatcher: dispatcher::Handle, stop: CancellationToken) {
    let mut changed = pipeline.ledger.changed();
    pipeline.release_forgotten(&dispatcher).await;
    loop {
        pipeline.health.keep(&pipeline.ledger.snapshot());
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
    /// Makes a delivery that rests without having got through its chain (held, or dead since) due again, with the chain
    /// as it is now; where its subscription is gone, it keeps its plan. None where the tenant has no such delivery.
    pub async fn pin_anew(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<DueDelivery>, ledger::Error> {
        let Some(record) = self.ledger.delivery(tenant, id).await? else { return Ok(None) };
        Ok(self.pin_all_anew(tenant, vec![record], None).await?.into_iter().next())
    }

    /// The same of several deliveries, in one transaction. Gives those that are due again. `deed`: where a person
    /// decided it.
    pub async fn pin_all_anew(
        &self,
        tenant: &TenantId,
        records: Vec<DeliveryRecord>,
        deed: Option<Deed>,
    ) -> Result<Vec<DueDelivery>, ledger::Error> {
        self.rerun(tenant, records, &Pinned::default(), deed).await
    }

    /// Tells whether all went well. What failed for one filter keeps no other one waiting.
    async fn release_all(&self, dispatcher: &dispatcher::Handle) -> bool {
        let snapshot = self.ledger.snapshot();
        let mut well = true;
        for (tenant, view) in &snapshot.tenants {
            for (name, filter) in view.filters.iter().filter(|(_, filter)| !filter.value.releasing.is_empty()) {
                match self.release_one(tenant, name, filter, dispatcher).await {
                    Ok(count) => info!(%tenant, filter = %name, count, "what a filter's faults held is run anew"),
                    Err(error) => {
                        well = false;
                        error!(%tenant, filter = %name, %error, "held deliveries could not be released; it is tried again");
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
    ) -> Result<u64, ledger::Error> {
        let count = self.release(tenant, |held| held_by(held, name, &filter.value.releasing), dispatcher).await?;
        let mut after = filter.value.clone();
        after.releasing.clear();
        let done = Deed::host("filter.release").note(format!("{count} deliveries are run anew"));
        match self.ledger.put_filter(after, (Expected::Version(filter.version), done)).await {
            // Somebody has decided anew meanwhile, maybe about the same versions: all is looked at once more.
            Err(ledger::Error::VersionMismatch { .. }) => Ok(count),
            done => done.map(|_| count),
        }
    }

    /// What was held by a version whose suspension or trial has ended: whoever held it was to look again, and the host may have
    /// been killed before. Once, at the start.
    async fn release_forgotten(&self, dispatcher: &dispatcher::Handle) {
        let snapshot = self.ledger.snapshot();
        // What is held is part of the backlog: of ten thousand tenants, few have any.
        for (tenant, view) in snapshot.tenants.iter().filter(|(tenant, _)| self.ledger.backlog(tenant) > 0) {
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
                Ok(count) => info!(%tenant, count, "deliveries that nothing holds any more are run anew"),
                Err(error) => error!(%tenant, %error, "held deliveries could not be looked through"),
            }
        }
    }

    /// Makes due again what is held and picked. Gives how many.
    async fn release(
        &self,
        tenant: &TenantId,
        picked: impl Fn(&DeliveryRecord) -> bool,
        dispatcher: &dispatcher::Handle,
    ) -> Result<u64, ledger::Error> {
        let pinned = Pinned::default();
        let (mut count, mut cursor) = (0, None);
        loop {
            let query = DeliveryQuery { state: Some(State::Held), ..DeliveryQuery::default() };
            let page = self.ledger.deliveries(tenant, query, cursor, HISTORY_LIMIT_MAX).await?;
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
        pinned: &Pinned,
        deed: Option<Deed>,
    ) -> Result<Vec<DueDelivery>, ledger::Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.ledger.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Ok(Vec::new()) };
        let of = held.iter().filter_map(|record| {
            let subscription = &view.subscriptions.get(&record.id.subscription)?.value;
            Some((view, subscription, choices(subscription, view, record.subject.as_deref(), record.id.event)))
        });
        let mut anew = pinned.plans_of(self, of.collect()).await?.into_iter();
        let rerun = |record: DeliveryRecord| {
            let is_there = view.subscriptions.contains_key(&record.id.subscription);
            let plan = is_there.then(|| anew.next()).flatten().unwrap_or(record.plan);
            Rerun { id: record.id, plan }
        };
        let reruns = held.into_iter().map(rerun).collect();
        self.ledger.rerun_for(tenant, reruns, self.clock.now(), deed).await
    }
}

/// The last run is the one that held it: a chain ends there.
fn held_by(record: &DeliveryRecord, filter: &FilterName, versions: &BTreeSet<Digest>) -> bool {
    record.runs.last().is_some_and(|run| run.fault.is_some() && run.filter == *filter && versions.contains(&run.digest))
}
