//! Every delivered byte can be reproduced: a delivery's chain is rerun from its record, on the host and locally, after
//! all its inputs have changed.

use std::path::Path;

use serde_json::{Value, json};
use setgate_tests::{Host, Ingest, Receiver, Seed, Tenant, World, event, place};
use sha2::{Digest, Sha256};

const SALT: &str = "pepper-4711";

/// The output and exit code of `setgate filter run`.
pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    err: String,
}

/// Runs `setgate filter run --delivery` in a separate process.
pub(super) async fn run_again(host: &Host, tenant: &Tenant, delivery: &str, more: &[&str]) -> Said {
    let key = host.path("tenant.key");
    std::fs::write(&key, format!("{}\n", tenant.key)).unwrap();
    let mut command = Host::command(key.parent().unwrap());
    command.args(["filter", "run", "--delivery", delivery, "--host", &host.base(), "--tenant", &tenant.name]);
    command.args(["--key-file", "tenant.key"]).args(more);
    let ended = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: ended.status.code(), out: text(&ended.stdout), err: text(&ended.stderr) }
}

async fn reproduction(tenant: &Tenant, delivery: &str) -> Value {
    tenant.get(&format!("/deliveries/{delivery}/reproduction")).await
}

async fn reproduce(tenant: &Tenant, delivery: &str) -> Value {
    let path = tenant.path(&format!("/deliveries/{delivery}/reproduce"));
    tenant.client.post(&path, &json!({})).await.expect(200).json()
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn configure(folder: &Path, toml: &str) {
    std::fs::write(folder, toml).unwrap();
}

#[tokio::test]
async fn deliveries_reproduce_after_everything_changed() {
    let Ingest { host, acme, source } = &mut World::with().source("idp", Seed::Wso2).start_ingest().await;
    for filter in ["drop-by-type", "redact-claims", "enrich-from-table"] {
        acme.filter(filter).await;
    }
    acme.table("apps", &[("a1", json!({"owner": "team-shop"}))]).await;
    acme.table("organizations", &[("o1", json!({"region": "eu"}))]).await;
    let (enriched, redacted) = (Receiver::start().await, Receiver::start().await);
    let enrich = acme
        .subscribe(&enriched)
        .chain(json!([{"filter": "enrich-from-table", "grants": ["config", "lookup"]}]))
        .create()
        .await;
    let chain = json!([
        {"filter": "drop-by-type", "grants": ["config"], "config": {"drop": ["loginSuccess"]}},
        {"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": SALT}},
    ]);
    let redact = acme.subscribe(&redacted).chain(chain).create().await;
    let failed = source.accept(event::wso2("one")).await;
    let succeeded = source.accept(event::wso2("two").replace("loginFailed", "loginSuccess")).await;
    let delivered = [enrich.delivery_of(&failed), enrich.delivery_of(&succeeded), redact.delivery_of(&failed)];
    let dropped = redact.delivery_of(&succeeded);
    for id in &delivered {
        acme.delivery_in("delivered", id).await;
    }
    acme.delivery_in("dropped", &dropped).await;
    let received = [enriched.all(), redacted.all()].concat();

    // One filter is replaced, one was replaced temporarily, one is removed with its subscription; the tables are
    // replaced, and the limits are tight.
    acme.upload("redact-claims", place::filter("drop-by-type")).await.expect(201);
    acme.upload("drop-by-type", place::filter("flag-suspicious-login")).await.expect(201);
    acme.client.post(&acme.path("/filters/drop-by-type/rollback"), &json!({})).await.expect(200);
    acme.client.delete(&enrich.path("")).await.expect(204);
    acme.client.delete(&acme.path("/filters/enrich-from-table")).await.expect(204);
    acme.table("apps", &[("a1", json!({"owner": "another team"}))]).await;
    acme.client.delete(&acme.path("/tables/organizations")).await.expect(204);
    configure(&host.path("setgate.toml"), "[quota]\nfuel_per_call = 5000\n");
    host.restart().await;

    for id in delivered.iter().chain([&dropped]) {
        let bundle = reproduction(acme, id).await;
        assert_eq!(bundle["limits"]["fuel_per_call"], 50_000_000, "the limits are those of then: {bundle}");
        assert_eq!(bundle["limits_pinned"], true);
        assert!(!bundle.to_string().contains(SALT), "a secret's value is not given out: {bundle}");
        let sent = received.iter().find(|received| received.id() == id);
        let claims = sent.map_or(Value::Null, |received| sha256(&received.body).into());
        assert_eq!(bundle["claims"], claims, "the digest is that of the bytes that arrived: {bundle}");

        let again = reproduce(acme, id).await;
        assert_eq!((&again["reproduced"], &again["differences"]), (&json!(true), &json!([])), "at the host: {again}");
        assert_eq!(again["claims"], bundle["claims"], "at the host: {again}");
        let said = run_again(host, acme, id, &["--secret", &format!("salt={SALT}")]).await;
        assert_eq!(said.code, Some(0), "at home: {}{}", said.out, said.err);
        assert!(said.out.ends_with("reproduced byte for byte\n"), "{}", said.out);
    }
    let record = acme.delivery(&delivered[0]).await;
    let engine = record["runs"][0]["engine"].as_str().unwrap();
    assert!(engine.starts_with("wasmtime "), "the record names the engine: {record}");

    // New deliveries use the current limits.
    let tight = redact.delivery_of(&source.accept(event::wso2("three")).await);
    let held = acme.delivery_in("held", &tight).await;
    assert_eq!(held["runs"][0]["fault"], json!({"kind": "fuel", "limit": 5_000}), "{held}");
    assert_eq!(reproduce(acme, &tight).await["reproduced"], true, "a fault is reproduced as well");
}

