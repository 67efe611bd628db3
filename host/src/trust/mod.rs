//! Trusted certificates of receivers ([`crate::egress`]) and of the clients of a listener ([`crate::http`]).

mod anchors;
mod clients;
mod facts;

pub(crate) use anchors::{Anchors, check_as_it_is};
pub(crate) use facts::Facts;
