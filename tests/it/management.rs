//! The management API of tenants and the operator.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Host, Ingest, Receiver, Seed, World, event, until};

#[tokio::test]
async fn pages_have_no_gaps_and_no_repeats() {
    let World { acme, source, receiver, .. } = &World::start().await;
    for number in 0..5 {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    receiver.received(5).await;

    for list in ["/events", "/deliveries"] {
        let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = acme.get(&format!("{list}?limit=2{cursor}")).await;
            let jtis = page["items"].as_array().unwrap().iter().map(|item| item["jti"].as_str().unwrap().to_owned());
            seen.extend(jtis);
            pages += 1;
            // New entries do not shift the pages.
            source.accept(event::set(&format!("{}-{pages}", list.trim_start_matches('/')))).await;
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            assert!(pages < 10, "{list}: the last page has no `next`");
        }
        let first_five: Vec<_> = seen.iter().filter(|jti| jti.starts_with('e') && jti.len() == 2).cloned().collect();
        assert_eq!(first_five, ["e4", "e3", "e2", "e1", "e0"], "{list}: newest first, each once");
    }
}

#[tokio::test]
async fn deliveries_can_be_filtered() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (sets, logins) = (acme.source("ssf", Seed::Set).await, acme.source("wso2", Seed::Wso2).await);
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let revoked = sets.accept(event::set("one")).await;
    let login = logins.accept(event::wso2("two")).await;
    for event in [&revoked, &login] {
        acme.delivery_in("delivered", &subscription.delivery_of(event)).await;
    }
    for (query, found) in [
        (format!("event={}", revoked.event), vec!["one"]),
        ("source=wso2".to_owned(), vec!["two"]),
        (format!("type={}", event::SET_TYPE), vec!["one"]),
        ("subject=u-17".to_owned(), vec!["two"]),
        (format!("subscription={}&state=delivered", subscription.id), vec!["two", "one"]),
        ("state=dead".to_owned(), vec![]),
        ("since=2100-01-01T00:00:00Z".to_owned(), vec![]),
        ("until=2100-01-01T00:00:00Z".to_owned(), vec!["two", "one"]),
    ] {
        let deliveries = acme.deliveries(&query).await;
        let jtis: Vec<_> = deliveries.iter().map(|delivery| delivery["jti"].as_str().unwrap()).collect();
        assert_eq!(jtis, found, "{query}");
    }
}

#[tokio::test]
async fn sent_claims_can_be_read() {
    let World { acme, source, receiver, subscription, .. } = &World::with()
        .source("idp", Seed::Logto)
        .filter("translate-to-caep")
        .chain(json!([{"filter": "translate-to-caep"}]))
        .start()
        .await;
    let id = subscription.delivery_of(&source.accept(event::logto("s1")).await);
    let received = receiver.received(1).await.remove(0);
    let shown = acme.client.get(&acme.path(&format!("/deliveries/{id}/claims"))).await.expect(200);
    assert_eq!(shown.body, received.body, "the bytes after the filters, as they were sent");
}

#[tokio::test]
async fn removed_subscription_leaves_dead_letters() {
    let World { acme, source, receiver, subscription, .. } = &World::start().await;
    subscription.pause().await;
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    acme.delivery_in("due", &id).await;
    acme.client.delete(&subscription.path("")).await.expect(204);
    let dead = acme.delivery_in("dead", &id).await;
    assert!(dead["reason"].as_str().unwrap().contains("removed"), "it has a reason: {dead}");
    assert_eq!(receiver.count(), 0, "nothing is sent for a removed subscription");
}

#[tokio::test]
async fn removed_tenant_is_gone_with_its_data() {
    let host = Host::start().await;
    let (acme, globex) = (host.tenant("acme").await, host.tenant("globex").await);
    let (gone, stays) = (acme.source("idp", Seed::Set).await, globex.source("idp", Seed::Set).await);
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    subscription.pause().await;
    gone.accept(event::set("one")).await;
    stays.accept(event::set("one")).await;

    host.operator().delete("/api/v1/tenants/acme").await.expect(204);
    let sent = gone.send(event::set("two")).await;
    assert_eq!(sent.not_the_problem(401, "bad_token"), None, "as a source that does not know the token");
    let key = acme.client.get(&acme.path("/sources")).await;
    assert_eq!(key.not_the_problem(401, "bad_key"), None, "its keys end with it");
    assert_eq!(globex.get("/events").await["items"].as_array().map(Vec::len), Some(1), "the neighbour's events stay");

    // A new tenant of the same name starts empty: without events, and without dedupe keys.
    let namesake = host.tenant("acme").await;
    for list in ["/events", "/deliveries", "/sources", "/filters", "/subscriptions", "/tables"] {
        assert_eq!(namesake.get(list).await["items"], json!([]), "{list}");
    }
    let source = namesake.source("idp", Seed::Set).await;
    assert!(!source.accept(event::set("one")).await.duplicate, "events of the removed tenant are forgotten");
}

#[tokio::test]
async fn replaced_subscription_keeps_its_secrets() {
    let Ingest { acme, source, .. } = &World::with().source("idp", Seed::Logto).start_ingest().await;
    acme.filter("redact-claims").await;
    let (before, after) = (Receiver::start().await, Receiver::start().await);
    let chain = json!([{"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": "pepper-4711"}}]);
    let subscription = acme.subscribe(&before).chain(chain).create().await;
    source.accept(event::logto("s1")).await;
    let first = before.received(1).await.remove(0);

    let asked = json!({"endpoint": {"url": after.url()}, "chain": [{"filter": "redact-claims", "grants": ["config"]}]});
    let shown = acme.client.put(&subscription.path(""), &asked).await.expect(200).json();
    assert_eq!(shown["signing_secret"], Value::Null, "no key was made: {shown}");
    assert_eq!(shown["chain"][0]["secrets"], json!({"salt": "***"}), "the binding's secrets stay: {shown}");
    source.accept(event::logto("s2")).await;
    let second = after.received(1).await.remove(0);
    assert_eq!(subscription.verify(&second), Ok(()), "the receiver's secret is still good");
    assert_eq!(second.text().replace("s2", "s1").len(), first.text().len(), "and the salt is the same");
    assert_eq!(before.count(), 1, "the old endpoint gets nothing more");
}

