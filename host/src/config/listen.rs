//! `[listen]`, and the listeners of single interfaces.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[listen]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one, which the log tells.
    pub address: SocketAddr,
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
    /// Connections open at once, of each listener.
    pub connections_max: usize,
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
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls_certificate: None,
            tls_key: None,
            operator: None,
            tenant: None,
            metrics_open: None,
            connections_max: 4096,
            head_ms_max: 10_000,
            linger_ms_max: 2_000,
            request_ms_max: 60_000,
            leave_ms: 3_000,
            bodies_bytes_max: 64 << 20,
            bodies_bytes_per_tenant_max: 16 << 20,
            uploads_bytes_max: 96 << 20,
            uploads_bytes_per_tenant_max: 32 << 20,
        }
    }
}

/// `[listen.operator]` and `[listen.tenant]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port; port 0 takes a free one, which the log tells.
    pub address: SocketAddr,
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
            address: self.address,
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

    pub(super) fn check(&self) -> Result<(), String> {
        let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
        for (table, listener) in self.listeners() {
            if listener.tls_certificate.is_some() != listener.tls_key.is_some() {
                return Err(format!(" `{table}.tls_certificate` and `{table}.tls_key` go together: give both or none"));
            }
            if listener.client_ca.is_some() && listener.tls_key.is_none() {
                return Err(format!(" `{table}.client_ca` needs `{table}.tls_certificate` and `{table}.tls_key`"));
            }
            let address = listener.address;
            if let Some((other, _)) = taken.iter().find(|(_, at)| *at == address && address.port() != 0) {
                return Err(format!(" `{table}.address` is {address}, as `{other}.address` is: give it another"));
            }
            taken.push((table, address));
        }
        Ok(())
    }
}
