//! Test events and endpoint verification: checks of a subscription before it is used.

use serde_json::{Value, json};
use setgate_tests::{Answer, Host, Receiver, Reply, Seed, Subscription, Tenant, assert_document, event};

const PING: &str = "https://schemas.setgate.dev/events/test/event-type/ping";

async fn test(acme: &Tenant, subscription: &Subscription) -> Answer {
    acme.client.post(&subscription.path("/test"), &json!({})).await
}

async fn verify(acme: &Tenant, subscription: &Subscription) -> Answer {
    acme.client.post(&subscription.path("/verify"), &json!({})).await
}

/// A reply that returns the challenge as JSON.
fn knows() -> Reply {
    Reply::status(200).body(|received| json!({"challenge": received.json()["challenge"]}).to_string())
}

#[tokio::test]
async fn test_event_runs_the_chain_of_one_subscription() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.filter("flag-suspicious-login").await;
    let (receiver, others) = (Receiver::start().await, Receiver::start().await);
    // Neither the patterns nor the sources match the test event.
    acme.source("idp", Seed::Set).await;
    let chain = json!([{"filter": "flag-suspicious-login", "grants": ["config"]}]);
    let narrow = acme.subscribe(&receiver).chain(chain).with("events", json!(["loginFailed"]));
    let narrow = narrow.with("sources", json!(["idp"])).create().await;
    let all = acme.subscribe(&others).create().await;
    let own = acme.subscribe(&others).with("sources", json!(["setgate"])).create().await;

    let sent = test(&acme, &narrow).await.expect(202).json();
    let received = receiver.received(1).await.remove(0);
    assert_eq!(narrow.verify(&received), Ok(()), "signed as all its deliveries are");
    assert_eq!(received.id(), sent["delivery"].as_str().unwrap());
    let set = received.json();
    let expected = json!({
        "iss": "https://schemas.setgate.dev/sources/acme/setgate", "jti": sent["event"], "iat": "<number>",
        "events": { (PING): {"subscription": narrow.id} },
    });
    assert_document(&set, &expected);
    let delivery = acme.delivery_in("delivered", received.id()).await;
    assert_eq!((&delivery["test"], &delivery["source"]), (&json!(true), &json!("setgate")));
    assert_eq!(delivery["runs"][0]["filter"], "flag-suspicious-login", "{delivery}");

    // A later test event is fanned out after the first one: by then the others would have received it.
    test(&acme, &own).await.expect(202);
    let theirs = others.received(1).await;
    assert!(theirs[0].id().contains(&own.id["sub_".len()..]), "only its own test event");
    for other in [&all, &own] {
        let query = format!("subscription={}&event={}", other.id, sent["event"].as_str().unwrap());
        assert_eq!(acme.deliveries(&query).await, Vec::<Value>::new(), "a test is for one subscription");
    }
    let usual = acme.deliveries("source=idp").await;
    assert!(usual.iter().all(|delivery| delivery["test"] == false), "{usual:?}");
}

#[tokio::test]
async fn paused_or_too_frequent_test_is_refused() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    subscription.pause().await;
    let paused = test(&acme, &subscription).await;
    assert_eq!(paused.not_the_problem(409, "conflict"), None);
    assert!(paused.text().contains("a story"), "the pause has a reason: {}", paused.text());
    subscription.resume().await;

    receiver.otherwise(knows());
    for _ in 0..9 {
        test(&acme, &subscription).await.expect(202);
    }
    verify(&acme, &subscription).await.expect(200);
    for refused in [test(&acme, &subscription).await, verify(&acme, &subscription).await] {
        assert_eq!(refused.not_the_problem(429, "too_often"), None);
        assert!(refused.header("retry-after").is_some());
    }
    // The limit applies to each subscription separately.
    let other = acme.subscribe(&receiver).create().await;
    test(&acme, &other).await.expect(202);
}

