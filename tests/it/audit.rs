//! The audit log: every change is recorded, and no secret is.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Answer, Client, Host, Receiver, Reply, Seed, World, assert_document, event, place};

/// The operator's view of the log, with the position up to which it has been read.
struct Log<'a> {
    operator: &'a Client,
    last: i64,
}

impl<'a> Log<'a> {
    async fn of(host: &'a Host) -> Self {
        let mut log = Self { operator: host.operator(), last: 0 };
        log.news().await;
        log
    }

    /// New entries made by users, oldest first. Entries of the host itself are skipped.
    async fn news(&mut self) -> Vec<Value> {
        let page = self.operator.get("/api/v1/audit?limit=200").await.expect(200).json();
        let items = page["items"].as_array().expect("items");
        let new = items.iter().filter(|item| item["seq"].as_i64().unwrap() > self.last && item["by"] != "host");
        let new: Vec<_> = new.rev().cloned().collect();
        self.last = items.first().map_or(0, |item| item["seq"].as_i64().unwrap());
        new
    }

    /// Checks that this answer left exactly one entry.
    #[track_caller]
    fn left(&mut self, answer: Answer, status: u16, action: &str) -> impl Future<Output = Answer> {
        let answer = answer.expect(status);
        async move {
            let news = self.news().await;
            assert_eq!(news.len(), 1, "{action} leaves one entry: {news:?}");
            assert_eq!(news[0]["action"], action, "{}", news[0]);
            assert_eq!(news[0]["outcome"], "done");
            let request = answer.header("x-request-id").expect("every answer has a request id");
            assert_eq!(news[0]["request"], request, "{action}: it is found by its request");
            assert_eq!(news[0]["remote"], "127.0.0.1");
            assert!(news[0]["by"].as_str().unwrap().starts_with("key_"), "{}", news[0]);
            answer
        }
    }
}

fn text(answer: &Answer, member: &str) -> String {
    answer.json()[member].as_str().unwrap_or_else(|| panic!("no `{member}`: {}", answer.text())).to_owned()
}

