//! Metadata of a request for logs and the audit log: its id and its remote address.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use setgate_base::crypto;

/// The header that carries [`RequestId`], in requests and in every answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length (characters) of a request id; a longer one is replaced.
pub(super) const REQUEST_ID_CHARS_MAX: usize = 64;

/// Identifies a request in the audit log: the caller's `x-request-id` if it has 1 to [`REQUEST_ID_CHARS_MAX`]
/// characters of `A-Z a-z 0-9 . _ -`, otherwise a generated one.
///
/// Stored as the header value of the answer.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).filter(|id| is_plain(id.as_bytes()));
        Self(given.cloned().unwrap_or_else(|| {
            let made = format!("req_{:032x}", crypto::random_u128());
            HeaderValue::try_from(made).expect("letters, digits and a low line may stand in a header")
        }))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().expect("it has plain characters only")
    }

    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }
}

fn is_plain(id: &[u8]) -> bool {
    (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The peer address of a request's connection: the last proxy, if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub(super) IpAddr);

impl From<SocketAddr> for Remote {
    fn from(address: SocketAddr) -> Self {
        Self(address.ip().to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_line_is_replaced() {
        let of = |id: &'static str| {
            let id = RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))]));
            id.as_str().to_owned()
        };
        assert_eq!(of("build-7.x_Y"), "build-7.x_Y");
        for bad in ["", "a b", "a\tb", "\"", "a,b"] {
            assert!(of(bad).starts_with("req_"), "{bad:?}");
        }
        assert_eq!(of("a".repeat(REQUEST_ID_CHARS_MAX).leak()).len(), REQUEST_ID_CHARS_MAX);
        let two = [b"first".as_slice(), b"\xff"].map(|id| (REQUEST_ID, HeaderValue::from_bytes(id).unwrap()));
        assert_eq!(RequestId::of(&HeaderMap::from_iter([two[1].clone()])).as_str().len(), "req_".len() + 32);
        let mut headers = HeaderMap::new();
        for (name, id) in two {
            headers.append(name, id);
        }
        assert_eq!(RequestId::of(&headers).as_str(), "first");
        let long = "a".repeat(REQUEST_ID_CHARS_MAX + 1).leak();
        assert!(of(long).starts_with("req_"));
        assert_ne!(of(""), of(""));
    }
}
