//! Any input is refused or accepted without a panic, and any changed byte is noticed.

use proptest::prelude::*;

use super::*;

/// Text that looks like JSON of a header or key.
fn json() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "alg", "kid", "typ", "crit", "b64", "kty", "crv", "n", "e", "x", "y", "d", "keys", "use",
    ]);
    let value = prop::sample::select(vec![
        "\"ES256\"",
        "\"RS256\"",
        "\"EdDSA\"",
        "\"none\"",
        "\"RSA\"",
        "\"EC\"",
        "\"OKP\"",
        "\"P-256\"",
        "\"Ed25519\"",
        "\"AQAB\"",
        "\"sig\"",
        "false",
        "null",
        "[]",
        "[{}]",
        "{}",
        "1",
        "\"\\ud800\"",
        "",
        "\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"",
    ]);
    let members = prop::collection::vec((name, value), 0..8);
    members.prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Parses the input in every way.
fn parse_all(bytes: &[u8]) {
    if let Ok(token) = Jws::parse(bytes) {
        let _either = token.verify(&published(KEYS.iter()), &Algorithm::ALL);
    }
    if let Ok(set) = JwkSet::parse(bytes) {
        assert_eq!(JwkSet::parse(set.to_json().as_bytes()).unwrap().keys(), set.keys());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _either = SigningKey::import_jwk(text);
        let _either = SigningKey::import_pem(Algorithm::Es256, text);
    }
    for algorithm in Algorithm::ALL {
        assert!(SigningKey::from_pkcs8(algorithm, bytes).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse_all(&bytes);
    }

    #[test]
    fn arbitrary_parts(head in json(), payload in ".{0,20}", signature in prop::collection::vec(any::<u8>(), 0..80)) {
        let parts = [head.as_bytes(), payload.as_bytes(), &signature].map(base64url::encode);
        parse_all(parts.join(".").as_bytes());
    }

    #[test]
    fn arbitrary_json(one in json(), two in json()) {
        parse_all(one.as_bytes());
        parse_all(format!("{{\"keys\":[{one},{two}]}}").as_bytes());
    }

    #[test]
    fn arbitrary_pem(label in "(EC |RSA )?P(RIVATE|UBLIC) KEY", bytes in prop::collection::vec(any::<u8>(), 0..150)) {
        use base64::Engine as _;
        let content = base64::engine::general_purpose::STANDARD.encode(bytes);
        parse_all(format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n").as_bytes());
    }

    #[test]
    fn a_changed_byte_never_verifies(which in 0..4_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let token = KEYS[which].sign(TYP, PAYLOAD).unwrap();
        let keys = published(KEYS.iter());
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != byte);
        changed[at] = byte;
        let verified = Jws::parse(&changed).is_ok_and(|token| token.verify(&keys, &Algorithm::ALL).is_ok());
        prop_assert!(!verified);
    }
}
