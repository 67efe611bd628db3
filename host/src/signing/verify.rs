//! Whether a source's request was signed under one of its secrets.

use http::HeaderMap;

use super::key::{SYMMETRIC, decode};
use super::webhook::{HUB, ID, LOGTO, SIGNATURE, TIMESTAMP, WSO2};
use crate::crypto::{constant_time_eq, hmac_sha256, hmac_sha384, hmac_sha512};
use crate::domain::secret::Secret;
use crate::domain::source::MacHeader;
use crate::domain::time::Timestamp;

/// How far a `webhook-timestamp` may lie from now, either way: what all official libraries take.
pub const TOLERANCE_SECONDS: i64 = 5 * 60;
/// Shortest key of a source that signs by Standard Webhooks. Less than the 24 bytes of the specification, since
/// products are known to give out shorter ones.
pub const SOURCE_KEY_BYTES_MIN: usize = 16;

/// Longest secret of a source, in bytes of text.
const SOURCE_SECRET_BYTES_MAX: usize = 1024;
/// Entries of a `webhook-signature` that are looked at.
const ENTRIES_MAX: usize = 32;

const STANDARD_FORM: &str = "`v1,` and base64, several separated by spaces";
const HUB_FORM: &str = "`sha256=`, `sha384=` or `sha512=` and hex";
const WSO2_FORM: &str = "`sha256=` and 64 hex digits";
const LOGTO_FORM: &str = "64 hex digits";

/// Why a request is not taken as its source's own. Safe to show to the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// A header is not there.
    #[error("the header `{header}` is missing")]
    Missing {
        /// Which.
        header: &'static str,
    },
    /// A header is there more than once, or has another form.
    #[error("the header `{header}` is malformed: expected once, as {expected}")]
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
        "`webhook-timestamp` is {} s {}, more than the {TOLERANCE_SECONDS} s allowed",
        .ahead_s.unsigned_abs(),
        if *.ahead_s < 0 { "in the past" } else { "in the future" }
    )]
    Timestamp {
        /// Seconds ahead of now; negative: behind.
        ahead_s: i64,
    },
    /// Signed over other bytes or under another secret.
    #[error("no signature matches: the body was changed on its way, or the secrets differ")]
    NoMatch,
    /// None of the source's secrets can be used; only a change of the source helps.
    #[error("the source has no usable secret")]
    NoSecret,
}

/// Checks a request's MAC over the exact bytes of `body`. One secret that fits is enough; several are there while
/// one is replaced by the next. Comparisons take the same time whatever the guess.
pub fn verify_mac(
    header: MacHeader,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    now: Timestamp,
) -> Result<(), MacError> {
    // An empty secret is one that anybody knows.
    let keys: Vec<_> = secrets.iter().filter_map(|secret| source_key(header, secret)).collect();
    if keys.is_empty() {
        return Err(MacError::NoSecret);
    }
    let matches = match header {
        MacHeader::Standard => {
            let (head, given) = standard(headers, now)?;
            keys.iter().any(|key| {
                let mac = hmac_sha256(key, &[head.as_bytes(), body]);
                given.iter().any(|given| constant_time_eq(given, &mac))
            })
        }
        MacHeader::Hub => {
            let (method, given) = prefixed(headers, HUB, HUB_FORM)?;
            let mac: fn(&[u8], &[&[u8]]) -> Vec<u8> = match method.to_ascii_lowercase().as_str() {
                "sha256" => |key, parts| hmac_sha256(key, parts).to_vec(),
                "sha384" => |key, parts| hmac_sha384(key, parts).to_vec(),
                "sha512" => |key, parts| hmac_sha512(key, parts).to_vec(),
                _ => return Err(MacError::Algorithm { header: HUB, expected: HUB_FORM }),
            };
            let given = hex(given, HUB, HUB_FORM)?;
            keys.iter().any(|key| constant_time_eq(&given, &mac(key, &[body])))
        }
        MacHeader::Wso2 => {
            let (method, given) = prefixed(headers, WSO2, WSO2_FORM)?;
            if !method.eq_ignore_ascii_case("sha256") {
                return Err(MacError::Algorithm { header: WSO2, expected: WSO2_FORM });
            }
            let given = hex(given, WSO2, WSO2_FORM)?;
            keys.iter().any(|key| constant_time_eq(&given, &hmac_sha256(key, &[body])))
        }
        MacHeader::Logto => {
            let given = hex(single(headers, LOGTO, LOGTO_FORM)?, LOGTO, LOGTO_FORM)?;
            keys.iter().any(|key| constant_time_eq(&given, &hmac_sha256(key, &[body])))
        }
    };
    if matches { Ok(()) } else { Err(MacError::NoMatch) }
}

