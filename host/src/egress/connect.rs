//! From a URL to a connection: resolve, check every address, connect to one that was checked, speak TLS.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::failure::{Failure, find_in};
use super::guard::Guard;
use crate::domain::attempt::ErrorClass;

/// Names being resolved at the same time, each on a thread of the runtime that can take seconds to come back.
/// More wait, within their `connect_ms_max`.
const RESOLVING_MAX: usize = 64;
/// Addresses of a name that are tried at the most.
const ADDRESSES_MAX: usize = 6;

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
struct GuardedTcp {
    guard: Arc<Guard>,
    allow_http: bool,
    resolving: Arc<Semaphore>,
    wait_max: Duration,
}

impl Connector {
    pub(super) fn new(guard: Guard, allow_http: bool, tls: ClientConfig, wait_max: Duration) -> Self {
        let resolving = Arc::new(Semaphore::new(RESOLVING_MAX));
        let tcp = GuardedTcp { guard: Arc::new(guard), allow_http, resolving, wait_max };
        Self { https: HttpsConnector::from((tcp, tls)), wait_max }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failure;
    type Future = Connecting<Self::Response, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut https, wait_max) = (self.https.clone(), self.wait_max);
        Box::pin(async move {
            match timeout(wait_max, https.call(uri)).await {
                Ok(Ok(stream)) => Ok(stream),
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
    async fn open(&self, uri: &Uri) -> Result<TcpStream, Failure> {
        let https = uri.scheme_str() == Some("https");
        if !https && !self.allow_http {
            let detail = "the endpoint is plain http, which `egress.allow_http` does not open";
            return Err(Failure::new(ErrorClass::Forbidden, detail));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        // An address in place of a name is checked like any other. `Url` has already read the odd ways to write
        // one (`0x7f.1`, `2130706433`) into the usual one; a resolver that knows more of them is checked too.
        let addresses = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => self.resolve(host.to_owned(), port).await?,
        };
        let refused = |refusal: super::Refusal| Failure::new(ErrorClass::Forbidden, &refusal.to_string());
        let permitted = self.guard.permitted(&addresses).map_err(refused)?;
        let stream = self.connect(&permitted).await?;
        let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
        let (local, peer) = ends.map_err(|error| Failure::new(ErrorClass::Connect, &error.to_string()))?;
        self.guard.check_connected(local, peer).map_err(refused)?;
        Ok(stream)
    }

    async fn resolve(&self, host: String, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let permit = Arc::clone(&self.resolving).acquire_owned().await.expect("the semaphore is never closed");
        // The permit goes with the thread: an attempt that stops waiting does not make room for another thread.
        let resolved = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)
        });
        let failed = |why: String| Failure::new(ErrorClass::Resolve, &format!("the name does not resolve: {why}"));
        let addresses = resolved.await.map_err(|error| failed(error.to_string()))?;
        let addresses = addresses.map_err(|error| failed(error.to_string()))?;
        if addresses.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addresses) }
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

fn too_slow(wait_max: Duration) -> Failure {
    let detail = format!("no connection (name, TCP, TLS) within {} ms", wait_max.as_millis());
    Failure::new(ErrorClass::Timeout, &detail)
}