#[tokio::test]
async fn each_change_is_logged_once_without_secrets() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (operator, tenant) = (host.operator(), &acme.client);
    let mut log = Log::of(&host).await;
    let mut secrets =
        vec!["source-secret-5d1c1bfe", "pepper-4711", "hush-4711"].into_iter().map(str::to_owned).collect::<Vec<_>>();
    let patch = async |client: &Client, path: &str, body: Value| {
        client.send(Method::PATCH, path, &[JSON], body.to_string()).await
    };

    // The operator's changes.
    log.left(operator.post("/api/v1/tenants", &json!({"id": "globex"})).await, 201, "tenant.create").await;
    log.left(operator.delete("/api/v1/tenants/globex").await, 204, "tenant.remove").await;
    let made = log.left(operator.post("/api/v1/keys", &json!({})).await, 201, "key.create").await;
    let path = format!("/api/v1/keys/{}", text(&made, "id"));
    secrets.push(text(&made, "key"));
    log.left(patch(operator, &path, json!({"label": "x"})).await, 200, "key.label").await;
    let made = log.left(operator.post(&format!("{path}/rotate"), &json!({})).await, 201, "key.rotate").await;
    secrets.push(text(&made, "key"));
    log.left(operator.delete(&path).await, 204, "key.remove").await;

    let tenants = acme.path("");
    log.left(patch(operator, &tenants, json!({"display_name": "Acme"})).await, 200, "tenant.change").await;

    // The tenant's own keys.
    let made = log.left(tenant.post(&acme.path("/keys"), &json!({})).await, 201, "key.create").await;
    let path = acme.path(&format!("/keys/{}", text(&made, "id")));
    secrets.push(text(&made, "key"));
    log.left(patch(tenant, &path, json!({"label": "x"})).await, 200, "key.label").await;
    let made = log.left(tenant.post(&format!("{path}/rotate"), &json!({})).await, 201, "key.rotate").await;
    secrets.push(text(&made, "key"));
    log.left(tenant.delete(&path).await, 204, "key.remove").await;

    // Sources and tables.
    let (path, settings) = (acme.path("/sources/idp"), Seed::Set.settings());
    log.left(tenant.put(&path, &settings).await, 201, "source.create").await;
    log.left(tenant.put(&path, &settings).await, 200, "source.replace").await;
    let other = acme.path("/sources/other");
    log.left(tenant.put(&other, &settings).await, 201, "source.create").await;
    log.left(tenant.delete(&other).await, 204, "source.remove").await;
    let path = acme.path("/tables/people");
    let rows = [("content-type", "application/jsonl")];
    let mut digests = Vec::new();
    for row in [r#"{"key":"a","value":1}"#, r#"{"key":"a","value":2}"#] {
        let shown = log.left(tenant.send(Method::PUT, &path, &rows, row).await, 201, "table.upload").await;
        digests.push(text(&shown, "digest"));
    }
    let first = json!({"digest": digests[0]});
    log.left(tenant.post(&format!("{path}/activate"), &first).await, 200, "table.activate").await;
    log.left(tenant.post(&format!("{path}/rollback"), &json!({})).await, 200, "table.rollback").await;
    log.left(tenant.delete(&path).await, 204, "table.remove").await;

    // Filters and their rollouts.
    let path = acme.path("/filters/gate");
    let mut digests = Vec::new();
    for name in ["drop-by-type", "flag-suspicious-login"] {
        let shown = log.left(acme.upload("gate", place::filter(name)).await, 201, "filter.upload").await;
        digests.push(text(&shown, "active"));
    }
    let first = json!({"digest": digests[0]});
    log.left(tenant.post(&format!("{path}/activate"), &first).await, 200, "filter.activate").await;
    log.left(tenant.post(&format!("{path}/rollback"), &json!({})).await, 200, "filter.rollback").await;
    let (rollout, shadow) = (format!("{path}/rollout"), json!({"digest": digests[0], "mode": "shadow"}));
    log.left(tenant.put(&rollout, &shadow).await, 201, "rollout.begin").await;
    log.left(tenant.put(&rollout, &shadow).await, 200, "rollout.change").await;
    log.left(tenant.delete(&rollout).await, 200, "rollout.end").await;
    log.left(tenant.put(&rollout, &shadow).await, 201, "rollout.begin").await;
    log.left(tenant.post(&format!("{rollout}/promote"), &json!({})).await, 200, "rollout.promote").await;
    log.left(tenant.delete(&path).await, 204, "filter.remove").await;

    // A subscription with a faulting filter, so that its deliveries are held.
    log.left(acme.upload("redact-claims", place::filter("redact-claims")).await, 201, "filter.upload").await;
    let receiver = Receiver::start().await;
    let asked = json!({
        "endpoint": {"url": receiver.url(), "headers": {"authorization": "Bearer hush-4711"}},
        "chain": [{"filter": "redact-claims", "grants": ["config"], "secrets": {"unused": "pepper-4711"}}],
    });
    let made = tenant.post(&acme.path("/subscriptions"), &asked).await;
    let made = log.left(made, 201, "subscription.create").await;
    secrets.push(text(&made, "signing_secret"));
    let id = text(&made, "id");
    let path = acme.path(&format!("/subscriptions/{id}"));
    let shown = log.left(tenant.put(&path, &asked).await, 200, "subscription.replace").await;
    assert_eq!(shown.json()["signing_secret"], Value::Null);
    let pause = json!({"reason": "maintenance"});
    log.left(tenant.post(&format!("{path}/pause"), &pause).await, 200, "subscription.pause").await;
    log.left(tenant.post(&format!("{path}/resume"), &json!({})).await, 200, "subscription.resume").await;
    let rotated = tenant.post(&format!("{path}/rotate-key"), &json!({})).await;
    let rotated = log.left(rotated, 200, "subscription.rotate_key").await;
    secrets.push(text(&rotated, "signing_secret"));
    let staged = acme.path("/subscriptions/staged");
    let asked = json!({"endpoint": {"url": receiver.url()}, "signing": {"scheme": "hub"}});
    log.left(tenant.put(&staged, &asked).await, 201, "subscription.create").await;
    for (end, action) in [("activate-key", "subscription.activate_key"), ("cancel-key", "subscription.cancel_key")] {
        let rotated = tenant.post(&format!("{staged}/rotate-key"), &json!({})).await;
        secrets.push(text(&log.left(rotated, 200, "subscription.rotate_key").await, "signing_secret"));
        log.left(tenant.post(&format!("{staged}/{end}"), &json!({})).await, 200, action).await;
    }
    log.left(tenant.delete(&staged).await, 204, "subscription.remove").await;

    // The test event is held like all others, so only the challenge reaches the receiver.
    receiver.otherwise(Reply::status(200).body(|received| received.json()["challenge"].to_string().replace('"', "")));
    log.left(tenant.post(&format!("{path}/test"), &json!({})).await, 202, "subscription.test").await;
    log.left(tenant.post(&format!("{path}/verify"), &json!({})).await, 200, "subscription.verify").await;

    // Manual decisions about deliveries.
    let sender = operator.with_key(Seed::Set.secret());
    let mut held = Vec::new();
    for jti in ["one", "two"] {
        let sent = sender.send(Method::POST, "/ingest/acme/idp", &[JSON], event::set(jti)).await.expect(202);
        let event = text(&sent, "event");
        let delivery = format!("dlv_{}_{}_0", &event["evt_".len()..], &id["sub_".len()..]);
        acme.delivery_in("held", &delivery).await;
        held.push(delivery);
    }
    let before = acme.delivery(&held[0]).await;
    log.left(acme.redrive(&held[0], "again").await, 200, "delivery.again").await;
    acme.delivery_in_after("held", &held[0], &before["updated_at"]).await;
    log.left(acme.redrive(&held[0], "release").await, 200, "delivery.release").await;
    log.left(acme.redrive(&held[1], "discard").await, 200, "delivery.discard").await;
    let replay = json!({"subscription": id, "since": "2020-01-01T00:00:00Z"});
    log.left(tenant.post(&acme.path("/replays"), &replay).await, 201, "replay.start").await;
    log.left(tenant.delete(&path).await, 204, "subscription.remove").await;

    // Requests that change nothing or are refused leave no entry.
    tenant.post(&acme.path("/keys"), &json!({"scopes": ["operator"]})).await.expect(422);
    tenant.post(&acme.path("/keys"), &json!({"scope": "read"})).await.expect(400);
    tenant.delete(&acme.path("/sources/nobody")).await.expect(404);
    operator.post("/api/v1/tenants", &json!({"id": "acme"})).await.expect(409);
    tenant.post("/api/v1/tenants", &json!({"id": "mine"})).await.expect(403);
    host.stranger().delete(&acme.path("/sources/idp")).await.expect(401);
    acme.redrive(&held[1], "again").await.expect(409);
    let reproduced = acme.path(&format!("/deliveries/{}/reproduce", held[0]));
    tenant.post(&reproduced, &json!({})).await.expect(200);
    assert_eq!(log.news().await, Vec::<Value>::new());

    let mut pages = operator.get("/api/v1/audit?limit=200").await.expect(200).text();
    pages += &tenant.get(&acme.path("/audit?limit=200")).await.expect(200).text();
    for secret in &secrets {
        let secret =
            secret.strip_prefix("sgk_").and_then(|key| key.split_once('_')).map_or(secret.as_str(), |key| key.1);
        assert!(secret.len() >= 9 && !pages.contains(secret), "the log holds a secret: {secret}");
    }
}

