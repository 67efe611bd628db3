//! Claims of signed SETs, after the signature.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::Value;
use setgate_dialects::normalize::{SignedSet, normalize_signed, original_body};
use setgate_domain::algorithm::Algorithm;
use setgate_domain::id::EventId;
use setgate_domain::json::{JsonLimits, canonical, check};
use setgate_domain::set::SetToken;
use setgate_domain::source::{Compat, Form, JwsProof, KeyOrigin, Proof, Source};

use super::claims::{NOW, source, stored};
use super::short;

/// Accepted claims become a valid SET within the rules of the source, and can be converted back to the payload.
pub(super) fn signed(choice: u8, payload: &[u8]) {
    let compat = Compat {
        allow_missing_typ: false,
        allow_sub_and_exp: choice & 1 != 0,
        allow_subject_in_event: choice & 2 != 0,
        allow_issuer_in_iss_sub: choice & 4 != 0,
        allow_numeric_txn: choice & 8 != 0,
    };
    // The issuer and the audience that the payload has, so that the other claims are reached.
    let given: Value = serde_json::from_slice(payload).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("https://idp.example").to_owned();
    let audience = given["aud"].as_array().and_then(|all| all.first()).unwrap_or(&given["aud"]);
    let proof = JwsProof {
        issuer: text(&given["iss"]),
        keys: KeyOrigin::Jwks(String::new()),
        algorithms: Algorithm::ALL.to_vec(),
        audience: vec![text(audience)],
        authorization: None,
    };
    let source = Source { proofs: vec![Proof::Jws(proof)], compat, ..source(Form::Set, false) };
    let proof = source.signed().expect("it has the proof");
    let token = Bytes::from(format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload)));
    let limits = JsonLimits { depth_max: 16, bytes_max: 64 << 10 };
    let sent = SignedSet { token: &token, payload, now: NOW };
    let event = match normalize_signed(&source, proof, sent, NOW, EventId::new(NOW, 1), limits) {
        Ok(event) => event,
        Err(refusal) => {
            // The expected issuer is a part of the message.
            return if proof.issuer.len() < 1_000 {
                short(&refusal.to_string())
            };
        }
    };
    let text = event.set.text.clone();
    let wrapped = JsonLimits { depth_max: limits.depth_max, bytes_max: usize::MAX };
    assert_eq!(SetToken::parse(text.clone(), wrapped).as_ref(), Ok(&event.set), "what is stored is a SET");
    let claims: Value = serde_json::from_str(&text).expect("a SET is JSON");
    assert!(claims.get("sub").is_none() && claims.get("exp").is_none(), "{text}");
    assert!(claims["txn"].is_null() || claims["txn"].is_string(), "{text}");
    let once = canonical(&text, &[]);
    assert_eq!(canonical(&once, &[]), once);
    assert_eq!(serde_json::from_str::<Value>(&once).ok(), Some(claims), "the same value");
    let sent = check(setgate_domain::text::strip_bom(payload), limits).expect("it was accepted").to_owned();
    assert_eq!(original_body(&stored(event), &text).expect("what is stored can be sent"), sent);
}
