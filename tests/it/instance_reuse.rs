//! Instances that process several events of a binding with `reuse`: their record, their isolation, and the end of their
//! reuse.

use serde_json::{Value, json};
use setgate_tests::hostile::guest::{Guest, TEXT, patch};
use setgate_tests::{Host, Receiver, Seed, Source, Subscription, Tenant, event, until};

/// A filter that patches `{"seen":N}` into the claims, where N is the number of events of its instance. It traps at the
/// fourth event. `more` runs before it returns, and makes it another version.
fn counting(more: &str) -> Vec<u8> {
    // The part after the first object is for `sealing`.
    let text = r#"{"seen":0}{"iss":"other"}"#;
    let digit = TEXT + 8;
    let process = format!(
        "(global.set $seen (i32.add (global.get $seen) (i32.const 1)))
         (if (i32.eq (global.get $seen) (i32.const 4)) (then unreachable))
         (i32.store8 (i32.const {digit}) (i32.add (i32.const 48) (global.get $seen)))
         {more} {}",
        patch(TEXT, 10)
    );
    Guest::new(process).text(text).core("(global $seen (mut i32) (i32.const 0))").wasm()
}

/// A counting filter that changes a sealed claim at its second event.
fn sealing() -> Vec<u8> {
    counting(&format!("(if (i32.eq (global.get $seen) (i32.const 2)) (then (return {})))", patch(TEXT + 10, 15)))
}

struct Story {
    host: Host,
    acme: Tenant,
    source: Source,
    receiver: Receiver,
}

impl Story {
    async fn begin() -> Self {
        Self::on(Host::start().await).await
    }

    async fn on(host: Host) -> Self {
        let acme = host.tenant("acme").await;
        let source = acme.source("idp", Seed::Set).await;
        acme.upload("count", counting("")).await.expect(201);
        Self { host, acme, source, receiver: Receiver::start().await }
    }

    async fn bind(&self, binding: Value) -> Subscription {
        self.acme.subscribe(&self.receiver).chain(json!([binding])).create().await
    }

    /// Sends one event, waits until its deliveries have arrived, and returns for each subscription the count of the
    /// filter and the instance in its record.
    async fn one(&self, jti: &str, subscriptions: &[&Subscription]) -> Vec<(Value, Value)> {
        let accepted = self.source.accept(event::set(jti)).await;
        let mut seen = Vec::new();
        for subscription in subscriptions {
            let id = subscription.delivery_of(&accepted);
            let record = self.acme.delivery_in("delivered", &id).await;
            let received = self.receiver.all().into_iter().find(|received| received.id() == id).expect("it arrived");
            assert_eq!(record["runs"].as_array().map(Vec::len), Some(1), "{record}");
            seen.push((received.json()["seen"].clone(), record["runs"][0]["instance_events"].clone()));
        }
        seen
    }

    async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.host.metric(name, labels).await
    }
}

fn reusing(events_max: u32) -> Value {
    json!({"filter": "count", "reuse": {"events_max": events_max}})
}

#[tokio::test]
async fn instance_belongs_to_one_binding() {
    let story = Story::begin().await;
    let (first, second) = (story.bind(reusing(3)).await, story.bind(reusing(3)).await);
    let fresh = story.bind(json!({"filter": "count"})).await;
    let shown = first.show().await;
    assert_eq!(shown["chain"][0]["reuse"], json!({"events_max": 3}), "{shown}");
    assert_eq!(fresh.show().await["chain"][0]["reuse"], Value::Null);
    for (number, expected) in [1, 2, 3, 1, 2].into_iter().enumerate() {
        let seen = story.one(&format!("e{number}"), &[&first, &second, &fresh]).await;
        let nth = (json!(expected), json!(expected));
        assert_eq!(seen, [nth.clone(), nth, (json!(1), Value::Null)], "event {number}");
    }
    assert_eq!(story.metric("setgate_filter_reused_calls_total", &["tenant=\"acme\"", "filter=\"count\""]).await, 6.0);
    assert_eq!(story.metric("setgate_filter_instances_kept", &[]).await, 2.0);
    assert_eq!(story.metric("setgate_filter_instances_kept_ended_total", &["why=\"events\""]).await, 2.0);

    let mut reproducible = Vec::new();
    for delivery in story.acme.deliveries(&format!("subscription={}", first.id)).await {
        let id = delivery["id"].as_str().unwrap();
        let path = story.acme.path(&format!("/deliveries/{id}/reproduce"));
        let again = story.acme.client.post(&path, &json!({})).await.expect(200).json();
        let nth = delivery["runs"][0]["instance_events"].as_u64().unwrap();
        assert_eq!(again["reproduced"], json!(nth == 1), "{again}");
        assert_eq!(again["reproducible"], json!(nth == 1), "{again}");
        let why = again["reason"].as_str().unwrap_or_default();
        assert!(nth == 1 || why.contains(&format!("had processed {} event", nth - 1)), "{again}");
        let bundle = story.acme.get(&format!("/deliveries/{id}/reproduction")).await;
        assert_eq!(bundle["steps"][0]["reuse"], json!({"events_max": 3}), "the settings are recorded: {bundle}");
        assert_eq!((&bundle["reproducible"], &bundle["reason"]), (&again["reproducible"], &again["reason"]));
        let said = super::reproduce::run_again(&story.host, &story.acme, id, &[]).await;
        assert_eq!(said.code, Some(i32::from(nth > 1)), "{}", said.out);
        assert!(nth == 1 || said.out.contains(&format!("not reproducible: {why}")), "{}", said.out);
        reproducible.push(nth == 1);
    }
    assert_eq!(reproducible, [false, true, false, false, true], "newest first");
}