#[tokio::test]
async fn endpoint_headers_are_sent_and_masked() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    let endpoint = json!({"url": receiver.url(), "headers": {"Authorization": "Bearer hush-4711"}});
    let subscription = acme.subscribe(&receiver).with("endpoint", endpoint).create().await;
    let shown = acme.client.get(&subscription.path("")).await.expect(200);
    assert_eq!(shown.json()["endpoint"]["headers"], json!({"authorization": "***"}));
    assert!(!shown.text().contains("hush-4711"), "{}", shown.text());

    for (asked, status) in [
        (json!({"url": receiver.url()}), 200),
        (json!({"url": receiver.url(), "headers": {"authorization": "***", "x-other": null}}), 200),
        (json!({"url": receiver.url(), "headers": {"x-other": "***"}}), 422),
        (json!({"url": "http://127.0.0.1:1/"}), 422),
    ] {
        acme.client.put(&subscription.path(""), &json!({"endpoint": asked})).await.expect(status);
    }
    source.accept(event::set("one")).await;
    let received = receiver.received(1).await.remove(0);
    assert_eq!(received.headers["authorization"], "Bearer hush-4711");
}

#[tokio::test]
async fn key_creates_no_stronger_key() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let path = acme.path("/keys");
    let asked = json!({"scopes": ["write"], "expires_at": "2099-01-01T00:00:00Z"});
    let made = host.operator().post(&path, &asked).await.expect(201).json();
    let narrow = acme.client.with_key(made["key"].as_str().unwrap());
    for asked in [json!({"scopes": ["read", "write"]}), json!({"expires_at": "2099-01-02T00:00:00Z"})] {
        assert_eq!(narrow.post(&path, &asked).await.not_the_problem(422, "invalid_field"), None, "{asked}");
    }
    let child = narrow.post(&path, &json!({})).await.expect(201).json();
    assert_eq!(child["scopes"], json!(["write"]));
    assert_eq!(child["expires_at"], made["expires_at"]);
}

#[tokio::test]
async fn quota_limits_documents() {
    let host = Host::start().await;
    let quota = json!({"sources_max": 1, "subscriptions_max": 1, "tables_max": 0, "filters_max": 0, "keys_max": 1});
    let acme = host.tenant_with("acme", json!({"quota": quota})).await;
    acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    acme.subscribe(&receiver).create().await;
    let source = json!({"form": "set", "proofs": [{"kind": "open"}]});
    let second = acme.client.put(&acme.path("/sources/other"), &source).await;
    assert_eq!(second.not_the_problem(409, "conflict"), None);
    acme.client.put(&acme.path("/sources/idp"), &source).await.expect(200);
    let endpoint = json!({"endpoint": {"url": receiver.url()}});
    acme.client.post(&acme.path("/subscriptions"), &endpoint).await.expect(409);
    acme.client.post(&acme.path("/keys"), &json!({})).await.expect(409);
    acme.client.put(&acme.path("/tables/t"), &json!({"key": "a", "value": 1})).await.expect(409);
    assert_eq!(acme.upload("f", b"no".to_vec()).await.status, 409);
}

#[tokio::test]
async fn source_name_setgate_is_reserved() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    let made = acme.client.put(&acme.path("/sources/setgate"), &open).await;
    assert_eq!(made.not_the_problem(422, "invalid_field"), None);
    let sent = host.stranger().post("/ingest/acme/setgate", &json!({})).await;
    assert_eq!(sent.not_the_problem(401, "bad_signature"), None, "as for an unknown source");
    // Subscriptions can still select the host's own events by this source name.
    let receiver = Receiver::start().await;
    let named = acme.subscribe(&receiver).with("sources", json!(["setgate"])).create().await;
    assert_eq!(named.show().await["sources"], json!(["setgate"]));
}

#[tokio::test]
async fn new_subscription_gets_later_events_only() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let (early, late) = (Receiver::start().await, Receiver::start().await);
    acme.subscribe(&early).create().await;
    source.accept(event::set("one")).await;
    early.received(1).await;
    acme.subscribe(&late).create().await;
    source.accept(event::set("two")).await;
    let received = late.received(1).await;
    assert_eq!(received[0].json()["jti"], "two", "earlier deliveries do not belong to it");
    early.received(2).await;
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let answer = acme.client.send(Method::HEAD, &acme.path("/sources"), &[], "").await.expect(200);
    assert!(answer.body.is_empty(), "{}", answer.text());
}

#[tokio::test]
async fn concurrent_copies_are_one_event() {
    let World { acme, source, receiver, subscription, .. } = &World::start().await;
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let source = source.clone();
        senders.spawn(async move { source.accept(event::set("one")).await });
    }
    let receipts = senders.join_all().await;
    let events: BTreeSet<_> = receipts.iter().map(|receipt| &receipt.event).collect();
    assert_eq!(events.len(), 1, "all answers name the same event: {events:?}");
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1, "one of them is the first");

    let last = source.accept(event::set("two")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&last)).await;
    until("both are delivered", async || (acme.deliveries("state=delivered").await.len() == 2).then_some(())).await;
    assert_eq!(receiver.count(), 2, "each once");
}
