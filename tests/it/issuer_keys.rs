//! Issuer keys: creation, import, rotation, removal, and the JWKS.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::Method;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use setgate_jose::{Algorithm, SigningKey};
use setgate_tests::client::JSON;
use setgate_tests::{Answer, Client, Host, Tenant, judges, wait};
use sha2::{Digest as _, Sha256};

const URL: &str = "https://edge.example/base";
/// Members of a JWK that are private (RFC 7518 section 6, RFC 8037 section 2).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// The key of RFC 8037 appendix A, and its thumbprint.
const ED25519_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ED25519_THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

async fn start() -> Host {
    Host::with().config(&format!("[server]\npublic_url = \"{URL}/\"\n")).start().await
}

async fn create(tenant: &Tenant, body: &Value) -> Answer {
    tenant.client.post(&tenant.path("/issuer-keys"), body).await
}

/// Creates a key and returns it.
async fn created(tenant: &Tenant, algorithm: &str) -> Value {
    create(tenant, &json!({"algorithm": algorithm})).await.expect(201).json()
}

fn kid(key: &Value) -> &str {
    key["kid"].as_str().expect("a kid")
}

async fn activate(tenant: &Tenant, kid: &str) -> Answer {
    tenant.client.post(&tenant.path(&format!("/issuer-keys/{kid}/activate")), &json!({})).await
}

async fn remove(tenant: &Tenant, kid: &str) -> Answer {
    tenant.client.delete(&tenant.path(&format!("/issuer-keys/{kid}"))).await
}

async fn state(tenant: &Tenant, kid: &str) -> Value {
    tenant.get(&format!("/issuer-keys/{kid}")).await["state"].clone()
}

/// The keys of a JWKS, read without credentials.
async fn jwks(host: &Host, path: &str) -> Vec<Value> {
    let answer = host.stranger().get(path).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    answer.json()["keys"].as_array().expect("keys").clone()
}

fn kids(keys: &[Value]) -> BTreeSet<&str> {
    keys.iter().map(kid).collect()
}

/// PKCS#8 as text (RFC 7468 section 10).
fn pem(der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

/// RFC 7638 section 3.
fn thumbprint(jwk: &Value) -> String {
    let required: &[&str] = match jwk["kty"].as_str() {
        Some("RSA") => &["e", "kty", "n"],
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("OKP") => &["crv", "kty", "x"],
        other => panic!("{other:?}"),
    };
    let members: Vec<String> = required.iter().map(|name| format!("\"{name}\":{}", jwk[name])).collect();
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(","))))
}

#[tokio::test]
async fn keys_of_each_algorithm_are_published() {
    let host = start().await;
    let acme = host.tenant("acme").await;
    assert_eq!(acme.get("").await["issuer"], Value::Null);
    let mut made = Vec::new();
    for (algorithm, kty, crv) in [
        ("RS256", "RSA", Value::Null),
        ("PS256", "RSA", Value::Null),
        ("ES256", "EC", json!("P-256")),
        ("EdDSA", "OKP", json!("Ed25519")),
    ] {
        let answer = create(&acme, &json!({"algorithm": algorithm})).await.expect(201);
        let key = answer.json();
        assert_eq!(answer.header("location"), Some(&*acme.path(&format!("/issuer-keys/{}", kid(&key)))));
        assert_eq!(
            (&key["algorithm"], &key["state"]),
            (&json!(algorithm), &json!("signing")),
            "the first signs at once"
        );
        assert_eq!(key["issuer"], format!("{URL}/t/acme"));
        let jwk = &key["public_jwk"];
        assert_eq!((&jwk["kty"], &jwk["crv"], &jwk["alg"]), (&json!(kty), &crv, &json!(algorithm)));
        assert_eq!((&jwk["use"], &jwk["kid"]), (&json!("sig"), &key["kid"]));
        assert_eq!(thumbprint(jwk), kid(&key));
        assert!(PRIVATE.iter().all(|member| jwk.get(member).is_none()), "{jwk}");
        if kty == "RSA" {
            assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap().len(), 256);
        }
        assert_eq!(acme.get(&format!("/issuer-keys/{}", kid(&key))).await, key);
        made.push(key);
    }
    assert_eq!(acme.get("").await["issuer"], format!("{URL}/t/acme"));

    let published = jwks(&host, "/t/acme/jwks.json").await;
    let expected: BTreeSet<String> = made.iter().map(|key| key["public_jwk"].to_string()).collect();
    assert_eq!(published.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), expected);
    host.stranger().get("/t/acme/jwks.json?cache=1").await.expect(200);

    let first = acme.get("/issuer-keys?limit=3").await;
    let cursor = first["next"].as_str().expect("there is a second page");
    let second = acme.get(&format!("/issuer-keys?limit=3&cursor={cursor}")).await;
    assert_eq!((first["items"].as_array().unwrap().len(), second["items"].as_array().unwrap().len()), (3, 1));
    assert_eq!(second["next"], Value::Null);

    let audit = acme.get("/audit?action=issuer_key.create").await;
    let notes: Vec<_> = audit["items"].as_array().unwrap().iter().map(|entry| entry["note"].clone()).collect();
    assert_eq!(notes[3], json!(format!("issuer {URL}/t/acme")), "{notes:?}");
    assert_eq!(notes.len(), 4);
}

