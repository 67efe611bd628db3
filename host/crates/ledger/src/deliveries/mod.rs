//! Deliveries from their creation to rest: due, settled, redriven, replayed.

pub(crate) mod attempts;
pub(crate) mod fifo;
pub(crate) mod outbox;
pub(crate) mod redrive;
pub(crate) mod replan;
pub(crate) mod settle;
pub(crate) mod signed_sets;

use std::sync::Arc;

use crate::store::Store;

/// Deliveries: new and due ones, their settlement, and decisions about held and dead ones.
#[derive(Clone)]
pub struct Deliveries(pub(crate) Arc<Store>);
