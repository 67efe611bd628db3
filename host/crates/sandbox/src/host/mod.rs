//! The host interfaces that a filter may import, one file for each WIT interface. Every call is counted and charged in
//! fuel.

pub(super) mod config;
pub(super) mod log;
pub(super) mod lookup;
