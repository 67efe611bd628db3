//! A receiver: a real HTTP server, with TLS or without, that writes down what arrives and answers as a story wants.

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

/// One request as it arrived.
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
    /// Where it is not there.
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

/// A text made of the request.
pub type OfRequest = fn(&Received) -> String;

/// How a receiver answers one request.
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
    /// This status, at once.
    pub fn status(status: u16) -> Self {
        let (headers, echoes) = (Vec::new(), Vec::new());
        Self { status, headers, echoes, delay: Duration::ZERO, hangs: false, body: |_| String::new() }
    }

    /// No answer until [`Receiver::release`].
    pub fn hang() -> Self {
        Self { hangs: true, ..Self::status(204) }
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With a header made of the request.
    pub fn echo(mut self, name: &'static str, value: OfRequest) -> Self {
        self.echoes.push((name, value));
        self
    }

    /// With a body made of the request.
    pub fn body(mut self, body: OfRequest) -> Self {
        self.body = body;
        self
    }

    /// After a while.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A receiver; stops listening when dropped.
pub struct Receiver {
    /// Where it listens.
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

    /// The same at an address.
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

    /// A receiver that speaks TLS, and answers 204.
    pub async fn start_tls(tls: Arc<ServerConfig>) -> Self {
        let receiver = Self::start().await;
        receiver.present(tls);
        receiver
    }

    /// Speaks TLS so on connections to come.
    pub fn present(&self, tls: Arc<ServerConfig>) {
        *lock(&self.book.tls) = Some(tls);
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> usize {
        self.book.connections.load(Ordering::SeqCst)
    }

    /// An address where nobody listens.
    pub async fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
        listener.local_addr().expect("a bound address")
    }

    /// Answers the next requests so, one reply each, and those after them as [`Receiver::otherwise`] says.
    pub fn answer(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.book.script).extend(replies);
    }

    /// Answers so where nothing else is said; 204 at the start.
    pub fn otherwise(&self, reply: Reply) {
        *lock(&self.book.otherwise) = reply;
    }

    /// Answers all that hang, and those to come at once.
    pub fn release(&self) {
        self.book.released.send_replace(true);
    }

    /// Everything that arrived so far.
    pub fn all(&self) -> Vec<Received> {
        lock(&self.book.received).clone()
    }

    /// How many requests arrived so far.
    pub fn count(&self) -> usize {
        lock(&self.book.received).len()
    }

    /// The different `webhook-id`s that arrived so far.
    pub fn ids(&self) -> BTreeSet<String> {
        self.all().iter().map(|received| received.id().to_owned()).collect()
    }

    /// Waits until at least so many requests have arrived, and gives all.
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
    // Whoever hangs up, or does not like the certificate, may.
    match tls {
        None => drop(server.serve_connection(TokioIo::new(stream), app).await),
        Some(tls) => match TlsAcceptor::from(tls).accept(stream).into_fallible().await {
            Ok(stream) => drop(server.serve_connection(TokioIo::new(stream), app).await),
            Err((_, mut refused)) => {
                // Closed with bytes unread, it would be reset, and the alert that says why lost.
                while refused.read_buf(&mut Vec::new()).await.is_ok_and(|read| read > 0) {}
            }
        },
    }
}

async fn take(State(book): State<Arc<Book>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Broken off: the sender was killed. It has not arrived.
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
