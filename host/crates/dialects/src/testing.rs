//! Helpers of the tests of several dialects.

use std::sync::Arc;

use http::HeaderMap;
use setgate_domain::secret::Secret;
use setgate_domain::source::MacHeader;
use setgate_domain::time::Timestamp;

use crate::dialect::Dialect;
use crate::proof::{MacError, MacOptions, verify_mac};
use crate::scheme::Message;
use crate::signing::{Key, headers as delivery_headers};

/// Body of the Standard Webhooks vectors.
pub(crate) const BODY: &[u8] = br#"{"test": 2432232314}"#;

/// GitHub documentation, "Validating webhook deliveries".
pub(crate) const GITHUB_SECRET: &str = "It's a Secret to Everybody";
pub(crate) const GITHUB_BODY: &[u8] = b"Hello, World!";
pub(crate) const GITHUB_MAC: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

pub(crate) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect()
}

pub(crate) fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new((*text).to_owned())).collect()
}

/// The rules of a source that was stored before these options existed.
pub(crate) fn rules(header: MacHeader) -> MacOptions {
    MacOptions { header, encoding: None, tolerance_s: 300, allow_sha1: false }
}

/// Verifies a request with [`GITHUB_BODY`].
pub(crate) fn body_mac(header: MacHeader, pairs: &[(&'static str, &str)], texts: &[&str]) -> Result<(), MacError> {
    verify_mac(rules(header), &headers(pairs), GITHUB_BODY, &secrets(texts), Timestamp::from_millis(0)).map(drop)
}

/// The headers of a delivery of [`GITHUB_BODY`] with a text secret.
pub(crate) fn signed(dialect: &Dialect, secret: &str, id: &str) -> Vec<(&'static str, String)> {
    let key = Arc::new(Key::Symmetric(secret.as_bytes().to_vec().into()));
    let message = Message { id, now: Timestamp::from_millis(0), body: GITHUB_BODY };
    delivery_headers(dialect.scheme.as_ref().unwrap(), &[key], &message).unwrap()
}
