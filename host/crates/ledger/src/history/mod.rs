//! Queries about events, deliveries, attempts, statistics and the audit log.

pub(crate) mod audit;
pub(crate) mod queries;
pub(crate) mod settlement_log;
pub(crate) mod statistics;

use std::sync::Arc;

use crate::store::Store;

/// Queries for people: events, deliveries, attempts, statistics, settlements and the audit log.
#[derive(Clone)]
pub struct History(pub(crate) Arc<Store>);
