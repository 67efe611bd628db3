//! Whether a source's request was signed under one of its secrets.

mod entries;
mod hub;
mod key;
mod standard;
#[cfg(test)]
mod tests;

use http::HeaderMap;

use super::webhook::{HUB, LOGTO, SIGNATURE, WSO2};
use crate::crypto::{constant_time_eq, hmac_sha256};
use crate::domain::secret::Secret;
use crate::domain::source::{KeyEncoding, MacHeader};
use crate::domain::time::Timestamp;

pub use key::{SOURCE_KEY_BYTES_MIN, check_source_secret, check_text};

/// Signatures of one request that are looked at; each costs a MAC for each secret.
const ENTRIES_MAX: usize = 32;

/// GitHub's beside `X-Hub-Signature`: `sha256=hex`.
const HUB_256: &str = "x-hub-signature-256";
/// Svix's own names of the three headers of Standard Webhooks.
const SVIX_SIGNATURE: &str = "svix-signature";

const WSO2_FORM: &str = "`sha256=` and 64 hex digits";
const LOGTO_FORM: &str = "64 hex digits";

/// Headers that carry a signature of any kind that a source may ask for.
const SIGNATURES: [&str; 6] = [SIGNATURE, SVIX_SIGNATURE, HUB, HUB_256, WSO2, LOGTO];

/// What a source asks of a signature.
#[derive(Debug, Clone, Copy)]
pub struct MacRules {
    /// Where it stands and how it is written.
    pub header: MacHeader,
    /// How the secrets are written; none: as a source that was stored before this could be said means it.
    pub encoding: Option<KeyEncoding>,
    /// How far a signed timestamp may lie from now, either way, in seconds.
    pub tolerance_s: u32,
    /// Whether a signature by sha1 alone is taken.
    pub allow_sha1: bool,
}

/// Why a request is not taken as its source's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// A header is not there.
    #[error("the header `{header}` is missing")]
    Missing {
        /// Which.
        header: &'static str,
    },
    /// A header has another form.
    #[error("the header `{header}` is malformed: expected {expected}")]
    Malformed {
        /// Which.
        header: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// Signed by an algorithm that is not taken, such as sha1.
    #[error("the header `{header}` names an algorithm that is not taken: expected {expected}")]
    Algorithm {
        /// Which.
        header: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// Signed too long ago, or by a clock that is wrong.
    #[error(
        "the signed timestamp is {} s {}, more than the {tolerance_s} s of the source's `timestamp_tolerance_s`",
        .ahead_s.unsigned_abs(),
        if *.ahead_s < 0 { "in the past" } else { "in the future" }
    )]
    Timestamp {
        /// Seconds ahead of now; negative: behind.
        ahead_s: i64,
        /// Seconds allowed.
        tolerance_s: u32,
    },
    /// Signed over other bytes or under another secret.
    #[error("no signature matches: the body was changed on its way, or the secrets differ")]
    NoMatch,
    /// None of the source's secrets can be used; only a change of the source helps.
    #[error("the source has no usable secret")]
    NoSecret,
}

/// A signature that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The id of the delivery, if it is among what was signed.
    pub id: Option<String>,
}

/// The header in which a request presents a signature, if there is one.
pub fn signature_header(headers: &HeaderMap) -> Option<&'static str> {
    SIGNATURES.into_iter().find(|name| headers.contains_key(*name))
}

/// Checks a request's MAC over the exact bytes of `body`. One secret that fits is enough; several are there while
/// one is replaced by the next. Comparisons take the same time whatever the guess.
///
/// # Errors
/// The reason; [`MacError::NoMatch`] alone depends on the body.
pub fn verify_mac(
    rules: MacRules,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    now: Timestamp,
) -> Result<Signed, MacError> {
    // An empty secret is one that anybody knows.
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

/// A key, wiped when dropped.
type Key = zeroize::Zeroizing<Vec<u8>>;

fn any_sha256(keys: &[Key], given: &[Vec<u8>], body: &[u8]) -> Result<Signed, MacError> {
    let matches = keys.iter().any(|key| {
        let mac = hmac_sha256(key, &[body]);
        given.iter().any(|given| constant_time_eq(given, &mac))
    });
    if matches { Ok(Signed { id: None }) } else { Err(MacError::NoMatch) }
}