#[tokio::test]
async fn echoed_challenge_verifies_the_endpoint() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    assert_eq!(subscription.show().await["verified_at"], Value::Null);

    for (reply, said) in [
        (Reply::status(404), "the endpoint answered 404"),
        (Reply::status(500).body(|received| received.json()["challenge"].as_str().unwrap().to_owned()), "answered 500"),
        (Reply::status(204), "answered 204 without the challenge"),
        (Reply::status(200).body(|_| "ok".to_owned()), "answered 200 without the challenge"),
        (Reply::status(302).header("location", "http://127.0.0.1:1/"), "the endpoint answered 302"),
    ] {
        receiver.answer([reply]);
        let refused = verify(&acme, &subscription).await;
        assert_eq!(refused.not_the_problem(422, "endpoint_not_verified"), None);
        assert!(refused.text().contains(said), "{said}: {}", refused.text());
    }
    assert_eq!(subscription.show().await["verified_at"], Value::Null);
    let log = acme.get("/audit?action=subscription.verify").await;
    let failed = log["items"].as_array().unwrap();
    assert_eq!(failed.len(), 5, "a challenge that failed went out all the same: {log}");
    assert!(failed.iter().all(|entry| entry["outcome"] == "failed"), "{log}");

    receiver.answer([Reply::status(200).body(|received| received.json()["challenge"].as_str().unwrap().to_owned())]);
    let verified = verify(&acme, &subscription).await.expect(200).json();
    assert!(verified["verified_at"].is_string(), "{verified}");
    let asked = receiver.all().pop().unwrap();
    assert_eq!(subscription.verify(&asked), Ok(()), "the challenge is signed as deliveries are");
    assert_eq!(asked.json()["type"], "https://schemas.setgate.dev/verification");
    assert_eq!(asked.json()["subscription"], subscription.id.as_str());

    // Another query is the same endpoint; another path is not.
    for (url, verified) in [(format!("{}?a=1", receiver.url()), true), (format!("{}/other", receiver.url()), false)] {
        let asked = json!({"endpoint": {"url": url}});
        let shown = acme.client.put(&subscription.path(""), &asked).await.expect(200).json();
        assert_eq!(shown["verified_at"].is_string(), verified, "{shown}");
        assert_eq!(shown["paused"], Value::Null, "verification is not required here: {shown}");
    }
    let nowhere = format!("http://{}/", Receiver::nowhere().await);
    acme.client.put(&subscription.path(""), &json!({"endpoint": {"url": nowhere}})).await.expect(200);
    let refused = verify(&acme, &subscription).await;
    assert_eq!(refused.not_the_problem(422, "endpoint_not_verified"), None);
    assert!(refused.text().contains("connect"), "the class of the failure is named: {}", refused.text());
}

#[tokio::test]
async fn unverified_endpoint_gets_nothing_if_required() {
    for (config, quota) in [
        ("[delivery]\nrequire_verified_endpoints = true", json!({})),
        ("", json!({"quota": {"require_verified_endpoints": true}})),
    ] {
        let host = Host::with().config(config).start().await;
        let acme = host.tenant_with("acme", quota).await;
        let source = acme.source("idp", Seed::Set).await;
        let receiver = Receiver::start().await;
        let subscription = acme.subscribe(&receiver).create().await;
        assert_eq!(subscription.show().await["paused"]["reason"], "not verified");
        let id = subscription.delivery_of(&source.accept(event::set("one")).await);
        acme.delivery_in("due", &id).await;
        let resumed = acme.client.post(&subscription.path("/resume"), &json!({})).await;
        assert_eq!(resumed.not_the_problem(409, "conflict"), None, "a person cannot pass it over");
        assert_eq!(receiver.count(), 0, "the pending delivery is not sent");

        receiver.answer([knows()]);
        let verified = verify(&acme, &subscription).await.expect(200).json();
        assert_eq!(verified["paused"], Value::Null, "{verified}");
        acme.delivery_in("delivered", &id).await;

        // A manual pause remains; another endpoint must be verified again.
        subscription.pause().await;
        receiver.answer([knows()]);
        let verified = verify(&acme, &subscription).await.expect(200).json();
        assert_eq!(verified["paused"]["reason"], "a story", "{verified}");
        subscription.resume().await;
        let other = Receiver::start().await;
        let asked = json!({"endpoint": {"url": other.url()}});
        let shown = acme.client.put(&subscription.path(""), &asked).await.expect(200).json();
        assert_eq!((&shown["paused"]["reason"], &shown["verified_at"]), (&json!("not verified"), &Value::Null));
    }
}

#[tokio::test]
async fn metadata_is_stored_and_limited() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    let metadata = json!({"team": "identity", "ticket": "é".repeat(500)});
    let subscription = acme.subscribe(&receiver).with("metadata", metadata.clone()).create().await;
    assert_eq!(subscription.show().await["metadata"], metadata);
    let many: Value = (0..33).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    for bad in [many, json!({"": "v"}), json!({"k".repeat(65): "v"}), json!({"k": "v".repeat(501)})] {
        let refused = acme.subscribe(&receiver).with("metadata", bad.clone()).ask().await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{bad}");
    }
    let refused = acme.subscribe(&receiver).with("metadata", json!({"k": 1})).ask().await;
    assert_eq!(refused.not_the_problem(400, "invalid_body"), None);
    // A replacement replaces the whole document.
    let shown = acme.client.put(&subscription.path(""), &json!({"endpoint": {"url": receiver.url()}})).await;
    assert_eq!(shown.expect(200).json()["metadata"], json!({}));
}
