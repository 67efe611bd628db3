//! The HTTP clients, each with its own connection pool.
//!
//! There is one client for each tenant and TLS identity. A connection is therefore never shared by two tenants, nor
//! used for an endpoint with another authority or client certificate than it was opened with: authentication applies to
//! everything that is sent over the connection (decision 0016). Within a client, connections are pooled by scheme, host
//! and port.
//!
//! If `clients_max` is reached, the least recently used client of the tenant with the most clients is evicted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use setgate_domain::id::TenantId;
use tokio::time::Instant;

use super::connect::{Connector, GuardedTcp};
use super::lookups::QueueTime;
use super::tls::Trust;
use super::tls_identity::{TlsIdentity, TlsIdentityError};
use super::{Options, head};

/// Flow-control window of an HTTP/2 stream in bytes.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Flow-control window of an HTTP/2 connection in bytes.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// A client with its connections, which clones share.
#[derive(Debug, Clone)]
pub(super) struct PooledClient {
    pub(super) http: Client<Connector, Full<Bytes>>,
    /// The time that the client's connections spent in queues shared by all tenants.
    pub(super) queue_time: QueueTime,
}

/// Tenant, digest of the TLS identity, and HTTP versions.
type Key = (TenantId, Option<[u8; 32]>, Versions);

/// HTTP versions offered to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Versions {
    /// HTTP/2 and HTTP/1.1.
    All,
    /// Only HTTP/1.1, because the receiver has requested it.
    Http1,
}

/// Creates clients on demand and caches the most recently used ones.
#[derive(Debug)]
pub(super) struct Clients {
    cached: Mutex<HashMap<Key, CacheEntry>>,
    clients_max: usize,
    /// The time after its last use at which all connections of a client have ended.
    idle_max: Duration,
    builder: Builder,
    trust: Trust,
    pub(super) tcp: GuardedTcp,
}

#[derive(Debug)]
struct CacheEntry {
    client: PooledClient,
    used_at: Instant,
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
            .http1_max_headers(head::FIELDS_MAX + head::SIGNIFICANT_FIELDS_MAX)
            // Tolerances that `head` leaves to the parser.
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .http2_max_header_list_size(head::HEAD_BYTES_MAX as u32)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(millis(options.ping_every_ms))
            .http2_keep_alive_timeout(millis(options.ping_ms_max));
        let clients_max = usize::try_from(options.clients_max).unwrap_or(usize::MAX);
        let idle_max = millis(options.response_ms_max) + millis(options.idle_ms_max);
        Self { cached: Mutex::default(), clients_max, idle_max, builder, trust, tcp }
    }

    /// The client for a tenant's endpoint with this identity. An evicted client remains usable until its running
    /// attempts have finished.
    pub(super) fn of(
        &self,
        tenant: &TenantId,
        identity: &TlsIdentity,
        versions: Versions,
    ) -> Result<PooledClient, TlsIdentityError> {
        let key = (tenant.clone(), identity.digest(), versions);
        let now = Instant::now();
        if let Some(cached) = self.lock().get_mut(&key) {
            cached.used_at = now;
            return Ok(cached.client.clone());
        }
        // Without the lock, because certificates are parsed.
        let client = self.create(tenant, identity, versions)?;
        let mut cached = self.lock();
        if !cached.contains_key(&key) {
            evict(&mut cached, self.clients_max, self.idle_max, now);
        }
        Ok(match cached.entry(key) {
            // Another attempt has created the client in the meantime.
            Entry::Occupied(cached) => cached.get().client.clone(),
            Entry::Vacant(free) => free.insert(CacheEntry { client, used_at: now }).client.clone(),
        })
    }

    fn create(
        &self,
        tenant: &TenantId,
        identity: &TlsIdentity,
        versions: Versions,
    ) -> Result<PooledClient, TlsIdentityError> {
        let mut tls = self.trust.client_config(identity)?;
        if versions == Versions::Http1 {
            tls.alpn_protocols.retain(|protocol| protocol == b"http/1.1");
        }
        let queue_time = QueueTime::default();
        let connector = Connector::new(self.tcp.clone(), tls, tenant.clone(), queue_time.clone());
        Ok(PooledClient { http: self.builder.build(connector), queue_time })
    }

    /// Whether both trust the same default authorities.
    pub(super) fn has_same_trust(&self, other: &Self) -> bool {
        self.trust == other.trust
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, CacheEntry>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}

/// Evicts unused clients, and then clients of the tenant with the most clients, until there is space for one more.
fn evict(cached: &mut HashMap<Key, CacheEntry>, clients_max: usize, idle_max: Duration, now: Instant) {
    cached.retain(|_, client| now.duration_since(client.used_at) < idle_max);
    while cached.len() >= clients_max {
        let mut counts: HashMap<&TenantId, usize> = HashMap::new();
        for (tenant, ..) in cached.keys() {
            *counts.entry(tenant).or_default() += 1;
        }
        let first = cached
            .iter()
            .max_by_key(|((tenant, ..), client)| (counts.get(tenant).copied(), now.duration_since(client.used_at)));
        let Some((key, _)) = first else { return };
        let key = key.clone();
        cached.remove(&key);
    }
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}
