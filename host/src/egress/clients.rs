//! The HTTP clients, each with a pool of connections of its own.
//!
//! One for each tenant and TLS identity, so that a connection is never used by two tenants, nor for an endpoint with
//! another authority or certificate than it was opened with: what was proven to the receiver on a connection holds for
//! all that is sent over it (decision 0016). Within a client, connections are kept by scheme, host and port.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::Options;
use super::connect::{Connector, GuardedTcp};
use super::head;
use super::identity::{Identity, IdentityError};
use super::tls::Trust;
use crate::domain::id::TenantId;

/// Bytes of one HTTP/2 answer that may be under way unread.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of all HTTP/2 answers of a connection that may be under way unread.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// A client with its connections; copies share them.
pub(super) type Pooled = Client<Connector, Full<Bytes>>;

/// Whose, the digest of what is particular to the endpoint, and what is spoken.
type Key = (TenantId, Option<[u8; 32]>, Versions);

/// Versions of HTTP that are offered to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Versions {
    /// HTTP/2 and HTTP/1.1.
    All,
    /// HTTP/1.1 alone: the receiver has asked for it.
    Http1,
}

/// Makes clients as they are needed, and keeps the last ones.
#[derive(Debug)]
pub(super) struct Clients {
    known: Cache<Key, Pooled>,
    builder: Builder,
    trust: Trust,
    pub(super) tcp: GuardedTcp,
}

impl Clients {
    pub(super) fn new(options: &Options, trust: Trust, tcp: GuardedTcp) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(options.idle_per_host_max)
            .pool_idle_timeout(millis(options.idle_ms_max))
            .http1_max_buf_size(head::HEAD_BYTES_MAX + head::GROWTH_BYTES_MAX)
            .http1_max_headers(head::FIELDS_MAX + head::DECIDING_MAX)
            // What `head` leaves to the parser.
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .http2_max_header_list_size(head::HEAD_BYTES_MAX as u32)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(millis(options.ping_every_ms))
            .http2_keep_alive_timeout(millis(options.ping_ms_max));
        // The longest that a connection can be of use after its client was last asked for.
        let idle = millis(options.response_ms_max) + millis(options.idle_ms_max);
        let known = Cache::builder()
            .max_capacity(options.clients_max)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(idle)
            .build();
        Self { known, builder, trust, tcp }
    }

    /// The client for a tenant's endpoint with that identity. One that falls out while attempts use it goes on until
    /// they are done.
    pub(super) async fn of(
        &self,
        tenant: &TenantId,
        identity: &Identity,
        versions: Versions,
    ) -> Result<Pooled, IdentityError> {
        let key = (tenant.clone(), identity.digest(), versions);
        if let Some(client) = self.known.get(&key).await {
            return Ok(client);
        }
        let make = async {
            let mut tls = self.trust.client_config(identity)?;
            if versions == Versions::Http1 {
                tls.alpn_protocols.retain(|protocol| protocol == b"http/1.1");
            }
            Ok(self.builder.build(Connector::new(self.tcp.clone(), tls)))
        };
        // Large, and needed once for each: without the box every attempt would carry it.
        Box::pin(self.known.try_get_with(key, make)).await.map_err(Arc::unwrap_or_clone)
    }

    /// Whether both trust the same authorities where an endpoint says nothing else.
    pub(super) fn trusts_as(&self, other: &Self) -> bool {
        self.trust == other.trust
    }

    #[cfg(test)]
    pub(super) async fn count(&self) -> u64 {
        self.known.run_pending_tasks().await;
        self.known.entry_count()
    }
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}
