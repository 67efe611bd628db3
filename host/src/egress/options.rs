//! What an operator may set about deliveries going out.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Limits and exceptions of egress.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Longest wait for a connection: name, TCP and TLS together.
    pub connect_ms_max: u32,
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
            response_ms_max: 15_000,
            response_bytes_max: 64 * 1024,
            response_bytes_kept: 2048,
            response_headers_kept: 32,
            response_header_bytes_kept: 2048,
            idle_per_host_max: 8,
            idle_ms_max: 30_000,
            allow: Vec::new(),
            allow_http: false,
            ca_files: Vec::new(),
        }
    }
}