/// Checks a source's secret before it is stored; says what it should be.
pub fn check_source_secret(header: MacHeader, secret: &Secret) -> Result<(), &'static str> {
    match (source_key(header, secret), header) {
        (Some(_), _) => Ok(()),
        (None, MacHeader::Standard) => Err("a Standard Webhooks secret is `whsec_` and at least 16 bytes in base64"),
        (None, _) => Err("a secret is 1 to 1024 bytes of text"),
    }
}

// Text as it stands; for Standard Webhooks the decoded part after `whsec_`, which libraries let one leave out.
fn source_key(header: MacHeader, secret: &Secret) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let text = secret.expose();
    if text.is_empty() || text.len() > SOURCE_SECRET_BYTES_MAX {
        return None;
    }
    match header {
        MacHeader::Standard => {
            let key = decode(text.strip_prefix(SYMMETRIC).unwrap_or(text))?;
            (key.len() >= SOURCE_KEY_BYTES_MIN).then_some(key)
        }
        _ => Some(zeroize::Zeroizing::new(text.as_bytes().to_vec())),
    }
}

/// What stands before the body in the signed bytes, and the `v1` signatures given.
fn standard(headers: &HeaderMap, now: Timestamp) -> Result<(String, Vec<Vec<u8>>), MacError> {
    // With a dot in it, bytes could move between id, timestamp and body under one signature.
    let id = single(headers, ID, "text without `.`")?;
    if id.is_empty() || id.contains('.') {
        return Err(MacError::Malformed { header: ID, expected: "text without `.`" });
    }
    let timestamp = single(headers, TIMESTAMP, "whole seconds since 1970")?;
    // `parse` takes a sign too; the signed text has none.
    let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
    let signed_s: i64 = digits
        .then(|| timestamp.parse().ok())
        .flatten()
        .ok_or(MacError::Malformed { header: TIMESTAMP, expected: "whole seconds since 1970" })?;
    let list = single(headers, SIGNATURE, STANDARD_FORM)?;
    let entries: Vec<_> = list.split(' ').take(ENTRIES_MAX).filter_map(|entry| entry.split_once(',')).collect();
    if entries.is_empty() {
        return Err(MacError::Malformed { header: SIGNATURE, expected: STANDARD_FORM });
    }
    if !entries.iter().any(|(version, _)| *version == "v1") {
        return Err(MacError::Algorithm { header: SIGNATURE, expected: STANDARD_FORM });
    }
    let ahead_s = signed_s.saturating_sub(now.as_seconds());
    if ahead_s.saturating_abs() > TOLERANCE_SECONDS {
        return Err(MacError::Timestamp { ahead_s });
    }
    let v1 = entries.iter().filter(|(version, _)| *version == "v1");
    let given = v1.filter_map(|(_, mac)| decode(mac)).map(|mac| mac.to_vec()).collect();
    Ok((format!("{id}.{timestamp}."), given))
}

// A header that is there twice may be read one way here and another way by whoever else checks it.
fn single<'a>(headers: &'a HeaderMap, header: &'static str, expected: &'static str) -> Result<&'a str, MacError> {
    let mut values = headers.get_all(header).iter();
    let first = values.next().ok_or(MacError::Missing { header })?;
    match (first.to_str(), values.next()) {
        (Ok(text), None) => Ok(text.trim()),
        _ => Err(MacError::Malformed { header, expected }),
    }
}

fn prefixed<'a>(
    headers: &'a HeaderMap,
    header: &'static str,
    expected: &'static str,
) -> Result<(&'a str, &'a str), MacError> {
    single(headers, header, expected)?.split_once('=').ok_or(MacError::Malformed { header, expected })
}

fn hex(text: &str, header: &'static str, expected: &'static str) -> Result<Vec<u8>, MacError> {
    hex::decode(text).ok().filter(|mac| mac.len() >= 32).ok_or(MacError::Malformed { header, expected })
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
