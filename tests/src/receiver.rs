//! A receiver: a real HTTP server, with or without TLS, that records requests and sends scripted answers.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::wait::until;

/// One received request.
#[derive(Debug, Clone)]
pub struct Received {
    /// When its body was complete.
    pub at: Instant,
    /// The path it was sent to.
    pub path: String,
    /// The path with the query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Received {
    /// A header's value.
    ///
    /// # Panics
    /// If it is missing.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_else(|| panic!("the delivery has no header `{name}`: {:?}", self.headers))
    }

    /// `webhook-id`, which every delivery carries.
    #[track_caller]
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{} is not JSON: {error}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A function that derives a text from the request.
pub type OfRequest = fn(&Received) -> String;

/// The answer to one request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    echoes: Vec<(&'static str, OfRequest)>,
    delay: Duration,
    hangs: bool,
    body: OfRequest,
}

impl Reply {
    /// Answers with this status immediately.
    pub fn status(status: u16) -> Self {
        let (headers, echoes) = (Vec::new(), Vec::new());
        Self { status, headers, echoes, delay: Duration::ZERO, hangs: false, body: |_| String::new() }
    }

    /// Answers only after [`Receiver::release`].
    pub fn hang() -> Self {
        Self { hangs: true, ..Self::status(204) }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Adds a header derived from the request.
    pub fn echo(mut self, name: &'static str, value: OfRequest) -> Self {
        self.echoes.push((name, value));
        self
    }

    /// Sets a body derived from the request.
    pub fn body(mut self, body: OfRequest) -> Self {
        self.body = body;
        self
    }

    /// Delays the answer.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A receiver; stops listening on drop.
pub struct Receiver {
    /// Its address.
    pub address: SocketAddr,
    book: Arc<Book>,
    serving: JoinHandle<()>,
}

struct Book {
    received: Mutex<Vec<Received>>,
    script: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
    released: watch::Sender<bool>,
    tls: Mutex<Option<Arc<ServerConfig>>>,
    connections: AtomicUsize,
}

impl Receiver {
    /// A receiver that answers 204.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// A receiver at a given address.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port to listen on");
        let book = Arc::new(Book {
            received: Mutex::default(),
            script: Mutex::default(),
            otherwise: Mutex::new(Reply::status(204)),
            released: watch::Sender::new(false),
            tls: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let address = listener.local_addr().expect("a bound address");
        let app = Router::new().fallback(take).with_state(book.clone());
        let open = Arc::clone(&book);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.connections.fetch_add(1, Ordering::SeqCst);
                let tls = lock(&open.tls).clone();
                connections.spawn(serve(stream, tls, app.clone()));
            }
        });
        Self { address, book, serving }
    }

    /// A receiver with TLS that answers 204.
    pub async fn start_tls(tls: Arc<ServerConfig>) -> Self {
        let receiver = Self::start().await;
        receiver.present(tls);
        receiver
    }

    /// Uses this TLS configuration for new connections.
    pub fn present(&self, tls: Arc<ServerConfig>) {
        *lock(&self.book.tls) = Some(tls);
    }

    /// Number of connections opened so far.
    pub fn connections(&self) -> usize {
        self.book.connections.load(Ordering::SeqCst)
    }

    /// An address on which nothing listens.
    pub async fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
        listener.local_addr().expect("a bound address")
    }

    /// Sets the answers to the next requests, one reply each; later ones are answered as set by
    /// [`Receiver::otherwise`].
    pub fn answer(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.book.script).extend(replies);
    }

    /// Sets the default answer, which is initially 204.
    pub fn otherwise(&self, reply: Reply) {
        *lock(&self.book.otherwise) = reply;
    }

    /// Answers all hanging requests, and later ones immediately.
    pub fn release(&self) {
        self.book.released.send_replace(true);
    }

    /// All requests so far.
    pub fn all(&self) -> Vec<Received> {
        lock(&self.book.received).clone()
    }

    /// Number of requests so far.
    pub fn count(&self) -> usize {
        lock(&self.book.received).len()
    }

    /// The distinct `webhook-id`s so far.
    pub fn ids(&self) -> BTreeSet<String> {
        self.all().iter().map(|received| received.id().to_owned()).collect()
    }

    /// Waits until at least `count` requests have arrived, and returns all.
    pub async fn received(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} requests arrive at the receiver"), async || {
            let all = self.all();
            (all.len() >= count).then_some(all)
        })
        .await
    }

    /// Its URL, with its address.
    pub fn url(&self) -> String {
        let scheme = if lock(&self.book.tls).is_some() { "https" } else { "http" };
        format!("{scheme}://{}/in", self.address)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, app: Router) {
    let server = auto::Builder::new(TokioExecutor::new());
    let app = TowerToHyperService::new(app);
    // Clients may disconnect or reject the certificate.
    match tls {
        None => drop(server.serve_connection(TokioIo::new(stream), app).await),
        Some(tls) => match TlsAcceptor::from(tls).accept(stream).into_fallible().await {
            Ok(stream) => drop(server.serve_connection(TokioIo::new(stream), app).await),
            Err((_, mut refused)) => {
                // Closing with unread bytes would reset the connection, and the alert with the reason would be lost.
                while refused.read_buf(&mut Vec::new()).await.is_ok_and(|read| read > 0) {}
            }
        },
    }
}

async fn take(State(book): State<Arc<Book>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // The body breaks off because the sender was killed: the request has not arrived.
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let path = head.uri.path().to_owned();
    let received = Received { at: Instant::now(), path, target, headers: head.headers, body: body.to_bytes() };
    lock(&book.received).push(received.clone());
    let reply = lock(&book.script).pop_front();
    let reply = reply.unwrap_or_else(|| lock(&book.otherwise).clone());
    if reply.hangs {
        let mut released = book.released.subscribe();
        let _sender_lives_in_the_book = released.wait_for(|released| *released).await.map(|_| ());
    }
    tokio::time::sleep(reply.delay).await;
    let status = StatusCode::from_u16(reply.status).expect("a status");
    let body = (reply.body)(&received);
    let mut response = if body.is_empty() { status.into_response() } else { (status, body).into_response() };
    let echoes = reply.echoes.into_iter().map(|(name, value)| (name, value(&received)));
    for (name, value) in reply.headers.into_iter().chain(echoes) {
        response.headers_mut().insert(name, value.parse().expect("a header's value"));
    }
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
