//! The receivers of a run: each compares requests with the expected ones and reports to the record.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::load::{Behaviour, End, Sent, TARGETS, Way};
use super::random::Random;
use super::record::Record;
use super::signed;
use crate::signature::Trust;
use setgate_jose::JwkSet;

/// Maximum delay (ms) of a slow receiver.
const SLOW_MS: u64 = 400;

/// All receivers of a run; they stop listening on drop.
pub struct Receivers {
    /// Their URLs, in the order of [`TARGETS`].
    pub urls: Vec<String>,
    places: Vec<Arc<Place>>,
    connections: Arc<AtomicUsize>,
    serving: Vec<JoinHandle<()>>,
}

struct Place {
    target: usize,
    seed: u64,
    record: Arc<Record>,
    trust: OnceLock<Trust>,
    /// Keys of signed SETs.
    keys: OnceLock<JwkSet>,
}

impl Receivers {
    /// Starts one receiver per target.
    pub async fn start(seed: u64, record: &Arc<Record>) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let (mut urls, mut places, mut serving) = (Vec::new(), Vec::new(), Vec::new());
        for target in 0..TARGETS.len() {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
            urls.push(format!("http://{}/in", listener.local_addr().expect("a bound address")));
            let place =
                Arc::new(Place { target, seed, record: record.clone(), trust: OnceLock::new(), keys: OnceLock::new() });
            let app = Router::new().fallback(take).with_state(place.clone());
            let listener = Counted { listener, connections: connections.clone() };
            places.push(place);
            serving
                .push(tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves until dropped") }));
        }
        Self { urls, places, connections, serving }
    }

    /// Sets the key with which a receiver verifies signatures.
    pub fn trust(&self, target: usize, trust: Trust) {
        assert!(self.places[target].trust.set(trust).is_ok(), "a subscription is made once");
    }

    /// Sets the keys with which a receiver verifies signed SETs.
    pub fn trust_keys(&self, target: usize, keys: JwkSet) {
        assert!(self.places[target].keys.set(keys).is_ok(), "a subscription is made once");
    }

    /// Waits until all connections are closed, which must happen soon after the host was killed. Returns false if some
    /// stay open.
    pub async fn are_left_alone(&self) -> bool {
        for _ in 0..2_000 {
            if self.connections.load(Ordering::SeqCst) == 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        false
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

/// Reports the end of a request to the record on drop, even if its sender disconnected.
struct Work {
    place: Arc<Place>,
    id: String,
    status: Option<u16>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.place.record.ended(&self.id, self.status);
    }
}

async fn take(State(place): State<Arc<Place>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // The body breaks off because the sender was killed: the delivery has not arrived.
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let body = body.to_bytes();
    let target = &TARGETS[place.target];
    let id = match target.way {
        Way::Webhook => {
            let id = head.headers.get("webhook-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
            id.ok_or_else(|| "a request has no webhook-id".to_owned())
        }
        Way::Push | Way::Poll => {
            let keys = place.keys.get().ok_or_else(|| "no delivery was expected yet".to_owned());
            keys.and_then(|keys| signed::check(target, keys, place.seed, &body))
        }
    };
    let id = match id {
        Ok(id) => id,
        Err(why) => {
            place.record.fault(format!("at `{}`: {why}", target.name));
            return StatusCode::BAD_REQUEST.into_response();
        }
    };
    let refused = place.record.arrived(&id, &body);
    let mut work = Work { place: place.clone(), id: id.clone(), status: None };
    if target.way == Way::Webhook
        && let Err(why) = check(&place, &head.headers, &body)
    {
        place.record.fault(format!("{id} at `{}`: {why}", target.name));
    }
    let mut random =
        Random::new(place.seed, id.bytes().fold(refused, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)));
    let status = match target.behaviour {
        Behaviour::Prompt => 204,
        Behaviour::Slow => {
            tokio::time::sleep(Duration::from_millis(50 + random.below(SLOW_MS - 50))).await;
            204
        }
        Behaviour::Flaky if refused < 2 && random.below(4) == 0 => 500,
        Behaviour::Flaky => 200,
        Behaviour::Refusing => 503,
    };
    work.status = Some(status);
    StatusCode::from_u16(status).expect("a status").into_response()
}

/// Checks that these are the expected bytes for this receiver, with a valid signature.
fn check(place: &Place, headers: &http::HeaderMap, body: &[u8]) -> Result<(), String> {
    let target = &TARGETS[place.target];
    place.trust.get().ok_or("no delivery was expected yet")?.verify(headers, body)?;
    let claims: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let number = claims["jti"].as_str().and_then(Sent::number_of).ok_or("an event that was never sent")?;
    let sent = Sent::new(place.seed, number);
    if !target.sources.contains(&sent.source) {
        return Err(format!("event {number} is not for this subscription"));
    }
    if target.end_of(&sent) == End::Dropped {
        return Err(format!("event {number} was to be dropped"));
    }
    if claims != target.claims_of(&sent) {
        return Err(format!("event {number} has other claims than it has to"));
    }
    Ok(())
}

/// A listener that counts its open connections.
struct Counted {
    listener: TcpListener,
    connections: Arc<AtomicUsize>,
}

struct Connection {
    stream: TcpStream,
    connections: Arc<AtomicUsize>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl axum::serve::Listener for Counted {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.connections.fetch_add(1, Ordering::SeqCst);
                    return (Connection { stream, connections: self.connections.clone() }, address);
                }
                // The connection was reset before it was accepted, or no file descriptor was available.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
