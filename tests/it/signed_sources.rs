//! Sources of signed SETs: keys, signatures and claims. The names of the tests begin with the cases of the conformance
//! list that they show.

mod between_hosts;
mod configuration;
mod keys;
mod push_mechanics;

use hmac::{Hmac, Mac};
use http::Method;
use serde_json::{Value, json};
use setgate_jose::{Algorithm, JwkSet, PublicJwk, SigningKey};
use setgate_tests::event::SET_TYPE;
use setgate_tests::transmitter::{AUDIENCE, ISSUER, SIGNED_SET, base64url, claims, not_the_refusal, push};
use setgate_tests::{Answer, Host, KeyServer, LateBody, Receiver, SetKey, Tenant, until};
use sha2::Sha256;

/// A host whose tenant `acme` has a source `idp` of signed SETs.
struct Signed {
    host: Host,
    acme: Tenant,
    key: SetKey,
    server: KeyServer,
    path: String,
}

impl Signed {
    /// The source has these settings too.
    async fn start_with(more: &Value) -> Self {
        let key = SetKey::new("key-1");
        let server = KeyServer::start(&[&key]).await;
        let host = Host::start().await;
        let acme = host.tenant("acme").await;
        let path = make(&acme, "idp", &source(&json!({"jwks_url": server.url}), more)).await;
        Self { host, acme, key, server, path }
    }

    async fn start() -> Self {
        Self::start_with(&json!({})).await
    }

    async fn push(&self, token: &str) -> Answer {
        push(&self.acme.client, &self.path, token).await
    }

    /// Pushes a SET that must be accepted.
    async fn accept(&self, claims: &Value) {
        let answer = self.push(&self.key.token(claims)).await.expect(202);
        assert!(answer.body.is_empty(), "the answer is empty: {}", answer.text());
    }

    /// Pushes a SET that must be refused with this code, and returns the description.
    async fn refuse(&self, token: &str, err: &str) -> String {
        let answer = self.push(token).await;
        assert_eq!(not_the_refusal(&answer, err), None);
        answer.json()["description"].as_str().unwrap().to_owned()
    }

    async fn refuse_claims(&self, claims: &Value, err: &str) -> String {
        self.refuse(&self.key.token(claims), err).await
    }

    /// The accepted events, newest first.
    async fn events(&self) -> Vec<Value> {
        self.acme.get("/events?limit=200").await["items"].as_array().unwrap().clone()
    }

    async fn counted(&self, outcome: &str) -> f64 {
        let labels = ["tenant=\"acme\"", "source=\"idp\"", &format!("outcome=\"{outcome}\"")];
        self.host.metric("setgate_ingest_total", &labels).await
    }
}

/// The settings of a source of signed SETs, with the origin of the keys and further members of its proof and its own.
fn source(keys: &Value, more: &Value) -> Value {
    let mut proof = json!({"kind": "jws", "issuer": ISSUER, "audience": [AUDIENCE]});
    let mut settings = json!({"form": "set"});
    let put = |into: &mut Value, from: &Value| into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    put(&mut proof, keys);
    put(&mut settings, more);
    settings["proofs"] = json!([proof]);
    settings
}

/// Creates a source and returns the path for its SETs.
async fn make(tenant: &Tenant, name: &str, settings: &Value) -> String {
    let made = tenant.client.put(&tenant.path(&format!("/sources/{name}")), settings).await.expect(201).json();
    made["push_path"].as_str().expect("a push path").to_owned()
}

