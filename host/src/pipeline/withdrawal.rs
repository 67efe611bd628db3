//! Deliveries whose plan has a version that was withdrawn: its trial ended without promotion after the plan was pinned.

use std::sync::Arc;

use setgate_domain::delivery::DueDelivery;
use setgate_domain::filter::{Plan, PlanStep};
use setgate_domain::id::{Digest, FilterName, TenantId};
use setgate_ledger::{Deliveries, Plans, Registry, TenantView};

use super::canary::{Choice, put_in};

/// Replaces withdrawn versions in plans.
pub(super) struct Withdrawals {
    registry: Registry,
    plans: Plans,
    deliveries: Deliveries,
}

impl Withdrawals {
    pub(super) fn new(registry: Registry, plans: Plans, deliveries: Deliveries) -> Self {
        Self { registry, plans, deliveries }
    }

    /// Replaces versions that were withdrawn after the plan was pinned with the active versions, and stores the new
    /// plan in the delivery's row.
    pub(super) async fn replace(
        &self,
        plan: Arc<Plan>,
        delivery: DueDelivery,
    ) -> Result<(Arc<Plan>, DueDelivery), setgate_ledger::Error> {
        let snapshot = self.registry.snapshot();
        let Some(view) = snapshot.tenant(&delivery.tenant) else { return Ok((plan, delivery)) };
        let instead: Vec<Choice> =
            plan.steps.iter().enumerate().filter_map(|(place, step)| Some((place, instead_of(view, step)?))).collect();
        if instead.is_empty() {
            return Ok((plan, delivery));
        }
        let mut plan = Plan::clone(&plan);
        put_in(&mut plan, &instead);
        let digest = self.plans.intern(&plan).await?;
        self.deliveries.replace_plan(delivery.seq, digest).await?;
        Ok((Arc::new(plan), DueDelivery { plan: digest, ..delivery }))
    }

    /// Whether a version was on trial and the trial ended without promotion.
    pub(super) fn is_withdrawn(&self, tenant: &TenantId, filter: &FilterName, digest: Digest) -> bool {
        let snapshot = self.registry.snapshot();
        let filter = snapshot.tenant(tenant).and_then(|view| view.filters.get(filter));
        filter.is_some_and(|filter| filter.value.is_withdrawn(&digest))
    }
}

/// The active version, if the step's version was withdrawn.
fn instead_of(view: &TenantView, step: &PlanStep) -> Option<Digest> {
    let filter = &view.filters.get(&step.binding.filter)?.value;
    filter.active.filter(|_| filter.is_withdrawn(&step.digest))
}
