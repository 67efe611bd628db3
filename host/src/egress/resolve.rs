//! From names to addresses.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

/// Names being resolved at the same time, each on a thread of the runtime that can take seconds to come back.
/// More wait, within their `connect_ms_max`.
const RESOLVING_MAX: usize = 64;

/// Resolves names. The machine's resolver, but for tests. Asked once for each connection: the addresses that it gives
/// are checked, and connections go to those and to no others, so what it would say a moment later has no effect.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of a host, with that port, best first (RFC 6724).
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The machine's resolver: hosts file, DNS and whatever else it is set up to ask.
#[derive(Debug)]
pub struct SystemResolver {
    resolving: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { resolving: Arc::new(Semaphore::new(RESOLVING_MAX)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (resolving, host) = (Arc::clone(&self.resolving), host.to_owned());
        async move {
            let permit = resolving.acquire_owned().await.expect("the semaphore is never closed");
            // The permit goes with the thread: an attempt that stops waiting does not make room for another thread.
            let resolved = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
            });
            resolved.await.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
        .boxed()
    }
}