/// Claims with some changed; `null` removes one.
fn with(jti: &str, changes: &Value) -> Value {
    let mut claims = claims(jti);
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

#[tokio::test]
async fn signed_set_arrives_as_an_event() {
    let signed = Signed::start().await;
    let receiver = Receiver::start().await;
    let subscription = signed.acme.subscribe(&receiver).create().await;
    let set = claims("one");
    let token = signed.key.token(&set);
    let answer = signed.push(&token).await.expect(202);
    assert!(answer.body.is_empty() && answer.header("content-type").is_none(), "{answer:?}");
    let received = &receiver.received(1).await[0];
    subscription.verify(received).unwrap();
    assert_eq!(received.text(), set.to_string(), "the payload as it was signed");
    let event = &signed.events().await[0];
    assert_eq!(event["content_type"], "application/secevent+jwt");
    assert_eq!(event["subject"], "jane@example.com");
    assert_eq!(signed.counted("accepted").await, 1.0);
    let original = signed.acme.subscribe(&receiver).format("original").create().await;
    signed.accept(&claims("two")).await;
    let both = receiver.received(3).await;
    let of_original = both.iter().filter(|received| original.verify(received).is_ok()).map(|received| received.text());
    assert_eq!(of_original.collect::<Vec<_>>(), [claims("two").to_string()]);
}

/// Every algorithm, with keys and signatures of `setgate-jose`.
#[tokio::test]
async fn every_algorithm_is_accepted_and_can_be_left_out() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let keys = Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let set = JwkSet::from_keys(keys.iter().map(|key| PublicJwk::parse(key.public_jwk()).unwrap()));
    let given = json!({"jwks": serde_json::from_str::<Value>(&set.to_json()).unwrap()});
    let all = make(&acme, "all", &source(&given, &json!({}))).await;
    for key in &keys {
        let algorithm = key.algorithm().as_str();
        let token = key.sign("secevent+jwt", &claims(algorithm).to_string()).unwrap();
        push(&acme.client, &all, &token).await.expect(202);
        let mut only = given.clone();
        only["algorithms"] = json!([algorithm]);
        let only = make(&acme, &algorithm.to_lowercase(), &source(&only, &json!({}))).await;
        for other in &keys {
            let token = other.sign("secevent+jwt", &claims("x").to_string()).unwrap();
            let answer = push(&acme.client, &only, &token).await;
            match other.algorithm() == key.algorithm() {
                true => drop(answer.expect(202)),
                false => assert_eq!(not_the_refusal(&answer, "invalid_key"), None),
            }
        }
    }
}

#[tokio::test]
async fn rx20_to_rx23_each_fault_has_its_code() {
    let signed = Signed::start().await;
    let token = signed.key.token(&claims("one"));
    let other = SetKey::new("key-2");
    let mut corrupt = token.clone().into_bytes();
    let middle = token.rfind('.').unwrap() + 10;
    corrupt[middle] = if corrupt[middle] == b'A' { b'B' } else { b'A' };
    let payload = token.replace(&base64url(claims("one").to_string()), &base64url(claims("two").to_string()));
    for (what, token) in [
        ("RX20 corrupt signature", String::from_utf8(corrupt).unwrap()),
        ("RX20 other payload", payload),
        ("RX21 unknown kid", other.token(&claims("one"))),
        (
            "RX21 another key under a known kid",
            other.token_of(&signed.key.header().to_string(), &claims("one").to_string()),
        ),
    ] {
        let answer = signed.push(&token).await;
        assert_eq!(not_the_refusal(&answer, "invalid_key"), None, "{what}");
    }
    for issuer in [json!("https://idp.example/"), json!("https://other.example"), json!(null), json!(7)] {
        let why = signed.refuse_claims(&with("one", &json!({"iss": issuer})), "invalid_issuer").await;
        assert!(why.contains("iss"), "RX22 {issuer}: {why}");
    }
    for audience in [json!("https://rp.example"), json!(["a", "b"]), json!([]), json!(null), json!(7)] {
        let why = signed.refuse_claims(&with("one", &json!({"aud": audience})), "invalid_audience").await;
        assert!(why.contains("aud"), "RX23 {audience}: {why}");
    }
    assert!(signed.events().await.is_empty(), "nothing of them is stored");
    for (code, count) in [("invalid_key", 4.0), ("invalid_issuer", 4.0), ("invalid_audience", 5.0)] {
        assert_eq!(signed.counted(code).await, count, "{code}");
    }
    signed.accept(&claims("one")).await;
}