#[tokio::test]
async fn tenant_reads_and_filters_its_own_log() {
    let host = Host::start().await;
    let (acme, globex) = (host.tenant("acme").await, host.tenant("globex").await);
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    acme.client.put(&acme.path("/sources/idp"), &open).await.expect(201);
    globex.client.put(&globex.path("/sources/other"), &open).await.expect(201);
    let closed = Seed::Set.settings();
    let id = [JSON, ("x-request-id", "deploy-17")];
    let path = acme.path("/sources/idp");
    let changed = acme.client.send(Method::PUT, &path, &id, closed.to_string()).await.expect(200);
    assert_eq!(changed.header("x-request-id"), Some("deploy-17"), "the caller's request id is used");

    let log = acme.get("/audit").await;
    let told: Vec<_> = log["items"].as_array().unwrap().iter().map(|item| item["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["source.replace", "source.create", "key.create", "tenant.create"], "newest first: {log}");
    let newest = &log["items"][0];
    let expected = json!({
        "seq": "<number>", "hash": "<digest>", "at": "<time>", "tenant": "acme", "by": "<id>",
        "action": "source.replace", "object": {"kind": "source", "id": "idp"}, "outcome": "done",
        "changed": ["proofs"], "version_before": log["items"][1]["version"], "version": "<number>",
        "note": null, "request": "deploy-17", "remote": "127.0.0.1",
    });
    assert_document(newest, &expected);
    let by = newest["by"].as_str().unwrap();
    for (query, count) in [
        ("action=source.replace".to_owned(), 1),
        ("kind=source".to_owned(), 2),
        ("kind=source&object=other".to_owned(), 0),
        (format!("by={by}"), 2),
        ("since=2100-01-01T00:00:00Z".to_owned(), 0),
        ("until=2100-01-01T00:00:00Z".to_owned(), 4),
    ] {
        let found = acme.get(&format!("/audit?{query}")).await;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(count), "{query}: {found}");
    }

    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let page = acme.get(&format!("/audit?limit=1{cursor}")).await;
        seen += page["items"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        assert!(seen < 10, "the last page has no `next`");
    }
    assert_eq!(seen, 4);
    let bad = acme.client.get(&acme.path("/audit?cursor=x")).await;
    assert_eq!(bad.not_the_problem(400, "bad_cursor"), None);

    let theirs = acme.client.get(&globex.path("/audit")).await;
    assert_eq!(theirs.not_the_problem(403, "forbidden"), None);
    let whole = acme.client.get("/api/v1/audit").await;
    assert_eq!(whole.not_the_problem(403, "forbidden"), None);
    let operators = host.operator().get("/api/v1/audit?tenant=globex&kind=source").await.expect(200).json();
    assert_eq!(operators["items"].as_array().map(Vec::len), Some(1), "{operators}");
}

#[tokio::test]
async fn host_is_the_actor_of_automatic_changes() {
    let World { acme, source, receiver, subscription, .. } = &World::start().await;
    receiver.otherwise(Reply::status(410));
    source.accept(event::set("one")).await;
    let paused = setgate_tests::until("the pause is in the log", async || {
        acme.get("/audit?by=host&action=subscription.pause").await["items"].as_array()?.first().cloned()
    })
    .await;
    let expected = json!({
        "seq": "<number>", "hash": "<digest>", "at": "<time>", "tenant": "acme", "by": "host",
        "action": "subscription.pause", "object": {"kind": "subscription", "id": subscription.id}, "outcome": "done",
        "changed": ["paused"], "version_before": "<number>", "version": "<number>",
        "note": "the receiver answered 410 Gone", "request": null, "remote": null,
    });
    assert_document(&paused, &expected);
}
