//! Opens connections: resolves the host, checks every address, connects to a checked address and performs the TLS
//! handshake. If the operator has configured a proxy, the connection goes through a tunnel of the proxy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use setgate_domain::attempt::ErrorClass;
use setgate_domain::endpoint::Origin;
use setgate_domain::id::TenantId;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::failure::{Failure, FailureKind, HostShortage, find_cause, host_shortage};
use super::guard::{BlockedAddress, Guard};
use super::lookups::{Lookups, QueueTime, timeout_with_extension};
use super::tolerant_http1::TolerantHttp1;
use super::tunnel;
use crate::proxy::{Proxy, ProxyBypass};

/// Limit for the addresses of a name that are tried.
const ADDRESSES_MAX: usize = 6;
/// With a proxy, local name resolution gets this fraction of the connect timeout. In a network that resolves only
/// internal names it may never answer.
const PROXIED_RESOLVE_FRACTION: u32 = 4;

type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Opens connections for the pool, each within `connect_ms_max` including name resolution and TLS.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    https: HttpsConnector<TenantTcp>,
    connect_timeout: Duration,
    queue_time: QueueTime,
}

/// The TCP connector of one tenant. Name lookups are scheduled between tenants.
#[derive(Debug, Clone)]
struct TenantTcp {
    tcp: GuardedTcp,
    tenant: TenantId,
    queue_time: QueueTime,
}

/// Opens TCP connections to addresses that the guard permits. The host name from the URL is retained, so that TLS
/// verifies this name.
#[derive(Debug, Clone)]
pub(super) struct GuardedTcp {
    pub(super) guard: Arc<Guard>,
    pub(super) allow_http: bool,
    pub(super) lookups: Arc<Lookups>,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) proxy_bypass: Arc<[ProxyBypass]>,
    pub(super) connect_timeout: Duration,
}

impl Connector {
    pub(super) fn new(tcp: GuardedTcp, tls: ClientConfig, tenant: TenantId, queue_time: QueueTime) -> Self {
        let connect_timeout = tcp.connect_timeout;
        let https = HttpsConnector::from((TenantTcp { tcp, tenant, queue_time: queue_time.clone() }, tls));
        Self { https, connect_timeout, queue_time }
    }
}

impl Service<Uri> for Connector {
    type Response = TolerantHttp1<MaybeHttpsStream<TokioIo<TcpStream>>>;
    type Error = Failure;
    type Future = Connecting<Self::Response, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut https, connect_timeout, queue_time) =
            (self.https.clone(), self.connect_timeout, self.queue_time.clone());
        Box::pin(async move {
            let before = queue_time.total();
            let uncharged = || queue_time.total().saturating_sub(before);
            match timeout_with_extension(Instant::now(), connect_timeout, uncharged, https.call(uri)).await {
                Some(Ok(stream)) => Ok(TolerantHttp1::new(stream)),
                // Other errors than `GuardedTcp`'s own come from the TLS layer above it.
                Some(Err(error)) => {
                    Err(find_cause::<Failure>(&*error).cloned().unwrap_or_else(|| Failure::tls(&*error)))
                }
                None => Err(connect_timed_out(connect_timeout)),
            }
        })
    }
}

impl Service<Uri> for TenantTcp {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<Self::Response, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tcp = self.clone();
        Box::pin(async move { tcp.open(&uri).await.map(TokioIo::new) })
    }
}

const PLAIN_HTTP_BLOCKED: &str = "the endpoint is plain http, which is blocked unless `egress.allow_http` is set";

impl GuardedTcp {
    /// The reason why every attempt at an endpoint will be refused, if that is certain without resolving its name.
    pub(super) fn blocked_reason(&self, origin: &Origin) -> Option<String> {
        if !origin.https && !self.allow_http {
            return Some(PLAIN_HTTP_BLOCKED.to_owned());
        }
        self.guard.check_host(&origin.host, origin.port).err().map(|refusal| refusal.to_string())
    }

    /// The proxy for a host. `None` if the host is connected directly.
    pub(super) fn proxy_to(&self, host: &str) -> Option<&Proxy> {
        self.proxy.as_deref().filter(|_| !self.proxy_bypass.iter().any(|bypass| bypass.matches(host)))
    }