/// A key of 1024 bits, and a SET with the usual issuer and audience that it signed.
const WEAK_KEY: &str = "uyq12rjj0VBxDuSPhLiQ9_6X7YO-ZDOuz84DNGWfeTZbYWHls440UVg3zPkm0PYWs_SrI0eg95hwQcZ8tqq8_QId3vBdm-REtBYfqyOiizMBB3tdqTeTCmHmMHrILYfrCzSFphamNQPFmjdKTn4qxS8d-b8sLDM0JKgWC4v8_1U";
const WEAK_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYWsiLCJ0eXAiOiJzZWNldmVudCtqd3QifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoiaHR0cHM6Ly9ycC5leGFtcGxlLyIsImp0aSI6IndlYWsiLCJpYXQiOjE3MDAwMDAwMDAsImV2ZW50cyI6eyJ1cm46eDp5Ijp7fX19.DltUJcnpCuDHC2DsR3HLqR8gxlSbtRtwSKwJfPgBrdoeVlmhKkSR4TWZE5uvTDkfRCrYws95id1rfI6kdY07X9MqHbpuTtDYBzgyQwxYWHQxMSVosUoRQ2e_9C-WPJks8Xk16ugFXj6Vp1Lc8TMYG2RsWfBlUcnjBU18K4u93tw";

#[tokio::test]
async fn rx24_weak_signatures_and_odd_headers_are_refused() {
    let signed = Signed::start().await;
    let weak = json!({"kty": "RSA", "kid": "weak", "n": WEAK_KEY, "e": "AQAB"});
    let strong = signed.key.jwk();
    signed.server.answer(200, "application/json", &json!({"keys": [weak, strong]}).to_string());
    signed.refuse(WEAK_TOKEN, "invalid_key").await;

    let set = claims("one").to_string();
    let unsigned = |header: Value| format!("{}.{}.", base64url(header.to_string()), base64url(&set));
    let none = json!({"alg": "none", "typ": "secevent+jwt", "kid": "key-1"});
    signed.refuse(&unsigned(none.clone()), "invalid_key").await;
    signed.refuse(&format!("{}AA", unsigned(none)), "invalid_key").await;
    // The published key as a shared secret.
    let header = json!({"alg": "HS256", "kid": "key-1", "typ": "secevent+jwt"});
    let signing_input = unsigned(header).trim_end_matches('.').to_owned();
    for secret in [signed.key.jwk().to_string(), signed.key.jwk()["x"].as_str().unwrap().to_owned()] {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap().chain_update(&signing_input);
        let token = format!("{signing_input}.{}", base64url(mac.finalize().into_bytes()));
        signed.refuse(&token, "invalid_key").await;
    }
    let header = |name: &str, value: Value| {
        let mut header = signed.key.header();
        header[name] = value;
        signed.key.token_of(&header.to_string(), &set)
    };
    for (name, value, err) in [
        ("typ", json!("JWT"), "invalid_request"),
        ("typ", json!("at+jwt"), "invalid_request"),
        ("typ", json!(7), "invalid_request"),
        ("crit", json!(["exp"]), "invalid_request"),
        ("crit", json!([]), "invalid_request"),
        ("b64", json!(false), "invalid_request"),
        ("alg", json!("ES256"), "invalid_key"),
        ("alg", json!("eddsa"), "invalid_key"),
    ] {
        signed.refuse(&header(name, value.clone()), err).await;
    }
    for typ in ["application/secevent+jwt", "SECEVENT+JWT"] {
        signed.push(&header("typ", json!(typ))).await.expect(202);
    }
    // RFC 9864 renames EdDSA.
    signed.push(&header("alg", json!("Ed25519"))).await.expect(202);
    assert_eq!(signed.events().await.len(), 1);
}

