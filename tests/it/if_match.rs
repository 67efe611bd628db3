//! Concurrent changes: a request that states the version it expects never overwrites another change, and one without a
//! version is not refused.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Answer, Client, Host, Receiver, Seed, place};

async fn etag(client: &Client, path: &str) -> String {
    client.get(path).await.expect(200).header("etag").unwrap_or_else(|| panic!("{path} has no ETag")).to_owned()
}

async fn send(client: &Client, method: &Method, path: &str, tag: &str, body: &Value) -> Answer {
    client.send(method.clone(), path, &[JSON, ("if-match", tag)], body.to_string()).await
}

#[tokio::test]
async fn stale_version_is_refused() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let client = &acme.client;
    acme.source("idp", Seed::Set).await;
    let mut digests = Vec::new();
    for name in ["drop-by-type", "flag-suspicious-login"] {
        let shown = acme.upload("gate", place::filter(name)).await.expect(201).json();
        digests.push(shown["active"].as_str().unwrap().to_owned());
    }
    let mut tables = Vec::new();
    for number in 1..=2 {
        acme.table("people", &[("a", json!(number))]).await;
        tables.push(acme.get("/tables/people").await["digest"].clone());
    }
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let (open, none) = (json!({"form": "set", "proofs": [{"kind": "open"}]}), json!({}));
    let shadow = json!({"digest": digests[0], "mode": "shadow"});
    let endpoint = json!({"endpoint": {"url": receiver.url()}});
    let (put, post, delete, patch) = (Method::PUT, Method::POST, Method::DELETE, Method::PATCH);
    let (source, table, filter) = (acme.path("/sources/idp"), acme.path("/tables/people"), acme.path("/filters/gate"));
    let (rollout, one, tenant) = (format!("{filter}/rollout"), subscription.path(""), acme.path(""));
    let operator = host.operator();
    for (of, client, method, path, body) in [
        (&source, client, &put, source.clone(), &open),
        (&source, client, &delete, source.clone(), &none),
        (&table, client, &post, format!("{table}/activate"), &json!({"digest": tables[0]})),
        (&table, client, &post, format!("{table}/rollback"), &none),
        (&table, client, &delete, table.clone(), &none),
        (&filter, client, &post, format!("{filter}/activate"), &json!({"digest": digests[0]})),
        (&filter, client, &post, format!("{filter}/rollback"), &none),
        (&filter, client, &put, rollout.clone(), &shadow),
        (&rollout, client, &post, format!("{rollout}/promote"), &none),
        (&filter, client, &put, rollout.clone(), &json!({"digest": digests[1], "mode": "shadow"})),
        (&rollout, client, &delete, rollout.clone(), &none),
        (&one, client, &put, one.clone(), &endpoint),
        (&one, client, &post, subscription.path("/pause"), &none),
        (&one, client, &post, subscription.path("/resume"), &none),
        (&one, client, &post, subscription.path("/rotate-key"), &none),
        (&one, client, &delete, one.clone(), &none),
        (&filter, client, &delete, filter.clone(), &none),
        (&tenant, operator, &patch, tenant.clone(), &json!({"display_name": "Acme"})),
        (&tenant, operator, &delete, tenant.clone(), &none),
    ] {
        let now = etag(client, of).await;
        for wrong in ["\"1\"", "\"x\"", "W/\"1\""] {
            let refused = send(client, method, &path, wrong, body).await;
            assert_eq!(refused.not_the_problem(412, "version_changed"), None, "{method} {path} of {wrong}");
        }
        assert_eq!(etag(client, of).await, now, "{method} {path}: what is refused changes nothing");
        let done = send(client, method, &path, &now, body).await;
        assert!((200..300).contains(&done.status), "{method} {path}: {} {}", done.status, done.text());
        if let Some(tag) = done.header("etag") {
            assert_ne!(tag, now, "{method} {path}: it is another version now");
        }
    }
}

#[tokio::test]
async fn if_none_match_never_replaces() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]}).to_string();
    let wasm = place::filter("drop-by-type");
    let rows = br#"{"key":"a","value":1}"#.to_vec();
    for (below, media_type, body) in [
        ("/sources/idp", "application/json", open.into_bytes()),
        ("/filters/gate", "application/wasm", wasm),
        ("/tables/t", "application/jsonl", rows),
    ] {
        let put = async || {
            let headers = [("content-type", media_type), ("if-none-match", "*")];
            acme.client.send(Method::PUT, &acme.path(below), &headers, body.clone()).await
        };
        let made = put().await.expect(201);
        assert_eq!(put().await.not_the_problem(412, "version_changed"), None, "{below}");
        assert_eq!(etag(&acme.client, &acme.path(below)).await, made.header("etag").unwrap(), "{below}");
    }
}

#[tokio::test]
async fn unconditional_changes_are_all_applied() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    let before = acme.get("/audit").await["items"].as_array().unwrap().len();
    let mut changes = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (client, source, open) = (acme.client.clone(), acme.path("/sources/idp"), open.clone());
        changes.spawn(async move { client.put(&source, &open).await.expect(200) });
        let (client, pause) = (acme.client.clone(), subscription.path("/pause"));
        changes.spawn(async move { client.post(&pause, &json!({"reason": format!("{number}")})).await.expect(200) });
    }
    changes.join_all().await;
    let after = acme.get("/audit").await["items"].as_array().unwrap().len();
    assert_eq!(after - before, 8, "each of them is in the log, once");
}

#[tokio::test]
async fn patch_keeps_unnamed_members() {
    let host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"display_name": "Acme", "quota": {"sources_max": 1}})).await;
    acme.source("idp", Seed::Set).await;
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    acme.client.put(&acme.path("/sources/other"), &open).await.expect(409);
    let change = async |client: &Client, body: Value| {
        client.send(Method::PATCH, &acme.path(""), &[JSON], body.to_string()).await
    };

    let shown = change(host.operator(), json!({"quota": {"sources_max": 2}})).await.expect(200).json();
    assert_eq!((&shown["display_name"], &shown["quota"]["sources_max"]), (&json!("Acme"), &json!(2)));
    acme.client.put(&acme.path("/sources/other"), &open).await.expect(201);
    let shown = change(host.operator(), json!({"quota": null, "display_name": "Acme Ltd"})).await.expect(200).json();
    assert_eq!((&shown["display_name"], &shown["quota"]), (&json!("Acme Ltd"), &Value::Null));

    let refused = change(&acme.client, json!({"display_name": "mine"})).await;
    assert_eq!(refused.not_the_problem(403, "forbidden"), None, "its own name is the operator's too");
    assert_eq!(change(host.operator(), json!({})).await.not_the_problem(422, "invalid_field"), None);
    assert_eq!(change(host.operator(), json!({"id": "other"})).await.not_the_problem(422, "invalid_field"), None);
}
