//! Versions that are no longer needed are removed, on request or because there are many; a needed version never is.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Answer, Host, Ingest, Receiver, Seed, Tenant, World, event, place, until};

/// An example filter with the same behaviour but another digest.
fn variant(name: &str, number: usize) -> Vec<u8> {
    let mut wasm = place::filter(name);
    // A custom section of a component: id 0, its size, the length of its name, its name, its content.
    let section = format!("\u{5}story{number:04}");
    wasm.extend([0, u8::try_from(section.len()).unwrap()]);
    wasm.extend(section.as_bytes());
    wasm
}

async fn upload(tenant: &Tenant, name: &str, wasm: Vec<u8>, activate: bool) -> String {
    let path = tenant.path(&format!("/filters/{name}?activate={activate}"));
    let answer =
        tenant.client.send(Method::PUT, &path, &[("content-type", "application/wasm")], wasm).await.expect(201);
    answer.json()["versions"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned()
}

async fn remove(tenant: &Tenant, name: &str, digest: &str) -> Answer {
    tenant.client.delete(&tenant.path(&format!("/filters/{name}/versions/{digest}"))).await
}

async fn digests(tenant: &Tenant, name: &str) -> Vec<String> {
    let versions = tenant.get(&format!("/filters/{name}/versions?limit=200")).await;
    let versions = versions["items"].as_array().unwrap().clone();
    versions.iter().map(|version| version["digest"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_needed(answer: &Answer, words: &str) {
    assert_eq!(answer.not_the_problem(409, "conflict"), None, "{words}");
    assert!(answer.text().contains(words), "the need is named: {}", answer.text());
}

#[tokio::test]
async fn unneeded_version_can_be_deleted() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let mut made = Vec::new();
    for number in 0..4 {
        made.push(upload(&acme, "gate", variant("drop-by-type", number), true).await);
    }
    let shadow = json!({"digest": made[1], "mode": "shadow"});
    acme.client.put(&acme.path("/filters/gate/rollout"), &shadow).await.expect(201);
    assert_needed(&remove(&acme, "gate", &made[3]).await, "active");
    assert_needed(&remove(&acme, "gate", &made[2]).await, "roll-back");
    assert_needed(&remove(&acme, "gate", &made[1]).await, "rollout");
    let answer = remove(&acme, "gate", &made[0]).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(digests(&acme, "gate").await, made[1..]);
    let gone = remove(&acme, "gate", &made[0]).await;
    assert_eq!(gone.not_the_problem(404, "not_found"), None);
    let path = acme.path(&format!("/filters/gate/versions/{}", made[0]));
    assert_eq!(acme.client.get(&path).await.not_the_problem(404, "not_found"), None);

    // The version that a rollback would activate is still there.
    acme.client.delete(&acme.path("/filters/gate/rollout")).await.expect(200);
    remove(&acme, "gate", &made[1]).await.expect(204);
    let rolled = acme.client.post(&acme.path("/filters/gate/rollback"), &json!({})).await.expect(200).json();
    assert_eq!((&rolled["active"], &rolled["previous"]), (&json!(made[2]), &Value::Null));
    remove(&acme, "gate", &made[3]).await.expect(204);
    // The same bytes are a new version now.
    acme.upload("gate", variant("drop-by-type", 0)).await.expect(201);
    let stale = acme.path(&format!("/filters/gate/versions/{}", made[2]));
    let stale = acme.client.send(Method::DELETE, &stale, &[("if-match", "\"1\"")], "").await;
    assert_eq!(stale.not_the_problem(412, "version_changed"), None);
    let noted = acme.get("/audit?action=filter.remove_version").await;
    assert_eq!(noted["items"].as_array().map(Vec::len), Some(3), "{noted}");
}

#[tokio::test]
async fn version_in_the_history_is_kept() {
    let config = "[data]\nretention_s = 20\nretention_every_s = 1";
    let host = Host::with().config(config).start().await;
    let acme = host.tenant("acme").await;
    // A held delivery retains its event, and with it all deliveries of the event, so it gets an event of its own.
    let (source, other) = (acme.source("idp", Seed::Set).await, acme.source("other", Seed::Set).await);
    let receiver = Receiver::start().await;
    // Each subscription's delivery ends in another state, each with its own version.
    let nowhere = format!("http://{}/", Receiver::nowhere().await);
    // Without its salt, `redact-claims` fails on every event.
    let mut made = Vec::new();
    for (state, name) in [("delivered", "drop-by-type"), ("dead", "drop-by-type"), ("held", "redact-claims")] {
        made.push(upload(&acme, state, variant(name, 0), true).await);
    }
    let chain = |name: &str| json!([{"filter": name, "grants": ["config"], "on_fault": "hold"}]);
    let of = |source: &str| json!([source]);
    let delivered = acme.subscribe(&receiver).chain(chain("delivered")).with("sources", of("idp")).create().await;
    let dead = acme.subscribe_url(&nowhere).chain(chain("dead")).retry(&[]).with("sources", of("idp")).create().await;
    let held = acme.subscribe(&receiver).chain(chain("held")).with("sources", of("other")).create().await;
    let (accepted, second) = (source.accept(event::set("one")).await, other.accept(event::set("two")).await);
    let mut ids = Vec::new();
    for (subscription, state, event) in
        [(&delivered, "delivered", &accepted), (&dead, "dead", &accepted), (&held, "held", &second)]
    {
        ids.push(subscription.delivery_of(event));
        acme.delivery_in(state, ids.last().unwrap()).await;
    }
    for (name, example) in [("delivered", "drop-by-type"), ("dead", "drop-by-type"), ("held", "redact-claims")] {
        upload(&acme, name, variant(example, 1), true).await;
        upload(&acme, name, variant(example, 2), true).await;
    }
    for (index, name) in ["delivered", "dead", "held"].into_iter().enumerate() {
        assert_needed(&remove(&acme, name, &made[index]).await, "a delivery of the history");
        let bundle = acme.get(&format!("/deliveries/{}/reproduction", ids[index])).await;
        assert!(bundle.to_string().contains(&made[index]), "{bundle}");
    }
    // The other two expire; the held one is retained with everything that it needs.
    for name in [0, 1] {
        let of = ["delivered", "dead"][name];
        until("retention removes the last delivery", async || {
            let answer = remove(&acme, of, &made[name]).await;
            (answer.status == 204).then_some(())
        })
        .await;
    }
    assert_needed(&remove(&acme, "held", &made[2]).await, "a delivery of the history");
}

#[tokio::test]
async fn more_than_twenty_versions_remove_the_oldest() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let mut made = vec![upload(acme, "gate", variant("drop-by-type", 0), true).await];
    let receiver = Receiver::start().await;
    let subscription =
        acme.subscribe(&receiver).chain(json!([{"filter": "gate", "grants": ["config"]}])).create().await;
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    acme.delivery_in("delivered", &id).await;
    for number in 1..23 {
        made.push(upload(acme, "gate", variant("drop-by-type", number), number < 3).await);
    }
    // Retained: the versions used by the delivery, by a rollback, the active one, and the newest.
    let kept: Vec<_> = made[..3].iter().chain(&made[6..]).cloned().collect();
    assert_eq!(digests(acme, "gate").await, kept, "{} of {}", kept.len(), made.len());
    let again = acme.path(&format!("/deliveries/{id}/reproduce"));
    let again = acme.client.post(&again, &json!({})).await.expect(200).json();
    assert_eq!(again["reproduced"], true, "{again}");
}

#[tokio::test]
async fn equal_bytes_are_separate_versions_per_tenant() {
    let host = Host::start().await;
    let (acme, globex) = (host.tenant("acme").await, host.tenant("globex").await);
    let source = globex.source("idp", Seed::Set).await;
    let first = upload(&acme, "gate", variant("drop-by-type", 0), true).await;
    assert_eq!(upload(&globex, "gate", variant("drop-by-type", 0), true).await, first);
    let receiver = Receiver::start().await;
    let subscription =
        globex.subscribe(&receiver).chain(json!([{"filter": "gate", "grants": ["config"]}])).create().await;
    globex.delivery_in("delivered", &subscription.delivery_of(&source.accept(event::set("one")).await)).await;
    for tenant in [&acme, &globex] {
        upload(tenant, "gate", variant("drop-by-type", 1), true).await;
        upload(tenant, "gate", variant("drop-by-type", 2), true).await;
    }
    remove(&acme, "gate", &first).await.expect(204);
    assert_needed(&remove(&globex, "gate", &first).await, "a delivery of the history");
    let path = |tenant: &Tenant| tenant.path(&format!("/filters/gate/versions/{first}"));
    globex.client.get(&path(&globex)).await.expect(200);
    assert_eq!(acme.client.get(&path(&acme)).await.not_the_problem(404, "not_found"), None);
}

#[tokio::test]
async fn full_version_quota_names_the_remedy() {
    let host = Host::start().await;
    let size = variant("drop-by-type", 0).len();
    let acme = host.tenant_with("acme", json!({"quota": {"filters_bytes_max": size * 3 + 10}})).await;
    let mut made = Vec::new();
    for number in 0..3 {
        made.push(upload(&acme, "gate", variant("drop-by-type", number), true).await);
    }
    let full = acme.upload("gate", variant("drop-by-type", 3)).await;
    assert_eq!(full.not_the_problem(409, "conflict"), None);
    let named = format!("gate/versions/{}", made[0]);
    assert!(full.text().contains("filters_bytes_max") && full.text().contains(&named), "{}", full.text());
    remove(&acme, "gate", &made[0]).await.expect(204);
    acme.upload("gate", variant("drop-by-type", 3)).await.expect(201);
    // Now one is active and one would be activated by a rollback; no delivery needs the third one.
    remove(&acme, "gate", &made[1]).await.expect(204);
    acme.upload("other", variant("drop-by-type", 4)).await.expect(201);
    let full = acme.upload("gate", variant("drop-by-type", 5)).await;
    assert_eq!(full.not_the_problem(409, "conflict"), None);
    assert!(full.text().contains("ask the operator for a larger quota"), "{}", full.text());
}

#[tokio::test]
async fn unneeded_table_version_can_be_deleted() {
    let Ingest { acme, source, .. } = &World::with().source("idp", Seed::Wso2).start_ingest().await;
    acme.filter("enrich-from-table").await;
    acme.table("organizations", &[]).await;
    acme.table("apps", &[("a1", json!(1))]).await;
    let receiver = Receiver::start().await;
    let subscription = acme
        .subscribe(&receiver)
        .chain(json!([{"filter": "enrich-from-table", "grants": ["config", "lookup"]}]))
        .create()
        .await;
    acme.delivery_in("delivered", &subscription.delivery_of(&source.accept(event::wso2("one")).await)).await;
    for number in 2..5 {
        acme.table("apps", &[("a1", json!(number))]).await;
    }
    let listed = acme.get("/tables/apps/versions").await;
    let made: Vec<_> = listed["items"].as_array().unwrap().iter().map(|version| version["digest"].clone()).collect();
    assert_eq!(made.len(), 4);
    let remove = async |number: usize| {
        let digest = made[number].as_str().unwrap();
        acme.client.delete(&acme.path(&format!("/tables/apps/versions/{digest}"))).await
    };
    assert_needed(&remove(3).await, "active");
    assert_needed(&remove(2).await, "roll-back");
    assert_needed(&remove(0).await, "a delivery of the history");
    remove(1).await.expect(204);
    let rolled = acme.client.post(&acme.path("/tables/apps/rollback"), &json!({})).await.expect(200).json();
    assert_eq!((&rolled["digest"], &rolled["previous"]), (&made[2], &made[0]), "{rolled}");
}
