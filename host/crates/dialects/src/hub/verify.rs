//! Verifies the signature of a request.

use setgate_base::crypto::{constant_time_eq, hmac_sha1, hmac_sha256, hmac_sha384, hmac_sha512};

use super::{SIGNATURE, SIGNATURE_256};
use crate::proof::{MacError, Verified, entries};
use crate::scheme::SignedRequest;

/// Value of [`SIGNATURE`], for error messages.
pub(super) const EXPECTED: &str = "`sha256=`, `sha384=` or `sha512=` and hex digits";
/// Value of [`SIGNATURE_256`], for error messages.
pub(super) const EXPECTED_256: &str = "`sha256=` and 64 hex digits";

/// The algorithms, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Method {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Method {
    fn named(name: &str) -> Option<Self> {
        [("sha1", Self::Sha1), ("sha256", Self::Sha256), ("sha384", Self::Sha384), ("sha512", Self::Sha512)]
            .into_iter()
            .find_map(|(known, method)| name.eq_ignore_ascii_case(known).then_some(method))
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn mac(self, key: &[u8], body: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => hmac_sha1(key, &[body]).to_vec(),
            Self::Sha256 => hmac_sha256(key, &[body]).to_vec(),
            Self::Sha384 => hmac_sha384(key, &[body]).to_vec(),
            Self::Sha512 => hmac_sha512(key, &[body]).to_vec(),
        }
    }
}

/// Only the strongest algorithm in the request counts: a valid signature with a weaker one cannot replace an invalid
/// one with the strongest, so an attacker gains nothing by forging a weaker signature. Unknown algorithms are ignored.
pub(super) fn verify(request: &SignedRequest<'_>) -> Result<Verified, MacError> {
    let mut given = Vec::new();
    for (header, form) in [(SIGNATURE, EXPECTED), (SIGNATURE_256, EXPECTED_256)] {
        let entries = match entries::split(request.headers, header, form) {
            Ok(entries) => entries,
            Err(MacError::Missing { .. }) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let (method, mac) = entry.split_once('=').ok_or(MacError::Malformed { header, expected: form })?;
            let method = Method::named(method).filter(|method| header == SIGNATURE || *method == Method::Sha256);
            given.push((method, mac, header, form));
        }
    }
    let Some((_, _, header, form)) = given.first().copied() else {
        return Err(MacError::Missing { header: SIGNATURE });
    };
    let strongest = given.iter().filter_map(|(method, ..)| *method).max();
    let Some(strongest) = strongest.filter(|method| request.allow_sha1 || *method != Method::Sha1) else {
        return Err(MacError::Algorithm { header, expected: form });
    };
    let macs = given.into_iter().filter(|(method, ..)| *method == Some(strongest));
    let macs = macs.map(|(_, mac, header, form)| entries::decode_hex(mac, strongest.bytes(), header, form));
    let macs = macs.collect::<Result<Vec<_>, _>>()?;
    let matches = request.keys.iter().any(|key| {
        let mac = strongest.mac(key, request.body);
        macs.iter().any(|given| constant_time_eq(given, &mac))
    });
    if matches { Ok(Verified { id: None }) } else { Err(MacError::NoMatch) }
}
