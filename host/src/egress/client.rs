//! Posts deliveries to receivers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use url::Position;

use super::connect::Connector;
use super::failure::Failure;
use super::guard::Guard;
use super::{Error, Options, response, tls};
use crate::clock::Clock;
use crate::domain::attempt::{ErrorClass, Outcome};
use crate::domain::endpoint::Endpoint;

/// What Setgate calls itself.
pub const USER_AGENT: &str = concat!("Setgate/", env!("CARGO_PKG_VERSION"));

/// Bytes of an answer's head at the most.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of one HTTP/2 answer that may be under way unread.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of all HTTP/2 answers of a connection that may be under way unread.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// While attempts wait on an HTTP/2 connection, it is asked this often whether it lives: all attempts to a receiver
/// share it, and without asking a dead one would take every new attempt down with it.
const H2_PING_EVERY: Duration = Duration::from_secs(5);
/// How long the answer to that may take.
const H2_PING_WAIT_MAX: Duration = Duration::from_secs(5);

/// The client, with its pool of connections. One for the whole program.
#[derive(Debug)]
pub struct Egress {
    client: Client<Connector, Full<Bytes>>,
    options: Options,
    clock: Clock,
}

/// One exchange with a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What came of it.
    pub outcome: Outcome,
    /// From its begin to the end of the answer or the error, in microseconds.
    pub latency_us: u64,
}

impl Egress {
    /// `own_listeners` are the addresses Setgate itself listens on: no delivery is ever sent there.
    pub fn new(options: Options, clock: Clock, own_listeners: Vec<SocketAddr>) -> Result<Self, Error> {
        for (name, limit) in [("connect_ms_max", options.connect_ms_max), ("response_ms_max", options.response_ms_max)]
        {
            if limit == 0 {
                return Err(Error::Zero(name));
            }
        }
        let guard = Guard::new(options.allow.clone(), own_listeners);
        let tls = tls::client_config(&options.ca_files)?;
        let connector = Connector::new(guard, options.allow_http, tls, millis(options.connect_ms_max));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(options.idle_per_host_max)
            .pool_idle_timeout(millis(options.idle_ms_max))
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(H2_PING_EVERY)
            .http2_keep_alive_timeout(H2_PING_WAIT_MAX)
            .build(connector);
        Ok(Self { client, options, clock })
    }

    /// Posts `body` to an endpoint, with the endpoint's own headers and `headers` over them, and reads the answer.
    /// The names in `headers` are in lower case, as [`HeaderName::from_static`] asks.
    /// Never fails as such: what went wrong is the outcome.
    ///
    /// Takes `response_ms_max` at the most, or `within` where that is less. An answer that has not ended by then is
    /// a timeout, whatever its status: a receiver that trickles is not one that took the delivery.
    pub async fn post(
        &self,
        endpoint: &Endpoint,
        headers: &[(&'static str, String)],
        content_type: &str,
        body: Bytes,
        within: Option<Duration>,
    ) -> Exchange {
        let begin = Instant::now();
        let wait_max = millis(self.options.response_ms_max);
        let wait_max = within.map_or(wait_max, |within| within.min(wait_max));
        let outcome = match request(endpoint, headers, content_type, body) {
            // Boxed: hyper's futures are large, and thousands of attempts may be waiting.
            Ok(request) => match timeout(wait_max, Box::pin(self.exchange(request))).await {
                Ok(outcome) => outcome.unwrap_or_else(Outcome::from),
                Err(_) => {
                    let detail = format!("no complete answer within {} ms", wait_max.as_millis());
                    Failure::new(ErrorClass::Timeout, &detail).into()
                }
            },
            Err(failure) => failure.into(),
        };
        Exchange { outcome, latency_us: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX) }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Outcome, Failure> {
        let response = self.client.request(request).await.map_err(|error| Failure::of(&error))?;
        let (bytes_max, bytes_kept) = (self.options.response_bytes_max, self.options.response_bytes_kept);
        let read = response::read(response, bytes_max, bytes_kept, self.clock.wall()).await;
        read.map_err(|error| Failure::of(&error))
    }
}

fn request(
    endpoint: &Endpoint,
    headers: &[(&'static str, String)],
    content_type: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Failure> {
    // The fragment is the browser's own and is never sent.
    let uri: Uri = endpoint.url()[..Position::AfterQuery]
        .parse()
        .map_err(|_| unsendable("the endpoint's URL cannot stand in a request"))?;
    let mut map = HeaderMap::new();
    map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    for (name, text) in endpoint.headers() {
        let mut value = value(name, text)?;
        // Receivers' tokens: kept out of debug output and of HTTP/2's compression tables.
        value.set_sensitive(true);
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| unsendable(&format!("`{name}` is not the name of a header")))?;
        map.insert(name, value);
    }
    map.insert(header::CONTENT_TYPE, value("content-type", content_type)?);
    for (name, text) in headers {
        let value = value(name, text)?;
        map.insert(HeaderName::from_static(name), value);
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = map;
    Ok(request)
}

fn value(name: &str, text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| unsendable(&format!("the value of the header `{name}` cannot be sent")))
}

fn unsendable(detail: &str) -> Failure {
    Failure::new(ErrorClass::Unsendable, detail)
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}
