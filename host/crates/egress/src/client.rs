//! The HTTP client for deliveries, and for documents that are fetched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use setgate_base::clock::Clock;
use setgate_domain::attempt::{Connection, ErrorClass, Outcome, SentRequest};
use setgate_domain::endpoint::{Destination, Origin};
use setgate_domain::id::TenantId;
use setgate_domain::redact::Redactor;
use tokio::time::Instant;
use url::Position;

use super::clients::{Clients, Versions};
use super::connect::GuardedTcp;
use super::document::{self, Document, GetError, GetRequest};
use super::echo_redaction::EchoRedactor;
use super::failure::{Failure, FailureKind, HostShortage};
use super::guard::Guard;
use super::lookups::{Lookups, timeout_with_extension};
use super::resolve::{Resolve, SystemResolver};
use super::response::Deadline;
use super::tls::Trust;
use super::tls_identity::TlsIdentity;
use super::{Error, Options, USER_AGENT, record, response};

/// Limit for the immediate resends within one attempt, for requests that the receiver has certainly not processed.
const RESENDS_MAX: u32 = 3;

/// Handle of the HTTP client. All clones share one [`ClientSet`], which can be replaced while attempts are running.
#[derive(Debug, Clone)]
pub struct Egress(Arc<ArcSwap<ClientSet>>);

/// A client configuration with its connection pools.
#[derive(Debug)]
pub struct ClientSet {
    clients: Clients,
    options: Options,
    clock: Clock,
    own_listeners: Vec<SocketAddr>,
}

/// An attempt to be made.
#[derive(Debug)]
pub struct PostRequest<'a> {
    /// The tenant. Connections are not shared between tenants.
    pub tenant: &'a TenantId,
    /// The URL, and the headers of the endpoint with their values.
    pub endpoint: &'a Destination,
    /// TLS settings of the endpoint.
    pub identity: &'a TlsIdentity,
    /// Setgate's headers, which override the endpoint's own. Names must be in lower case, as
    /// [`HeaderName::from_static`] requires.
    pub headers: &'a [(&'static str, String)],
    /// Redacts the secrets of the request if the receiver echoes them.
    pub redactor: &'a Redactor,
    /// Value of the `Content-Type` header.
    pub content_type: &'a str,
    /// The body.
    pub body: Bytes,
    /// Timeout of this attempt, if it is shorter than `response_ms_max`.
    pub timeout: Option<Duration>,
}

/// A request to a receiver and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The result.
    pub outcome: Outcome,
    /// Duration from the start to the end of the response or to the error, in microseconds.
    pub latency_us: u64,
    /// See [`Attempt::sent`](setgate_domain::attempt::Attempt::sent).
    pub sent: Option<SentRequest>,
    /// See [`Attempt::connection`](setgate_domain::attempt::Attempt::connection).
    pub connection: Option<Connection>,
    /// The resource that this host lacked, if any. In that case no attempt was made, and the result is no evidence
    /// about the receiver.
    pub host_shortage: Option<HostShortage>,
}

/// The result of a request up to the head of its response.
struct Exchanged {
    /// The response, whose body has not been read, and the deadline of the body.
    result: Result<(Response<Incoming>, Deadline), Failure>,
    /// The start of the request, later by the time spent in queues shared by all tenants.
    begin: Instant,
    connection: Option<Connection>,
}

impl Exchange {
    /// The result of an attempt that could not start.
    pub fn unsendable(detail: String) -> Self {
        let outcome = Outcome::Failed { class: ErrorClass::Unsendable, detail };
        Self { outcome, latency_us: 0, sent: None, connection: None, host_shortage: None }
    }
}

impl Egress {
    /// `own_listeners` are Setgate's own listening addresses. No delivery is ever sent to them.
    pub fn new(options: Options, clock: Clock, own_listeners: Vec<SocketAddr>) -> Result<Self, Error> {
        Self::with_resolver(options, clock, own_listeners, Arc::new(SystemResolver))
    }

