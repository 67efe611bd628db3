//! Logto: webhooks with `{event, createdAt, ...}`.

mod claim_mapping;
mod events;
pub(crate) mod subject;

use std::sync::Arc;

use setgate_domain::source::{Form, MacHeader};
use setgate_domain::subscription::SigningScheme;

use crate::catalogue::uri_for;
use crate::dialect::Dialect;
use crate::form::{BodyForm, NormalizeRequest, NormalizedSet};
use crate::normalize::{NormalizeError, wrapped};
use crate::proof::{MacError, Verified, any_sha256, entries};
use crate::samples::SampleFile;
use crate::scheme::{Headers, Message, Notation, Scheme, SignedRequest};
use crate::signing::{Error, Key, body_mac};

/// The signature: read from the requests of sources, and written to deliveries.
const SIGNATURE: &str = "logto-signature-sha-256";
/// Value of [`SIGNATURE`], for error messages.
const EXPECTED: &str = "64 hex digits";

pub(crate) const DIALECT: Dialect = Dialect {
    title: "Logto",
    scheme: Some(Scheme {
        proof: MacHeader::Logto,
        signing: SigningScheme::Logto,
        about: "`<hex>`: HMAC of the body.",
        about_proof: "`logto-signature-sha-256: <hex>`.",
        about_signing: "`logto-signature-sha-256: <hex>`.",
        delivery_id_headers: &[],
        signature_headers: &[SIGNATURE],
        reserved_headers: &[SIGNATURE],
        supports_multiple_signatures: false,
        notation: Notation::Text,
        verify,
        sign,
    }),
    form: Some(BodyForm {
        form: Form::Logto,
        name: "logto",
        about: "Logto hooks: `{event, createdAt, ...}`.",
        expected: "a Logto webhook body with `event` and `createdAt`",
        accepts_any_event_type: false,
        has_characteristic_members: |body| body.get("event").is_some(),
        event: "a Logto event",
        looks_like_event: |body| {
            body.string("event").is_some() && (body.get("hookId").is_some() || body.get("createdAt").is_some())
        },
        describe_non_event: |_| None,
        claim_mapping: claim_mapping::CLAIM_MAPPING,
        samples: &[SampleFile { product: "logto", json: include_str!("samples/logto.json") }],
        normalize,
    }),
    products: &[events::PRODUCT],
    unlisted: None,
};

fn normalize(request: &NormalizeRequest<'_>) -> Result<NormalizedSet, NormalizeError> {
    let body = wrapped::body(request)?;
    let event = wrapped::event_name(&body, "event")?;
    let issued_at = match body.get("createdAt") {
        Some(at) => wrapped::seconds("createdAt", at)?,
        None => request.now.as_seconds(),
    };
    let subject = subject::of(&event, &body);
    let (jti, window_ms) = wrapped::derive_jti(request);
    let claims = wrapped::WrappedClaims { jti, window_ms, issued_at, subject };
    wrapped::wrap(request.source, &uri_for(&events::PRODUCT, &event), body.text(), claims)
}

fn verify(request: &SignedRequest<'_>) -> Result<Verified, MacError> {
    let entries = entries::split(request.headers, SIGNATURE, EXPECTED)?;
    let given = entries.into_iter().map(|mac| entries::decode_hex(mac, 32, SIGNATURE, EXPECTED));
    any_sha256(request, &given.collect::<Result<Vec<_>, _>>()?)
}

fn sign(keys: &[Arc<Key>], message: &Message<'_>) -> Result<Headers, Error> {
    Ok(vec![(SIGNATURE, body_mac(keys, message)?)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{GITHUB_MAC, GITHUB_SECRET, body_mac, signed};

    /// GitHub documentation, "Validating webhook deliveries": the same MAC under another header name.
    #[test]
    fn signs_and_verifies_published_vector() {
        assert_eq!(
            signed(&DIALECT, GITHUB_SECRET, "dlv_1"),
            [("webhook-id", "dlv_1".to_owned()), (SIGNATURE, GITHUB_MAC.to_owned())]
        );
        body_mac(MacHeader::Logto, &[(SIGNATURE, GITHUB_MAC)], &[GITHUB_SECRET]).unwrap();
        body_mac(MacHeader::Logto, &[(SIGNATURE, &GITHUB_MAC.to_uppercase())], &[GITHUB_SECRET]).unwrap();
    }

    #[test]
    fn mac_with_prefix_is_malformed() {
        let refused = Err(MacError::Malformed { header: SIGNATURE, expected: EXPECTED });
        let prefixed = format!("sha256={GITHUB_MAC}");
        assert_eq!(body_mac(MacHeader::Logto, &[(SIGNATURE, &prefixed)], &[GITHUB_SECRET]), refused);
    }
}
