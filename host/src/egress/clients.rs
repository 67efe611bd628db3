//! The HTTP clients, each with a pool of connections of its own.
//!
//! One for each tenant and TLS identity, so that a connection is never used by two tenants, nor for an endpoint with
//! another authority or certificate than it was opened with: what was proven to the receiver on a connection holds for
//! all that is sent over it (decision 0016). Within a client, connections are kept by scheme, host and port.
//!
//! When there are `clients_max`, the tenant with the most of them loses the one that rested longest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::Options;
use super::connect::{Connector, GuardedTcp};
use super::head;
use super::identity::{Identity, IdentityError};
use super::lookups::Waits;
use super::tls::Trust;
use crate::domain::id::TenantId;

/// Bytes of one HTTP/2 answer that may be under way unread.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of all HTTP/2 answers of a connection that may be under way unread.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// A client with its connections; copies share them.
#[derive(Debug, Clone)]
pub(super) struct Pooled {
    pub(super) http: Client<Connector, Full<Bytes>>,
    /// How long its connections have waited for what all tenants share.
    pub(super) waits: Waits,
}

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
    known: Mutex<HashMap<Key, Known>>,
    clients_max: usize,
    /// The longest that a connection can be of use after its client was last asked for.
    idle_max: Duration,
    builder: Builder,
    trust: Trust,
    pub(super) tcp: GuardedTcp,
}

#[derive(Debug)]
struct Known {
    client: Pooled,
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
        let clients_max = usize::try_from(options.clients_max).unwrap_or(usize::MAX);
        let idle_max = millis(options.response_ms_max) + millis(options.idle_ms_max);
        Self { known: Mutex::default(), clients_max, idle_max, builder, trust, tcp }
    }

    /// The client for a tenant's endpoint with that identity. One that falls out while attempts use it goes on until
    /// they are done.
    pub(super) fn of(
        &self,
        tenant: &TenantId,
        identity: &Identity,
        versions: Versions,
    ) -> Result<Pooled, IdentityError> {
        let key = (tenant.clone(), identity.digest(), versions);
        let now = Instant::now();
        if let Some(known) = self.lock().get_mut(&key) {
            known.used_at = now;
            return Ok(known.client.clone());
        }
        // Without the lock: certificates are read.
        let client = self.make(tenant, identity, versions)?;
        let mut known = self.lock();
        if !known.contains_key(&key) {
            make_room(&mut known, self.clients_max, self.idle_max, now);
        }
        Ok(match known.entry(key) {
            // Another attempt was faster.
            Entry::Occupied(known) => known.get().client.clone(),
            Entry::Vacant(free) => free.insert(Known { client, used_at: now }).client.clone(),
        })
    }

    fn make(&self, tenant: &TenantId, identity: &Identity, versions: Versions) -> Result<Pooled, IdentityError> {
        let mut tls = self.trust.client_config(identity)?;
        if versions == Versions::Http1 {
            tls.alpn_protocols.retain(|protocol| protocol == b"http/1.1");
        }
        let waits = Waits::default();
        let connector = Connector::new(self.tcp.clone(), tls, tenant.clone(), waits.clone());
        Ok(Pooled { http: self.builder.build(connector), waits })
    }

    /// Whether both trust the same authorities where an endpoint says nothing else.
    pub(super) fn trusts_as(&self, other: &Self) -> bool {
        self.trust == other.trust
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}

/// Removes what is of no use any more, and then clients of the tenant that has the most, until one more fits.
fn make_room(known: &mut HashMap<Key, Known>, clients_max: usize, idle_max: Duration, now: Instant) {
    known.retain(|_, client| now.duration_since(client.used_at) < idle_max);
    while known.len() >= clients_max {
        let mut counts: HashMap<&TenantId, usize> = HashMap::new();
        for (tenant, ..) in known.keys() {
            *counts.entry(tenant).or_default() += 1;
        }
        let first = known
            .iter()
            .max_by_key(|((tenant, ..), client)| (counts.get(tenant).copied(), now.duration_since(client.used_at)));
        let Some((key, _)) = first else { return };
        let key = key.clone();
        known.remove(&key);
    }
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}
