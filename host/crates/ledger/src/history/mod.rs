//! Queries about events, deliveries, attempts, statistics and the audit log.

pub(crate) mod audit;
pub(crate) mod queries;
pub(crate) mod settlement_log;
pub(crate) mod statistics;