#[tokio::test]
async fn changed_binding_or_version_starts_anew() {
    let story = Story::begin().await;
    let subscription = story.bind(reusing(9)).await;
    let seen = async |jti: &str| story.one(jti, &[&subscription]).await.remove(0).0;
    assert_eq!([seen("a").await, seen("b").await], [1, 2]);

    let chain = json!([{"filter": "count", "reuse": {"events_max": 9}, "config": {"more": true}}]);
    let changed = json!({"endpoint": {"url": story.receiver.url()}, "chain": chain});
    story.acme.client.put(&subscription.path(""), &changed).await.expect(200);
    assert_eq!([seen("c").await, seen("d").await], [1, 2], "another config");

    story.acme.upload("count", counting("(nop)")).await.expect(201);
    assert_eq!([seen("e").await, seen("f").await], [1, 2], "another version");
    story.acme.client.post(&story.acme.path("/filters/count/rollback"), &json!({})).await.expect(200);
    assert_eq!(seen("g").await, 1, "the version from before, and not its instance");
    let ended = story.metric("setgate_filter_instances_kept_ended_total", &["why=\"changed\""]).await;
    assert_eq!(ended, 3.0, "each change evicts the idle instances");
    assert_eq!(story.metric("setgate_filter_instances_kept", &[]).await, 1.0);

    let bare = json!({"endpoint": {"url": story.receiver.url()}, "chain": [{"filter": "count"}]});
    story.acme.client.put(&subscription.path(""), &bare).await.expect(200);
    assert_eq!([seen("h").await, seen("i").await], [1, 1], "the option was removed");
    assert_eq!(story.metric("setgate_filter_instances_kept", &[]).await, 0.0);
}

#[tokio::test]
async fn fault_is_repeated_in_a_fresh_instance() {
    let story = Story::begin().await;
    let subscription = story.bind(reusing(9)).await;
    let mut seen = Vec::new();
    for number in 0..6 {
        seen.extend(story.one(&format!("e{number}"), &[&subscription]).await);
    }
    let nth = |events: u32| (json!(events), json!(events));
    // The fourth call traps because of the state left by the three before it. A fresh instance does not trap, so the
    // call is repeated in one; the record contains that run.
    assert_eq!(seen, [nth(1), nth(2), nth(3), (json!(1), Value::Null), nth(1), nth(2)]);
    assert_eq!(story.metric("setgate_filter_calls_total", &["fault=\"trap\""]).await, 1.0);
    assert_eq!(story.metric("setgate_filter_instances_kept_ended_total", &["why=\"fault\""]).await, 1.0);
}

#[tokio::test]
async fn invalid_verdict_ends_the_instance() {
    let story = Story::begin().await;
    story.acme.upload("count", sealing()).await.expect(201);
    let subscription = story.bind(reusing(9)).await;
    let mut seen = Vec::new();
    for number in 0..4 {
        seen.extend(story.one(&format!("e{number}"), &[&subscription]).await);
    }
    let (kept, again) = ((json!(1), json!(1)), (json!(1), Value::Null));
    assert_eq!(seen, [kept.clone(), again.clone(), kept, again]);
    assert_eq!(story.metric("setgate_filter_instances_kept_ended_total", &["why=\"fault\""]).await, 2.0);
    assert_eq!(story.metric("setgate_filter_instances_kept", &[]).await, 0.0);
}

