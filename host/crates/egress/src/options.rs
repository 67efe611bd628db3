//! Egress options of the operator.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::proxy::{Bypass, Proxy};

/// Limits and exceptions of egress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    pub response_headers_kept: usize,
    /// Bytes of their names and values stored in the history.
    pub response_header_bytes_kept: usize,
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
    pub proxy_bypass: Vec<Bypass>,
    /// Exceptions to the refused networks, such as `10.1.0.0/16`.
    pub allow: Vec<IpNet>,
    /// Whether plain `http://` endpoints are allowed.
    pub allow_http: bool,
    /// PEM files of certificate authorities to trust in addition to those of the machine.
    pub ca_files: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_ms_max: 5_000,
            head_ms_max: 15_000,
            response_ms_max: 20_000,
            response_bytes_max: 64 * 1024,
            response_bytes_kept: 2048,
            response_headers_kept: 32,
            response_header_bytes_kept: 2048,
            idle_per_host_max: 32,
            idle_ms_max: 30_000,
            clients_max: 1_024,
            ping_every_ms: 5_000,
            ping_ms_max: 5_000,
            proxy: None,
            proxy_bypass: Vec::new(),
            allow: Vec::new(),
            allow_http: false,
            ca_files: Vec::new(),
        }
    }
}
