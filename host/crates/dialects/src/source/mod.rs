//! Verifies that a request was signed with one of its source's secrets.

mod entries;
mod hub;
mod key;
mod standard;
#[cfg(test)]
mod tests;

use http::HeaderMap;
use setgate_base::crypto::{constant_time_eq, hmac_sha256};
use setgate_domain::secret::Secret;
use setgate_domain::source::{KeyEncoding, MacHeader};
use setgate_domain::time::Timestamp;

use super::webhook::{HUB, LOGTO, SIGNATURE, WSO2};

pub use key::{SOURCE_KEY_BYTES_MIN, check_source_secret, check_text};

/// Limit for the signatures of one request that are checked, because each costs one MAC per secret.
const ENTRIES_MAX: usize = 32;

/// GitHub's header in addition to `X-Hub-Signature`: `sha256=hex`.
const HUB_256: &str = "x-hub-signature-256";
/// Svix's own name for the signature header of Standard Webhooks.
const SVIX_SIGNATURE: &str = "svix-signature";

const WSO2_FORM: &str = "`sha256=` and 64 hex digits";
const LOGTO_FORM: &str = "64 hex digits";

/// All headers that carry a signature that a source may require.
const SIGNATURES: [&str; 6] = [SIGNATURE, SVIX_SIGNATURE, HUB, HUB_256, WSO2, LOGTO];

/// A source's requirements for signatures.
#[derive(Debug, Clone, Copy)]
pub struct MacRules {
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
    #[error("the header `{header}` names an algorithm that is not taken: expected {expected}")]
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
    #[error("no signature matches: the body was changed on its way, or the secrets differ")]
    NoMatch,
    /// None of the source's secrets is usable. Only a change of the source helps.
    #[error("the source has no usable secret")]
    NoSecret,
}

/// A valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The delivery id, if the signature covers it.
    pub id: Option<String>,
}

/// The header with a signature, if the request has one.
pub fn signature_header(headers: &HeaderMap) -> Option<&'static str> {
    SIGNATURES.into_iter().find(|name| headers.contains_key(*name))
}

/// Verifies a request's MAC over the exact bytes of `body`. One matching secret is sufficient; there are several during
/// a rotation. Comparisons take constant time.
///
/// # Errors
/// The reason. Only [`MacError::NoMatch`] depends on the body.
pub fn verify_mac(
    rules: MacRules,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    now: Timestamp,
) -> Result<Signed, MacError> {
    // Unusable secrets are dropped. In particular, anybody could sign with an empty secret.
    let keys: Vec<_> = secrets.iter().filter_map(|secret| key::of(rules.header, rules.encoding, secret)).collect();
    if keys.is_empty() {
        return Err(MacError::NoSecret);
    }
    match rules.header {
        MacHeader::Standard => standard::verify(headers, body, &keys, now, rules.tolerance_s),
        MacHeader::Hub => hub::verify(headers, body, &keys, rules.allow_sha1),
        MacHeader::Wso2 => {
            let mut given = Vec::new();
            for entry in entries::of(headers, WSO2, WSO2_FORM)? {
                let malformed = MacError::Malformed { header: WSO2, expected: WSO2_FORM };
                let (method, mac) = entry.split_once('=').ok_or(malformed)?;
                if !method.trim().eq_ignore_ascii_case("sha256") {
                    return Err(MacError::Algorithm { header: WSO2, expected: WSO2_FORM });
                }
                given.push(entries::hex(mac, 32, WSO2, WSO2_FORM)?);
            }
            any_sha256(&keys, &given, body)
        }
        MacHeader::Logto => {
            let entries = entries::of(headers, LOGTO, LOGTO_FORM)?;
            let given = entries.into_iter().map(|mac| entries::hex(mac, 32, LOGTO, LOGTO_FORM));
            any_sha256(&keys, &given.collect::<Result<Vec<_>, _>>()?, body)
        }
    }
}

/// A key that is zeroized on drop.
type Key = zeroize::Zeroizing<Vec<u8>>;

fn any_sha256(keys: &[Key], given: &[Vec<u8>], body: &[u8]) -> Result<Signed, MacError> {
    let matches = keys.iter().any(|key| {
        let mac = hmac_sha256(key, &[body]);
        given.iter().any(|given| constant_time_eq(given, &mac))
    });
    if matches { Ok(Signed { id: None }) } else { Err(MacError::NoMatch) }
}
