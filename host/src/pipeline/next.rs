//! What happens next to a delivery after a stage.

use setgate_domain::delivery::DueDelivery;

use super::deliver::Attempted;
use super::filter::Filtered;

/// The next step of a delivery. Every stage of the dispatcher's work returns one.
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
