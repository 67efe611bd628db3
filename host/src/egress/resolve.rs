//! From names to addresses.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Resolves names. The machine's resolver, but for tests. Asked once for each connection: the addresses that it gives
/// are checked, and connections go to those and to no others, so what it would say a moment later has no effect.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of a host, with that port, best first (RFC 6724).
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The machine's resolver: hosts file, DNS and whatever else it is set up to ask. Takes a thread of the runtime for as long
/// as it likes, which can be many seconds: see `lookups` for how many there are at once.
#[derive(Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        let resolved =
            tokio::task::spawn_blocking(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect));
        async move { resolved.await.unwrap_or_else(|error| Err(io::Error::other(error))) }.boxed()
    }
}