#[tokio::test]
async fn rx25_rx51_legacy_forms_need_their_switch() {
    let strict = Signed::start().await;
    let subject = json!({"subject_type": "iss-sub", "iss": ISSUER, "sub": "u-17"});
    let in_event = json!({"sub_id": null, "events": {SET_TYPE: {"subject": subject}}});
    let renewed = json!({"format": "iss_sub", "iss": ISSUER, "sub": "u-17"});
    let cases = [
        ("allow_sub_and_exp", json!({"exp": 1}), json!({"exp": null})),
        ("allow_sub_and_exp", json!({"sub": "u-17", "sub_id": null}), json!({"sub": null, "sub_id": renewed})),
        ("allow_subject_in_event", in_event, json!({"sub_id": renewed})),
        (
            "allow_subject_in_event",
            json!({"sub_id": {"format": "iss-sub", "iss": ISSUER, "sub": "u-17"}}),
            json!({"sub_id": renewed}),
        ),
        (
            "allow_issuer_in_iss_sub",
            json!({"sub_id": {"format": "iss_sub", "issuer": ISSUER, "sub": "u-17"}}),
            json!({"sub_id": renewed}),
        ),
        ("allow_numeric_txn", json!({"txn": 8}), json!({"txn": "8"})),
    ];
    let receiver = Receiver::start().await;
    strict.acme.subscribe(&receiver).create().await;
    for (number, (switch, change, stored)) in cases.iter().enumerate() {
        let set = with(&format!("{switch}-{number}"), change);
        let why = strict.refuse_claims(&set, "invalid_request").await;
        assert!(why.contains(&format!("compat.{switch}")), "{switch}: {why}");
        let compat = json!({"compat": {*switch: true}});
        let legacy = source(&json!({"jwks_url": strict.server.url}), &compat);
        let path = make(&strict.acme, &format!("legacy-{number}"), &legacy).await;
        push(&strict.acme.client, &path, &strict.key.token(&set)).await.expect(202);
        let received = receiver.received(number + 1).await[number].json();
        for (name, value) in stored.as_object().unwrap() {
            assert_eq!(received[name], *value, "{switch}: {name} of {received}");
        }
        let again = json!({"compat": {"allow_missing_typ": true}});
        let other = source(&json!({"jwks_url": strict.server.url}), &again);
        let path = make(&strict.acme, &format!("other-{number}"), &other).await;
        let refused = push(&strict.acme.client, &path, &strict.key.token(&set)).await;
        assert_eq!(not_the_refusal(&refused, "invalid_request"), None, "another switch does not help");
    }
    let untyped = json!({"alg": "EdDSA", "kid": "key-1"}).to_string();
    let token = strict.key.token_of(&untyped, &claims("untyped").to_string());
    assert!(strict.refuse(&token, "invalid_request").await.contains("compat.allow_missing_typ"));
    push(&strict.acme.client, "/t/acme/push/other-0", &token).await.expect(202);
}

#[tokio::test]
async fn rx30_to_rx32_a_repeated_set_is_one_event() {
    let signed = Signed::start().await;
    let receiver = Receiver::start().await;
    signed.acme.subscribe(&receiver).create().await;
    let second = SetKey::new("key-2");
    signed.server.publish(&[&signed.key, &second]);
    let set = claims("one");
    signed.accept(&set).await;
    signed.accept(&set).await;
    // RX32: signed again with another key, time and order.
    let again = with("one", &json!({"iat": 1_700_000_100}));
    let reordered: serde_json::Map<String, Value> = again.as_object().unwrap().clone().into_iter().rev().collect();
    signed.push(&second.token(&Value::Object(reordered))).await.expect(202);
    assert_eq!((signed.counted("accepted").await, signed.counted("duplicate").await), (1.0, 2.0));
    // RX31: other claims under the same jti are acknowledged, counted and logged, but no event.
    let other = with("one", &json!({"txn": "another"}));
    signed.accept(&other).await;
    signed.accept(&other).await;
    assert_eq!(signed.counted("jti_conflict").await, 2.0);
    until("the reused jti is logged", async || {
        signed.host.log().contains("has the `jti` of an earlier one").then_some(())
    })
    .await;
    signed.accept(&claims("two")).await;
    let jtis: Vec<_> = receiver.received(2).await.iter().map(|received| received.json()["jti"].clone()).collect();
    assert_eq!(jtis, ["one", "two"]);
    assert_eq!(signed.events().await.len(), 2);
}

#[tokio::test]
async fn rx33_restart_and_crash_keep_replay_protection() {
    let mut signed = Signed::start().await;
    signed.accept(&claims("one")).await;
    // The sender did not get the answer and pushes again after the restart.
    signed.host.kill9().await;
    signed.host.start_again().await;
    signed.accept(&claims("one")).await;
    signed.host.restart().await;
    signed.accept(&claims("one")).await;
    assert_eq!(signed.events().await.len(), 1);
    assert_eq!(signed.counted("duplicate").await, 1.0);
}

