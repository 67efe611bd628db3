//! Fuzzing of signed tokens, and of public and private keys.

use std::sync::LazyLock;

use serde_json::Value;
use setgate_jose::{Algorithm, JwkSet, Jws, SigningKey};

/// The public keys of RFC 7515 appendices A.2 and A.3 and of RFC 8037 appendix A.2. Only few tokens by them exist.
const PUBLISHED_KEYS: &str = r#"{"keys":[
    {"kty":"RSA","alg":"RS256","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
    {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
/// The payloads of those tokens.
const PUBLISHED_PAYLOADS: [&str; 2] = [
    "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}",
    "Example of Ed25519 signing",
];

static KEYS: LazyLock<JwkSet> = LazyLock::new(|| JwkSet::parse(PUBLISHED_KEYS.as_bytes()).expect("a JWKS"));

/// The first byte selects token, JWKS, private JWK or PEM. Each is accepted, or refused with a short message. Nothing
/// verifies that its owner did not sign.
pub fn jose(bytes: &[u8]) {
    let Some((choice, input)) = bytes.split_first() else { return };
    match choice % 4 {
        0 => token(input),
        1 => set(input),
        2 => private_key(input, SigningKey::import_jwk),
        _ => private_key(input, |pem| SigningKey::import_pem(Algorithm::Es256, pem)),
    }
}

fn token(input: &[u8]) {
    let token = match Jws::parse(input) {
        Ok(token) => token,
        Err(refusal) => return super::short(&refusal.to_string()),
    };
    let name = token.header().alg.as_str();
    assert!(["RS256", "PS256", "ES256", "EdDSA", "Ed25519"].contains(&name), "{name}");
    match token.verify(&KEYS, &Algorithm::ALL) {
        Ok(key) => {
            assert!(key.accepts(token.header().alg.algorithm()));
            assert!(PUBLISHED_PAYLOADS.iter().any(|payload| payload.as_bytes() == token.payload()), "a forged token");
            assert!(token.verify(&KEYS, &[]).is_err(), "verified without an allowed algorithm");
        }
        Err(refusal) => super::short(&refusal.to_string()),
    }
}

fn set(input: &[u8]) {
    let set = match JwkSet::parse(input) {
        Ok(set) => set,
        Err(refusal) => return super::short(&refusal.to_string()),
    };
    let given: Value = serde_json::from_slice(input).expect("a JWKS is JSON");
    let count = given["keys"].as_array().map_or(0, Vec::len);
    assert_eq!(set.keys().len() + set.skipped().len(), count, "each key is used or listed");
    set.skipped().iter().for_each(|key| super::short(&key.reason.to_string()));
    for key in set.keys() {
        assert!(Algorithm::ALL.into_iter().any(|algorithm| key.accepts(algorithm)));
        assert_eq!(key.thumbprint().len(), 43);
    }
    let written = set.to_json();
    assert_eq!(JwkSet::parse(written.as_bytes()).expect("a JWKS").keys(), set.keys());
}

fn private_key(input: &[u8], import: impl Fn(&str) -> Result<SigningKey, setgate_jose::KeyError>) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match import(text) {
        Ok(key) => {
            let token = key.sign("secevent+jwt", "{}").expect("an imported key signs");
            let json = format!("{{\"keys\":[{}]}}", key.public_jwk());
            assert!(!json.contains("\"d\""), "a published private half");
            let keys = JwkSet::parse(json.as_bytes()).expect("a JWKS");
            assert!(Jws::parse(token.as_bytes()).expect("a token").verify(&keys, &[key.algorithm()]).is_ok());
        }
        Err(refusal) => super::short(&refusal.to_string()),
    }
}