    /// Like [`Egress::new`] with a custom resolver.
    pub fn with_resolver(
        options: Options,
        clock: Clock,
        own_listeners: Vec<SocketAddr>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, Error> {
        let lookups = Arc::new(Lookups::new(resolver));
        ClientSet::new(options, clock, own_listeners, lookups).map(|set| Self(Arc::new(ArcSwap::from_pointee(set))))
    }

    /// Whether plain http is allowed now.
    pub fn allows_http(&self) -> bool {
        self.0.load().options.allow_http
    }

    /// Prepares a [`ClientSet`] with new options. `None` if neither the options nor the trusted authorities, which are
    /// read again, have changed. It takes effect with [`Egress::replace`].
    pub fn prepare(&self, options: Options) -> Result<Option<ClientSet>, Error> {
        let now = self.0.load();
        let tcp = &now.clients.tcp;
        let set = ClientSet::new(options, now.clock.clone(), now.own_listeners.clone(), Arc::clone(&tcp.lookups))?;
        let is_same = set.options == now.options && set.clients.has_same_trust(&now.clients);
        Ok((!is_same).then_some(set))
    }

    /// Uses this set for all new attempts, with new connections. Running attempts finish on their old connections, and
    /// idle old connections are closed.
    pub fn replace(&self, set: ClientSet) {
        self.0.store(Arc::new(set));
    }

    /// Posts a body to an endpoint and reads the response. Never returns an error: failures are part of the outcome.
    ///
    /// The response head must arrive within `head_ms_max`, including the connection setup. The complete exchange is
    /// limited to `response_ms_max`, or to [`PostRequest::timeout`] if that is shorter. Once the head of a final response has
    /// arrived, its status decides the outcome: a body that is truncated or late is recorded as incomplete, and its
    /// connection is dropped.
    pub async fn post(&self, post: PostRequest<'_>) -> Exchange {
        let set = self.0.load_full();
        set.post(post).await
    }

    /// Fetches a document, with the same address guard, connection pools, TLS and shares of name lookups as deliveries.
    /// Redirects are not followed.
    ///
    /// # Errors
    /// If there is no complete response in time, or its body is larger than [`GetRequest::bytes_max`]. A response with
    /// any status is a [`Document`]: the caller checks status and content type.
    pub async fn get(&self, get: GetRequest<'_>) -> Result<Document, GetError> {
        let set = self.0.load_full();
        set.get(get).await
    }

    /// The reason why every attempt at an endpoint will be refused, if that is certain without resolving its name.
    pub fn blocked_reason(&self, origin: &Origin) -> Option<String> {
        self.0.load().clients.tcp.blocked_reason(origin)
    }

    #[cfg(test)]
    pub(super) fn clients(&self) -> usize {
        self.0.load_full().clients.count()
    }
}

impl ClientSet {
    fn new(
        options: Options,
        clock: Clock,
        own_listeners: Vec<SocketAddr>,
        lookups: Arc<Lookups>,
    ) -> Result<Self, Error> {
        for (name, limit) in [
            ("connect_ms_max", u64::from(options.connect_ms_max)),
            ("head_ms_max", u64::from(options.head_ms_max)),
            ("response_ms_max", u64::from(options.response_ms_max)),
            ("ping_every_ms", u64::from(options.ping_every_ms)),
            ("ping_ms_max", u64::from(options.ping_ms_max)),
            ("clients_max", options.clients_max),
        ] {
            if limit == 0 {
                return Err(Error::Zero(name));
            }
        }
        let tcp = GuardedTcp {
            guard: Arc::new(Guard::new(options.allow.clone(), own_listeners.clone())),
            allow_http: options.allow_http,
            lookups,
            proxy: options.proxy.clone().map(Arc::new),
            proxy_bypass: options.proxy_bypass.clone().into(),
            connect_timeout: millis(options.connect_ms_max),
        };
        let clients = Clients::new(&options, Trust::load(&options.ca_files)?, tcp);
        Ok(Self { clients, options, clock, own_listeners })
    }

    async fn post(&self, post: PostRequest<'_>) -> Exchange {
        let total = millis(self.options.response_ms_max);
        let total = post.timeout.map_or(total, |timeout| timeout.min(total));
        let echo = EchoRedactor::new(post.redactor, post.headers);
        let mut sent = None;
        let make = || {
            let request = post_request(&post)?;
            sent.get_or_insert_with(|| record::sent(post.endpoint, request.headers(), &post.body));
            Ok(request)
        };
        let Exchanged { result, begin, connection } = self.exchange(post.tenant, post.identity, total, make).await;
        let (outcome, host_shortage) = match result {
            Ok((response, end)) => {
                (response::read(response, &self.options, &echo, self.clock.system_time(), end).await, None)
            }
            Err(failure) if sent.is_none() => return Exchange::unsendable(failure.to_string()),
            Err(failure) => {
                let shortage = failure.host_shortage();
                (failure.into(), shortage)
            }
        };
        Exchange {
            outcome: echo.outcome(outcome),
            host_shortage,
            latency_us: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
            sent,
            connection,
        }
    }

