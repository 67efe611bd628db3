//! Reuse: which calls of a delivery may find an instance that has seen other events, and the end of instances whose binding
//! is another by now.
//!
//! Only live deliveries do, and of them neither tests nor a canary's candidate: what is tried has to show what it does by
//! itself. Shadows, backtests and reproductions run every call in a fresh instance.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::delivery::DueDelivery;
use crate::domain::event::Event;
use crate::domain::filter::PlanStep;
use crate::domain::id::{Digest, SubscriptionId};
use crate::ledger::{TenantView, plan_name};
use crate::sandbox::{Bound, Keep};

use super::Pipeline;
use super::canary::canary_of;

/// Which calls of one run of a chain may be in an instance that is kept.
pub(super) struct Reusing(Option<Live>);

/// The run of a delivery's own chain.
struct Live {
    plan: Digest,
    view: Arc<TenantView>,
}

impl Reusing {
    /// None may.
    pub(super) fn never() -> Self {
        Self(None)
    }

    /// What the sandbox has to know so that this step may be in one; none: it runs in a fresh one.
    pub(super) fn keep(&self, place: usize, step: &PlanStep) -> Option<Keep> {
        let live = self.0.as_ref()?;
        let reuse = step.binding.reuse?;
        let is_tried = canary_of(&live.view, &step.binding.filter, step.digest).is_some();
        (!is_tried).then_some(Keep { plan: live.plan, step: place, events_max: reuse.events_max })
    }
}

impl Pipeline {
    /// For the run of a delivery's own chain.
    pub(super) fn reusing(&self, delivery: &DueDelivery, event: &Event) -> Reusing {
        if event.is_test() {
            return Reusing::never();
        }
        let view = self.ledger.snapshot().tenant(&event.tenant).cloned();
        Reusing(view.map(|view| Live { plan: delivery.plan, view }))
    }

    /// Ends the instances that are kept for a chain that is not its subscription's any more: it was changed or removed, or a
    /// filter, table or quota of it was. No call would find them; this is for what they hold.
    pub(super) fn end_changed_instances(&self) {
        let snapshot = self.ledger.snapshot();
        let mut current: HashMap<SubscriptionId, Option<Digest>> = HashMap::new();
        self.sandbox.keep_only(|bound: &Bound| {
            let plan = || {
                let view = snapshot.tenant(&bound.tenant)?;
                let subscription = &view.subscriptions.get(&bound.subscription)?.value;
                plan_name(&self.pinned_now(subscription)?).ok()
            };
            *current.entry(bound.subscription).or_insert_with(plan) == Some(bound.plan)
        });
    }
}