#[tokio::test]
async fn trials_run_in_fresh_instances() {
    let story = Story::begin().await;
    let subscription = story.bind(reusing(9)).await;
    let one = async |jti: &str| story.one(jti, &[&subscription]).await.remove(0);
    let nth = |events: u32| (json!(events), json!(events));
    assert_eq!([one("a").await, one("b").await], [nth(1), nth(2)]);
    let sent = story.acme.client.post(&subscription.path("/test"), &json!({})).await.expect(202).json();
    let test = story.acme.delivery_in("delivered", sent["delivery"].as_str().unwrap()).await;
    assert_eq!(test["runs"][0]["instance_events"], Value::Null, "a test: {test}");
    assert_eq!(one("c").await, nth(3), "which left nothing behind");

    // A shadow with the same behaviour does not see the state of the active version's instances.
    let upload = story.acme.upload("count?activate=false", counting("(nop)")).await.expect(201).json();
    let candidate = upload["versions"][1]["digest"].clone();
    let rollout = story.acme.path("/filters/count/rollout");
    story.acme.client.put(&rollout, &json!({"digest": candidate, "mode": "shadow"})).await.expect(201);
    assert_eq!([one("d").await.0, one("e").await.0, one("f").await.0], [1, 1, 2]);
    let shadow = until("three were compared", async || {
        let shadow = story.acme.get("/filters/count/rollout").await["report"]["shadow"].clone();
        (shadow["runs"] == 3).then_some(shadow)
    })
    .await;
    assert_eq!((&shadow["same"], &shadow["different"]), (&json!(2), &json!(1)), "it always sees one: {shadow}");
    story.acme.client.delete(&rollout).await.expect(200);

    let canary = json!({"digest": candidate, "mode": "canary", "percent": 100});
    story.acme.client.put(&rollout, &canary).await.expect(201);
    let tried = (json!(1), Value::Null);
    assert_eq!([one("g").await, one("h").await], [tried.clone(), tried]);
    story.acme.client.post(&story.acme.path("/filters/count/rollout/promote"), &json!({})).await.expect(200);
    assert_eq!([one("i").await, one("j").await], [nth(1), nth(2)], "once it is promoted, the binding's option holds");
}

#[tokio::test]
async fn host_can_limit_or_disable_reuse() {
    let story = Story::on(Host::with().config("[sandbox]\nreuse_events_max = 5\n").start().await).await;
    for (events_max, says) in [(0, "give 2 or more"), (1, "give 2 or more"), (6, "sandbox.reuse_events_max")] {
        let refused = story.acme.subscribe(&story.receiver).chain(json!([reusing(events_max)])).ask().await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{events_max}");
        assert!(
            refused.text().contains(says) && refused.text().contains("chain/reuse/events_max"),
            "{}",
            refused.text()
        );
    }
    let unknown = json!([{"filter": "count", "reuse": {"events_max": 2, "for_ever": true}}]);
    let refused = story.acme.subscribe(&story.receiver).chain(unknown).ask().await;
    assert_eq!(refused.not_the_problem(400, "invalid_body"), None);
    story.bind(reusing(5)).await;

    let mut host = story.host;
    std::fs::write(host.path("setgate.toml"), "[sandbox]\nreuse_events_max = 0\n").unwrap();
    host.restart().await;
    let story = Story { host, ..story };
    let refused = story.acme.subscribe(&story.receiver).chain(json!([reusing(5)])).ask().await;
    assert!(refused.text().contains("keeps no instances"), "{}", refused.text());
    let listed = story.acme.get("/subscriptions").await;
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    for jti in ["a", "b"] {
        let accepted = story.source.accept(event::set(jti)).await;
        let body = |id: &str| id.split_once('_').unwrap().1.to_owned();
        let delivery = format!("dlv_{}_{}_0", body(&accepted.event), body(&id));
        let record = story.acme.delivery_in("delivered", &delivery).await;
        assert_eq!(record["runs"][0]["instance_events"], Value::Null, "the host's setting takes precedence: {record}");
    }
}
