//! `[listen]`, and the separate listeners of the management interfaces.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::address::Address;

/// Listeners, TLS, connection limits and request limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Host (an address or a name) and port. Port 0 lets the system choose a free one, which is logged.
    pub address: Address,
    /// PEM file of the certificate chain. With `tls_key`, the listener uses TLS.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the private key.
    pub tls_key: Option<PathBuf>,
    /// Separate listener of the operator interface, which `listen.address` then no longer serves.
    pub operator: Option<Listener>,
    /// Separate listener of the tenants' management interface, which `listen.address` then no longer serves.
    pub tenant: Option<Listener>,
    /// Whether `/metrics` is served without the operator key. Default: only on a loopback address.
    pub metrics_open: Option<bool>,
    /// Maximum number of open connections per listener. If it is reached, idle connections are closed in favour of new
    /// ones.
    pub connections_max: usize,
    /// The share of `connections_max` that one client (an IPv4 address, or an IPv6 /64 network) may use; further
    /// connections are closed at once. The limit does not apply to trusted proxies; requests of a client that a proxy
    /// names in a header count like connections.
    pub connections_per_peer_max: usize,
    /// How long (ms) a connection without a request stays open, regardless of other traffic on it. Set it higher than
    /// the idle timeout of a load balancer in front.
    pub idle_ms_max: u64,
    /// Networks of proxies whose statement of the client address is trusted, such as `["10.0.0.0/8"]`.
    pub trusted_proxies: Vec<IpNet>,
    /// How trusted proxies state the client address: `peer` (not at all), `proxy_protocol` (version 1 or 2, required at
    /// the beginning of each connection), or the headers `x_forwarded_for` or `forwarded` (RFC 7239). The address
    /// counts for `connections_per_peer_max` and is recorded in the audit log.
    pub client_address: ClientAddress,
    /// Timeout (ms) of the TLS handshake, and of the request head.
    pub head_ms_max: u64,
    /// Timeout (ms) of a whole request, including its body.
    pub request_ms_max: u64,
    /// How long (ms) requests are still served after SIGTERM while `/readyz` answers 503, so that a load balancer can
    /// notice. A second signal, or SIGINT, ends the wait.
    pub shutdown_delay_ms: u64,
    /// Bytes of event bodies in memory; an event that does not fit is answered 503. A quarter of it is the share of one
    /// tenant; an event beyond it is answered 429.
    pub bodies_bytes_max: u32,
}

/// How a trusted proxy states the client address of a connection or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAddress {
    /// Not at all: the peer of the connection is the client.
    Peer,
    /// By the PROXY protocol header at the beginning of the connection.
    ProxyProtocol,
    /// In the `X-Forwarded-For` header.
    XForwardedFor,
    /// In the `Forwarded` header (RFC 7239).
    Forwarded,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            tls_certificate: None,
            tls_key: None,
            operator: None,
            tenant: None,
            metrics_open: None,
            connections_max: 4096,
            connections_per_peer_max: 512,
            idle_ms_max: 75_000,
            trusted_proxies: Vec::new(),
            client_address: ClientAddress::Peer,
            head_ms_max: 10_000,
            request_ms_max: 60_000,
            shutdown_delay_ms: 3_000,
            bodies_bytes_max: 64 << 20,
        }
    }
}

/// `[listen.operator]` and `[listen.tenant]`: separate listeners.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Host (an address or a name) and port. Port 0 lets the system choose a free one, which is logged.
    pub address: Address,
    /// PEM file of the certificate chain. With `tls_key`, the listener uses TLS.
    #[serde(default)]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the private key.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// PEM file of certificate authorities and single certificates. If set, a client must present, in addition to its
    /// key, a certificate issued by one of the authorities or exactly one of the single certificates (mTLS).
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

impl Listen {
    /// The main listener's part of `[listen]`, in the same form as the other listeners.
    pub fn main(&self) -> Listener {
        Listener {
            address: self.address.clone(),
            tls_certificate: self.tls_certificate.clone(),
            tls_key: self.tls_key.clone(),
            client_ca: None,
        }
    }

    /// All listeners, each with the name of its configuration table.
    pub fn listeners(&self) -> Vec<(&'static str, Listener)> {
        let more = [("listen.operator", &self.operator), ("listen.tenant", &self.tenant)];
        let more = more.into_iter().filter_map(|(table, listener)| Some((table, listener.clone()?)));
        std::iter::once(("listen", self.main())).chain(more).collect()
    }

    /// The share of `bodies_bytes_max` that one tenant may use.
    pub fn bodies_bytes_per_tenant_max(&self) -> u32 {
        self.bodies_bytes_max / 4
    }

    /// Messages for values that parse but are not usable.
    pub(crate) fn faults(&self) -> Vec<String> {
        let not_zero = [
            ("connections_max", self.connections_max as u64),
            ("connections_per_peer_max", self.connections_per_peer_max as u64),
            ("idle_ms_max", self.idle_ms_max),
        ];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        let mut faults: Vec<_> =
            zeros.map(|(key, _)| format!("`listen.{key}` is 0; it has to be at least 1")).collect();
        if self.client_address != ClientAddress::Peer && self.trusted_proxies.is_empty() {
            faults.push(
                "`listen.client_address` is of trusted proxies: name their networks in `listen.trusted_proxies`"
                    .to_owned(),
            );
        }
        let mut taken: Vec<(&str, Address)> = Vec::new();
        for (table, listener) in self.listeners() {
            if listener.tls_certificate.is_some() != listener.tls_key.is_some() {
                faults.push(format!("`{table}.tls_certificate` and `{table}.tls_key` go together: give both or none"));
            }
            if listener.client_ca.is_some() && listener.tls_key.is_none() {
                faults.push(format!("`{table}.client_ca` needs `{table}.tls_certificate` and `{table}.tls_key`"));
            }
            let address = listener.address;
            if let Some((other, _)) = taken.iter().find(|(_, at)| *at == address && address.port() != 0) {
                faults.push(format!("`{table}.address` is {address}, as `{other}.address` is: give it another"));
            }
            taken.push((table, address));
        }
        faults
    }
}
