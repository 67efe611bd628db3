//! Deliveries from their creation to rest: due, settled, redriven, replayed.

pub(crate) mod attempts;
pub(crate) mod fifo;
pub(crate) mod outbox;
pub(crate) mod redrive;
pub(crate) mod repin;
pub(crate) mod replan;
pub(crate) mod replays;
pub(crate) mod settle;
