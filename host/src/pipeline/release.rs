//! Loop C: runs anew what faults of a version hold, once a person has resumed that version or made another one active.
//!
//! What is to be released stands in the filter's own document, written together with the decision, and is taken out
//! when all is due again; a crash in between makes the loop go over it once more, which changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::domain::delivery::{DeliveryRecord, DueDelivery, State};
use crate::domain::id::{DeliveryId, Digest, FilterName, TenantId};
use crate::ledger::{self, DeliveryQuery, Expected, HISTORY_LIMIT_MAX, Rerun};

use super::Pipeline;
use super::canary::choices;
use super::dispatcher;
use super::plan::Pinned;

/// Wait before trying again after the ledger failed, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Runs until `stop`.
pub async fn run(pipeline: Pipeline, dispatcher: dispatcher::Handle, stop: CancellationToken) {
    let mut changed = pipeline.ledger.changed();
    loop {
        pipeline.health.keep(&pipeline.ledger.snapshot());
        let wait = match pipeline.release_all(&dispatcher).await {
            Ok(()) => Duration::MAX,
            Err(error) => {
                error!(%error, "held deliveries could not be released; it is tried again");
                Duration::from_millis(RETRY_MS)
            }
        };
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
        let due = self.rerun(tenant, vec![record], &mut Pinned::default()).await?;
        Ok(due.into_iter().next())
    }

    async fn release_all(&self, dispatcher: &dispatcher::Handle) -> Result<(), ledger::Error> {
        let snapshot = self.ledger.snapshot();
        for (tenant, view) in &snapshot.tenants {
            for (name, filter) in &view.filters {
                let releasing = &filter.value.releasing;
                if !releasing.is_empty() {
                    let count = self.release(tenant, name, releasing, dispatcher).await?;
                    self.released(tenant, name, releasing).await?;
                    info!(%tenant, filter = %name, count, "what a filter's faults held is run anew");
                }
            }
        }
        Ok(())
    }

    /// Makes due again what faults of these versions hold. Gives how many.
    async fn release(
        &self,
        tenant: &TenantId,
        filter: &FilterName,
        versions: &BTreeSet<Digest>,
        dispatcher: &dispatcher::Handle,
    ) -> Result<u64, ledger::Error> {
        let mut pinned = Pinned::default();
        let (mut count, mut cursor) = (0, None);
        loop {
            let query = DeliveryQuery { state: Some(State::Held), ..DeliveryQuery::default() };
            let page = self.ledger.deliveries(tenant, query, cursor, HISTORY_LIMIT_MAX).await?;
            let held = page.items.into_iter().filter(|record| held_by(record, filter, versions)).collect();
            let due = self.rerun(tenant, held, &mut pinned).await?;
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
        pinned: &mut Pinned,
    ) -> Result<Vec<DueDelivery>, ledger::Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.ledger.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Ok(Vec::new()) };
        pinned.at(snapshot.revision);
        let mut reruns = Vec::with_capacity(held.len());
        for record in held {
            let plan = match view.subscriptions.get(&record.id.subscription) {
                Some(subscription) => {
                    let subscription = &subscription.value;
                    let choices = choices(subscription, view, record.subject.as_deref(), record.id.event);
                    pinned.plan_of(self, subscription, view, choices).await?
                }
                None => record.plan,
            };
            reruns.push(Rerun { id: record.id, plan });
        }
        self.ledger.rerun(tenant, reruns, self.clock.now()).await
    }

    /// Takes versions out of a filter's `releasing`.
    async fn released(
        &self,
        tenant: &TenantId,
        name: &FilterName,
        versions: &BTreeSet<Digest>,
    ) -> Result<(), ledger::Error> {
        loop {
            let view = self.ledger.snapshot().tenant(tenant).cloned();
            let Some(stored) = view.and_then(|view| view.filters.get(name).cloned()) else { return Ok(()) };
            let mut filter = stored.value.clone();
            filter.releasing.retain(|digest| !versions.contains(digest));
            match self.ledger.put_filter(filter, Expected::Version(stored.version)).await {
                Err(ledger::Error::VersionMismatch { .. }) => {}
                done => return done.map(drop),
            }
        }
    }
}

/// The last run is the one that held it: a chain ends there.
fn held_by(record: &DeliveryRecord, filter: &FilterName, versions: &BTreeSet<Digest>) -> bool {
    record.runs.last().is_some_and(|run| run.fault.is_some() && run.filter == *filter && versions.contains(&run.digest))
}