    // Tries the addresses in the resolver's order (RFC 6724). Each gets an equal share of the remaining time, so that
    // an unresponsive address leaves time for the next.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
        let end = Instant::now() + self.connect_timeout;
        let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
        let mut last = connect_timed_out(self.connect_timeout);
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / left;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Requests are written completely, so Nagle's algorithm would only add latency. A failure to
                    // disable it is harmless.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = connect_failure(&error, address),
                Err(_) => last = connect_timed_out(self.connect_timeout),
            }
        }
        Err(last)
    }
}

impl TenantTcp {
    async fn open(&self, uri: &Uri) -> Result<TcpStream, Failure> {
        let https = uri.scheme_str() == Some("https");
        if !https && !self.tcp.allow_http {
            return Err(Failure::new(ErrorClass::Forbidden, PLAIN_HTTP_BLOCKED));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        match self.tcp.proxy_to(host) {
            None => self.open_directly(host, port).await,
            Some(proxy) => {
                self.check_proxied(host, port).await?;
                self.open_through(proxy, host, port).await
            }
        }
    }

    async fn open_directly(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let addresses = match parse_literal(host, port) {
            Some(address) => vec![address],
            None => self.resolve(host, port).await?,
        };
        let permitted = self.tcp.guard.permitted(&addresses).map_err(refused)?;
        let stream = self.tcp.connect(&permitted).await?;
        let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
        let (local, peer) = ends.map_err(|error| Failure::new(ErrorClass::Connect, &error.to_string()))?;
        self.tcp.guard.check_connected(local, peer).map_err(refused)?;
        Ok(stream)
    }

    /// Checks the addresses to which the proxy will connect, as far as they are known here. The proxy resolves the name
    /// itself and may choose any address, so all of them must be permitted. A name that does not resolve here is left
    /// to the proxy.
    async fn check_proxied(&self, host: &str, port: u16) -> Result<(), Failure> {
        let addresses = match parse_literal(host, port) {
            Some(address) => vec![address],
            None => {
                let resolving = self.resolve(host, port);
                match timeout(self.tcp.connect_timeout / PROXIED_RESOLVE_FRACTION, resolving).await {
                    Ok(Ok(addresses)) => addresses,
                    Ok(Err(_)) | Err(_) => Vec::new(),
                }
            }
        };
        addresses.into_iter().try_for_each(|address| self.tcp.guard.check(address)).map_err(refused)
    }

    // The guard does not apply to the address of the proxy, because the operator has configured it.
    async fn open_through(&self, proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let connecting = async {
            let addresses = match parse_literal(&proxy.host, proxy.port) {
                Some(address) => vec![address],
                None => self.tcp.lookups.resolve_for_operator(&proxy.host, proxy.port).await?,
            };
            self.tcp.connect(&addresses).await
        };
        let stream = connecting.await.map_err(|failure| match failure.kind() {
            FailureKind::HostShortage(_) => failure,
            _ => tunnel::proxy_failure(&format!("it cannot be reached: {failure}")),
        })?;
        tunnel::open(stream, host, port, proxy.credentials.as_ref()).await
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        self.tcp.lookups.resolve_for_tenant(&self.tenant, &self.queue_time, host, port).await
    }
}

/// Parses a literal address, which is checked like any other. `Url` has already normalised unusual notations (`0x7f.1`,
/// `2130706433`). If the resolver supports further notations, its results are checked as well.
fn parse_literal(host: &str, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

fn connect_failure(error: &io::Error, address: &SocketAddr) -> Failure {
    let failure = Failure::new(ErrorClass::Connect, &error.to_string());
    match host_shortage(error) {
        // This error is also reported for any IPv6 address if the machine has no IPv6 address, which is not a temporary
        // shortage.
        Some(HostShortage::Ports) if address.is_ipv6() => failure,
        Some(shortage) => failure.with_host_shortage(shortage),
        None => failure,
    }
}

fn refused(refusal: BlockedAddress) -> Failure {
    Failure::new(ErrorClass::Forbidden, &refusal.to_string())
}

fn connect_timed_out(connect_timeout: Duration) -> Failure {
    let detail = format!("no connection (name, TCP, TLS) within {} ms", connect_timeout.as_millis());
    Failure::new(ErrorClass::Timeout, &detail)
}
