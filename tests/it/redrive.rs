//! Deliveries that need manual action are redriven in bulk, by filter or by id.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Answer, Host, Receiver, Reply, Seed, Source, Subscription, Tenant, World, event, until};

async fn redrive(tenant: &Tenant, body: Value) -> Answer {
    tenant.client.post(&tenant.path("/deliveries/redrive"), &body).await
}

/// Sends events concurrently, and returns the ids of their deliveries.
async fn send(source: &Source, subscription: &Subscription, count: usize) -> Vec<String> {
    let sending: Vec<_> = (0..count)
        .map(|number| {
            let source = source.clone();
            tokio::spawn(async move { source.accept(event::set(&format!("e{number}"))).await })
        })
        .collect();
    let mut ids = Vec::with_capacity(count);
    for accepted in sending {
        ids.push(subscription.delivery_of(&accepted.await.expect("it is accepted")));
    }
    ids
}

/// Waits until this many of the tenant's deliveries are in a state.
async fn counted(tenant: &Tenant, state: &str, count: usize) {
    until(&format!("{count} deliveries are {state}"), async || {
        let statistics = tenant.get("/statistics").await;
        let now = if state == "delivered" { &statistics["deliveries"] } else { &statistics["now"] };
        (now[state] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn five_hundred_dead_letters_go_in_parts() {
    let World { acme, source, receiver, subscription, .. } = &World::with().retry(&[]).start().await;
    receiver.otherwise(Reply::status(400));
    let ids = send(source, subscription, 500).await;
    counted(acme, "dead", 500).await;
    receiver.otherwise(Reply::status(204));

    let mut asked = json!({"where": {"state": "dead", "subscription": subscription.id}, "limit": 220});
    let mut answers = Vec::new();
    loop {
        let said = redrive(acme, asked.clone()).await.expect(200).json();
        asked["cursor"] = said["next"].clone();
        answers.push(said);
        if asked["cursor"].is_null() {
            break;
        }
    }
    let matched: Vec<_> = answers.iter().map(|said| said["matched"].as_u64().unwrap()).collect();
    assert_eq!(matched, [220, 220, 60], "each request respects its limit and has a cursor: {answers:?}");
    assert!(answers.iter().all(|said| said["redriven"] == said["matched"]), "each is redriven: {answers:?}");

    counted(acme, "delivered", 500).await;
    let mut copies: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for received in receiver.all() {
        copies.entry(received.id().to_owned()).or_default().push(received.body);
    }
    assert_eq!(copies.len(), 500, "under the same ids");
    for id in &ids {
        let bodies = &copies[id];
        assert!(bodies.len() == 2 && bodies[0] == bodies[1], "{id} was sent twice, with the same bytes");
    }
    let again = redrive(acme, json!({"where": {"state": "dead"}})).await.expect(200).json();
    assert_eq!(again, json!({"matched": 0, "redriven": 0, "skipped": 0, "next": null}), "there is nothing left to do");
}

#[tokio::test]
async fn held_deliveries_run_the_current_chain() {
    let host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"filter_faults_max": 0}})).await;
    let source = acme.source("idp", Seed::Set).await;
    acme.upload("gate", setgate_tests::place::filter("redact-claims")).await.expect(201);
    let receiver = Receiver::start().await;
    // Without its salt it fails on every event.
    let chain = json!([{"filter": "gate", "grants": ["config"]}]);
    let subscription = acme.subscribe(&receiver).chain(chain).create().await;
    let ids = send(&source, &subscription, 30).await;
    counted(&acme, "held", 30).await;

    let chain = json!([{"filter": "gate", "grants": ["config"], "secrets": {"salt": "pepper"}}]);
    let mended = json!({"endpoint": {"url": receiver.url()}, "chain": chain}).to_string();
    let headers = [("content-type", "application/json")];
    acme.client.send(Method::PUT, &subscription.path(""), &headers, mended).await.expect(200);
    let other = json!({"where": {"state": "held", "faulted_filter": "another"}});
    assert_eq!(redrive(&acme, other).await.expect(200).json()["matched"], 0, "no other filter holds any");
    let listed = acme.deliveries("state=held&faulted_filter=gate").await;
    assert_eq!(listed.len(), 30, "the history takes the same filter");
    let said = redrive(&acme, json!({"action": "again", "where": {"state": "held", "faulted_filter": "gate"}})).await;
    assert_eq!(said.expect(200).json(), json!({"matched": 30, "redriven": 30, "skipped": 0, "next": null}));

    counted(&acme, "delivered", 30).await;
    for id in &ids {
        let delivery = acme.delivery(id).await;
        assert_eq!(delivery["runs"][0]["verdict"], "patch", "the chain as it is now ran: {delivery}");
    }
    assert!(receiver.all().iter().all(|one| one.text().contains("hmac:")), "the delivered event is redacted");
}

