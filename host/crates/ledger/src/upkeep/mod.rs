//! Retention, backup and the identity of a ledger.

pub(crate) mod backup;
pub(crate) mod expiry;
pub(crate) mod identity;
pub(crate) mod retention;
pub(crate) mod uptime;