    async fn get(&self, get: GetRequest<'_>) -> Result<Document, GetError> {
        let total = get.timeout.min(millis(self.options.response_ms_max));
        let exchanged = self.exchange(get.tenant, &TlsIdentity::default(), total, || get_request(&get)).await;
        let (response, end) = exchanged.result?;
        Ok(document::read(response, get.bytes_max, end).await?)
    }

    /// Sends a request and waits for the head of its response. `make` builds the request; it is called again if the
    /// receiver has certainly not processed the first one.
    async fn exchange(
        &self,
        tenant: &TenantId,
        identity: &TlsIdentity,
        total: Duration,
        mut make: impl FnMut() -> Result<Request<Full<Bytes>>, Failure>,
    ) -> Exchanged {
        let mut begin = Instant::now();
        let head = millis(self.options.head_ms_max).min(total);
        let (mut resends, mut versions) = (0, Versions::All);
        loop {
            let client = self.clients.of(tenant, identity, versions);
            let client = client.map_err(|error| unsendable(&format!("the endpoint's `tls`: {error}")));
            let (client, mut request) = match client.and_then(|client| Ok((client, make()?))) {
                Ok(ready) => ready,
                Err(failure) => return Exchanged { result: Err(failure), begin, connection: None },
            };
            let proxied = request.uri().host().is_some_and(|host| self.clients.tcp.proxy_to(host).is_some());
            let connected = capture_connection(&mut request);
            let (queue_time, before) = (client.queue_time.clone(), client.queue_time.total());
            // After this attempt has its connection, further waits of the client belong to other attempts and do not
            // extend its deadline.
            let mut waited = None;
            let mut uncharged = || {
                let so_far = queue_time.total().saturating_sub(before);
                let is_connected = connected.connection_metadata().is_some();
                if is_connected { *waited.get_or_insert(so_far) } else { so_far }
            };
            // Boxed, because hyper's futures are large and thousands of attempts may be pending.
            let response = Box::pin(client.http.request(request));
            let response = match timeout_with_extension(begin, head, &mut uncharged, response).await {
                Some(response) => response.map_err(|error| Failure::from_error(&error)),
                None => {
                    let detail = format!("no response began within {} ms", head.as_millis());
                    Err(Failure::new(ErrorClass::Timeout, &detail))
                }
            };
            begin += uncharged();
            let kind = response.as_ref().err().map(Failure::kind);
            if let Some(FailureKind::Unprocessed | FailureKind::Http1Required) = kind
                && resends < RESENDS_MAX
            {
                resends += 1;
                if kind == Some(FailureKind::Http1Required) {
                    versions = Versions::Http1;
                }
                // Running requests on this connection continue, but new ones use another connection.
                connected.connection_metadata().as_ref().inspect(|connection| connection.poison());
                continue;
            }
            let end = Deadline { at: begin + total, wait: total };
            return Exchanged {
                result: response.map(|response| (response, end)),
                begin,
                connection: record::connection(&connected, proxied),
            };
        }
    }
}

fn post_request(post: &PostRequest<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = request(Method::POST, post.endpoint, post.body.clone())?;
    let map = request.headers_mut();
    for (name, text) in post.endpoint.headers() {
        let mut value = value(name, text)?;
        // These headers may contain tokens of the receiver. Sensitive values stay out of records, debug output and the
        // HTTP/2 compression tables.
        value.set_sensitive(true);
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| unsendable(&format!("`{name}` is not the name of a header")))?;
        map.insert(name, value);
    }
    map.insert(header::CONTENT_TYPE, value("content-type", post.content_type)?);
    for (name, text) in post.headers {
        let value = value(name, text)?;
        map.insert(HeaderName::from_static(name), value);
    }
    // hyper would set the same value. Set here so that it is part of the record.
    map.insert(header::CONTENT_LENGTH, HeaderValue::from(post.body.len()));
    Ok(request)
}

fn get_request(get: &GetRequest<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = request(Method::GET, get.url, Bytes::new())?;
    request.headers_mut().insert(header::ACCEPT, value("accept", get.accept)?);
    Ok(request)
}

/// A request with the headers that all requests have.
fn request(method: Method, to: &Destination, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    let uri: Uri = to.url()[..Position::AfterQuery]
        .parse()
        .map_err(|_| unsendable("the endpoint's URL cannot be part of a request"))?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
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
