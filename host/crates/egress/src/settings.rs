//! `[egress]`: the settings of outgoing connections. Limits that no operator has a reason to change are constants in
//! `options`.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::proxy::{Proxy, ProxyBypass};

/// Outgoing connections to receivers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Private networks that deliveries may be sent to, such as `["10.0.0.0/8"]`. All other addresses outside the
    /// public internet are refused.
    pub allow: Vec<IpNet>,
    /// Whether `http://` endpoints are allowed.
    pub allow_http: bool,
    /// PEM files of certificate authorities to trust in addition to those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Timeout (ms) of an attempt until the response head has arrived, including the connect.
    pub head_ms_max: u32,
    /// Timeout (ms) of a whole attempt, until the response body has been read. Standard Webhooks recommends 15 to 30
    /// seconds.
    pub response_ms_max: u32,
    /// Bytes of the response body stored in the history.
    pub response_bytes_kept: usize,
    /// HTTP proxy of the site, `http://host:port` or `http://user:password@host:port`. Every endpoint is reached
    /// through it by `CONNECT`, with TLS inside the tunnel. If the URL contains a password, set it by the environment
    /// variable.
    pub proxy: Option<Proxy>,
    /// Hosts that are reached without the proxy, such as `["idp.example", ".internal.example", "10.0.0.0/8"]`: a name,
    /// all names below a domain, or a network of addresses. A network matches only endpoints whose URL contains an
    /// address.
    pub proxy_bypass: Vec<ProxyBypass>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_http: false,
            ca_files: Vec::new(),
            head_ms_max: 15_000,
            response_ms_max: 20_000,
            response_bytes_kept: 2 << 10,
            proxy: None,
            proxy_bypass: Vec::new(),
        }
    }
}

impl Settings {
    /// One message for each value that is not usable.
    pub fn faults(&self) -> Vec<String> {
        let not_zero = [("head_ms_max", self.head_ms_max), ("response_ms_max", self.response_ms_max)];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        zeros.map(|(key, _)| format!("`egress.{key}` is 0; it has to be at least 1")).collect()
    }
}