#[tokio::test]
async fn redrive_by_id_ignores_other_tenants() {
    let World { host, acme, source, receiver, subscription } = &World::with().retry(&[]).start().await;
    let other = host.tenant("other").await;
    receiver.otherwise(Reply::status(400));
    let ids = send(source, subscription, 3).await;
    counted(acme, "dead", 3).await;

    let theirs = redrive(&other, json!({"action": "discard", "ids": ids})).await.expect(200).json();
    assert_eq!(theirs, json!({"matched": 3, "redriven": 0, "skipped": 3, "next": null}), "all are skipped");
    // A duplicate id counts once; `release` applies only to held deliveries.
    let said = redrive(acme, json!({"action": "release", "ids": [ids[0], ids[0]]})).await.expect(200).json();
    assert_eq!(said, json!({"matched": 1, "redriven": 0, "skipped": 1, "next": null}));
    let said = redrive(acme, json!({"action": "discard", "ids": ids[..2]})).await.expect(200).json();
    assert_eq!(said, json!({"matched": 2, "redriven": 2, "skipped": 0, "next": null}));
    for (id, state) in ids.iter().zip(["dropped", "dropped", "dead"]) {
        assert_eq!(acme.delivery(id).await["state"], state, "only the named ones");
    }
    assert_eq!(receiver.count(), 3, "nothing was sent again");
}

#[tokio::test]
async fn nonsensical_request_is_refused_with_a_remedy() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let id = "dlv_01JZC5ZVFY0000000000000001_01JZC5ZVFY0000000000000002_0";
    let many: Vec<_> = (0..1_001).map(|run| format!("{}{run}", &id[..id.len() - 1])).collect();
    let dead = json!({"state": "dead"});
    for (what, body, code, named) in [
        ("neither", json!({}), "invalid_field", "where"),
        ("both", json!({"where": dead, "ids": [id]}), "invalid_field", "where"),
        ("too many ids", json!({"ids": many}), "invalid_field", "1000"),
        ("more than the host allows", json!({"where": dead, "limit": 10_001}), "invalid_field", "1 to 10000"),
        ("a limit of zero", json!({"where": dead, "limit": 0}), "invalid_field", "limit"),
        ("a release of the dead", json!({"action": "release", "where": dead}), "invalid_field", "again"),
        ("ids in pages", json!({"ids": [id], "limit": 1}), "invalid_field", "ids"),
        ("an invalid cursor", json!({"where": dead, "cursor": "x"}), "bad_cursor", "cursor"),
        ("a final state", json!({"where": {"state": "delivered"}}), "invalid_body", "held"),
    ] {
        let answer = redrive(&acme, body).await;
        let status = if code == "invalid_field" { 422 } else { 400 };
        assert_eq!(answer.not_the_problem(status, code), None, "{what}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(named), "{what}: {}", answer.text());
    }
    let said = redrive(&acme, json!({"where": dead})).await.expect(200).json();
    assert_eq!(said["matched"], 0, "without a limit, the host's limit applies: {said}");
}
