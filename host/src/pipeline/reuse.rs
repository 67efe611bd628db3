//! Decides which calls of a delivery may run in a reused instance, and evicts idle instances of outdated chains.
//!
//! Only live deliveries reuse instances, except for test events and canary candidates: a trial must show the behaviour
//! of each call on its own. Shadow runs, backtests and reproductions always use a fresh instance.

use std::collections::HashMap;
use std::sync::Arc;

use setgate_domain::delivery::DueDelivery;
use setgate_domain::event::Event;
use setgate_domain::filter::PlanStep;
use setgate_domain::id::{Digest, SubscriptionId};
use setgate_ledger::{Registry, TenantView, plan_digest};
use setgate_sandbox::{BindingKey, ReuseSettings, Sandbox};

use super::canary::canary_of;
use super::plan::Planner;

/// Which calls of a chain run may use a reused instance.
pub(super) struct Reusing(Option<Live>);

/// A run of a delivery's own chain.
struct Live {
    plan: Digest,
    view: Arc<TenantView>,
}

impl Reusing {
    /// For the run of a delivery's own chain. `view` is the delivery's tenant, unless it was removed.
    pub(super) fn of(view: Option<Arc<TenantView>>, delivery: &DueDelivery, event: &Event) -> Self {
        if event.is_test() {
            return Self::never();
        }
        Self(view.map(|view| Live { plan: delivery.plan, view }))
    }

    /// Every call runs in a fresh instance.
    pub(super) fn never() -> Self {
        Self(None)
    }

    /// The pool key of this step. `None` if the step must run in a fresh instance.
    pub(super) fn settings(&self, place: usize, step: &PlanStep) -> Option<ReuseSettings> {
        let live = self.0.as_ref()?;
        let reuse = step.binding.reuse?;
        let is_tried = canary_of(&live.view, &step.binding.filter, step.digest).is_some();
        (!is_tried).then_some(ReuseSettings { plan: live.plan, step: place, events_max: reuse.events_max })
    }
}

/// Evicts idle instances of outdated chains.
pub(super) struct IdleInstances {
    registry: Registry,
    sandbox: Sandbox,
    planner: Planner,
}

impl IdleInstances {
    pub(super) fn new(registry: Registry, sandbox: Sandbox, planner: Planner) -> Self {
        Self { registry, sandbox, planner }
    }

    /// Evicts idle instances of chains that are no longer current because the subscription, a filter, a table or a
    /// quota was changed or removed. No call would find such an instance; the eviction frees its memory.
    pub(super) fn evict_outdated(&self) {
        let snapshot = self.registry.snapshot();
        let mut current: HashMap<SubscriptionId, Option<Digest>> = HashMap::new();
        self.sandbox.retain_bindings(|bound: &BindingKey| {
            let plan = || {
                let view = snapshot.tenant(&bound.tenant)?;
                let subscription = &view.subscriptions.get(&bound.subscription)?.value;
                plan_digest(&self.planner.plan_of(subscription)?).ok()
            };
            *current.entry(bound.subscription).or_insert_with(plan) == Some(bound.plan)
        });
    }
}
