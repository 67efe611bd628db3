//! WSO2 Identity Server and Asgardeo.

use std::sync::Arc;

use setgate_domain::source::MacHeader;
use setgate_domain::subscription::SigningScheme;

use crate::dialect::Dialect;
use crate::proof::{MacError, Verified, any_sha256, entries};
use crate::scheme::{Headers, Message, Notation, Received, Scheme};
use crate::signing::{Error, Key, body_mac};

/// The signature, of requests and of deliveries.
const SIGNATURE: &str = "x-wso2-event-signature";
/// Value of [`SIGNATURE`], for error messages.
const EXPECTED: &str = "`sha256=` and 64 hex digits";

pub(crate) const DIALECT: Dialect = Dialect {
    title: "WSO2 Identity Server and Asgardeo",
    scheme: Some(Scheme {
        proof: MacHeader::Wso2,
        signing: SigningScheme::Wso2,
        about: "`sha256=<hex>`: HMAC of the body.",
        reads: &[SIGNATURE],
        forbidden: &[SIGNATURE],
        carries_several: false,
        notation: Notation::Text,
        verify,
        sign,
    }),
};

fn verify(request: &Received<'_>) -> Result<Verified, MacError> {
    let mut given = Vec::new();
    for entry in entries::of(request.headers, SIGNATURE, EXPECTED)? {
        let malformed = MacError::Malformed { header: SIGNATURE, expected: EXPECTED };
        let (method, mac) = entry.split_once('=').ok_or(malformed)?;
        if !method.trim().eq_ignore_ascii_case("sha256") {
            return Err(MacError::Algorithm { header: SIGNATURE, expected: EXPECTED });
        }
        given.push(entries::hex(mac, 32, SIGNATURE, EXPECTED)?);
    }
    any_sha256(request, &given)
}

fn sign(keys: &[Arc<Key>], message: &Message<'_>) -> Result<Headers, Error> {
    Ok(vec![(SIGNATURE, format!("sha256={}", body_mac(keys, message)?))])
}

#[cfg(test)]
mod tests {
    use setgate_base::crypto::hmac_sha512;

    use super::*;
    use crate::testing::{GITHUB_BODY, GITHUB_MAC, GITHUB_SECRET, body_mac, signed};

    /// GitHub documentation, "Validating webhook deliveries": the same MAC under another header name.
    #[test]
    fn it_signs_and_verifies_the_published_vector() {
        let value = format!("sha256={GITHUB_MAC}");
        assert_eq!(
            signed(&DIALECT, GITHUB_SECRET, "dlv_1"),
            [("webhook-id", "dlv_1".to_owned()), (SIGNATURE, value.clone())]
        );
        body_mac(MacHeader::Wso2, &[(SIGNATURE, &value)], &["old secret", GITHUB_SECRET]).unwrap();
        assert_eq!(body_mac(MacHeader::Wso2, &[(SIGNATURE, &value)], &["another"]), Err(MacError::NoMatch));
    }

    #[test]
    fn a_missing_or_other_signature_is_named() {
        assert_eq!(body_mac(MacHeader::Wso2, &[], &[GITHUB_SECRET]), Err(MacError::Missing { header: SIGNATURE }));
        let sha512 = format!("SHA512={}", hex::encode(hmac_sha512(GITHUB_SECRET.as_bytes(), &[GITHUB_BODY])));
        let refused = Err(MacError::Algorithm { header: SIGNATURE, expected: EXPECTED });
        assert_eq!(body_mac(MacHeader::Wso2, &[(SIGNATURE, &sha512)], &[GITHUB_SECRET]), refused);
        let refused = Err(MacError::Malformed { header: SIGNATURE, expected: EXPECTED });
        assert_eq!(body_mac(MacHeader::Wso2, &[(SIGNATURE, GITHUB_MAC)], &[GITHUB_SECRET]), refused);
    }
}
