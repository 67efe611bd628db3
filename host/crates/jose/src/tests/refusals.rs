//! Tokens that are refused, each for its own reason.

use super::*;
use crate::{HeaderAlgorithm, JwsError, limits};

fn refused(token: &str) -> JwsError {
    Jws::parse(token.as_bytes()).unwrap_err()
}

fn header(json: &str) -> JwsError {
    refused(&unsigned(json, "{}"))
}

#[test]
fn parts() {
    for (token, parts) in [("", 1), ("a", 1), ("a.b", 2), ("a.b.c.d", 4), ("a.b.c.d.e.f", 6), (&".".repeat(100), 6)] {
        assert_eq!(refused(token), JwsError::Parts { parts }, "{token}");
    }
    assert_eq!(refused("a.b.c.d.e"), JwsError::Encrypted);
    let whole = unsigned(r#"{"alg":"ES256"}"#, "{}");
    let [head, payload, signature]: [&str; 3] = whole.split('.').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(refused(&format!(".{payload}.{signature}")), JwsError::Empty { part: "header" });
    assert_eq!(refused(&format!("{head}..{signature}")), JwsError::Empty { part: "payload" });
    assert_eq!(refused(&format!("{head}.{payload}.")), JwsError::Empty { part: "signature" });
    assert_eq!(refused(&format!("{head}=.{payload}.{signature}")), JwsError::Encoding { part: "header" });
    assert_eq!(refused(&format!("{head}. {payload}.{signature}")), JwsError::Encoding { part: "payload" });
    assert_eq!(refused(&format!("{head}.{payload}.{signature}+/")), JwsError::Encoding { part: "signature" });
    let long = "A".repeat(limits::SIGNATURE_BYTES_MAX + 1);
    let (bytes, limit) = (long.len(), limits::SIGNATURE_BYTES_MAX);
    assert_eq!(refused(&format!("{head}.{payload}.{long}")), JwsError::TooLarge { part: "signature", bytes, limit });
    let long = "A".repeat(limits::HEADER_BYTES_MAX + 1);
    assert!(matches!(refused(&format!("{long}.{payload}.{signature}")), JwsError::TooLarge { part: "header", .. }));
}

#[test]
fn white_space_around_a_token_is_ignored() {
    let token = key(Algorithm::EdDsa).sign(TYP, PAYLOAD).unwrap();
    verify(&format!(" \t{token}\r\n"), &published(KEYS.iter())).unwrap();
    for inside in [token.replacen('.', ".\n", 1), token.replacen('.', " .", 1), token.replacen('e', "e\r\n", 1)] {
        assert!(matches!(refused(&inside), JwsError::Encoding { .. }));
    }
}

#[test]
fn headers() {
    assert_eq!(header("[]"), JwsError::NotAnObject);
    assert!(matches!(header("{"), JwsError::Header(_)));
    assert!(matches!(header(r#"{"alg":"ES256","alg":"ES256"}"#), JwsError::Header(_)));
    assert!(matches!(header(r#"{"alg":"ES256","\u0061lg":"none"}"#), JwsError::Header(_)));
    assert!(matches!(header(r#"{"alg":"ES256","jwk":{"x":1,"x":2}}"#), JwsError::Header(_)));
    assert_eq!(header(r#"{"typ":"secevent+jwt"}"#), JwsError::NoAlgorithm);
    for member in ["alg", "kid", "typ"] {
        let json = format!(r#"{{"alg":"ES256",{member:?}:7}}"#).replace(r#""alg":"ES256","alg""#, r#""alg""#);
        assert_eq!(header(&json), JwsError::NotAString { member });
    }
    assert_eq!(header(r#"{"alg":"ES256","crit":["exp"],"exp":1}"#), JwsError::Critical);
    assert_eq!(header(r#"{"alg":"ES256","crit":[]}"#), JwsError::Critical);
    assert_eq!(header(r#"{"alg":"ES256","b64":false}"#), JwsError::UnencodedPayload);
    assert!(Jws::parse(unsigned(r#"{"alg":"ES256","b64":true}"#, "{}").as_bytes()).is_ok());
}

#[test]
fn algorithms() {
    for alg in ["none", "None", "NONE"] {
        assert_eq!(header(&format!(r#"{{"alg":"{alg}"}}"#)), JwsError::Unsigned);
    }
    for alg in ["HS256", "HS384", "HS512", "hs256"] {
        assert_eq!(header(&format!(r#"{{"alg":"{alg}"}}"#)), JwsError::Mac { alg: alg.to_owned() });
    }
    for alg in ["RS512", "ES384", "ES256K", "rs256", "Ed448", "", "\u{e4}s256"] {
        let error = header(&format!(r#"{{"alg":"{alg}"}}"#));
        assert_eq!(error, JwsError::UnsupportedAlgorithm { alg: alg.to_owned() });
    }
    let long = header(&format!(r#"{{"alg":"{}"}}"#, "A\\n".repeat(4_000)));
    assert!(long.to_string().len() < 500, "{long}");
}

#[test]
fn both_names_of_ed25519_are_accepted() {
    let key = key(Algorithm::EdDsa);
    let seed = ring::signature::Ed25519KeyPair::from_pkcs8(key.to_pkcs8()).unwrap();
    let input = format!("{}.{}", base64url::encode(r#"{"alg":"Ed25519"}"#), base64url::encode(PAYLOAD));
    let token = format!("{input}.{}", base64url::encode(seed.sign(input.as_bytes())));
    assert_eq!(Jws::parse(token.as_bytes()).unwrap().header().alg, HeaderAlgorithm::Ed25519);
    assert_eq!(verify(&token, &published([key])).unwrap(), key.kid());
}

#[test]
fn algorithm_must_be_allowed_and_fit_the_key() {
    let keys = published(KEYS.iter());
    for signer in KEYS.iter() {
        let token = signer.sign(TYP, PAYLOAD).unwrap();
        let token = Jws::parse(token.as_bytes()).unwrap();
        assert_eq!(token.verify(&keys, &[signer.algorithm()]).unwrap().kid(), Some(signer.kid()));
        let others: Vec<_> = Algorithm::ALL.into_iter().filter(|other| *other != signer.algorithm()).collect();
        let error = token.verify(&keys, &others).unwrap_err();
        let algorithm = HeaderAlgorithm::Named(signer.algorithm());
        assert_eq!(error, VerifyError::AlgorithmNotAllowed { algorithm, allowed: others });
        assert!(!error.is_unknown_key());
    }
    // A token that names the key of another algorithm, and one restricted to the other RSA algorithm.
    for (alg, kid) in [("ES256", key(Algorithm::Rs256).kid()), ("PS256", key(Algorithm::Rs256).kid())] {
        let error = verify(&unsigned(&format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#), "{}"), &keys).unwrap_err();
        let algorithm = HeaderAlgorithm::Named(alg.parse().unwrap());
        assert_eq!(error, VerifyError::KeyMismatch { kid: kid.to_owned(), algorithm });
    }
}

#[test]
fn key_must_be_known() {
    let signer = key(Algorithm::Es256);
    let token = signer.sign(TYP, PAYLOAD).unwrap();
    let error = verify(&token, &published([key(Algorithm::Rs256)])).unwrap_err();
    assert_eq!(error, VerifyError::UnknownKey { kid: signer.kid().to_owned() });
    assert!(error.is_unknown_key());
    let long = unsigned(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "\\n".repeat(1_000)), "{}");
    assert!(verify(&long, &JwkSet::default()).unwrap_err().to_string().len() < 400);
}

#[test]
fn without_kid_exactly_one_key_must_fit() {
    let signer = key(Algorithm::EdDsa);
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8(signer.to_pkcs8()).unwrap();
    let input = format!("{}.{}", base64url::encode(r#"{"alg":"EdDSA"}"#), base64url::encode(PAYLOAD));
    let token = format!("{input}.{}", base64url::encode(pair.sign(input.as_bytes())));
    assert_eq!(verify(&token, &published(KEYS.iter())).unwrap(), signer.kid());
    let algorithm = HeaderAlgorithm::Named(Algorithm::EdDsa);
    let none = verify(&token, &published([key(Algorithm::Es256)])).unwrap_err();
    assert_eq!(none, VerifyError::NoKey { algorithm });
    assert!(none.is_unknown_key());
    let second = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let two = verify(&token, &published([signer, &second])).unwrap_err();
    assert_eq!(two, VerifyError::Ambiguous { keys: 2, algorithm });
}

#[test]
fn keys_with_the_same_kid_are_all_tried() {
    let signer = key(Algorithm::Es256);
    let renamed = |key: &SigningKey| key.public_jwk().replace(key.kid(), signer.kid());
    let other = SigningKey::generate(Algorithm::Es256).unwrap();
    let rsa = key(Algorithm::Rs256);
    let token = signer.sign(TYP, PAYLOAD).unwrap();
    let set = |keys: &[String]| JwkSet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes()).unwrap();
    let keys = set(&[renamed(rsa), renamed(&other), renamed(signer)]);
    assert_eq!(verify(&token, &keys).unwrap(), signer.kid());
    assert_eq!(verify(&token, &set(&[renamed(rsa), renamed(&other)])).unwrap_err(), VerifyError::BadSignature);
}

#[test]
fn changed_tokens_do_not_verify() {
    let keys = published(KEYS.iter());
    for signer in KEYS.iter() {
        let token = signer.sign(TYP, PAYLOAD).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let changed = base64url::encode(PAYLOAD.replace("\"jti\":\"1\"", "\"jti\":\"2\""));
        assert_eq!(verify(&[parts[0], &changed, parts[2]].join("."), &keys).unwrap_err(), VerifyError::BadSignature);
        let other = SigningKey::generate(signer.algorithm()).unwrap();
        let foreign = other.sign(TYP, PAYLOAD).unwrap();
        let foreign = [parts[0], parts[1], foreign.split('.').nth(2).unwrap()].join(".");
        assert_eq!(verify(&foreign, &keys).unwrap_err(), VerifyError::BadSignature);
        let short = [parts[0], parts[1], "AAAA"].join(".");
        let error = verify(&short, &keys).unwrap_err();
        match signer.algorithm() {
            Algorithm::Es256 | Algorithm::EdDsa => {
                assert!(matches!(error, VerifyError::SignatureLength { bytes: 3, .. }), "{error}");
            }
            Algorithm::Rs256 | Algorithm::Ps256 => assert_eq!(error, VerifyError::BadSignature),
        }
    }
}

#[test]
fn es256_in_der_is_refused() {
    let signer = key(Algorithm::Es256);
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let random = ring::rand::SystemRandom::new();
    let pair = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, signer.to_pkcs8(), &random).unwrap();
    let token = signer.sign(TYP, PAYLOAD).unwrap();
    let input = token.rsplit_once('.').unwrap().0;
    let der = pair.sign(&random, input.as_bytes()).unwrap();
    let error = verify(&format!("{input}.{}", base64url::encode(der)), &published([signer])).unwrap_err();
    assert!(matches!(error, VerifyError::SignatureLength { bytes: 68..=72, .. }), "{error}");
}

#[test]
fn hmac_with_the_public_key_is_refused() {
    let signer = key(Algorithm::Rs256);
    let input = format!("{}.{}", base64url::encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, signer.kid())), "e30");
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.public_jwk().as_bytes());
    let token = format!("{input}.{}", base64url::encode(ring::hmac::sign(&secret, input.as_bytes())));
    assert_eq!(refused(&token), JwsError::Mac { alg: "HS256".to_owned() });
}

#[test]
fn keys_in_the_header_are_ignored() {
    let forger = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8(forger.to_pkcs8()).unwrap();
    let header = format!(r#"{{"alg":"EdDSA","jwk":{}}}"#, forger.public_jwk());
    let input = format!("{}.{}", base64url::encode(header), base64url::encode(PAYLOAD));
    let token = format!("{input}.{}", base64url::encode(pair.sign(input.as_bytes())));
    assert_eq!(verify(&token, &published(KEYS.iter())).unwrap_err(), VerifyError::BadSignature);
}
