//! Options of the way out: the settings, and limits that are not settings.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::Settings;
use crate::proxy::{Proxy, ProxyBypass};

/// Timeout of a connect, including name resolution and TLS, in milliseconds.
pub(crate) const CONNECT_MS_MAX: u32 = 5_000;
/// Bytes read from a response; if it is longer, the connection is closed.
pub(crate) const RESPONSE_BYTES_MAX: usize = 64 << 10;
/// Response headers stored in the history.
pub(crate) const RESPONSE_HEADERS_STORED_MAX: usize = 32;
/// Total bytes of response header names and values stored in the history.
pub(crate) const RESPONSE_HEADER_BYTES_STORED_MAX: usize = 2 << 10;
/// Idle connections retained for each receiver.
pub(crate) const IDLE_PER_HOST_MAX: usize = 32;
/// How long an idle connection is kept open, in milliseconds.
pub(crate) const IDLE_MS_MAX: u32 = 30_000;
/// Connection pools, one for each tenant and each `tls` setting of an endpoint. If the limit is reached, the pool that
/// has been idle longest is evicted.
pub(crate) const CLIENTS_MAX: u64 = 1_024;
/// Interval of HTTP/2 keep-alive pings on a connection with pending attempts, in milliseconds.
pub(crate) const PING_EVERY_MS: u32 = 5_000;
/// Timeout of a keep-alive ping, in milliseconds.
pub(crate) const PING_MS_MAX: u32 = 5_000;

/// Limits and exceptions of egress.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Timeout for a connection, including name resolution, TCP and TLS.
    pub connect_ms_max: u32,
    /// Timeout from the start of the attempt to the response head, including the connection and the receiver's
    /// processing.
    pub head_ms_max: u32,
    /// Timeout from the start of the attempt to the last byte read of the response. Standard Webhooks recommends 15 to
    /// 30 seconds.
    pub response_ms_max: u32,
    /// Limit for the bytes read of a response body. If it is exceeded, the connection is dropped, but the response
    /// still counts.
    pub response_bytes_max: usize,
    /// Bytes of a response body stored in the history.
    pub response_bytes_kept: usize,
    /// Headers of a response stored in the history.
    pub response_headers_stored_max: usize,
    /// Bytes of their names and values stored in the history.
    pub response_header_bytes_stored_max: usize,
    /// Idle connections retained for each receiver.
    pub idle_per_host_max: usize,
    /// Time after which an idle connection is closed.
    pub idle_ms_max: u32,
    /// Limit for cached clients, each with its own connection pool: one for each tenant and TLS identity.
    pub clients_max: u64,
    /// Interval of HTTP/2 pings while requests are pending on a connection. All attempts at a receiver share one
    /// connection, so without pings an unresponsive one would fail every new attempt.
    pub ping_every_ms: u32,
    /// Timeout for the answer to a ping. After it, the connection and all requests on it are dropped.
    pub ping_ms_max: u32,
    /// The HTTP proxy for all outgoing requests.
    pub proxy: Option<Proxy>,
    /// Hosts that are connected without the proxy.
    pub proxy_bypass: Vec<ProxyBypass>,
    /// Exceptions to the refused networks, such as `10.1.0.0/16`.
    pub allow: Vec<IpNet>,
    /// Whether plain `http://` endpoints are allowed.
    pub allow_http: bool,
    /// PEM files of certificate authorities to trust in addition to those of the machine.
    pub ca_files: Vec<PathBuf>,
}

impl From<&Settings> for Options {
    fn from(settings: &Settings) -> Self {
        Self {
            connect_ms_max: CONNECT_MS_MAX,
            head_ms_max: settings.head_ms_max,
            response_ms_max: settings.response_ms_max,
            response_bytes_max: RESPONSE_BYTES_MAX,
            response_bytes_kept: settings.response_bytes_kept,
            response_headers_stored_max: RESPONSE_HEADERS_STORED_MAX,
            response_header_bytes_stored_max: RESPONSE_HEADER_BYTES_STORED_MAX,
            idle_per_host_max: IDLE_PER_HOST_MAX,
            idle_ms_max: IDLE_MS_MAX,
            clients_max: CLIENTS_MAX,
            ping_every_ms: PING_EVERY_MS,
            ping_ms_max: PING_MS_MAX,
            proxy: settings.proxy.clone(),
            proxy_bypass: settings.proxy_bypass.clone(),
            allow: settings.allow.clone(),
            allow_http: settings.allow_http,
            ca_files: settings.ca_files.clone(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::from(&Settings::default())
    }
}
