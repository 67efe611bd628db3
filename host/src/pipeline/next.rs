//! The results that the stages of a delivery pass to each other.

use std::sync::Arc;

use setgate_domain::attempt::Attempt;
use setgate_domain::attempt_effects::AttemptEffects;
use setgate_domain::delivery::DueDelivery;
use setgate_domain::event::Event;
use setgate_domain::subscription::Subscription;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::FilterRun;
use setgate_ledger::Versioned;

/// The next step of a delivery after a stage.
pub(super) enum Next {
    /// Its chain has completed: send it.
    Send(Box<Filtered>),
    /// Its attempt has ended: settle it. The slot of its endpoint is free already.
    Settle(Box<Attempted>),
    /// It is due again, with this row.
    Requeue(Box<DueDelivery>),
    /// Nothing for now: it has ended, is held, or is blocked by an earlier delivery in FIFO order. Carries the next
    /// delivery in FIFO order, if this one unblocked it.
    Rest(Option<Box<DueDelivery>>),
}

impl Next {
    pub(super) fn requeue(row: DueDelivery) -> Self {
        Self::Requeue(Box::new(row))
    }

    pub(super) fn rest(unblocked: Option<DueDelivery>) -> Self {
        Self::Rest(unblocked.map(Box::new))
    }
}

/// A delivery with a completed chain: the input of `seal`.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) delivery: DueDelivery,
    pub(super) event: Arc<Event>,
    /// `None` if the chain did not change the normalized SET.
    pub(super) claims: Option<String>,
    /// Filter runs that are settled together with the attempt. This is allowed if no filter changed anything and all
    /// would decide the same again, because the bytes are then those of the journal. Empty if the runs have been
    /// settled already.
    pub(super) passed: Vec<FilterRun>,
}

impl Filtered {
    /// The row if no attempt follows. If the runs were to be settled with the attempt, the chain runs again.
    pub(super) fn row(&self) -> DueDelivery {
        DueDelivery { filtered: self.passed.is_empty(), ..self.delivery.clone() }
    }

    pub(super) fn accepted_at(&self) -> Timestamp {
        self.event.accepted_at
    }
}

/// A delivery after an attempt: the input of `settle`.
pub(super) struct Attempted {
    pub(super) delivery: DueDelivery,
    pub(super) subscription: Arc<Versioned<Subscription>>,
    pub(super) accepted_at: Timestamp,
    pub(super) attempt: Attempt,
    pub(super) consequences: AttemptEffects,
    /// See [`Filtered::passed`].
    pub(super) passed: Vec<FilterRun>,
}