#[tokio::test]
async fn differences_are_reported() {
    let chain = json!([{"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": SALT}}]);
    let World { host, acme, source, subscription, .. } =
        &World::with().source("idp", Seed::Wso2).filter("redact-claims").chain(chain).start().await;
    let id = subscription.delivery_of(&source.accept(event::wso2("one")).await);
    acme.delivery_in("delivered", &id).await;

    let wrong = run_again(host, acme, &id, &["--secret", "salt=another"]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.out);
    assert!(wrong.out.contains("different from the record") && wrong.out.contains("claims was"), "{}", wrong.out);
    assert!(wrong.out.contains("+ /events/") && wrong.out.contains("hmac:"), "the members that differ: {}", wrong.out);

    let missing = run_again(host, acme, &id, &[]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("--secret redact-claims/salt="), "which secret is missing: {}", missing.err);

    std::fs::write(host.path("other.wasm"), place::filter("drop-by-type")).unwrap();
    let salt = format!("redact-claims/salt={SALT}");
    let replaced = run_again(host, acme, &id, &["--secret", &salt, "--replace", "redact-claims=other.wasm"]).await;
    assert_eq!(replaced.code, Some(1), "{}", replaced.out);
    for says in ["digest was", "verdict was \"patch\", is \"pass\"", "fuel was", "claims was"] {
        assert!(replaced.out.contains(says), "{says}: {}", replaced.out);
    }
    // The same file under the same name is not a replacement.
    std::fs::write(host.path("same.wasm"), place::filter("redact-claims")).unwrap();
    let same = run_again(host, acme, &id, &["--secret", &salt, "--replace", "redact-claims=same.wasm"]).await;
    assert_eq!(same.code, Some(0), "{}{}", same.out, same.err);

    let both = run_again(host, acme, &id, &["same.wasm"]).await;
    assert_eq!(both.code, Some(2), "a file and a delivery at once: {}{}", both.out, both.err);
}

#[tokio::test]
async fn irreproducible_delivery_gives_the_reason() {
    let Ingest { host, acme, source } = &Ingest::start().await;
    acme.filter("drop-by-type").await;
    let receiver = Receiver::start().await;
    let subscription =
        acme.subscribe(&receiver).chain(json!([{"filter": "drop-by-type", "grants": ["config"]}])).create().await;
    subscription.pause().await;
    let waits = subscription.delivery_of(&source.accept(event::set("one")).await);
    acme.delivery_in("due", &waits).await;
    let bundle = reproduction(acme, &waits).await;
    assert_eq!(bundle["reproducible"], false, "{bundle}");
    assert!(bundle["reason"].as_str().unwrap().contains("has not been run"), "{bundle}");
    let again = reproduce(acme, &waits).await;
    assert_eq!((&again["reproducible"], &again["reproduced"]), (&json!(false), &json!(false)), "{again}");
    let said = run_again(host, acme, &waits, &[]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("not reproducible: the chain has not been run"), "{}", said.out);
    let unknown = waits.replace("_0", "_7");
    for path in [format!("/deliveries/{unknown}/reproduction"), format!("/deliveries/{unknown}/claims")] {
        assert_eq!(acme.client.get(&acme.path(&path)).await.not_the_problem(404, "not_found"), None);
    }
}

