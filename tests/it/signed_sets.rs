//! Deliveries of the format `signed_set`: SETs under the tenant's own issuer, pushed as RFC 8935 specifies.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use setgate_tests::{Host, Ingest, Received, Receiver, Reply, Tenant, World, event, judges, until};

use crate::receivers::SHORT_WAITS;

/// The base URL at which receivers reach the host.
const PUBLIC_URL: &str = "[server]\npublic_url = \"https://edge.example\"\n";
/// The issuer of the tenant.
const ISSUER: &str = "https://edge.example/t/acme";
const AUDIENCE: &str = "https://rp.example/";

/// A body derived from the request.
type Body = fn(&Received) -> String;

/// A refusal with this body.
fn refusal(status: u16, body: Body) -> Reply {
    Reply::status(status).header("content-type", "application/json").body(body)
}

async fn host() -> Ingest {
    let ingest = World::with().config(&format!("{PUBLIC_URL}{SHORT_WAITS}")).start_ingest().await;
    ingest.acme.client.post(&ingest.acme.path("/issuer-keys"), &json!({"algorithm": "RS256"})).await.expect(201);
    ingest
}

/// Creates a subscription and returns its id.
async fn subscribe(acme: &Tenant, receiver: &Receiver, algorithm: &str, waits: &[u32]) -> String {
    let settings = json!({"audience": [AUDIENCE], "algorithm": algorithm});
    let asked = acme.subscribe(receiver).format("signed_set").with("signed_set", settings).retry(waits);
    let made = asked.with("endpoint", json!({"url": receiver.url(), "headers": {"authorization": "Bearer k"}}));
    made.ask().await.expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// The only delivery to a subscription, when it is in a state.
async fn delivery_in(acme: &Tenant, subscription: &str, state: &str) -> Value {
    let id = until(&format!("a delivery to {subscription} is {state}"), async || {
        let found = acme.deliveries(&format!("subscription={subscription}&state={state}")).await;
        found.first().map(|delivery| delivery["id"].as_str().unwrap().to_owned())
    })
    .await;
    acme.delivery(&id).await
}

/// The claims of a received SET, as a third party verifies them with the keys that the tenant publishes.
async fn verified(host: &Host, received: &Received) -> Value {
    let jwks = host.stranger().get("/t/acme/jwks.json").await.expect(200).text();
    let claims = judges::claims_of_set(&jwks, &received.text(), AUDIENCE, ISSUER).await;
    claims.unwrap_or_else(|why| panic!("{why}: {}", received.text()))
}

#[tokio::test]
async fn every_algorithm_is_verified_by_a_third_party() {
    let Ingest { host, acme, source } = &host().await;
    let mut receivers = Vec::new();
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        if algorithm != "RS256" {
            let made = acme.client.post(&acme.path("/issuer-keys"), &json!({"algorithm": algorithm})).await;
            made.expect(201);
        }
        let receiver = Receiver::start().await;
        receiver.otherwise(Reply::status(202));
        let subscription = subscribe(acme, &receiver, algorithm, &[]).await;
        receivers.push((algorithm, receiver, subscription));
    }
    let accepted = source.accept(event::set("one")).await;
    for (algorithm, receiver, subscription) in &receivers {
        let received = receiver.received(1).await.remove(0);
        assert_eq!(received.header("content-type"), "application/secevent+jwt", "{algorithm}");
        assert_eq!(received.header("accept"), "application/json");
        assert_eq!(received.header("authorization"), "Bearer k");
        for absent in ["webhook-id", "webhook-signature"] {
            assert!(!received.headers.contains_key(absent), "the body is signed, so `{absent}` is not needed");
        }
        let claims = verified(host, &received).await;
        let delivery = delivery_in(acme, subscription, "delivered").await;
        assert_eq!(claims["iss"], ISSUER);
        assert_eq!(claims["aud"], AUDIENCE);
        assert_eq!(claims["jti"], delivery["id"], "its own id, not that of the received SET");
        assert_eq!(claims["txn"], "8675309", "the transaction of the received SET");
        assert_eq!(claims["sub_id"], json!({"format": "email", "email": "jane@example.com"}));
        assert_eq!(claims["events"][event::SET_TYPE]["event_timestamp"], 1_615_304_991);
        assert!(claims["iat"].as_i64() > Some(1_615_305_159), "it was issued now: {claims}");
        assert!(claims.get("sub").is_none() && claims.get("exp").is_none());
        let set = &delivery["attempts"][0]["set"];
        assert_eq!(set["jti"], claims["jti"], "the history shows the SET and its key: {delivery}");
        let keys = acme.get("/issuer-keys").await;
        let kid = keys["items"].as_array().unwrap().iter().find(|key| key["algorithm"] == *algorithm).unwrap();
        assert_eq!(set["kid"], kid["kid"]);
        assert!(delivery["id"].as_str().unwrap().contains(&accepted.event[4..]));
    }
}

