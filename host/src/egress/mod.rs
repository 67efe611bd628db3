//! The way out to receivers, and the only place with the hyper client.
//!
//! ```text
//! Egress::post -> the client of tenant and TLS identity -> pooled connection, or a new one:
//!                   resolve -> Guard (every address) -> connect to a checked address -> TLS
//!                   resolve -> Guard (every address) -> proxy -> CONNECT -> TLS
//!              -> request -> bounded answer -> Exchange, with what the history keeps
//! ```
//!
//! Receivers are named by tenants, who are not trusted: the addresses they may lead to, the time they may take and
//! the bytes they may send back all have limits. Redirects are answers like any other and are never followed
//! (Standard Webhooks, "Operational considerations"). A pooled connection stays with the address that was checked.

mod anchors;
mod client;
mod clients;
mod connect;
mod echo;
mod facts;
mod failure;
mod guard;
mod head;
mod identity;
mod lenient;
mod lookups;
mod options;
mod record;
mod resolve;
mod response;
mod tls;
mod tunnel;

#[cfg(test)]
mod tests;

pub use client::{Egress, Exchange, Post, USER_AGENT, Way};
pub use failure::OwnFault;
pub use guard::{Guard, Refusal};
pub use identity::{CERTIFICATES_MAX, Certificates, Identity, IdentityError, PEM_BYTES_MAX};
pub use options::Options;
pub use resolve::{Resolve, SystemResolver};
pub use response::retry_after_s;
pub use tls::{Error, operators_tls};
