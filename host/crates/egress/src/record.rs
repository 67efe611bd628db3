//! The parts of a request and of its connection that are stored in the history.

use http::Extensions;
use http::header::HeaderMap;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpInfo};
use setgate_base::crypto;
use setgate_domain::attempt::{Connection, HttpVersion, SentRequest};
use setgate_domain::endpoint::Destination;
use setgate_domain::id::Digest;
use setgate_domain::secret::REDACTED;
use url::Position;

/// The record of a request. Only the name of a sensitive header is recorded.
pub(super) fn sent(to: &Destination, headers: &HeaderMap, body: &[u8]) -> SentRequest {
    // Recorded first, as `host` (HTTP/1) or `:authority` (HTTP/2, RFC 9113 section 8.3.1).
    let host = ("host".to_owned(), to.url()[Position::BeforeHost..Position::AfterPort].to_owned());
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = if value.is_sensitive() { REDACTED.into() } else { String::from_utf8_lossy(value.as_bytes()) };
        (name.as_str().to_owned(), value.into_owned())
    };
    SentRequest {
        url: to.redacted_url(),
        headers: std::iter::once(host).chain(headers.iter().map(header)).collect(),
        body_digest: Digest(crypto::sha256(body)),
        body_bytes: body.len() as u64,
    }
}

/// The connection of a request, if it got one. The address of a proxy is omitted, because it belongs to the operator.
pub(super) fn connection(captured: &CaptureConnection, proxied: bool) -> Option<Connection> {
    let connected = captured.connection_metadata();
    let connected = connected.as_ref()?;
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    Some(Connection {
        http: if connected.is_negotiated_h2() { HttpVersion::Http2 } else { HttpVersion::Http1 },
        peer: extras.get::<HttpInfo>().filter(|_| !proxied).map(|info| info.remote_addr().to_string()),
        proxied,
    })
}