#[tokio::test]
async fn rx46_rx50_every_event_type_and_subject_is_accepted() {
    let signed = Signed::start().await;
    let base = "https://schemas.openid.net/secevent";
    let caep = "session-revoked token-claims-change credential-change assurance-level-change device-compliance-change \
                session-established session-presented risk-level-change";
    let risc = "account-credential-change-required account-purged account-disabled account-enabled identifier-changed \
                identifier-recycled credential-compromise opt-in opt-out-initiated opt-out-cancelled opt-out-effective \
                recovery-activated recovery-information-changed sessions-revoked";
    let of = |kind: &str, names: &str| -> Vec<String> {
        names.split_whitespace().map(|name| format!("{base}/{kind}/event-type/{name}")).collect()
    };
    let types = [of("caep", caep), of("risc", risc), of("ssf", "verification stream-updated")].concat();
    let unknown = "https://example.com/event-type/of-nobody".to_owned();
    let subjects = [
        json!({"format": "email", "email": "jane@example.com"}),
        json!({"format": "iss_sub", "iss": ISSUER, "sub": "u-17"}),
        json!({"format": "opaque", "id": "st_01J8"}),
        json!({"format": "complex", "user": {"format": "opaque", "id": "u"}, "device": {"format": "opaque", "id": "d"}}),
    ];
    let mut accepted = 0;
    for uri in types.iter().chain([&unknown]) {
        for subject in &subjects {
            let event = json!({"event_timestamp": 1_699_999_990, "unknown_member": [1, {"a": null}]});
            let change = json!({"sub_id": subject, "events": {uri.as_str(): event}, "unknown_claim": {"x": 1.10}});
            signed.accept(&with(&format!("{accepted}"), &change)).await;
            accepted += 1;
        }
    }
    assert_eq!(signed.events().await.len(), accepted);
    let no_subject = with("none", &json!({"sub_id": null}));
    signed.accept(&no_subject).await;
    let incomplete = with("bad", &json!({"sub_id": {"format": "email", "mail": "jane@example.com"}}));
    signed.refuse_claims(&incomplete, "invalid_request").await;
}

#[tokio::test]
async fn unknown_sources_answer_like_a_wrong_key() {
    let signed = Signed::start().await;
    let acme = &signed.acme;
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    acme.client.put(&acme.path("/sources/open"), &open).await.expect(201);
    let stranger = SetKey::new("stranger");
    let good = stranger.token(&claims("one"));
    let untyped = stranger.token_of(r#"{"alg":"EdDSA","kid":"stranger"}"#, "{}");
    let expected: Vec<_> = [&good, &untyped].map(|token| push(&acme.client, &signed.path, token)).into();
    let expected = futures(expected).await;
    let malformed = signed.push("e30").await;
    for path in
        ["/t/acme/push/nobody", "/t/nobody/push/idp", "/t/acme/push/open", "/t/ACME/push/%00", "/t/acme/push/setgate"]
    {
        for (token, expected) in [&good, &untyped].into_iter().zip(&expected) {
            let answer = push(&acme.client, path, token).await;
            assert_eq!(not_the_refusal(&answer, "invalid_key"), None, "{path}");
            assert_eq!((answer.status, &answer.body), (expected.status, &expected.body), "{path}");
        }
        let answer = push(&acme.client, path, "e30").await;
        assert_eq!((answer.status, &answer.body), (malformed.status, &malformed.body), "{path}");
        let large = acme.client.send(Method::POST, path, &[SIGNED_SET], vec![b'a'; (1 << 20) + 1]).await;
        assert_eq!(large.not_the_problem(413, "body_too_large"), None, "{path}");
    }
    assert_eq!(signed.host.metric("setgate_ingest_total", &["source=\"nobody\""]).await, 0.0, "no new time series");
}

async fn futures(all: Vec<impl Future<Output = Answer>>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for one in all {
        answers.push(one.await);
    }
    answers
}

#[tokio::test]
async fn source_changed_while_a_body_arrives_decides_as_it_is_then() {
    let signed = Signed::start().await;
    let begin = async |jti: &str| {
        let token = signed.key.token(&claims(jti));
        LateBody::begin(&signed.host, &signed.path, &[SIGNED_SET], token).await
    };
    let path = signed.acme.path("/sources/idp");
    let late = begin("one").await;
    let other = SetKey::new("key-2");
    let changed = source(&json!({"jwks": {"keys": [other.jwk()]}}), &json!({}));
    signed.acme.client.put(&path, &changed).await.expect(200);
    let answer = late.end().await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_key"), "{answer}");
    let late = begin("two").await;
    signed.acme.client.delete(&path).await.expect(204);
    let answer = late.end().await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_key"), "{answer}");
    assert!(signed.events().await.is_empty());
}
