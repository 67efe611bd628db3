//! Name resolution.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// A name resolver: the system's, or a fake in tests. It is called once per connection. The returned addresses are
/// checked, and only these are connected to, so a different answer to a later query has no effect.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of a host with that port, best first (RFC 6724).
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system resolver, which uses the hosts file, DNS and any other configured source. It blocks a thread of the
/// runtime for as long as a lookup takes, which can be many seconds. The number of concurrent lookups is limited in
/// `lookups`.
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
