//! The journal of accepted events, and their fan-out into deliveries.

pub(crate) mod fan_out;
pub(crate) mod journal;
