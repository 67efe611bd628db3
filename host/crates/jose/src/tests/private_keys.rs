//! Keys that are generated, imported and stored. The files in `keys` are written by OpenSSL.

use super::*;
use crate::{KeyError, SkipReason};

fn import(algorithm: Algorithm, pem: &str) -> Result<SigningKey, KeyError> {
    SigningKey::import_pem(algorithm, pem)
}

#[test]
fn header_has_three_members_in_order() {
    for key in KEYS.iter() {
        let token = key.sign(TYP, PAYLOAD).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let header = String::from_utf8(base64url::decode(parts[0]).unwrap()).unwrap();
        let expected = format!(r#"{{"alg":"{}","kid":"{}","typ":"{TYP}"}}"#, key.algorithm(), key.kid());
        assert_eq!(header, expected);
        assert_eq!(base64url::decode(parts[1]).unwrap(), PAYLOAD.as_bytes());
        assert_eq!(parts.len(), 3);
    }
}

#[test]
fn a_key_stays_the_same_in_storage() {
    for key in KEYS.iter() {
        let stored = SigningKey::from_pkcs8(key.algorithm(), key.to_pkcs8()).unwrap();
        assert_eq!((stored.kid(), stored.public_jwk()), (key.kid(), key.public_jwk()));
        let public = PublicJwk::parse(key.public_jwk()).unwrap();
        assert_eq!((public.kid(), public.alg()), (Some(key.kid()), Some(key.algorithm())));
        assert_eq!(public.thumbprint(), key.kid());
        assert_eq!(public.to_json(), key.public_jwk());
        assert_eq!(verify(&stored.sign(TYP, PAYLOAD).unwrap(), &published([key])).unwrap(), key.kid());
    }
}

#[test]
fn public_jwk_has_public_members_only() {
    let names = |json: &str| -> Vec<String> {
        let object = setgate_domain::json::Object::parse(json).unwrap();
        object.iter().map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(names(key(Algorithm::Rs256).public_jwk()), ["e", "kty", "n", "kid", "use", "alg"]);
    assert_eq!(names(key(Algorithm::Es256).public_jwk()), ["crv", "kty", "x", "y", "kid", "use", "alg"]);
    assert_eq!(names(key(Algorithm::EdDsa).public_jwk()), ["crv", "kty", "x", "kid", "use", "alg"]);
    let shown = format!("{:?}", key(Algorithm::EdDsa));
    assert_eq!(shown, format!("SigningKey {{ algorithm: EdDsa, kid: {:?}, .. }}", key(Algorithm::EdDsa).kid()));
}

#[test]
fn pem_of_openssl_is_imported() {
    for (algorithm, forms) in [
        (Algorithm::Rs256, &[include_str!("keys/rsa-2048.pkcs8.pem"), include_str!("keys/rsa-2048.pkcs1.pem")][..]),
        (Algorithm::Ps256, &[include_str!("keys/rsa-2048.pkcs8.pem"), include_str!("keys/rsa-2048.pkcs1.pem")]),
        (Algorithm::Es256, &[include_str!("keys/p256.pkcs8.pem"), include_str!("keys/p256.sec1.pem")]),
        (Algorithm::EdDsa, &[include_str!("keys/ed25519.pkcs8.pem")]),
    ] {
        let keys: Vec<_> = forms.iter().map(|pem| import(algorithm, pem).unwrap()).collect();
        assert!(keys.iter().all(|key| key.kid() == keys[0].kid()), "{algorithm}");
        let windows = import(algorithm, &format!("a note\r\n{}", forms[0].replace('\n', "\r\n"))).unwrap();
        assert_eq!(windows.kid(), keys[0].kid());
        for key in &keys {
            verify(&key.sign(TYP, PAYLOAD).unwrap(), &published([&keys[0]])).unwrap();
        }
    }
}

#[test]
fn public_half_of_a_pem_is_the_one_of_openssl() {
    let key = import(Algorithm::Es256, include_str!("keys/p256.sec1.pem")).unwrap();
    let public = include_str!("keys/p256.public.pem");
    let public: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    let public = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, public).unwrap();
    let (x, y) = public[public.len() - 64..].split_at(32);
    assert!(key.public_jwk().contains(&format!(r#""x":"{}","y":"{}""#, base64url::encode(x), base64url::encode(y))));
}

#[test]
fn unusable_pem_is_refused() {
    let p256 = include_str!("keys/p256.pkcs8.pem");
    let refused = |algorithm, pem: &str| import(algorithm, pem).unwrap_err();
    assert_eq!(refused(Algorithm::Es256, "not a key"), KeyError::NoPemBlock);
    assert_eq!(refused(Algorithm::Es256, &p256.repeat(80)), KeyError::TooLarge { bytes: p256.len() * 80 });
    for damaged in [&p256[..p256.len() - 30], &p256.replace("END PRIVATE", "END OTHER"), &p256.replace("MIGH", "MI=H")]
    {
        assert_eq!(refused(Algorithm::Es256, damaged), KeyError::DamagedPem { label: "PRIVATE KEY".to_owned() });
    }
    for (pem, label) in [
        (include_str!("keys/p256.encrypted.pem"), "ENCRYPTED PRIVATE KEY"),
        (include_str!("keys/p256.legacy-encrypted.pem"), "EC PRIVATE KEY"),
    ] {
        assert_eq!(refused(Algorithm::Es256, pem), KeyError::Encrypted { label: label.to_owned() });
    }
    let public = refused(Algorithm::Es256, include_str!("keys/p256.public.pem"));
    assert_eq!(public, KeyError::NotAPrivateKey { label: "PUBLIC KEY".to_owned() });
}

#[test]
fn key_of_another_type_is_refused() {
    let pems = [
        (Algorithm::Rs256, include_str!("keys/rsa-2048.pkcs8.pem")),
        (Algorithm::Es256, include_str!("keys/p256.pkcs8.pem")),
        (Algorithm::EdDsa, include_str!("keys/ed25519.pkcs8.pem")),
    ];
    for (algorithm, pem) in pems {
        for (other, _) in pems.iter().filter(|(other, _)| *other != algorithm) {
            let error = import(*other, pem).unwrap_err();
            assert_eq!(error, KeyError::rejected(*other, "WrongAlgorithm"));
            assert!(error.to_string().contains("ES256 needs P-256"), "{error}");
        }
    }
    let rejected = |algorithm, pem| match import(algorithm, pem).unwrap_err() {
        KeyError::Rejected { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(rejected(Algorithm::Rs256, include_str!("keys/rsa-1024.pkcs8.pem")), "TooSmall");
    let unusual = rejected(Algorithm::Rs256, include_str!("keys/rsa-2560.pkcs8.pem"));
    assert_eq!(unusual, "PrivateModulusLenNotMultipleOf512Bits");
    assert!(import(Algorithm::Es256, include_str!("keys/p384.sec1.pem")).is_err());
}

const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

#[test]
fn algorithm_of_a_jwk_is_respected() {
    let with = |jwk: &str, member: &str| SigningKey::import_jwk(&jwk.replacen('{', &format!("{{{member},"), 1));
    assert_eq!(with(ED25519, r#""alg":"Ed25519""#).unwrap().algorithm(), Algorithm::EdDsa);
    assert_eq!(with(P256, r#""alg":"ES256","use":"sig","kid":"mine""#).unwrap().algorithm(), Algorithm::Es256);
    let refused = |member| match with(P256, member).unwrap_err() {
        KeyError::Public(reason) => reason,
        other => panic!("{other}"),
    };
    assert_eq!(refused(r#""alg":"EdDSA""#), SkipReason::AlgorithmMismatch { alg: Algorithm::EdDsa });
    assert_eq!(refused(r#""alg":"ES384""#), SkipReason::Algorithm { alg: "ES384".to_owned() });
    assert_eq!(refused(r#""use":"enc""#), SkipReason::Use { key_use: "enc".to_owned() });
}

#[test]
fn unusable_jwk_is_refused() {
    let refused = |json: &str| SigningKey::import_jwk(json).unwrap_err();
    assert_eq!(refused("[]"), KeyError::NotAnObject);
    assert!(matches!(refused("{"), KeyError::Json(_)));
    assert!(matches!(refused(&P256.replacen('{', r#"{"kty":"EC","#, 1)), KeyError::Json(_)));
    assert_eq!(refused("{}"), KeyError::Member { member: "kty" });
    assert_eq!(refused(r#"{"kty":"oct","k":"AA"}"#), KeyError::Public(SkipReason::KeyType { kty: "oct".to_owned() }));
    assert_eq!(refused(key(Algorithm::Es256).public_jwk()), KeyError::NoPrivateHalf);
    assert_eq!(refused(&ED25519.replace("nWGx", "nWG=")), KeyError::Member { member: "d" });
    assert_eq!(refused(&ED25519.replace("nWGxne_9", "")), KeyError::Member { member: "d" });
    assert_eq!(
        refused(&format!("{ED25519}{}", " ".repeat(1 << 14))),
        KeyError::TooLarge { bytes: ED25519.len() + (1 << 14) }
    );
    // The private half of another key.
    let inconsistent = |algorithm| KeyError::rejected(algorithm, "InconsistentComponents");
    assert_eq!(refused(&ED25519.replace("nWGx", "nWGy")), inconsistent(Algorithm::EdDsa));
    assert_eq!(refused(&P256.replace("jpsQ", "jpsR")), inconsistent(Algorithm::Es256));
}

#[test]
fn unusable_rsa_jwk_is_refused() {
    let public = |bits: usize| {
        let mut n = vec![0xff; bits / 8];
        n[0] = 0x80;
        base64url::encode(n)
    };
    let jwk = |n: &str, rest: &str| format!(r#"{{"kty":"RSA","e":"AQAB","n":"{n}","d":"AQAB"{rest}}}"#);
    let refused = |json: &str| SigningKey::import_jwk(json).unwrap_err();
    assert_eq!(refused(&jwk(&public(2048), r#","oth":[]"#)), KeyError::MultiPrime);
    assert_eq!(refused(&jwk(&public(2560), "")), KeyError::RsaBits { bits: 2560 });
    assert_eq!(refused(&jwk(&public(8192), "")), KeyError::RsaBits { bits: 8192 });
    assert_eq!(refused(&jwk(&public(1024), "")), KeyError::Public(SkipReason::RsaBits { bits: 1024 }));
    assert_eq!(refused(&jwk(&public(2048), r#","p":"AQAB""#)), KeyError::Member { member: "q" });
    assert_eq!(refused(&jwk(&public(2048), r#","p":"AQAB","q":"AQAB""#)), KeyError::RsaMembers);
    assert_eq!(refused(&jwk(&public(2048), "")), KeyError::RsaMembers);
}
