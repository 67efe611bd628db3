//! From a URL to a connection: resolve, check every address, connect to one that was checked, speak TLS. Where the
//! operator has set a proxy, the connection goes there and a tunnel leads on.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::failure::{Failure, find_in};
use super::guard::{Guard, Refusal};
use super::lenient::Lenient;
use super::resolve::Resolve;
use super::tunnel;
use crate::config::{Bypass, Proxy};
use crate::domain::attempt::ErrorClass;

/// Addresses of a name that are tried at the most.
const ADDRESSES_MAX: usize = 6;
/// With a proxy, our own resolver has this part of the time for a connection: in a site that resolves nothing but
/// its own names it may never answer.
const PROXIED_RESOLVE_PART: u32 = 4;

type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Makes connections for the pool, each within `connect_ms_max` from name to TLS.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    https: HttpsConnector<GuardedTcp>,
    wait_max: Duration,
}

/// Makes TCP connections to addresses the guard has passed. Knows the host as the URL has it, so that TLS still
/// asks for that name.
#[derive(Debug, Clone)]
pub(super) struct GuardedTcp {
    pub(super) guard: Arc<Guard>,
    pub(super) allow_http: bool,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) proxy_bypass: Arc<[Bypass]>,
    pub(super) wait_max: Duration,
}

impl Connector {
    pub(super) fn new(tcp: GuardedTcp, tls: ClientConfig) -> Self {
        let wait_max = tcp.wait_max;
        Self { https: HttpsConnector::from((tcp, tls)), wait_max }
    }
}

impl Service<Uri> for Connector {
    type Response = Lenient<MaybeHttpsStream<TokioIo<TcpStream>>>;
    type Error = Failure;
    type Future = Connecting<Self::Response, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut https, wait_max) = (self.https.clone(), self.wait_max);
        Box::pin(async move {
            match timeout(wait_max, https.call(uri)).await {
                Ok(Ok(stream)) => Ok(Lenient::new(stream)),
                // What GuardedTcp did not say itself came from the TLS above it.
                Ok(Err(error)) => Err(find_in::<Failure>(&*error).cloned().unwrap_or_else(|| Failure::tls(&*error))),
                Err(_) => Err(too_slow(wait_max)),
            }
        })
    }
}

impl Service<Uri> for GuardedTcp {
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

impl GuardedTcp {
    /// The proxy that leads to a host, as a URL has it; none: it is connected to directly.
    pub(super) fn proxy_to(&self, host: &str) -> Option<&Proxy> {
        self.proxy.as_deref().filter(|_| !self.proxy_bypass.iter().any(|bypass| bypass.holds(host)))
    }

    async fn open(&self, uri: &Uri) -> Result<TcpStream, Failure> {
        let https = uri.scheme_str() == Some("https");
        if !https && !self.allow_http {
            let detail = "the endpoint is plain http, which `egress.allow_http` does not open";
            return Err(Failure::new(ErrorClass::Forbidden, detail));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        match self.proxy_to(host) {
            None => self.open_directly(host, port).await,
            Some(proxy) => {
                self.check_proxied(host, port).await?;
                self.open_through(proxy, host, port).await
            }
        }
    }

    async fn open_directly(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let addresses = match literal(host, port) {
            Some(address) => vec![address],
            None => self.resolve(host, port).await?,
        };
        let permitted = self.guard.permitted(&addresses).map_err(refused)?;
        let stream = self.connect(&permitted).await?;
        let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
        let (local, peer) = ends.map_err(|error| Failure::new(ErrorClass::Connect, &error.to_string()))?;
        self.guard.check_connected(local, peer).map_err(refused)?;
        Ok(stream)
    }

    /// What can be known here of where the proxy will connect to. It resolves the name itself and takes whichever
    /// address it likes, so all of them have to be permitted; a name that does not resolve here is left to it.
    async fn check_proxied(&self, host: &str, port: u16) -> Result<(), Failure> {
        let addresses = match literal(host, port) {
            Some(address) => vec![address],
            None => {
                let resolving = self.resolver.resolve(host, port);
                match timeout(self.wait_max / PROXIED_RESOLVE_PART, resolving).await {
                    Ok(Ok(addresses)) => addresses,
                    Ok(Err(_)) | Err(_) => Vec::new(),
                }
            }
        };
        addresses.into_iter().try_for_each(|address| self.guard.check(address)).map_err(refused)
    }

    // The operator has named the proxy: the guard is not asked about its address.
    async fn open_through(&self, proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let way = async {
            let addresses = match literal(&proxy.host, proxy.port) {
                Some(address) => vec![address],
                None => self.resolve(&proxy.host, proxy.port).await?,
            };
            self.connect(&addresses).await
        };
        let stream = way.await.map_err(|failure| tunnel::said(&format!("it cannot be reached: {failure}")))?;
        tunnel::open(stream, host, port, proxy.credentials.as_ref()).await
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let failed = |why: &str| Failure::new(ErrorClass::Resolve, &format!("the name does not resolve: {why}"));
        let addresses = self.resolver.resolve(host, port).await.map_err(|error| failed(&error.to_string()))?;
        if addresses.is_empty() { Err(failed("it has no address")) } else { Ok(addresses) }
    }

    // One address after the other, in the resolver's order (RFC 6724), each with its even share of the time left:
    // one that never answers leaves time for the next.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
        let end = Instant::now() + self.wait_max;
        let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
        let mut last = too_slow(self.wait_max);
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / left;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Requests are written whole; waiting to fill a packet only delays them. Refusing to is no harm.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Failure::new(ErrorClass::Connect, &error.to_string()),
                Err(_) => last = too_slow(self.wait_max),
            }
        }
        Err(last)
    }
}

/// An address in place of a name, which is checked like any other. `Url` has already read the odd ways to write one
/// (`0x7f.1`, `2130706433`) into the usual one; what a resolver that knows more of them makes of a name is checked too.
fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

fn refused(refusal: Refusal) -> Failure {
    Failure::new(ErrorClass::Forbidden, &refusal.to_string())
}

fn too_slow(wait_max: Duration) -> Failure {
    let detail = format!("no connection (name, TCP, TLS) within {} ms", wait_max.as_millis());
    Failure::new(ErrorClass::Timeout, &detail)
}
