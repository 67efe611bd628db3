//! API keys: their permissions, and rotation.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Answer, Client, Host, Receiver, Seed, Tenant, event};

/// Creates a key of the tenant with these scopes as the operator. Returns its id and a client that uses it.
async fn key(host: &Host, tenant: &Tenant, scopes: Value) -> (String, Client) {
    made(host.operator(), &host.operator().post(&tenant.path("/keys"), &json!({"scopes": scopes})).await.expect(201))
}

fn made(client: &Client, answer: &Answer) -> (String, Client) {
    let key = answer.json();
    (key["id"].as_str().unwrap().to_owned(), client.with_key(key["key"].as_str().unwrap()))
}

/// Describes how an answer differs from a refusal that names the missing scope. `None` if it does not.
fn not_lacking(answer: &Answer, scope: &str) -> Option<String> {
    let named = answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(&format!("`{scope}`")));
    answer.not_the_problem(403, "forbidden").or_else(|| (!named).then(|| format!("no `{scope}`: {}", answer.text())))
}

#[tokio::test]
async fn scopes_limit_a_key() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    let (_, reads) = key(&host, &acme, json!(["read"])).await;
    let (_, writes) = key(&host, &acme, json!(["write"])).await;
    let (_, sends) = key(&host, &acme, json!(["ingest"])).await;
    let (sources, one) = (acme.path("/sources"), acme.path("/sources/idp"));

    writes.put(&one, &open).await.expect(201);
    reads.get(&one).await.expect(200);
    assert_eq!(not_lacking(&writes.get(&sources).await, "read"), None);
    assert_eq!(not_lacking(&reads.put(&one, &open).await, "write"), None);
    assert_eq!(not_lacking(&sends.get(&sources).await, "read"), None);
    assert_eq!(not_lacking(&sends.delete(&one).await, "write"), None);

    // The operator can grant read access to everything.
    let looking = host.operator().post("/api/v1/keys", &json!({"scopes": ["operator_read"]})).await.expect(201);
    let (id, looks) = made(host.operator(), &looking);
    for path in [sources.as_str(), "/api/v1/tenants", "/api/v1/keys", "/metrics"] {
        looks.get(path).await.expect(200);
    }
    assert_eq!(not_lacking(&looks.put(&one, &open).await, "write"), None);
    assert_eq!(not_lacking(&looks.post("/api/v1/tenants", &json!({"id": "mine"})).await, "operator"), None);
    let rotated = looks.post(&format!("/api/v1/keys/{id}/rotate"), &json!({})).await;
    assert_eq!(not_lacking(&rotated, "operator"), None);
    let both = json!({"scopes": ["operator", "operator_read"]});
    assert_eq!(host.operator().post("/api/v1/keys", &both).await.not_the_problem(422, "invalid_field"), None);
    let above = json!({"scopes": ["operator_read"]});
    assert_eq!(host.operator().post(&acme.path("/keys"), &above).await.not_the_problem(422, "invalid_field"), None);
}

