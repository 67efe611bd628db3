//! The journal of accepted events, and their fan-out into deliveries.

pub(crate) mod fan_out;
pub(crate) mod journal;
pub(crate) mod replays;

use std::sync::Arc;

use crate::store::Store;

/// The journal: appends, reads in journal order, and the fan-out.
#[derive(Clone)]
pub struct Events(pub(crate) Arc<Store>);

/// Replays of past events into new runs.
#[derive(Clone)]
pub struct Replays(pub(crate) Arc<Store>);
