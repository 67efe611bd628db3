//! The life of a connection: client address, TLS, requests, and closing.

mod client;
mod peers;
mod proxy;
mod sending;
mod stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse as _;
use http::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use setgate_base::telemetry::metric;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::http::caller::Remote;
use crate::http::listener::settings::Listen;
use crate::http::problem::{Code, Problem};
use client::Proxies;

pub(in crate::http) use peers::Peer;
use peers::{Connection, Connections};
use sending::{Outgoing, Streams};
use stream::{Endless, Waits, opening};

/// Maximum number of concurrent streams of an HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Flow control window (bytes) of an HTTP/2 connection: unread bodies on all its streams.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Flow control window (bytes) of a single stream.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes of an answer buffered per HTTP/2 stream while the client's window is full.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Maximum size (bytes) of a request's header list on HTTP/2, counted as in RFC 9113 section 6.5.2.
const HEADER_LIST_BYTES_MAX: u32 = 32 << 10;
/// Number of pending streams reset by the client after which an HTTP/2 connection is closed.
const RESET_STREAMS_MAX: usize = 20;
/// Maximum size (bytes) of a request's head on HTTP/1; also the size of read and write buffers.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;

/// Interval of keep-alive pings on an HTTP/2 connection.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Timeout of a keep-alive ping.
const PING_WAIT_MAX: Duration = Duration::from_secs(10);
/// Time limit for closing a connection.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// How long to keep reading and discarding a request body after an early response, so that the client can read the
/// error.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// State shared by all connections of a listener.
#[derive(Clone)]
pub(super) struct ConnectionContext {
    app: axum::Router,
    connections: Connections,
    proxies: Arc<Proxies>,
    waits: Waits,
    stop: CancellationToken,
}

/// Extension of a response that does not end by itself: it ends when the client closes its side of the connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct UntilClientEnds;

impl ConnectionContext {
    pub(super) fn new(app: axum::Router, settings: &Listen, stop: CancellationToken) -> Self {
        let limits = peers::Limits {
            per_peer_max: settings.connections_per_peer_max,
            idle: Duration::from_millis(settings.idle_ms_max),
        };
        Self {
            app,
            connections: Connections::new(limits),
            proxies: Arc::new(Proxies::new(settings)),
            waits: Waits {
                head: Duration::from_millis(settings.head_ms_max),
                linger: LINGER_MAX,
                stall: sending::STALL_MAX,
            },
            stop,
        }
    }

    /// Closes idle connections, because all slots are taken and a new connection is waiting.
    pub(super) fn free_slots(&self) {
        self.connections.close_idle();
    }

    /// Serves a connection until it ends.
    pub(super) async fn serve(self, stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>) {
        let other_end = Remote::from(address);
        let peer = (!self.proxies.is_trusted(other_end.0)).then(|| Peer::from(other_end.0));
        let Ok(connection) = self.connections.admit(peer) else { return refused(other_end) };
        let (connection, endless) = (Arc::new(connection), Endless::default());
        // Before the first byte of a request, the connection can be dropped at any time.
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = connection.to_be_closed() => {}
            opened = Box::pin(self.open(stream, other_end, tls, &connection, &endless)) => match opened {
                None => {}
                Some((remote, Opened::Plain(stream))) => self.speak(stream, remote, connection.clone(), endless).await,
                Some((remote, Opened::Tls(stream))) => self.speak(*stream, remote, connection.clone(), endless).await,
            }
        }
    }

    /// Handles the connection up to the first bytes of a request.
    async fn open(
        &self,
        mut stream: TcpStream,
        other_end: Remote,
        tls: Option<TlsAcceptor>,
        connection: &Connection,
        endless: &Endless,
    ) -> Option<(Remote, Opened)> {
        let mut remote = other_end;
        if self.proxies.announces(other_end.0) {
            let Ok(Some(header)) = tokio::time::timeout(self.waits.head, proxy::read(&mut stream)).await else {
                debug!(proxy = %other_end.0, "connection of a trusted proxy has no PROXY protocol header");
                return None;
            };
            if let Some(client) = header.client {
                remote = Remote(client.to_canonical());
                if connection.set_client(Peer::from(remote.0)).is_err() {
                    refused(remote);
                    return None;
                }
            }
        }
        let opened = match tls {
            None => Opened::Plain(opening(stream, self.waits, endless.clone()).await?),
            Some(tls) => {
                let stream = handshake(&tls, stream, self.waits.head).await?;
                Opened::Tls(Box::new(opening(stream, self.waits, endless.clone()).await?))
            }
        };
        Some((remote, opened))
    }

    /// Serves requests.
    async fn speak<S>(&self, stream: S, remote: Remote, connection: Arc<Connection>, endless: Endless)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = TowerToHyperService::new(self.app.clone());
        let (connections, proxies, of_requests) = (self.connections.clone(), self.proxies.clone(), connection.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let open = of_requests.request();
            endless.set(false);
            let endless = endless.clone();
            let named = proxies.client_of(remote.0, request.headers()).map(Remote);
            let proxied = named.map(|client| connections.proxied(Peer::from(client.0))).transpose();
            request.extensions_mut().insert(named.unwrap_or(remote));
            let answer = proxied.map(|proxied| (routes.call(request), proxied));
            async move {
                let (response, proxied) = match answer {
                    Ok((answer, proxied)) => (answer.await.unwrap_or_else(|never: Infallible| match never {}), proxied),
                    Err(_) => (too_many(), None),
                };
                endless.set(response.extensions().get::<UntilClientEnds>().is_some());
                Ok::<_, Infallible>(response.map(|body| Outgoing::new(body, open, proxied)))
            }
        });
        let builder = builder(self.waits);
        let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let (mut stopping, mut closing) = (false, false);
        let mut to_be_closed = pin!(connection.to_be_closed());
        let mut gone = pin!(tokio::time::sleep(Duration::MAX));
        loop {
            tokio::select! {
                ended = &mut served => {
                    if let Err(error) = ended {
                        debug!(%error, "connection failed");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    served.as_mut().graceful_shutdown();
                }
                () = &mut to_be_closed, if !closing => {
                    closing = true;
                    served.as_mut().graceful_shutdown();
                    gone.as_mut().reset(tokio::time::Instant::now() + CLOSE_MAX);
                }
                () = &mut gone, if closing => return,
            }
        }
    }
}

/// A connection that has sent its first bytes.
enum Opened {
    Plain(stream::Stream<TcpStream>),
    Tls(Box<stream::Stream<tokio_rustls::server::TlsStream<TcpStream>>>),
}

fn builder(waits: Waits) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams { stall: waits.stall });
    // [`stream::Stream`] handles half-closed connections.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(waits.head)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(Some(PING_EVERY))
        .keep_alive_timeout(PING_WAIT_MAX);
    builder
}

/// Uses the limit of connections: requests of a client behind a proxy share the proxy's connections.
fn too_many() -> axum::response::Response {
    let detail = "this client has reached its limit of open requests (`listen.connections_per_peer_max`): retry after one has ended";
    Problem::new(Code::Busy, detail).into_response()
}

/// Counts a connection beyond its client's limit. It is closed without an answer, because HTTP is not possible before
/// the TLS handshake.
fn refused(remote: Remote) {
    counter!(metric::CONNECTIONS_REFUSED).increment(1);
    debug!(client = %remote.0, "connection closed: its client has reached `listen.connections_per_peer_max`");
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
    limit: Duration,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!("TLS handshake timed out");
            None
        }
    }
}

#[cfg(test)]
mod leaving;
#[cfg(test)]
mod tests;