#[tokio::test]
async fn retries_and_redrives_send_the_same_bytes() {
    let Ingest { acme, source, .. } = &host().await;
    let receiver = Receiver::start().await;
    receiver.answer([Reply::status(503), Reply::status(500)]);
    receiver.otherwise(Reply::status(202));
    let subscription = subscribe(acme, &receiver, "RS256", &[1]).await;
    source.accept(event::set("one")).await;
    let dead = delivery_in(acme, &subscription, "dead").await;
    acme.redrive(dead["id"].as_str().unwrap(), "again").await.expect(200);
    let received = receiver.received(3).await;
    for again in &received[1..] {
        assert_eq!(again.body, received[0].body, "the SET is signed once");
    }
    delivery_in(acme, &subscription, "delivered").await;
}

#[tokio::test]
async fn restart_sends_the_stored_token() {
    // PS256 signatures are random, so the same bytes can only come from the ledger.
    let mut ingest = host().await;
    let Ingest { host, acme, source } = &mut ingest;
    acme.client.post(&acme.path("/issuer-keys"), &json!({"algorithm": "PS256"})).await.expect(201);
    let receiver = Receiver::start().await;
    receiver.answer([Reply::status(503)]);
    receiver.otherwise(Reply::status(202));
    let subscription = subscribe(acme, &receiver, "PS256", &[2]).await;
    source.accept(event::set("one")).await;
    receiver.received(1).await;
    host.kill9().await;
    host.start_again().await;
    let received = receiver.received(2).await;
    assert_eq!(received[1].body, received[0].body);
    delivery_in(acme, &subscription, "delivered").await;
}

