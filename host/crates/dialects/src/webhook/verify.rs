//! Verifies the signature of a request: one over id, timestamp and body, in `webhook-*` headers or in Svix's `svix-*`
//! headers.

use http::HeaderMap;
use setgate_base::crypto::{constant_time_eq, hmac_sha256};

use super::{ID, SIGNATURE, SVIX_ID, SVIX_SIGNATURE, SVIX_TIMESTAMP, TIMESTAMP};
use crate::proof::{ENTRIES_MAX, MacError, Verified, entries};
use crate::scheme::SignedRequest;
use crate::signing::decode;

/// Value of the signature header, for error messages.
pub(super) const EXPECTED: &str = "`v1,` and base64, several separated by spaces";

/// The three headers of one family. A signature covers the id and the timestamp of its own family, so a request needs
/// one complete family.
struct Family {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

const WEBHOOK: Family = Family { id: ID, timestamp: TIMESTAMP, signature: SIGNATURE };
const SVIX: Family = Family { id: SVIX_ID, timestamp: SVIX_TIMESTAMP, signature: SVIX_SIGNATURE };

impl Family {
    fn is_whole(&self, headers: &HeaderMap) -> bool {
        [self.id, self.timestamp, self.signature].iter().all(|name| headers.contains_key(*name))
    }

    fn is_begun(&self, headers: &HeaderMap) -> bool {
        [self.id, self.timestamp, self.signature].iter().any(|name| headers.contains_key(*name))
    }
}

/// If a request has both families, one of them must match.
pub(super) fn verify(request: &SignedRequest<'_>) -> Result<Verified, MacError> {
    let headers = request.headers;
    let whole = [WEBHOOK, SVIX].into_iter().filter(|family| family.is_whole(headers));
    let mut first_failure = None;
    for family in whole {
        match check(&family, request) {
            Ok(signed) => return Ok(signed),
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
    }
    let Some(failure) = first_failure else {
        // Reports the missing header of the incomplete family.
        let family = if SVIX.is_begun(headers) && !WEBHOOK.is_begun(headers) { SVIX } else { WEBHOOK };
        return check(&family, request);
    };
    Err(failure)
}

fn check(family: &Family, request: &SignedRequest<'_>) -> Result<Verified, MacError> {
    let &SignedRequest { headers, body, keys, now, tolerance_s, .. } = request;
    // If the id could contain a dot, bytes could be moved between id, timestamp and body under the same signature.
    let id = entries::single(headers, family.id, "text without `.`")?;
    if id.is_empty() || id.contains('.') {
        return Err(MacError::Malformed { header: family.id, expected: "text without `.`" });
    }
    let timestamp = entries::single(headers, family.timestamp, "whole seconds since 1970")?;
    // `parse` also accepts a sign, which is not allowed here.
    let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
    let signed_s: i64 = digits
        .then(|| timestamp.parse().ok())
        .flatten()
        .ok_or(MacError::Malformed { header: family.timestamp, expected: "whole seconds since 1970" })?;
    let given = signatures(family.signature, headers)?;
    let ahead_s = signed_s.saturating_sub(now.as_seconds());
    if ahead_s.saturating_abs() > i64::from(tolerance_s) {
        return Err(MacError::Timestamp { ahead_s, tolerance_s });
    }
    let head = format!("{id}.{timestamp}.");
    let matches = keys.iter().any(|key| {
        let mac = hmac_sha256(key, &[head.as_bytes(), body]);
        given.iter().any(|given| constant_time_eq(given, &mac))
    });
    if matches { Ok(Verified { id: Some(id.to_owned()) }) } else { Err(MacError::NoMatch) }
}

/// The `v1` signatures of all lines. Entries of other versions, or without a version, are ignored.
fn signatures(header: &'static str, headers: &HeaderMap) -> Result<Vec<Vec<u8>>, MacError> {
    let malformed = || MacError::Malformed { header, expected: EXPECTED };
    let mut lines = Vec::new();
    for line in headers.get_all(header) {
        lines.push(line.to_str().map_err(|_| malformed())?);
    }
    if lines.is_empty() {
        return Err(MacError::Missing { header });
    }
    // Lines that were merged in transit are separated by a comma.
    let entries = lines.into_iter().flat_map(str::split_whitespace).map(strip_trailing_comma);
    let entries: Vec<_> = entries.take(ENTRIES_MAX).filter_map(|entry| entry.split_once(',')).collect();
    if entries.is_empty() {
        return Err(malformed());
    }
    let v1 = entries.iter().filter(|(version, _)| *version == "v1").collect::<Vec<_>>();
    if v1.is_empty() {
        return Err(MacError::Algorithm { header, expected: EXPECTED });
    }
    Ok(v1.into_iter().filter_map(|(_, mac)| decode(mac)).map(|mac| mac.to_vec()).collect())
}

/// Removes a trailing comma, but not the comma between version and signature.
fn strip_trailing_comma(entry: &str) -> &str {
    entry.strip_suffix(',').filter(|entry| entry.contains(',')).unwrap_or(entry)
}
