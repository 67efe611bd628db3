//! What an operator may set about deliveries going out.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{Bypass, Proxy};

/// Limits and exceptions of egress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Longest wait for a connection: name, TCP and TLS together.
    pub connect_ms_max: u32,
    /// Longest wait for the head of an answer, from the attempt's begin: connecting and the receiver's work.
    pub head_ms_max: u32,
    /// Longest time of a whole attempt, from its begin to the last byte of the answer that is read. Standard
    /// Webhooks recommends 15 to 30 seconds.
    pub response_ms_max: u32,
    /// Bytes of an answer's body that are read; past them the connection is dropped, the answer still counts.
    pub response_bytes_max: usize,
    /// Bytes of an answer's body that the history keeps.
    pub response_bytes_kept: usize,
    /// Headers of an answer that the history keeps.
    pub response_headers_kept: usize,
    /// Bytes of their names and values that the history keeps.
    pub response_header_bytes_kept: usize,
    /// Unused connections kept for each receiver.
    pub idle_per_host_max: usize,
    /// How long an unused connection is kept.
    pub idle_ms_max: u32,
    /// Clients, each with a pool of connections of its own, that are kept: one for each tenant and TLS identity.
    pub clients_max: u64,
    /// While attempts wait on an HTTP/2 connection, it is asked this often whether it lives: all attempts to a receiver
    /// share it, and without asking a dead one would take every new attempt down with it.
    pub ping_every_ms: u32,
    /// How long the answer to that may take; then the connection is given up with all that waits on it.
    pub ping_ms_max: u32,
    /// The HTTP proxy through which everything goes out.
    pub proxy: Option<Proxy>,
    /// Hosts that are reached without it.
    pub proxy_bypass: Vec<Bypass>,
    /// Networks that may be connected to although the guard refuses them, such as `10.1.0.0/16`.
    pub allow: Vec<IpNet>,
    /// Whether plain `http://` endpoints are sent to.
    pub allow_http: bool,
    /// PEM files of certificate authorities to trust besides those of the machine.
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
