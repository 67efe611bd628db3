//! What the history keeps of a request and of the connection it went over.

use http::Extensions;
use http::header::HeaderMap;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpInfo};
use url::Position;

use crate::crypto;
use crate::domain::attempt::{Connection, HttpVersion, Sent};
use crate::domain::endpoint::Destination;
use crate::domain::id::Digest;
use crate::domain::secret::REDACTED;

/// What is about to be sent. Of a header that is marked as sensitive only the name is recorded.
pub(super) fn sent(to: &Destination, headers: &HeaderMap, body: &[u8]) -> Sent {
    // The first line that every receiver sees, as `host` or as `:authority` (RFC 9113 section 8.3.1).
    let host = ("host".to_owned(), to.url()[Position::BeforeHost..Position::AfterPort].to_owned());
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = if value.is_sensitive() { REDACTED.into() } else { String::from_utf8_lossy(value.as_bytes()) };
        (name.as_str().to_owned(), value.into_owned())
    };
    Sent {
        url: to.shown(),
        headers: std::iter::once(host).chain(headers.iter().map(header)).collect(),
        body_digest: Digest(crypto::sha256(body)),
        body_bytes: body.len() as u64,
    }
}

/// The connection that a request was given, where it was given one. The other end of a proxied one is the operator's
/// own business.
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
