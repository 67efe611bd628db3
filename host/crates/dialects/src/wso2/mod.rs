//! WSO2 Identity Server and Asgardeo: SETs with `iat` in milliseconds and a transaction id `rci`.

mod claim_mapping;
mod events;
pub(crate) mod subject;

use std::sync::Arc;

use setgate_domain::json::{Object, quote};
use setgate_domain::source::{Form, MacHeader};
use setgate_domain::subscription::SigningScheme;

use crate::dialect::Dialect;
use crate::form::BodyForm;
use crate::normalize::iss_sub;
use crate::proof::{MacError, Verified, any_sha256, entries};
use crate::samples::SampleFile;
use crate::scheme::{Headers, Message, Notation, Scheme, SignedRequest};
use crate::set::{self, ProductClaims, first_event};
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
        about_proof: "`x-wso2-event-signature: sha256=<hex>`.",
        about_signing: "`x-wso2-event-signature: sha256=<hex>`.",
        delivery_id_headers: &[],
        signature_headers: &[SIGNATURE],
        reserved_headers: &[SIGNATURE],
        supports_multiple_signatures: false,
        notation: Notation::Text,
        verify,
        sign,
    }),
    form: Some(BodyForm {
        form: Form::Wso2,
        name: "wso2",
        about: "WSO2 Identity Server and Asgardeo: a JSON SET with `iat` in milliseconds and `rci`.",
        expected: "a SET as JSON with iss, jti, iat and events",
        accepts_any_event_type: false,
        has_characteristic_members: set::is_set,
        event: "a WSO2 or Asgardeo event",
        looks_like_event: |body| body.object("events").is_some() && body.get("rci").is_some(),
        describe_non_event: |body| {
            let is_webhook = body.get("channelsSubscribed").is_some() || body.get("eventProfile").is_some();
            is_webhook.then_some("a request to create a WSO2 webhook")
        },
        claim_mapping: claim_mapping::CLAIM_MAPPING,
        samples: &[
            SampleFile { product: "wso2", json: include_str!("samples/wso2.json") },
            SampleFile { product: "asgardeo", json: include_str!("samples/asgardeo.json") },
        ],
        normalize: |request| set::normalize_set(request, derive),
    }),
    products: &[events::PRODUCT],
    unlisted: Some(events::unlisted),
};

/// Adds `txn` from `rci`, and `sub_id` from the user's id, if the SET does not have them.
fn derive(claims: &Object<'_>, events: Option<&Object<'_>>) -> ProductClaims {
    let mut added = Vec::new();
    if let Some(rci) = claims.string("rci").filter(|rci| !rci.is_empty() && claims.get("txn").is_none()) {
        added.push(("txn", quote(&rci)));
    }
    let event = first_event(events);
    let given = || event.as_ref().and_then(|(_, event)| set::subject::of_event(event));
    let mut subject = set::subject::of_claims(claims).or_else(given);
    if let Some(derived) = event.as_ref().and_then(|(uri, event)| subject::of(uri, event)) {
        let named = claims.get("sub_id").is_some() || claims.get("sub").is_some();
        // Any other `iss` is refused when the SET is made.
        let issuer = claims.get("iss").filter(|iss| iss.starts_with('"'));
        if let (false, Some(iss), Some(user)) = (named, issuer, derived.user()) {
            added.push(("sub_id", iss_sub(iss, user)));
        }
        subject = subject.or(Some(derived));
    }
    ProductClaims { added, subject }
}

fn verify(request: &SignedRequest<'_>) -> Result<Verified, MacError> {
    let mut given = Vec::new();
    for entry in entries::split(request.headers, SIGNATURE, EXPECTED)? {
        let malformed = MacError::Malformed { header: SIGNATURE, expected: EXPECTED };
        let (method, mac) = entry.split_once('=').ok_or(malformed)?;
        if !method.trim().eq_ignore_ascii_case("sha256") {
            return Err(MacError::Algorithm { header: SIGNATURE, expected: EXPECTED });
        }
        given.push(entries::decode_hex(mac, 32, SIGNATURE, EXPECTED)?);
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
    fn signs_and_verifies_published_vector() {
        let value = format!("sha256={GITHUB_MAC}");
        assert_eq!(
            signed(&DIALECT, GITHUB_SECRET, "dlv_1"),
            [("webhook-id", "dlv_1".to_owned()), (SIGNATURE, value.clone())]
        );
        body_mac(MacHeader::Wso2, &[(SIGNATURE, &value)], &["old secret", GITHUB_SECRET]).unwrap();
        assert_eq!(body_mac(MacHeader::Wso2, &[(SIGNATURE, &value)], &["another"]), Err(MacError::NoMatch));
    }

    #[test]
    fn missing_or_other_signature_is_reported() {
        assert_eq!(body_mac(MacHeader::Wso2, &[], &[GITHUB_SECRET]), Err(MacError::Missing { header: SIGNATURE }));
        let sha512 = format!("SHA512={}", hex::encode(hmac_sha512(GITHUB_SECRET.as_bytes(), &[GITHUB_BODY])));
        let refused = Err(MacError::Algorithm { header: SIGNATURE, expected: EXPECTED });
        assert_eq!(body_mac(MacHeader::Wso2, &[(SIGNATURE, &sha512)], &[GITHUB_SECRET]), refused);
        let refused = Err(MacError::Malformed { header: SIGNATURE, expected: EXPECTED });
        assert_eq!(body_mac(MacHeader::Wso2, &[(SIGNATURE, GITHUB_MAC)], &[GITHUB_SECRET]), refused);
    }
}
