//! What a filter may import from us: one file a WIT interface. Every call is counted and paid for in fuel.

pub(super) mod config;
pub(super) mod log;
pub(super) mod lookup;