#[tokio::test]
async fn released_delivery_is_reproducible() {
    let Ingest { host, acme, source } = &Ingest::start().await;
    acme.filter("redact-claims").await;
    let receiver = Receiver::start().await;
    // Without its salt it fails on every event.
    let subscription =
        acme.subscribe(&receiver).chain(json!([{"filter": "redact-claims", "grants": ["config"]}])).create().await;
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    acme.delivery_in("held", &id).await;
    assert_eq!(reproduce(acme, &id).await["reproduced"], true, "a fault is reproduced");
    acme.redrive(&id, "release").await.expect(200);
    acme.delivery_in("delivered", &id).await;
    assert_eq!(reproduction(acme, &id).await["claims"], Value::Null, "the sent bytes are not the chain's result");
    assert_eq!(reproduce(acme, &id).await["reproduced"], true, "the fault is still reproduced");
    let said = run_again(host, acme, &id, &[]).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
}

#[tokio::test]
async fn digest_opens_nothing_for_another_tenant() {
    let Ingest { host, acme, source } = &World::with().source("idp", Seed::Wso2).start_ingest().await;
    let globex = host.tenant("globex").await;
    let wasm = place::filter("enrich-from-table");
    let digest = acme.filter("enrich-from-table").await;
    acme.table("apps", &[("a1", json!({"owner": "team-shop"}))]).await;
    acme.table("organizations", &[]).await;
    let rows = acme.get("/tables/apps").await["digest"].as_str().unwrap().to_owned();
    let receiver = Receiver::start().await;
    let subscription = acme
        .subscribe(&receiver)
        .chain(json!([{"filter": "enrich-from-table", "grants": ["config", "lookup"]}]))
        .create()
        .await;
    let id = subscription.delivery_of(&source.accept(event::wso2("one")).await);
    acme.delivery_in("delivered", &id).await;

    let component = format!("/filters/enrich-from-table/versions/{digest}");
    let table = format!("/tables/apps/versions/{rows}");
    let check_open = async |when: &str| {
        let answer = acme.client.get(&acme.path(&component)).await.expect(200);
        assert_eq!(answer.body, wasm, "{when}");
        assert_eq!(answer.header("content-type"), Some("application/wasm"));
        let tag = answer.header("etag").unwrap().to_owned();
        assert_eq!(tag, format!("\"{digest}\""));
        let headers = [("if-none-match", tag.as_str())];
        let known = acme.client.send(http::Method::GET, &acme.path(&component), &headers, "").await;
        assert_eq!((known.status, known.body.len()), (304, 0), "a file that exists is not downloaded again");
        let answer = acme.client.get(&acme.path(&table)).await.expect(200);
        assert_eq!(sha256(&answer.body), rows, "{when}");
    };
    check_open("while they are versions").await;
    // The other tenant cannot use its own ids, nor a table or filter of the same name.
    globex.upload("enrich-from-table", place::filter("drop-by-type")).await.expect(201);
    globex.table("apps", &[("a1", json!({"owner": "globex"}))]).await;
    for path in [&component, &table, &format!("/filters/enrich-from-table/versions/{rows}")] {
        let refused = globex.client.get(&globex.path(path)).await;
        assert_eq!(refused.not_the_problem(404, "not_found"), None, "{path}");
        let refused = globex.client.get(&acme.path(path)).await;
        assert_eq!(refused.not_the_problem(403, "forbidden"), None, "{path}");
    }
    for (of, name) in [("filters", "other"), ("tables", "other"), ("tables", "enrich-from-table")] {
        let refused = acme.client.get(&acme.path(&format!("/{of}/{name}/versions/{digest}"))).await;
        assert_eq!(refused.not_the_problem(404, "not_found"), None, "{of}/{name}");
    }
    for path in [format!("/deliveries/{id}/reproduction"), format!("/deliveries/{id}")] {
        assert_eq!(globex.client.get(&globex.path(&path)).await.not_the_problem(404, "not_found"), None, "{path}");
    }
    let refused = globex.client.post(&globex.path(&format!("/deliveries/{id}/reproduce")), &json!({})).await;
    assert_eq!(refused.not_the_problem(404, "not_found"), None);

    // Only the delivery still refers to them.
    acme.client.delete(&subscription.path("")).await.expect(204);
    acme.client.delete(&acme.path("/filters/enrich-from-table")).await.expect(204);
    acme.client.delete(&acme.path("/tables/apps")).await.expect(204);
    check_open("while a stored delivery refers to them").await;
    for path in [&component, &table] {
        assert_eq!(globex.client.get(&globex.path(path)).await.not_the_problem(404, "not_found"), None, "{path}");
    }
}