#[tokio::test]
async fn names_without_keys_are_not_distinguished() {
    let host = start().await;
    host.tenant("acme").await;
    let globex = host.tenant("globex").await;
    created(&globex, "ES256").await;
    let answers = ["/t/acme/jwks.json", "/t/nobody/jwks.json", "/t/globex/2/jwks.json", "/t/nobody/2/jwks.json"];
    for path in answers {
        let answer = host.stranger().get(path).await;
        assert_eq!(answer.not_the_problem(404, "not_found"), None, "{path}");
        assert_eq!(answer.json()["detail"], "there are no public keys at this address", "{path}");
    }
    for path in ["/t/globex/1/jwks.json", "/t/globex/02/jwks.json", "/t/GLOBEX/jwks.json"] {
        assert_eq!(host.stranger().get(path).await.not_the_problem(404, "not_found"), None, "{path}");
    }
}

#[tokio::test]
async fn keys_are_rotated() {
    let mut host = start().await;
    let acme = host.tenant("acme").await;
    let (old, other) = (created(&acme, "ES256").await, created(&acme, "EdDSA").await);
    let (new, spare) = (created(&acme, "ES256").await, created(&acme, "ES256").await);
    let (old, new, spare) = (kid(&old), kid(&new), kid(&spare));
    assert_eq!((state(&acme, old).await, state(&acme, new).await), (json!("signing"), json!("published")));
    let all = BTreeSet::from([old, new, spare, kid(&other)]);
    assert_eq!(kids(&jwks(&host, "/t/acme/jwks.json").await), all);
    assert_eq!(remove(&acme, old).await.not_the_problem(409, "conflict"), None, "it signs");
    remove(&acme, spare).await.expect(204);
    let shown = acme.get(&format!("/issuer-keys/{old}")).await;
    let next = acme.get(&format!("/issuer-keys/{new}")).await;
    assert_eq!(shown["retired_at"], next["signs_from"], "the new key takes over by itself");

    // Activated before its time.
    let activated = activate(&acme, new).await.expect(200);
    assert_eq!(activated.json()["state"], "signing");
    assert_eq!(activate(&acme, new).await.expect(200).text(), activated.text(), "it signs already");
    assert_eq!((state(&acme, old).await, state(&acme, kid(&other)).await), (json!("retired"), json!("signing")));
    let refused = remove(&acme, old).await;
    assert_eq!(refused.not_the_problem(409, "conflict"), None);
    assert!(refused.text().contains("until a short time ago"), "{}", refused.text());
    // Back to the old one, and forth again.
    activate(&acme, old).await.expect(200);
    assert_eq!((state(&acme, old).await, state(&acme, new).await), (json!("signing"), json!("retired")));
    let version = acme.client.get(&acme.path(&format!("/issuer-keys/{new}"))).await.header("etag").unwrap().to_owned();
    let path = acme.path(&format!("/issuer-keys/{new}/activate"));
    let at_version =
        async |version: &str| acme.client.send(Method::POST, &path, &[JSON, ("if-match", version)], "{}").await;
    assert_eq!(at_version("\"1\"").await.not_the_problem(412, "version_changed"), None);
    at_version(&version).await.expect(200);

    // A key that nobody has needed for a long time.
    host.terminate().await;
    let ledger = rusqlite::Connection::open(host.data().join("ledger/ledger.db")).unwrap();
    let past = "UPDATE document SET doc = json_set(doc, '$.signs_from', ?2, '$.created_at', ?2)
                WHERE kind = 'issuer_key' AND id = ?1";
    for (kid, at) in [(old, "2026-01-01T00:00:00.000Z"), (new, "2026-01-02T00:00:00.000Z")] {
        assert_eq!(ledger.execute(past, [kid, at]).unwrap(), 1);
    }
    drop(ledger);
    host.start_again().await;
    assert_eq!(acme.get(&format!("/issuer-keys/{old}")).await["retired_at"], "2026-01-02T00:00:00.000Z");
    remove(&acme, old).await.expect(204);
    assert_eq!(remove(&acme, old).await.not_the_problem(404, "not_found"), None);
    assert_eq!(remove(&acme, new).await.not_the_problem(409, "conflict"), None, "the last of its algorithm");
    assert_eq!(kids(&jwks(&host, "/t/acme/jwks.json").await), BTreeSet::from([new, kid(&other)]));
}

