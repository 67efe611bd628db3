//! Trusted certificates of receivers (crate `setgate_egress`) and of the clients of a listener (the host's `http`).

mod anchors;
mod clients;
mod facts;

pub use anchors::{Anchors, check_as_it_is};
pub use facts::Facts;
