//! `[listen]`, and the listeners of single interfaces.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Address;

/// `[listen]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Host (an address or a name) and port; port 0 takes a free one, which the log tells.
    pub address: Address,
    /// PEM file with the certificate chain; with `tls_key`, the listener speaks TLS.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the private key.
    pub tls_key: Option<PathBuf>,
    /// A listener of its own for the operator's interface, which `listen.address` then no longer answers.
    pub operator: Option<Listener>,
    /// A listener of its own for the tenants' management interface, which `listen.address` then no longer answers.
    pub tenant: Option<Listener>,
    /// Whether `/metrics` is answered without the operator's key; where not set: on a loopback address only.
    pub metrics_open: Option<bool>,
    /// Connections open at once, of each listener. If all are, connections without a request are closed for new ones.
    pub connections_max: usize,
    /// Of them, those of one client: of an IPv4 address, or of an IPv6 network of 64 bits. Further ones are closed at once.
    /// Trusted proxies have no such limit; requests of a client that they name in a header count like connections.
    pub connections_per_peer_max: usize,
    /// Milliseconds after which a connection without a request is closed, whatever else its client sends. More than a
    /// balancer in front keeps its own connections open without one.
    pub idle_ms_max: u64,
    /// Networks of proxies in front of the host that are believed when they say whose request it is, such as
    /// `["10.0.0.0/8"]`.
    pub trusted_proxies: Vec<IpNet>,
    /// How trusted proxies name their clients: `peer` (not at all), `proxy_protocol` (version 1 or 2, at the beginning of
    /// each connection, and required there), `x_forwarded_for` or `forwarded` (RFC 7239), which are headers. The client's
    /// address counts for `connections_per_peer_max` and stands in the audit log.
    pub client_address: ClientAddress,
    /// Milliseconds a client may take to send its request's head, and to finish its TLS handshake.
    pub head_ms_max: u64,
    /// Milliseconds for which what a client still sends is taken and thrown away after the last answer on a connection, so
    /// that a client whose request was refused half-way gets to read why.
    pub linger_ms_max: u64,
    /// Milliseconds a request may take as a whole, its body included.
    pub request_ms_max: u64,
    /// Milliseconds for which the host goes on taking requests after SIGTERM, while `/readyz` answers 503: what a balancer
    /// needs to notice. A second signal, or SIGINT, ends the wait.
    pub leave_ms: u64,
    /// Bytes of events' bodies in memory at once; an event that does not fit is answered 503.
    pub bodies_bytes_max: u32,
    /// Of them, one tenant's; an event beyond is answered 429.
    pub bodies_bytes_per_tenant_max: u32,
    /// Bytes of management requests' bodies in memory at once, of uploads above all; beyond, the answer is 503.
    pub uploads_bytes_max: u32,
    /// Of them, one tenant's; beyond, the answer is 429.
    pub uploads_bytes_per_tenant_max: u32,
    /// Bytes of management responses that are in memory until their clients take them; beyond, the answer is 503.
    pub responses_bytes_max: u32,
    /// Of them, one tenant's; beyond, the answer is 429.
    pub responses_bytes_per_tenant_max: u32,
}

/// How a trusted proxy names the client of a connection or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAddress {
    /// It does not: the other end of the connection counts.
    Peer,
    /// At the beginning of the connection.
    ProxyProtocol,
    /// In `X-Forwarded-For`.
    XForwardedFor,
    /// In `Forwarded`.
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
            linger_ms_max: 2_000,
            request_ms_max: 60_000,
            leave_ms: 3_000,
            bodies_bytes_max: 64 << 20,
            bodies_bytes_per_tenant_max: 16 << 20,
            uploads_bytes_max: 96 << 20,
            uploads_bytes_per_tenant_max: 32 << 20,
            responses_bytes_max: 32 << 20,
            responses_bytes_per_tenant_max: 8 << 20,
        }
    }
}

/// `[listen.operator]` and `[listen.tenant]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Host (an address or a name) and port; port 0 takes a free one, which the log tells.
    pub address: Address,
    /// PEM file with the certificate chain; with `tls_key`, the listener speaks TLS.
    #[serde(default)]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the private key.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// PEM file with certificate authorities: a client has to show a certificate of one of them (mTLS), besides its key.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

impl Listen {
    /// What of `[listen]` says where and how to listen, in the shape of the other listeners.
    pub fn main(&self) -> Listener {
        Listener {
            address: self.address.clone(),
            tls_certificate: self.tls_certificate.clone(),
            tls_key: self.tls_key.clone(),
            client_ca: None,
        }
    }

    /// All listeners, each with the name of its table.
    pub fn listeners(&self) -> Vec<(&'static str, Listener)> {
        let more = [("listen.operator", &self.operator), ("listen.tenant", &self.tenant)];
        let more = more.into_iter().filter_map(|(table, listener)| Some((table, listener.clone()?)));
        std::iter::once(("listen", self.main())).chain(more).collect()
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
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
