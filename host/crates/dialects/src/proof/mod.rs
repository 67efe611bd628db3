//! Verifies that a request was signed with one of its source's secrets.

pub(crate) mod entries;
mod key;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::HeaderMap;
use setgate_base::crypto::{constant_time_eq, hmac_sha256};
use setgate_domain::secret::Secret;
use setgate_domain::source::{KeyEncoding, MacHeader};
use setgate_domain::time::Timestamp;

use crate::dialect::{scheme_of_proof, schemes};
use crate::scheme::{Headers, Message, Notation, Scheme, SignedRequest};
use crate::signing::{Key, SYMMETRIC_PREFIX};

pub use key::{SOURCE_KEY_BYTES_MIN, check_pasted_text, check_source_secret};

/// Limit for the signatures of one request that are checked, because each costs one MAC per secret.
pub(crate) const ENTRIES_MAX: usize = 32;

/// A source's requirements for signatures.
#[derive(Debug, Clone, Copy)]
pub struct MacOptions {
    /// The header, which also determines the format.
    pub header: MacHeader,
    /// The encoding of the secrets. `None` for a source that was stored before the encoding was configurable.
    pub encoding: Option<KeyEncoding>,
    /// Accepted difference between a signed timestamp and the current time in either direction, in seconds.
    pub tolerance_s: u32,
    /// Whether signatures that use only SHA-1 are accepted.
    pub allow_sha1: bool,
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// A header is missing.
    #[error("the header `{header}` is missing")]
    Missing {
        /// The header.
        header: &'static str,
    },
    /// A header is malformed.
    #[error("the header `{header}` is malformed: expected {expected}")]
    Malformed {
        /// The header.
        header: &'static str,
        /// The expected content.
        expected: &'static str,
    },
    /// The signature uses an algorithm that is not accepted, such as SHA-1.
    #[error("the header `{header}` uses an algorithm that is not accepted: expected {expected}")]
    Algorithm {
        /// The header.
        header: &'static str,
        /// The expected content.
        expected: &'static str,
    },
    /// The signature is too old, or the sender's clock is wrong.
    #[error(
        "the signed timestamp is {} s {}, more than the {tolerance_s} s of the source's `timestamp_tolerance_s`",
        .ahead_s.unsigned_abs(),
        if *.ahead_s < 0 { "in the past" } else { "in the future" }
    )]
    Timestamp {
        /// Seconds ahead of the current time. Negative if it is in the past.
        ahead_s: i64,
        /// Accepted difference in seconds.
        tolerance_s: u32,
    },
    /// The signature covers other bytes or uses another secret.
    #[error("no signature matches: the body was changed in transit, or the secrets differ")]
    NoMatch,
    /// None of the source's secrets is usable. Only a change of the source helps.
    #[error("the source has no usable secret")]
    NoSecret,
}

/// A valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The delivery id, if the signature covers it.
    pub id: Option<String>,
}

/// The header with a signature, if the request has one.
pub fn signature_header(headers: &HeaderMap) -> Option<&'static str> {
    schemes().flat_map(|scheme| scheme.signature_headers).copied().find(|name| headers.contains_key(*name))
}

/// Verifies a request's MAC over the exact bytes of `body`. One matching secret is sufficient; there are several during
/// a rotation. Comparisons take constant time.
///
/// # Errors
/// The reason. Only [`MacError::NoMatch`] depends on the body.
pub fn verify_mac(
    options: MacOptions,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    now: Timestamp,
) -> Result<Verified, MacError> {
    let scheme = scheme_of_proof(options.header);
    // Unusable secrets are dropped. In particular, anybody could sign with an empty secret.
    let keys: Vec<_> = secrets.iter().filter_map(|secret| key::of(scheme, options.encoding, secret)).collect();
    if keys.is_empty() {
        return Err(MacError::NoSecret);
    }
    let MacOptions { tolerance_s, allow_sha1, .. } = options;
    (scheme.verify)(&SignedRequest { headers, body, keys: &keys, now, tolerance_s, allow_sha1 })
}

/// The headers with which a sender proves a body to a source, for `setgate emit`. A secret with the prefix `whsec_` is
/// base64, any other is text.
///
/// # Errors
/// The secret does not have the notation of the scheme, without any part of it.
pub fn sign_as_sender(
    scheme: &Scheme,
    secret: &Secret,
    id: &str,
    now: Timestamp,
    body: &[u8],
) -> Result<Headers, String> {
    let text = secret.expose();
    if scheme.notation == Notation::Prefixed && !text.starts_with(SYMMETRIC_PREFIX) {
        return Err(format!("a Standard Webhooks secret starts with {SYMMETRIC_PREFIX}"));
    }
    let key = key::decoded(KeyEncoding::Text, text)
        .ok_or_else(|| format!("the part after {SYMMETRIC_PREFIX} must be base64"))?;
    (scheme.sign)(&[Arc::new(Key::Symmetric(key))], &Message { id, now, body }).map_err(|error| error.to_string())
}

/// A key that is zeroized on drop.
pub(crate) type SecretKey = zeroize::Zeroizing<Vec<u8>>;

/// Whether one of the given HMAC-SHA256 of the body was made with one of the keys.
pub(crate) fn any_sha256(request: &SignedRequest<'_>, given: &[Vec<u8>]) -> Result<Verified, MacError> {
    let matches = request.keys.iter().any(|key| {
        let mac = hmac_sha256(key, &[request.body]);
        given.iter().any(|given| constant_time_eq(given, &mac))
    });
    if matches { Ok(Verified { id: None }) } else { Err(MacError::NoMatch) }
}