/// Whether a file below the folder contains the bytes.
fn contains(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return contains(&path, bytes);
        }
        std::fs::read(&path).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test]
async fn private_halves_are_sealed() {
    let mut host = start().await;
    let acme = host.tenant("acme").await;
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "mine", "d": ED25519_D, "x": ED25519_X});
    let path = acme.path("/issuer-keys");
    let import = async || {
        let headers = [JSON, ("idempotency-key", "once")];
        acme.client.send(Method::POST, &path, &headers, json!({"jwk": jwk}).to_string()).await.expect(201)
    };
    let imported = import().await;
    assert_eq!(imported.json()["kid"], ED25519_THUMBPRINT);
    assert_eq!(import().await.text(), imported.text(), "the stored answer");
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = pem(&pair.serialize_der());
    let ec = create(&acme, &json!({"algorithm": "ES256", "pem": pem})).await.expect(201);
    let rsa = create(&acme, &json!({})).await.expect(201);
    assert_eq!(rsa.json()["algorithm"], "RS256", "the default");

    // SEC1 puts the private scalar in front of the public point, in an octet string of 32 bytes.
    let der = pair.serialize_der();
    let at = der.windows(5).position(|window| window == [2, 1, 1, 4, 32]).expect("an ECPrivateKey") + 5;
    let scalar = &der[at..at + 32];
    let seed = BASE64_URL_SAFE_NO_PAD.decode(ED25519_D).unwrap();
    let pem_line = pem.lines().nth(1).unwrap();
    let mut answers = vec![imported.text(), ec.text(), rsa.text()];
    for path in ["", "/issuer-keys", "/audit"] {
        answers.push(acme.get(path).await.to_string());
    }
    answers.push(host.stranger().get("/t/acme/jwks.json").await.text());
    answers.push(host.log());
    for answer in &answers {
        for private in [ED25519_D, pem_line, "PRIVATE KEY", "v1.", "\"private\"", "\"d\"", "\"p\""] {
            assert!(!answer.contains(private), "{private}: {answer}");
        }
    }
    host.terminate().await;
    let texts = [ED25519_D.as_bytes(), pem_line.as_bytes(), scalar, &seed];
    for (n, private) in texts.into_iter().enumerate() {
        assert!(!contains(&host.data(), private), "the private key {n} is in a file in the clear");
    }
    assert!(contains(&host.data(), ED25519_THUMBPRINT.as_bytes()), "the key is in the ledger");

    // The check of the ledger opens them. A private half in the place of another one does not open.
    assert_eq!(unreadable(&host).await, json!([]));
    let ledger = rusqlite::Connection::open(host.data().join("ledger/ledger.db")).unwrap();
    let swap = "UPDATE document SET doc = json_set(doc, '$.private', (
                    SELECT doc ->> '$.private' FROM document WHERE kind = 'issuer_key' AND id = ?2))
                WHERE kind = 'issuer_key' AND id = ?1";
    let (ec, rsa) = (ec.json(), rsa.json());
    assert_eq!(ledger.execute(swap, [kid(&ec), kid(&rsa)]).unwrap(), 1);
    drop(ledger);
    let expected = format!("acme/issuer-keys/{}: its private key does not open", kid(&ec));
    assert_eq!(unreadable(&host).await, json!([expected]));
    host.start_again().await;
    assert_eq!(kids(&jwks(&host, "/t/acme/jwks.json").await).len(), 3);
}

/// The secrets that `admin check` cannot decrypt.
async fn unreadable(host: &Host) -> Value {
    let ended = Host::command(&host.path("")).args(["admin", "check", "--data", "data"]).output();
    let ended = tokio::time::timeout(wait::DEADLINE, ended).await.expect("it ends").unwrap();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "secrets").expect("a check of secrets")["details"].clone()
}

