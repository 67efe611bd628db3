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
use setgate_ledger::{TenantView, plan_name};
use setgate_sandbox::{BindingKey, ReuseSettings};

use super::Pipeline;
use super::canary::canary_of;

/// Which calls of a chain run may use a reused instance.
pub(super) struct Reusing(Option<Live>);

/// A run of a delivery's own chain.
struct Live {
    plan: Digest,
    view: Arc<TenantView>,
}

impl Reusing {
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

impl Pipeline {
    /// For the run of a delivery's own chain.
    pub(super) fn reusing(&self, delivery: &DueDelivery, event: &Event) -> Reusing {
        if event.is_test() {
            return Reusing::never();
        }
        let view = self.ledger.registry.snapshot().tenant(&event.tenant).cloned();
        Reusing(view.map(|view| Live { plan: delivery.plan, view }))
    }

    /// Evicts idle instances of chains that are no longer current because the subscription, a filter, a table or a
    /// quota was changed or removed. No call would find such an instance; the eviction frees its memory.
    pub(super) fn end_changed_instances(&self) {
        let snapshot = self.ledger.registry.snapshot();
        let mut current: HashMap<SubscriptionId, Option<Digest>> = HashMap::new();
        self.sandbox.retain_bindings(|bound: &BindingKey| {
            let plan = || {
                let view = snapshot.tenant(&bound.tenant)?;
                let subscription = &view.subscriptions.get(&bound.subscription)?.value;
                plan_name(&self.planner.plan_of(subscription)?).ok()
            };
            *current.entry(bound.subscription).or_insert_with(plan) == Some(bound.plan)
        });
    }
}
