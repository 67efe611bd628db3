//! A listener: accepts connections, speaks TLS where it is configured, and on shutdown lets requests finish.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Site;
use super::caller::Remote;
use super::interface::{self, Interface};
use super::router::router;
use super::stream::opening;
use super::tls::{self, Tls};
use crate::config;

/// Milliseconds that requests in progress have to finish when the host stops.
const FINISH_MS_MAX: u64 = 10_000;
/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 128;

/// How often an HTTP/2 connection is asked whether its client is still there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long the answer to that may take.
const PING_WAIT_MAX: Duration = Duration::from_secs(10);
/// Why a listener could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another with `{table}.address`")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The table that it stands in.
        table: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// Certificate, key or client authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// A bound listener, not yet accepting.
pub struct Server {
    listener: TcpListener,
    /// The table that configures it.
    table: &'static str,
    tls: Option<Tls>,
    serves: Vec<Interface>,
    connections_max: usize,
    head_ms_max: u64,
    linger_ms_max: u64,
}

impl Server {
    /// Binds every listener that is configured, the main one first, and reads their certificates.
    pub async fn bind_all(settings: &config::Listen) -> Result<Vec<Self>, Error> {
        let mut servers = Vec::new();
        for (table, listener) in settings.listeners() {
            let tls = tls::read(&listener)?.map(Tls::new);
            let address = listener.address;
            let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, table, source })?;
            let serves = interface::served(settings, table);
            let config::Listen { connections_max, head_ms_max, linger_ms_max, .. } = *settings;
            servers.push(Self { listener, table, tls, serves, connections_max, head_ms_max, linger_ms_max });
        }
        Ok(servers)
    }

    /// The address it is bound to: with the port taken, where port 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The table that configures it, such as `listen.operator`.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Whether it answers the routes of that interface.
    pub fn serves(&self, interface: Interface) -> bool {
        self.serves.contains(&interface)
    }

    /// How it speaks TLS, where it does.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Accepts until `stop`, then lets requests in progress finish.
    pub async fn run(self, site: Site, stop: CancellationToken) {
        let app = router(site, self.serves.clone());
        self.serve(app, stop).await;
    }

    async fn serve(self, app: axum::Router, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(self.connections_max));
        let head_limit = Duration::from_millis(self.head_ms_max);
        let linger = Duration::from_millis(self.linger_ms_max);
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
            };
            let (stream, remote) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => (stream, Remote::from(address)),
                    Err(error) => {
                        // Out of file descriptors, most likely: accepting again at once would spin.
                        warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            // Of one connection all requests come from the same place.
            let routes = TowerToHyperService::new(app.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(remote);
                routes.call(request)
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(head_limit);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .keep_alive_interval(Some(PING_EVERY))
                .keep_alive_timeout(PING_WAIT_MAX);
            let watcher = graceful.watcher();
            let tls = self.tls.as_ref().map(Tls::acceptor);
            let stop = stop.clone();
            tokio::spawn(async move {
                let _slot = slot;
                let served = match tls {
                    None => {
                        let opened = tokio::select! {
                            () = stop.cancelled() => None,
                            opened = opening(stream, head_limit, linger) => opened,
                        };
                        let Some(stream) = opened else { return };
                        watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
                    }
                    Some(tls) => {
                        let opened =
                            async { opening(handshake(&tls, stream, head_limit).await?, head_limit, linger).await };
                        let opened = tokio::select! {
                            () = stop.cancelled() => None,
                            opened = Box::pin(opened) => opened,
                        };
                        let Some(stream) = opened else { return };
                        watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
                    }
                };
                if let Err(error) = served {
                    debug!(%error, "a connection ended badly");
                }
            });
        }
        drop(self.listener);
        let limit = Duration::from_millis(FINISH_MS_MAX);
        if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
            warn!(limit_ms = FINISH_MS_MAX, "some requests did not finish in time");
        }
    }
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
    limit: Duration,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            debug!("a TLS handshake took too long");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn start(head_ms_max: u64) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = config::Listen { address, connections_max: 1, head_ms_max, ..config::Listen::default() };
        let server = Server::bind_all(&settings).await.unwrap().remove(0);
        let address = server.address().unwrap();
        let app = axum::Router::new().route("/", axum::routing::get(async || "hello"));
        tokio::spawn(server.serve(app, CancellationToken::new()));
        address
    }

    async fn answer(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_connection_without_a_request_gives_its_slot_back() {
        let address = start(200).await;
        // Silence, and what could still become either protocol.
        for begin in [b"".as_slice(), b"P", b"PRI * HTTP/2.0\r\n"] {
            let mut idle = TcpStream::connect(address).await.unwrap();
            idle.write_all(begin).await.unwrap();
            let ended = tokio::time::timeout(Duration::from_secs(10), idle.read(&mut [0; 8])).await;
            // What was sent and not read makes it a reset rather than an end.
            assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{begin:?}: {ended:?}");
            let text = tokio::time::timeout(Duration::from_secs(10), answer(address)).await.expect("the slot is free");
            assert!(text.ends_with("hello"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_request_in_pieces_is_answered() {
        let address = start(10_000).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in ["P", "UT / HTTP/1.1\r\nhost: h\r\nconnec", "tion: close\r\n\r\n"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 405"), "{text}");
    }

    #[tokio::test]
    async fn a_client_that_is_refused_half_way_reads_why() {
        let address = start(10_000).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        // No route takes a PUT, so nobody reads the body: the answer is there long before its last byte was sent.
        stream.write_all(b"PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 8000000\r\n\r\n").await.unwrap();
        for _ in 0..80 {
            stream.write_all(&[b'x'; 100_000]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 405"), "{text}");
    }
}
