//! Signed SETs under all four algorithms, between `setgate-jose` and libraries of others: joserfc, PyJWT and jwcrypto of
//! PyPI, and jose of npm. Each verifies the tokens of the other, and refuses forged ones. `tests/judges` has their side.

use serde_json::{Value, json};
use setgate_jose::{Algorithm, JwkSet, Jws, JwsError, PublicJwk, SigningKey, VerifyError};
use setgate_tests::judges;
use tokio::process::Command;

/// Media type of a SET (RFC 8417 section 2.3).
const TYP: &str = "secevent+jwt";
const ISSUER: &str = "https://edge.example/t/acme";
const AUDIENCE: &str = "https://rp.example/";

#[tokio::test]
async fn libraries_of_pypi_and_setgate_accept_each_other() {
    let python = judges::python().await.unwrap();
    let judged = judge(Command::new(python).arg("-c").arg(include_str!("../judges/jose.py"))).await;
    assert_eq!(judged, ["joserfc", "PyJWT", "jwcrypto"]);
}

#[tokio::test]
async fn library_of_npm_and_setgate_accept_each_other() {
    let folder = judges::node().await.unwrap();
    let mut node = Command::new("node");
    node.current_dir(folder).args(["--input-type=module", "--eval", include_str!("../judges/jose.mjs")]);
    assert_eq!(judge(&mut node).await, ["jose"]);
}

/// The claims without issuer and audience, with characters beyond ASCII: the signature is over bytes.
fn payload() -> Value {
    json!({
        "jti": "01J8Z", "iat": 1_795_880_000, "txn": "8f2c",
        "sub_id": {"format": "iss_sub", "iss": "https://idp.example", "sub": "Jäne 你好"},
        "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {"event_timestamp": 1_795_879_998}},
    })
}

/// The claims of each SET, ours and theirs.
fn claims() -> Value {
    let mut claims = payload();
    claims["iss"] = json!(ISSUER);
    claims["aud"] = json!(AUDIENCE);
    claims
}

/// Lets libraries judge tokens of ours, and judges theirs. Returns the names of the libraries.
async fn judge(program: &mut Command) -> Vec<String> {
    let keys = Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let published = JwkSet::from_keys(keys.iter().map(|key| PublicJwk::parse(key.public_jwk()).unwrap()));
    let claims = claims().to_string();
    let token = |key: &SigningKey| json!({"alg": key.algorithm().as_str(), "kid": key.kid(), "token": key.sign(TYP, &claims).unwrap()});
    let jwks: Value = serde_json::from_str(&published.to_json()).unwrap();
    let tokens: Vec<Value> = keys.iter().map(token).collect();
    let given = json!({"issuer": ISSUER, "audience": AUDIENCE, "payload": payload(), "jwks": jwks, "tokens": tokens});

    let said = judges::run(program, &given.to_string()).await.unwrap();
    let libraries: Vec<Value> = serde_json::from_str(&said).unwrap();
    for library in &libraries {
        for key in &keys {
            // PyJWT computes no thumbprints.
            let expected = if library["library"] == "PyJWT" { Value::Null } else { json!(key.kid()) };
            assert_eq!(library["thumbprints"][key.kid()], expected, "{} {}", library["library"], key.algorithm());
        }
        assert_tokens(library);
        assert_forgeries(library);
    }
    libraries.iter().map(|library| text(&library["library"]).to_owned()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

/// The keys that a library publishes.
fn jwks(library: &Value) -> JwkSet {
    let keys: Vec<&Value> = library["keys"].as_array().unwrap().iter().map(|key| &key["public"]).collect();
    let set = JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    assert_eq!((set.keys().len(), set.skipped()), (4, &[][..]), "{}", library["library"]);
    set
}

/// Tokens of a library verify, only with its keys, and its private keys sign here.
fn assert_tokens(library: &Value) {
    let published = jwks(library);
    let name = text(&library["library"]);
    for key in library["keys"].as_array().unwrap() {
        let (algorithm, kid) = (text(&key["alg"]).parse().unwrap(), text(&key["kid"]));
        let token = Jws::parse(text(&key["token"]).as_bytes()).unwrap();
        assert_eq!(token.header().typ.as_deref(), Some(TYP), "{name} {algorithm}");
        let by = token.verify(&published, &[algorithm]).unwrap_or_else(|error| panic!("{name} {algorithm}: {error}"));
        assert_eq!((by.kid(), by.thumbprint().as_str()), (Some(kid), kid), "{name} {algorithm}");
        assert_eq!(serde_json::from_slice::<Value>(token.payload()).unwrap(), claims(), "{name} {algorithm}");
        let unknown = token.verify(&JwkSet::default(), &Algorithm::ALL).unwrap_err();
        assert_eq!(unknown, VerifyError::UnknownKey { kid: kid.to_owned() });

        let of_jwk = SigningKey::import_jwk(&key["private"].to_string()).unwrap();
        let of_pem = SigningKey::import_pem(algorithm, text(&key["pem"])).unwrap();
        for imported in [of_jwk, of_pem] {
            assert_eq!((imported.algorithm(), imported.kid()), (algorithm, kid), "{name}");
            let token = imported.sign(TYP, "{}").unwrap();
            let token = Jws::parse(token.as_bytes()).unwrap();
            token.verify(&published, &[algorithm]).unwrap_or_else(|error| panic!("{name} {algorithm}: {error}"));
        }
    }
}

/// Forged tokens are refused, each for its own reason.
fn assert_forgeries(library: &Value) {
    let published = jwks(library);
    let forgeries = library["forgeries"].as_array().unwrap();
    let mut kinds: Vec<&str> = forgeries.iter().map(|forgery| text(&forgery["kind"])).collect();
    for forgery in forgeries {
        let token = Jws::parse(text(&forgery["token"]).as_bytes());
        let about = format!("{}: {forgery}", library["library"]);
        match text(&forgery["kind"]) {
            "none" => assert_eq!(token.unwrap_err(), JwsError::Unsigned, "{about}"),
            "HMAC" => assert_eq!(token.unwrap_err(), JwsError::Mac { alg: "HS256".to_owned() }, "{about}"),
            _ => {
                let error = token.unwrap().verify(&published, &Algorithm::ALL).unwrap_err();
                assert_eq!(error, VerifyError::BadSignature, "{about}");
            }
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["HMAC", "another key", "changed", "none"]);
}
