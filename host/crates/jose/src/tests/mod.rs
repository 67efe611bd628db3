//! Published vectors, every refusal, keys of OpenSSL, and properties.

mod private_keys;
mod properties;
mod refusals;
mod sets;
mod vectors;

use std::sync::LazyLock;

use crate::{Algorithm, JwkSet, Jws, PublicJwk, SigningKey, VerifyError, base64url};

/// Media type of a SET (RFC 8417 section 2.3).
const TYP: &str = "secevent+jwt";
const PAYLOAD: &str = r#"{"iss":"https://idp.example","jti":"1","iat":1,"events":{"urn:x:y":{}}}"#;

/// One key for each algorithm, made once.
static KEYS: LazyLock<[SigningKey; 4]> =
    LazyLock::new(|| Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap()));

fn key(algorithm: Algorithm) -> &'static SigningKey {
    KEYS.iter().find(|key| key.algorithm() == algorithm).unwrap()
}

/// The JWKS with the public halves of these keys.
fn published<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> JwkSet {
    JwkSet::from_keys(keys.into_iter().map(|key| PublicJwk::parse(key.public_jwk()).unwrap()))
}

/// A token with this header and payload. The signature is 64 zeros.
fn unsigned(header: &str, payload: &str) -> String {
    [header.as_bytes(), payload.as_bytes(), &[0; 64]].map(base64url::encode).join(".")
}

/// Parses and verifies with any algorithm. Returns the thumbprint of the key.
fn verify(token: &str, keys: &JwkSet) -> Result<String, VerifyError> {
    let token = Jws::parse(token.as_bytes()).unwrap();
    token.verify(keys, &Algorithm::ALL).map(PublicJwk::thumbprint)
}
