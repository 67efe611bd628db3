//! Makes deliveries due again that have not completed their chain, with the current chains of their subscriptions.

use setgate_base::clock::Clock;
use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::{DeliveryRecord, DueDelivery};
use setgate_domain::id::{DeliveryId, TenantId};
use setgate_ledger::{Deliveries, History, PlanChange, Registry};

use super::canary::choices;
use super::plan::{PinnedPlans, Planner};

/// Makes held deliveries due again. Cheap to clone.
#[derive(Clone)]
pub(super) struct Requeuer {
    registry: Registry,
    history: History,
    deliveries: Deliveries,
    planner: Planner,
    clock: Clock,
}

impl Requeuer {
    pub(super) fn new(
        registry: Registry,
        history: History,
        deliveries: Deliveries,
        planner: Planner,
        clock: Clock,
    ) -> Self {
        Self { registry, history, deliveries, planner, clock }
    }

    /// Makes a delivery due again that is held, or dead without a completed chain, and pins the current chain for it.
    /// If its subscription was removed, the delivery keeps its plan. `None` if the tenant has no such delivery.
    pub(super) async fn requeue_one(
        &self,
        tenant: &TenantId,
        id: DeliveryId,
    ) -> Result<Option<DueDelivery>, setgate_ledger::Error> {
        let Some(record) = self.history.delivery(tenant, id).await? else { return Ok(None) };
        Ok(self.requeue(tenant, vec![record], None).await?.into_iter().next())
    }

    /// Like [`Requeuer::requeue_one`] for several deliveries in one transaction. Returns the deliveries that are due
    /// again. `audit` is the audit record, if a user requested this.
    pub(super) async fn requeue(
        &self,
        tenant: &TenantId,
        records: Vec<DeliveryRecord>,
        audit: Option<AuditAction>,
    ) -> Result<Vec<DueDelivery>, setgate_ledger::Error> {
        self.requeue_pinned(tenant, records, &self.no_plans(), audit).await
    }

    /// An empty cache of plans for [`Requeuer::requeue_pinned`].
    pub(super) fn no_plans(&self) -> PinnedPlans {
        PinnedPlans::new(self.planner.clone())
    }

    /// Like [`Requeuer::requeue`] for several calls that share a cache of plans.
    pub(super) async fn requeue_pinned(
        &self,
        tenant: &TenantId,
        held: Vec<DeliveryRecord>,
        pinned: &PinnedPlans,
        audit: Option<AuditAction>,
    ) -> Result<Vec<DueDelivery>, setgate_ledger::Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.registry.snapshot();
        let Some(view) = snapshot.tenant(tenant) else { return Ok(Vec::new()) };
        let of = held.iter().filter_map(|record| {
            let subscription = &view.subscriptions.get(&record.id.subscription)?.value;
            Some((view, subscription, choices(subscription, view, record.subject.as_deref(), record.id.event)))
        });
        let mut anew = pinned.plans_of(of.collect()).await?.into_iter();
        let change = |record: DeliveryRecord| {
            let is_there = view.subscriptions.contains_key(&record.id.subscription);
            let plan = is_there.then(|| anew.next()).flatten().unwrap_or(record.plan);
            PlanChange { id: record.id, plan }
        };
        let changes = held.into_iter().map(change).collect();
        self.deliveries.requeue_with_plan(tenant, changes, self.clock.now(), audit).await
    }
}