/// Reasons for which a key is not created.
#[tokio::test]
async fn unusable_requests_are_refused() {
    let host = start().await;
    let acme = host.tenant("acme").await;
    let weak = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"});
    let public = json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519_X});
    for (body, status, code, word) in [
        (json!({"algorithm": "none"}), 400, "invalid_body", "none"),
        (json!({"algorithm": "HS256"}), 400, "invalid_body", "HS256"),
        (json!({"private": "x"}), 400, "invalid_body", "private"),
        (json!({"pem": "x"}), 422, "invalid_field", "algorithm"),
        (json!({"pem": "x", "jwk": {}}), 422, "invalid_field", "jwk"),
        (json!({"algorithm": "ES256", "pem": "hush-hush"}), 422, "invalid_field", "pem"),
        (json!({"jwk": public}), 422, "invalid_field", "jwk"),
        (json!({"jwk": weak}), 422, "invalid_field", "jwk"),
        (json!({"jwk": {"kty": "oct", "k": "AQAB"}}), 422, "invalid_field", "jwk"),
    ] {
        let answer = create(&acme, &body).await;
        assert_eq!(answer.not_the_problem(status, code), None, "{body}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(word) && !detail.contains("hush"), "{body}: {detail}");
    }
    assert_eq!(acme.get("/issuer-keys").await["items"], json!([]));
    assert_eq!(acme.get("").await["issuer"], Value::Null, "a refused key fixes no issuer");

    let jwk = json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "d": ED25519_D, "x": ED25519_X}});
    create(&acme, &jwk).await.expect(201);
    let again = create(&acme, &jwk).await;
    assert_eq!(again.not_the_problem(409, "conflict"), None);
    assert!(again.text().contains(ED25519_THUMBPRINT), "{}", again.text());

    let globex = host.tenant("globex").await;
    create(&globex, &jwk).await.expect(201);
    let reads = host.operator().post(&acme.path("/keys"), &json!({"scopes": ["read"]})).await.expect(201).json();
    let reads = acme.client.with_key(reads["key"].as_str().unwrap());
    reads.get(&acme.path("/issuer-keys")).await.expect(200);
    assert_eq!(reads.post(&acme.path("/issuer-keys"), &json!({})).await.not_the_problem(403, "forbidden"), None);
}

#[tokio::test]
async fn number_and_rate_of_keys_are_limited() {
    let mut host = start().await;
    let acme = host.tenant("acme").await;
    for _ in 0..10 {
        created(&acme, "EdDSA").await;
    }
    let answer = create(&acme, &json!({"algorithm": "EdDSA"})).await;
    assert_eq!(answer.not_the_problem(429, "too_often"), None);
    assert!(answer.header("retry-after").is_some());
    created(&host.tenant("globex").await, "EdDSA").await;
    // The rate is counted in memory.
    host.restart().await;
    for _ in 10..16 {
        created(&acme, "EdDSA").await;
    }
    let answer = create(&acme, &json!({"algorithm": "EdDSA"})).await;
    assert_eq!(answer.not_the_problem(409, "conflict"), None);
    assert!(answer.text().contains("16 issuer keys"), "{}", answer.text());
    assert_eq!(jwks(&host, "/t/acme/jwks.json").await.len(), 16);
}

#[tokio::test]
async fn issuer_requires_a_public_url_and_keeps_it() {
    let mut host = Host::start().await;
    let acme = host.tenant("acme").await;
    let answer = create(&acme, &json!({"algorithm": "EdDSA"})).await;
    assert_eq!(answer.not_the_problem(409, "conflict"), None);
    assert!(answer.text().contains("`server.public_url`"), "{}", answer.text());
    let with_url = async |host: &mut Host, url: &str| {
        host.set_env("SETGATE_SERVER__PUBLIC_URL", url);
        host.restart().await;
    };
    with_url(&mut host, "http://127.0.0.1:9").await;
    created(&acme, "EdDSA").await;
    with_url(&mut host, "https://elsewhere.example").await;
    assert_eq!(created(&acme, "ES256").await["issuer"], "http://127.0.0.1:9/t/acme", "it is fixed");
    let globex = host.tenant("globex").await;
    assert_eq!(created(&globex, "EdDSA").await["issuer"], "https://elsewhere.example/t/globex");
    // What is read can be sent back.
    let tenant = host.operator().get("/api/v1/tenants/acme").await.expect(200).json();
    assert!(tenant["issuer"].is_string());
    let patch = [JSON];
    let answer = host.operator().send(Method::PATCH, "/api/v1/tenants/acme", &patch, tenant.to_string()).await;
    assert_eq!(answer.expect(200).json()["issuer"], tenant["issuer"]);
}

