//! JWKS: usable keys, skipped keys, and refused documents.

use super::*;
use crate::{JwkSetError, SkipReason, limits};

const P256: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

fn reason(key: &str) -> SkipReason {
    let set = JwkSet::parse(format!(r#"{{"keys":[{key}]}}"#).as_bytes()).unwrap();
    assert!(set.keys().is_empty(), "{key}");
    set.skipped()[0].reason.clone()
}

fn rsa(bits: usize, e: &str) -> String {
    let mut n = vec![0xff; bits / 8];
    n[0] = 0x80;
    format!(r#"{{"kty":"RSA","n":"{}","e":"{e}"}}"#, base64url::encode(n))
}

#[test]
fn our_jwks_is_read_back() {
    let set = published(KEYS.iter());
    let json = set.to_json();
    assert_eq!(JwkSet::parse(json.as_bytes()).unwrap(), set);
    assert_eq!(
        json,
        format!("{{\"keys\":[{}]}}", KEYS.iter().map(|key| key.public_jwk()).collect::<Vec<_>>().join(","))
    );
    assert!(set.bytes() > 2 * 256, "{}", set.bytes());
    assert_eq!(JwkSet::parse(b"{\"keys\":[]}").unwrap(), JwkSet::default());
    assert_eq!(JwkSet::default().to_json(), "{\"keys\":[]}");
}

#[test]
fn unusable_keys_are_skipped_and_listed() {
    let text = |text: &str| text.to_owned();
    for (key, expected) in [
        ("1", SkipReason::NotAnObject),
        ("{}", SkipReason::Member { member: "kty" }),
        (r#"{"kty":"oct","k":"AA"}"#, SkipReason::KeyType { kty: text("oct") }),
        (r#"{"kty":"EC","crv":"P-384"}"#, SkipReason::Curve { crv: text("P-384") }),
        (r#"{"kty":"EC","crv":"P-256"}"#, SkipReason::Member { member: "x" }),
        (r#"{"kty":"EC","crv":"P-256","x":"AQ"}"#, SkipReason::Length { member: "x", bytes: 1 }),
        (r#"{"kty":"EC","crv":"P-256","x":"AQ=="}"#, SkipReason::Encoding { member: "x" }),
        (r#"{"kty":"OKP","crv":"X25519","x":"AQ"}"#, SkipReason::Curve { crv: text("X25519") }),
        (&format!(r#"{{{P256},"use":"enc"}}"#), SkipReason::Use { key_use: text("enc") }),
        (&format!(r#"{{{P256},"use":1}}"#), SkipReason::Member { member: "use" }),
        (&format!(r#"{{{P256},"key_ops":["sign"]}}"#), SkipReason::KeyOps),
        (&format!(r#"{{{P256},"key_ops":"verify"}}"#), SkipReason::KeyOps),
        (&format!(r#"{{{P256},"alg":"ES384"}}"#), SkipReason::Algorithm { alg: text("ES384") }),
        (&format!(r#"{{{P256},"alg":"HS256"}}"#), SkipReason::Algorithm { alg: text("HS256") }),
        (&format!(r#"{{{P256},"alg":"RS256"}}"#), SkipReason::AlgorithmMismatch { alg: Algorithm::Rs256 }),
        (&format!(r#"{{{P256},"d":"AQ"}}"#), SkipReason::Private),
        (&format!(r#"{{{P256},"kid":7}}"#), SkipReason::Member { member: "kid" }),
        (&format!(r#"{{{P256},"kid":"{}"}}"#, "k".repeat(limits::KID_BYTES_MAX + 1)), SkipReason::Kid),
        (&rsa(1024, "AQAB"), SkipReason::RsaBits { bits: 1024 }),
        (&rsa(8200, "AQAB"), SkipReason::RsaBits { bits: 8200 }),
        (&rsa(2048, "AQ"), SkipReason::RsaRange),
        (&rsa(2048, "BA"), SkipReason::RsaRange),
        (&rsa(2048, "AgAAAAE"), SkipReason::RsaRange),
        (&rsa(2048, "AQAAAAAAAAAB"), SkipReason::RsaRange),
    ] {
        assert_eq!(reason(key), expected, "{key}");
    }
}

#[test]
fn usable_keys_stay_beside_skipped_ones() {
    let json = format!(
        r#"{{"keys":[{{"kid":"a\nb","kty":"oct"}},{{{P256},"kid":"x","key_ops":["verify"],"x5c":["ignored"]}},{}],"more":1}}"#,
        rsa(8192, "Aw")
    );
    let set = JwkSet::parse(json.as_bytes()).unwrap();
    assert_eq!(set.keys().len(), 2);
    assert_eq!(set.skipped().len(), 1);
    assert_eq!(set.skipped()[0].kid.as_deref(), Some("a\\nb"));
    let [p256, rsa] = set.keys() else { panic!("two keys") };
    let accepted = |key: &PublicJwk| Algorithm::ALL.into_iter().filter(|alg| key.accepts(*alg)).collect::<Vec<_>>();
    assert_eq!(accepted(p256), [Algorithm::Es256]);
    assert_eq!(accepted(rsa), [Algorithm::Rs256, Algorithm::Ps256]);
}

#[test]
fn leading_zeros_of_a_modulus_are_dropped() {
    let key = key(Algorithm::Rs256);
    let public = PublicJwk::parse(key.public_jwk()).unwrap();
    let json = key.public_jwk();
    let n = json.split("\"n\":\"").nth(1).unwrap().split('"').next().unwrap();
    let longer = base64url::encode([&[0][..], &base64url::decode(n).unwrap()].concat());
    assert_eq!(PublicJwk::parse(&json.replace(n, &longer)).unwrap(), public);
}

#[test]
fn unusable_documents_are_refused() {
    let refused = |json: &str| JwkSet::parse(json.as_bytes()).unwrap_err();
    for json in ["[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, "1"] {
        assert_eq!(refused(json), JwkSetError::NoKeys, "{json}");
    }
    let deep = format!(r#"{{"keys":{}{}}}"#, "[".repeat(20), "]".repeat(20));
    for json in ["", "{", r#"{"keys":[],"keys":[]}"#, r#"{"keys":[{"kty":"EC","kty":"RSA"}]}"#, &deep] {
        assert!(matches!(refused(json), JwkSetError::Json(_)), "{json}");
    }
    let many = |keys: usize| format!(r#"{{"keys":[{}]}}"#, vec!["{}"; keys].join(","));
    assert_eq!(JwkSet::parse(many(limits::KEYS_MAX).as_bytes()).unwrap().skipped().len(), limits::KEYS_MAX);
    assert_eq!(refused(&many(limits::KEYS_MAX + 1)), JwkSetError::TooManyKeys { keys: limits::KEYS_MAX + 1 });
    let long = format!(r#"{{"keys":[]{}}}"#, " ".repeat(limits::JWKS_BYTES_MAX));
    assert!(refused(&long).to_string().contains("262144 are allowed"), "{}", refused(&long));
}
