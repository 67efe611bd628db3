//! Subscriptions with a name chosen by their tenant, and documents that are sent back as they were read.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Authority, Host, Ingest, Receiver, Seed, World, event};

#[tokio::test]
async fn subscription_is_addressed_by_name() {
    let Ingest { host, acme, source } = &Ingest::start().await;
    let globex = host.tenant("globex").await;
    let receiver = Receiver::start().await;
    let (path, asked) = (acme.path("/subscriptions/crm"), json!({"endpoint": {"url": receiver.url()}}));
    acme.client.get(&path).await.expect(404);
    let expected = acme.client.send(Method::PUT, &path, &[JSON, ("if-match", "\"7\"")], asked.to_string()).await;
    assert_eq!(expected.not_the_problem(412, "version_changed"), None, "there is no version to replace");
    let made =
        acme.client.send(Method::PUT, &path, &[JSON, ("if-none-match", "*")], asked.to_string()).await.expect(201);
    let location = made.header("location").expect("where it is").to_owned();
    let made = made.json();
    assert_eq!(location, acme.path(&format!("/subscriptions/{}", made["id"].as_str().unwrap())));
    assert_eq!((&made["name"], made["signing_secret"].is_string()), (&json!("crm"), true));
    let there = acme.client.send(Method::PUT, &path, &[JSON, ("if-none-match", "*")], asked.to_string()).await;
    assert_eq!(there.not_the_problem(412, "version_changed"), None, "it exists already");
    let again = acme.client.put(&path, &asked).await.expect(200).json();
    assert_eq!((&again["id"], &again["signing_secret"]), (&made["id"], &Value::Null), "the same one, with its keys");
    let id = made["id"].as_str().unwrap();
    for named in ["crm", id] {
        let path = acme.path(&format!("/subscriptions/{named}"));
        assert_eq!(acme.client.get(&path).await.expect(200).json()["id"], id);
        for verb in ["pause", "resume", "rotate-key"] {
            let done = acme.client.post(&format!("{path}/{verb}"), &json!({})).await.expect(200).json();
            assert_eq!(done["name"], "crm", "{verb}");
        }
        acme.client.get(&format!("{path}/statistics?window=1h")).await.expect(200);
        acme.client.post(&format!("{path}/test"), &json!({})).await.expect(202);
    }
    source.accept(event::set("one")).await;
    receiver.received(3).await;

    // Names are local to the tenant, and unique there.
    globex.client.get(&globex.path("/subscriptions/crm")).await.expect(404);
    globex.client.put(&globex.path("/subscriptions/crm"), &asked).await.expect(201);
    let taken = acme.subscribe(&receiver).with("name", json!("crm")).ask().await;
    assert_eq!(taken.not_the_problem(409, "conflict"), None);
    let other = acme.subscribe(&receiver).with("name", json!("billing")).ask().await.expect(201).json();
    let other = acme.path(&format!("/subscriptions/{}", other["id"].as_str().unwrap()));
    let taken = acme.client.put(&other, &json!({"endpoint": {}, "name": "crm"})).await;
    assert_eq!(taken.not_the_problem(409, "conflict"), None);
    let renamed = acme.client.put(&other, &json!({"endpoint": {}, "name": "erp"})).await.expect(200).json();
    assert_eq!(renamed["name"], "erp");
    assert_eq!(
        acme.client.put(&other, &json!({"endpoint": {}, "name": null})).await.expect(200).json()["name"],
        Value::Null
    );
    for (path, body, status) in [
        (&path, json!({"endpoint": {}, "name": "erp"}), 422),
        (&path, json!({"endpoint": {}, "id": "sub_01JZCWF9HY0000000000000009"}), 422),
        (&acme.path("/subscriptions/sub_01JZCWF9HY0000000000000009"), asked.clone(), 404),
        (&acme.path("/subscriptions/Not-A-Name"), asked.clone(), 404),
    ] {
        acme.client.put(path, &body).await.expect(status);
    }
    acme.client.delete(&path).await.expect(204);
    acme.client.get(&path).await.expect(404);
    let anew = acme.client.put(&path, &asked).await.expect(201).json();
    assert_ne!(anew["id"], id, "a name that is free makes another one");
}

#[tokio::test]
async fn concurrent_puts_create_one_subscription() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    let (path, asked) = (acme.path("/subscriptions/crm"), json!({"endpoint": {"url": receiver.url()}}));
    let mut puts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, path, asked) = (acme.client.clone(), path.clone(), asked.clone());
        puts.spawn(async move { client.put(&path, &asked).await.status });
    }
    let statuses = puts.join_all().await;
    // Each request finds the subscription or creates it; under constant contention it may get a conflict.
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 201 | 409)), "{statuses:?}");
    assert_eq!(acme.get("/subscriptions").await["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn unchanged_document_changes_nothing() {
    let Ingest { acme, source, .. } = &World::with().source("idp", Seed::Logto).start_ingest().await;
    acme.filter("redact-claims").await;
    let authority = Authority::new();
    let receiver = Receiver::start().await;
    let plain = json!({
        "endpoint": {"url": receiver.url() + "/path-4711?key=hush-0815", "headers": {"X-Key": "hush-4711"}},
        "chain": [{"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": "pepper-4711"}}],
        "metadata": {"team": "identity"}, "events": ["*"], "sources": ["idp"], "retry": [1, 2], "description": "all of it",
    });
    let own = authority.issue("client.example");
    let tls = json!({
        "endpoint": {
            "url": "https://127.0.0.1:1/path-4711?key=hush-0815",
            "tls": {"ca_pem": authority.pem(), "client_certificate_pem": own.certificate_pem(), "client_key_pem": own.key_pem()},
        },
        "signing": {"scheme": "standard", "ed25519": true},
    });
    let staged = json!({"endpoint": {"url": receiver.url()}, "signing": {"scheme": "hub"}, "events": ["nothing"]});
    let mut subscriptions = Vec::new();
    for (name, document) in [("plain", plain), ("tls", tls), ("staged", staged)] {
        let path = acme.path(&format!("/subscriptions/{name}"));
        acme.client.put(&path, &document).await.expect(201);
        subscriptions.push(path);
    }
    acme.client.post(&format!("{}/rotate-key", subscriptions[2]), &json!({})).await.expect(200);
    acme.client.post(&format!("{}/pause", subscriptions[1]), &json!({"reason": "a story"})).await.expect(200);
    for path in &subscriptions {
        let mut read = acme.client.get(path).await.expect(200).json();
        let mut put = acme.client.put(path, &read).await.expect(200).json();
        for document in [&mut read, &mut put] {
            document["updated_at"].take();
        }
        assert_eq!(read, put);
        let by_id = acme.path(&format!("/subscriptions/{}", put["id"].as_str().unwrap()));
        acme.client.put(&by_id, &read).await.expect(200);
    }
    let audit = acme.get("/audit?action=subscription.replace").await;
    for entry in audit["items"].as_array().unwrap() {
        assert_eq!(entry["changed"], json!([]), "nothing was changed: {entry}");
    }
    source.accept(event::logto("s1")).await;
    let received = receiver.received(1).await.remove(0);
    assert_eq!((received.target.as_str(), received.header("x-key")), ("/in/path-4711?key=hush-0815", "hush-4711"));
    // A secret that is null is removed.
    let gone = json!({"endpoint": {"headers": {"x-key": null}}, "chain": [{"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": null}}]});
    let gone = acme.client.put(&subscriptions[0], &gone).await.expect(200).json();
    assert_eq!((&gone["chain"][0]["secrets"], &gone["endpoint"]["headers"]), (&json!({}), &Value::Null));
}
