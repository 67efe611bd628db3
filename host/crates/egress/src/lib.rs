//! Outgoing requests to receivers, and to the key sets of senders. This is the only module that uses the hyper client.
//!
//! ```text
//! Egress::post -> the client of tenant and TLS identity -> pooled connection, or a new one:
//!                   resolve -> Guard (every address) -> connect to a checked address -> TLS
//!                   resolve -> Guard (every address) -> proxy -> CONNECT -> TLS
//!              -> request -> bounded response -> Exchange, with the record for the history
//! Egress::get  -> the same connections -> complete body within a limit -> Document
//! ```
//!
//! Receivers are chosen by tenants, who are not trusted: addresses, durations and response sizes are all limited.
//! Redirects are treated like any other response and never followed (Standard Webhooks, "Operational considerations").
//! A pooled connection stays connected to the address that was checked.

mod client;
mod clients;
mod connect;
mod document;
mod echo_redaction;
mod failure;
mod guard;
mod head;
mod lookups;
mod options;
mod proxy;
mod record;
mod resolve;
mod response;
mod settings;
mod tls;
mod tls_identity;
mod tolerant_http1;
mod tunnel;

#[cfg(test)]
mod tests;

pub use client::{ClientSet, Egress, Exchange, PostRequest};
pub use document::{Document, GetError, GetRequest};
pub use failure::HostShortage;
pub use guard::{BlockedAddress, Guard};
pub use options::Options;
pub use proxy::{Error as ProxyError, Proxy, ProxyBypass};
pub use resolve::{Resolve, SystemResolver};
pub use response::retry_after_s;
pub use settings::Settings;
pub use tls::{Error, operator_tls_config};
pub use tls_identity::{CERTIFICATES_MAX, Certificates, PEM_BYTES_MAX, TlsIdentity, TlsIdentityError};

/// Value of the `User-Agent` header.
pub const USER_AGENT: &str = concat!("Setgate/", env!("CARGO_PKG_VERSION"));
