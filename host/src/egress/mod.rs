//! The way out to receivers, and the only place with the hyper client.
//!
//! ```text
//! Egress::post -> pooled connection, or: resolve -> Guard (every address) -> connect to a checked address -> TLS
//!              -> request -> bounded answer -> Exchange
//! ```
//!
//! Receivers are named by tenants, who are not trusted: the addresses they may lead to, the time they may take and
//! the bytes they may send back all have limits. Redirects are answers like any other and are never followed
//! (Standard Webhooks, "Operational considerations"). A pooled connection stays with the address that was checked.

mod client;
mod connect;
mod failure;
mod guard;
mod options;
mod record;
mod response;
mod tls;

#[cfg(test)]
mod tests;

pub use client::{Egress, Exchange, USER_AGENT};
pub use guard::{Guard, Refusal};
pub use options::Options;
pub use response::retry_after_s;
pub use tls::Error;