#[tokio::test]
async fn name_of_an_issuer_is_not_inherited() {
    let mut host = start().await;
    let operator: Client = host.operator().clone();
    let tenants = "/api/v1/tenants";
    let acme = host.tenant("acme").await;
    let first = created(&acme, "ES256").await;
    operator.delete(&acme.path("")).await.expect(204);
    assert_eq!(host.stranger().get("/t/acme/jwks.json").await.status, 404);
    let refused = operator.post(tenants, &json!({"id": "acme"})).await;
    assert_eq!(refused.not_the_problem(409, "issuer_name_used"), None);
    assert!(refused.text().contains("new_issuer"), "{}", refused.text());
    host.restart().await;
    assert_eq!(operator.post(tenants, &json!({"id": "acme"})).await.not_the_problem(409, "issuer_name_used"), None);

    for number in 2..=3 {
        let acme = host.tenant_with("acme", json!({"new_issuer": true})).await;
        assert_eq!(host.stranger().get("/t/acme/jwks.json").await.status, 404, "it has no key yet");
        let key = created(&acme, "ES256").await;
        assert_eq!(key["issuer"], format!("{URL}/t/acme/{number}"));
        assert_ne!(key["kid"], first["kid"]);
        let published = jwks(&host, &format!("/t/acme/{number}/jwks.json")).await;
        assert_eq!(kids(&published), BTreeSet::from([kid(&key)]));
        for path in ["/t/acme/jwks.json".to_owned(), format!("/t/acme/{}/jwks.json", number + 1)] {
            assert_eq!(host.stranger().get(&path).await.status, 404, "{path}");
        }
        operator.delete(&acme.path("")).await.expect(204);
    }

    // A tenant without an issuer key leaves its name free.
    let globex = host.tenant("globex").await;
    operator.delete(&globex.path("")).await.expect(204);
    host.tenant("globex").await;
}

/// Libraries of others read the JWKS and verify what its keys signed, and the host imports keys of theirs.
#[tokio::test]
async fn libraries_read_the_jwks_and_provide_keys() {
    let host = start().await;
    let acme = host.tenant("acme").await;
    let (payload, issuer, audience) = (json!({"jti": "1", "iat": 1_795_880_000}), URL, "https://rp.example/");
    let mut claims = payload.clone();
    (claims["iss"], claims["aud"]) = (json!(issuer), json!(audience));
    let mut tokens = Vec::new();
    for algorithm in Algorithm::ALL {
        let key = SigningKey::generate(algorithm).unwrap();
        let body = json!({"algorithm": algorithm.as_str(), "pem": pem(key.to_pkcs8())});
        assert_eq!(kid(&create(&acme, &body).await.expect(201).json()), key.kid());
        let token = key.sign("secevent+jwt", &claims.to_string()).unwrap();
        tokens.push(json!({"alg": algorithm.as_str(), "kid": key.kid(), "token": token}));
    }
    let published = host.stranger().get("/t/acme/jwks.json").await.expect(200).json();
    let given =
        json!({"issuer": issuer, "audience": audience, "payload": payload, "jwks": published, "tokens": tokens});
    let mut python = tokio::process::Command::new(judges::python().await.unwrap());
    let judged =
        judges::run(python.arg("-c").arg(include_str!("../judges/jose.py")), &given.to_string()).await.unwrap();

    let libraries: Vec<Value> = serde_json::from_str(&judged).unwrap();
    assert_eq!(libraries.len(), 3);
    for library in &libraries {
        let name = library["library"].as_str().unwrap();
        for (kid, thumbprint) in library["thumbprints"].as_object().unwrap() {
            // PyJWT computes no thumbprints.
            assert!(
                thumbprint == kid.as_str() || name == "PyJWT" && thumbprint.is_null(),
                "{name}: {kid} {thumbprint}"
            );
        }
        let tenant = host.tenant(&name.to_lowercase()).await;
        for key in library["keys"].as_array().unwrap() {
            let imported = create(&tenant, &json!({"jwk": key["private"]})).await.expect(201).json();
            assert_eq!(imported["algorithm"], key["alg"], "{name}");
            assert_eq!(kid(&imported), thumbprint(&key["public"]), "{name}");
            let again = create(&tenant, &json!({"algorithm": key["alg"], "pem": key["pem"]})).await;
            assert_eq!(again.not_the_problem(409, "conflict"), None, "{name}: the same key in another form");
            assert!(again.text().contains(kid(&imported)), "{}", again.text());
        }
        let published = jwks(&host, &format!("/t/{}/jwks.json", tenant.name)).await;
        let expected: BTreeSet<_> =
            library["keys"].as_array().unwrap().iter().map(|key| thumbprint(&key["public"])).collect();
        assert_eq!(published.iter().map(thumbprint).collect::<BTreeSet<_>>(), expected, "{name}");
    }
}