#[tokio::test]
async fn source_accepts_only_sending_keys() {
    let host = Host::start().await;
    let (acme, globex) = (host.tenant("acme").await, host.tenant("globex").await);
    let keyed = json!({"form": "set", "proofs": [{"kind": "key"}]});
    let shown = acme.client.put(&acme.path("/sources/idp"), &keyed).await.expect(201).json();
    assert_eq!(shown["proofs"], json!([{"kind": "key"}]));
    acme.source("tokens", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let (id, sends) = key(&host, &acme, json!(["ingest"])).await;
    let (_, others) = key(&host, &globex, json!(["ingest"])).await;
    let send = async |client: &Client, source: &str, jti: &str| {
        client.send(Method::POST, &format!("/ingest/acme/{source}"), &[JSON], event::set(jti)).await
    };

    let accepted = send(&sends, "idp", "one").await.expect(202).json();
    let received = receiver.received(1).await.remove(0);
    assert_eq!(subscription.verify(&received), Ok(()));
    assert!(received.id().contains(accepted["event"].as_str().unwrap().trim_start_matches("evt_")));

    assert_eq!(not_lacking(&send(&acme.client, "idp", "two").await, "ingest"), None);
    let operator = send(host.operator(), "idp", "two").await;
    let nothing = send(&host.stranger(), "idp", "two").await;
    assert_eq!(nothing.not_the_problem(401, "bad_signature"), None, "no proof at all");
    for (what, answer) in [
        ("the operator's", operator),
        ("another tenant's", send(&others, "idp", "two").await),
        ("no key of this host", send(&host.stranger().with_key("sgk_x"), "idp", "two").await),
    ] {
        assert_eq!(answer.not_the_problem(401, "bad_key"), None, "{what}");
    }
    // A source that requires no key does not accept one.
    assert_eq!(send(&sends, "tokens", "two").await.not_the_problem(401, "bad_key"), None);
    acme.client.delete(&acme.path(&format!("/keys/{id}"))).await.expect(204);
    assert_eq!(send(&sends, "idp", "two").await.not_the_problem(401, "bad_key"), None, "a removed key");
}

#[tokio::test]
async fn rotated_key_overlaps_and_expires() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (sources, keys) = (acme.path("/sources"), acme.path("/keys"));
    let asked = json!({"scopes": ["read", "write"], "label": "ci"});
    let (first, old) = made(&acme.client, &host.operator().post(&keys, &asked).await.expect(201));

    let rotated = old.post(&format!("{keys}/{first}/rotate"), &json!({"overlap_hours": 2})).await.expect(201);
    let (second, new) = made(&acme.client, &rotated);
    assert_ne!(first, second);
    assert_eq!((&rotated.json()["scopes"], &rotated.json()["label"]), (&json!(["read", "write"]), &json!("ci")));
    for client in [&old, &new] {
        client.get(&sources).await.expect(200);
    }
    let shown = new.get(&format!("{keys}/{first}")).await.expect(200).json();
    assert!(shown["expires_at"].is_string(), "the old one has an end now: {shown}");

    // Without an overlap the previous key ends with the answer.
    let rotated = new.post(&format!("{keys}/{second}/rotate"), &json!({"overlap_hours": 0})).await.expect(201);
    let (third, newest) = made(&acme.client, &rotated);
    let ended = new.get(&sources).await;
    assert_eq!(ended.not_the_problem(401, "bad_key"), None);
    assert!(ended.text().contains("expired at"), "the answer names the time of expiry: {}", ended.text());
    assert!(host.metric("setgate_keys_denied_total", &["reason=\"ended\""]).await >= 1.0);
    let again = newest.post(&format!("{keys}/{second}/rotate"), &json!({})).await;
    assert_eq!(again.not_the_problem(409, "conflict"), None, "an expired key is not rotated");
    let long = newest.post(&format!("{keys}/{third}/rotate"), &json!({"overlap_hours": 3000})).await;
    assert_eq!(long.not_the_problem(422, "invalid_field"), None);

    let label = newest.send(Method::PATCH, &format!("{keys}/{third}"), &[JSON], r#"{"label":"cd"}"#).await.expect(200);
    assert_eq!(label.json()["label"], "cd");
    newest.send(Method::PATCH, &format!("{keys}/{third}"), &[JSON], "{}").await.expect(400);
    newest.get(&sources).await.expect(200);
}

#[tokio::test]
async fn rotation_adds_no_permissions() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (id, _) = key(&host, &acme, json!(["read", "write"])).await;
    let (_, writes) = key(&host, &acme, json!(["write"])).await;
    let rotated = writes.post(&acme.path(&format!("/keys/{id}/rotate")), &json!({})).await;
    assert_eq!(rotated.not_the_problem(422, "invalid_field"), None, "`write` does not include `read`");
    // A key that may open a source to everyone may also create keys for sending.
    writes.post(&acme.path("/keys"), &json!({"scopes": ["ingest"]})).await.expect(201);
    let other = host.tenant("globex").await;
    let theirs = other.client.post(&other.path(&format!("/keys/{id}/rotate")), &json!({})).await;
    assert_eq!(theirs.not_the_problem(404, "not_found"), None, "another tenant's key is not found");

    // The operator's own keys: a new one takes over, and the first can be removed.
    let keys = host.operator().get("/api/v1/keys").await.expect(200).json();
    let first = keys["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/keys/{first}/rotate");
    let (_, operator) = made(host.operator(), &host.operator().post(&path, &json!({})).await.expect(201));
    operator.delete(&format!("/api/v1/keys/{first}")).await.expect(204);
    operator.get("/api/v1/tenants").await.expect(200);
}

#[tokio::test]
async fn expired_keys_count_towards_twice_the_quota() {
    let host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"keys_max": 2}})).await;
    let (mut id, _) = key(&host, &acme, json!(["read"])).await;
    let keys = acme.path("/keys");
    for _ in 0..2 {
        let path = format!("{keys}/{id}/rotate");
        id = host.operator().post(&path, &json!({"overlap_hours": 0})).await.expect(201).json()["id"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    let path = format!("{keys}/{id}/rotate");
    let full = host.operator().post(&path, &json!({"overlap_hours": 0})).await;
    assert_eq!(full.not_the_problem(409, "conflict"), None);
    let ended = host.operator().get(&keys).await.expect(200).json()["items"][1]["id"].as_str().unwrap().to_owned();
    host.operator().delete(&format!("{keys}/{ended}")).await.expect(204);
    host.operator().post(&path, &json!({"overlap_hours": 0})).await.expect(201);
}