#[tokio::test]
async fn error_codes_of_the_receiver_decide() {
    let Ingest { acme, source, .. } = &host().await;
    let cases: [(Body, &str); 5] = [
        (|_| r#"{"err":"invalid_audience","description":"not for us"}"#.into(), "invalid_audience: not for us"),
        (|_| r#"{"err":"invalid_request","description":"bad"}"#.into(), "invalid_request: bad"),
        (|_| r#"{"err":"invalid_issuer","description":"who?"}"#.into(), "invalid_issuer: who?"),
        (|_| r#"{"err":"access_denied","description":"no"}"#.into(), "access_denied: no"),
        (|_| "<html>Bad Request</html>".into(), "not an answer of RFC 8935"),
    ];
    for (number, (body, reason)) in cases.into_iter().enumerate() {
        let receiver = Receiver::start().await;
        receiver.otherwise(refusal(400, body));
        let subscription = subscribe(acme, &receiver, "RS256", &[0, 0, 0, 0, 0]).await;
        source.accept(event::set(&format!("event {number}"))).await;
        let dead = delivery_in(acme, &subscription, "dead").await;
        assert!(dead["reason"].as_str().unwrap().contains(reason), "{dead}");
        let attempts = if reason.contains("RFC 8935") { 3 } else { 1 };
        assert_eq!(dead["attempt_count"], attempts, "{dead}");
        acme.client.delete(&acme.path(&format!("/subscriptions/{subscription}"))).await.expect(204);
    }
    // A receiver that has not loaded the key yet is tried again.
    let receiver = Receiver::start().await;
    receiver.answer([refusal(400, |_| r#"{"err":"invalid_key","description":"unknown kid"}"#.into())]);
    receiver.otherwise(Reply::status(202));
    let subscription = subscribe(acme, &receiver, "RS256", &[0, 0]).await;
    source.accept(event::set("later")).await;
    assert_eq!(delivery_in(acme, &subscription, "delivered").await["attempt_count"], 2);
}

#[tokio::test]
async fn refused_credential_pauses_the_subscription() {
    let Ingest { acme, source, .. } = &host().await;
    let receiver = Receiver::start().await;
    receiver.answer([Reply::status(401), Reply::status(403)]);
    receiver.otherwise(refusal(400, |_| r#"{"err":"authentication_failed","description":"expired"}"#.into()));
    let subscription = subscribe(acme, &receiver, "RS256", &[0, 0, 0, 0]).await;
    let path = format!("/subscriptions/{subscription}");
    source.accept(event::set("one")).await;
    let paused = until("the subscription is paused", async || {
        let shown = acme.get(&path).await;
        shown["paused"].is_object().then_some(shown)
    })
    .await;
    assert_eq!(paused["paused"]["cause"], "credential");
    assert!(paused["paused"]["reason"].as_str().unwrap().contains("authentication_failed: expired"), "{paused}");
    receiver.otherwise(Reply::status(202));
    tokio::time::sleep(Duration::from_millis(100)).await;
    acme.client.post(&acme.path(&format!("{path}/resume")), &json!({})).await.expect(200);
    assert_eq!(delivery_in(acme, &subscription, "delivered").await["attempt_count"], 4, "nothing was lost");
}

#[tokio::test]
async fn invalid_settings_are_refused_with_a_remedy() {
    let Ingest { acme, .. } = &host().await;
    let receiver = Receiver::start().await;
    let one = json!({"audience": [AUDIENCE]});
    for (format, settings, field, remedy) in [
        ("signed_set", Value::Null, "signed_set", "give at least"),
        ("signed_set", json!({"audience": []}), "signed_set/audience", "give 1 to 8 values"),
        ("signed_set", json!({"audience": ["a", "a"]}), "signed_set/audience", "given twice"),
        ("signed_set", json!({"audience": [AUDIENCE], "algorithm": "ES256"}), "signed_set/algorithm", "/issuer-keys"),
        ("set", one, "signed_set", "only for the format"),
    ] {
        let refused = acme.subscribe(&receiver).format(format).with("signed_set", settings).ask().await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None);
        let text = refused.text();
        assert!(text.contains(field) && text.contains(remedy), "{text}");
    }
    let subscription = subscribe(acme, &receiver, "RS256", &[]).await;
    let path = acme.path(&format!("/subscriptions/{subscription}"));
    let rotated = acme.client.post(&format!("{path}/rotate-key"), &json!({})).await;
    assert_eq!(rotated.not_the_problem(409, "conflict"), None);
    assert!(rotated.text().contains("issuer-keys"));
    // A document that was read can be sent back.
    let shown = acme.client.get(&path).await.expect(200).json();
    let put = acme.client.put(&path, &shown).await.expect(200).json();
    assert_eq!((&put["signed_set"], &put["signing"]), (&shown["signed_set"], &Value::Null));
}

#[test]
fn documented_codes_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/reference/delivery.md")).unwrap();
    for code in ["invalid_request", "invalid_audience", "invalid_issuer", "access_denied", "invalid_state"] {
        assert!(page.contains(&format!("`{code}`")), "{code}");
    }
}
