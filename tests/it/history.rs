//! The history of deliveries, and queries of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use setgate_tests::{Answer, Host, Ingest, Receiver, Reply, Seed, Tenant, World, assert_document, event, until};

#[tokio::test]
async fn statistics_add_up() {
    let Ingest { host, acme, source } = &mut Ingest::start().await;
    let other = host.tenant("other").await;
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.otherwise(Reply::status(400));
    let to_good = acme.subscribe(&good).create().await;
    let to_bad = acme.subscribe(&bad).retry(&[1]).create().await;
    let nowhere = acme.subscribe_url(&format!("http://{}/in", Receiver::nowhere().await)).retry(&[]).create().await;
    for number in 0..10 {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    let of_bad = until("every delivery that can be settled is settled", async || {
        let all = acme.get("/statistics?window=1h").await;
        let rests = &all["deliveries"];
        let done = rests["delivered"] == 10 && rests["dead"] == 20;
        if done { Some(acme.get(&format!("/subscriptions/{}/statistics?window=1h", to_bad.id)).await) } else { None }
    })
    .await;
    let latency = json!({"p50": "<number>", "p90": "<number>", "p99": "<number>"});
    // Two attempts each, and nothing was delivered.
    let expected = json!({
        "subscription": to_bad.id, "window": "1h", "since": "<time>", "until": "<time>",
        "attempts": {"count": 20, "succeeded": 0, "success_rate": 0.0, "failures": {"4xx": 20}, "latency_ms": latency},
        "deliveries": {"delivered": 0, "dropped": 0, "held": 0, "dead": 10},
        "accepted_to_delivered_ms": null,
        "now": {"due": 0, "held": 0, "dead": 10, "oldest_due": null},
    });
    assert_document(&of_bad, &expected);

    let statistics = async |path: &str| acme.get(path).await;
    let of_nowhere = statistics(&format!("/subscriptions/{}/statistics", nowhere.id)).await;
    assert_eq!(of_nowhere["attempts"]["failures"], json!({"connect": 10}), "{of_nowhere}");
    assert_eq!(of_nowhere["window"], "24h", "the default window is a day: {of_nowhere}");

    host.kill9().await;
    host.start_again().await;
    let mut sums = Vec::new();
    for window in ["1h", "24h", "7d"] {
        let of_good = statistics(&format!("/subscriptions/{}/statistics?window={window}", to_good.id)).await;
        let attempts = &of_good["attempts"];
        assert_eq!((&attempts["count"], &attempts["success_rate"]), (&json!(10), &json!(1.0)), "{of_good}");
        let latency: Vec<_> =
            ["p50", "p90", "p99"].iter().map(|p| attempts["latency_ms"][*p].as_f64().unwrap()).collect();
        assert!(latency.is_sorted() && latency[0] > 0.0, "{of_good}");
        assert!(of_good["accepted_to_delivered_ms"]["p99"].as_f64().is_some(), "{of_good}");
        sums.push(statistics(&format!("/statistics?window={window}")).await);
    }
    // The tenant's numbers are the sums of its subscriptions.
    let expected = json!({
        "window": "<text>", "since": "<time>", "until": "<time>",
        "attempts": {
            "count": 40, "succeeded": 10, "success_rate": 0.25, "failures": {"4xx": 20, "connect": 10},
            "latency_ms": latency,
        },
        "deliveries": {"delivered": 10, "dropped": 0, "held": 0, "dead": 20},
        "accepted_to_delivered_ms": latency,
        "now": {"due": 0, "held": 0, "dead": 20, "stored_bytes": "<number>", "oldest_due": null},
    });
    for sum in &sums {
        assert_document(sum, &expected);
        assert!(sum["now"]["stored_bytes"].as_u64() > Some(0), "{sum}");
    }
    let theirs = other.get("/statistics").await;
    assert_eq!((&theirs["attempts"]["count"], &theirs["now"]["dead"]), (&json!(0), &json!(0)), "{theirs}");
    let theirs = other.client.get(&other.path(&format!("/subscriptions/{}/statistics", to_bad.id))).await;
    assert_eq!(theirs.not_the_problem(404, "not_found"), None, "another tenant's subscription is not found");
    let wrong = acme.client.get(&acme.path("/statistics?window=2h")).await;
    assert_eq!(wrong.not_the_problem(400, "invalid_query"), None);
}

#[tokio::test]
async fn pending_deliveries_are_visible() {
    let World { acme, source, subscription, .. } = &World::start().await;
    subscription.pause().await;
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("due", &subscription.delivery_of(&accepted)).await;
    let shown = acme.get(&format!("/subscriptions/{}/statistics", subscription.id)).await;
    assert_eq!(shown["now"]["due"], 1, "{shown}");
    let oldest: &Value = &shown["now"]["oldest_due"];
    assert!(oldest.as_str().is_some_and(|at| at <= shown["until"].as_str().unwrap()), "since when it waits: {shown}");
}

/// Starts a replay.
async fn replay(tenant: &Tenant, body: Value) -> Answer {
    tenant.client.post(&tenant.path("/replays"), &body).await
}

/// Waits until a replay is in a state, and returns it.
async fn replay_in(tenant: &Tenant, state: &str, id: &str) -> Value {
    until(&format!("the replay {id} is {state}"), async || {
        let shown = tenant.get(&format!("/replays/{id}")).await;
        (shown["state"] == state).then_some(shown)
    })
    .await
}

const LONG_AGO: &str = "2020-01-01T00:00:00Z";

#[tokio::test]
async fn killed_replay_creates_each_run_once() {
    let mut host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (source, other) = (acme.source("idp", Seed::Set).await, acme.source("wso2", Seed::Wso2).await);
    let old = Receiver::start().await;
    let to_old = acme.subscribe(&old).create().await;
    const EVENTS: usize = 60;
    let mut events = Vec::new();
    for number in 0..EVENTS {
        events.push(source.accept(event::set(&format!("e{number}"))).await);
        if number % 10 == 0 {
            other.accept(event::wso2(&format!("w{number}"))).await;
        }
    }
    old.received(EVENTS + 6).await;
    // A subscription created after the events gets them now, through its filters.
    acme.upload("gate", setgate_tests::place::filter("redact-claims")).await.expect(201);
    let receiver = Receiver::start().await;
    let chain = json!([{"filter": "gate", "grants": ["config"], "secrets": {"salt": "pepper"}}]);
    let subscription = acme.subscribe(&receiver).chain(chain).create().await;
    let asked = json!({"subscription": subscription.id, "since": LONG_AGO, "events": ["*/session-revoked"],
        "per_second": 40});
    let begun = replay(&acme, asked).await.expect(201).json();
    let id = begun["id"].as_str().expect("an id").to_owned();
    assert_eq!((&begun["state"], &begun["made"]), (&json!("running"), &json!(0)), "{begun}");

    let mut kills = 0;
    for made in [5, 20, 40] {
        let shown = until("the replay continues", async || {
            let shown = acme.get(&format!("/replays/{id}")).await;
            (shown["made"].as_u64() >= Some(made)).then_some(shown)
        })
        .await;
        kills += usize::from(shown["state"] == "running");
        host.kill9().await;
        host.start_again().await;
    }
    assert!(kills > 0, "it was killed while it ran");
    let done = replay_in(&acme, "done", &id).await;
    assert_eq!((&done["made"], &done["passed_over"]), (&json!(EVENTS), &json!(6)), "{done}");
    assert!(done["ended_at"].is_string() && done["position"].as_str() > Some(LONG_AGO), "{done}");

    let expected: BTreeSet<_> = events
        .iter()
        .map(|event| {
            let first = subscription.delivery_of(event);
            format!("{}1", first.strip_suffix('0').expect("the first run"))
        })
        .collect();
    until("each run has arrived", async || (receiver.ids() == expected).then_some(())).await;
    let made = acme.deliveries(&format!("subscription={}", subscription.id)).await;
    assert_eq!(made.len(), EVENTS, "nothing was made twice");
    assert!(receiver.all().iter().all(|one| one.text().contains("hmac:")), "through the filters as they are now");
    assert_eq!(acme.deliveries(&format!("subscription={}", to_old.id)).await.len(), EVENTS + 6, "no other gets any");

    // Another replay is a separate run.
    let asked = json!({"subscription": subscription.id, "since": LONG_AGO, "source": "idp", "per_second": 1000,
        "subject": "jane@example.com"});
    let again = replay(&acme, asked).await.expect(201).json();
    let again = replay_in(&acme, "done", again["id"].as_str().unwrap()).await;
    let listed = acme.get("/replays").await;
    assert_eq!(listed["items"][0], again, "newest first: {listed}");
    assert_eq!(listed["items"][1], done);
    let second = acme.deliveries(&format!("subscription={}", subscription.id)).await;
    let of_second = second.iter().filter(|one| one["id"].as_str().unwrap().ends_with("_2")).count();
    assert_eq!(json!(of_second), again["made"], "{again}");
}

#[tokio::test]
async fn replay_keeps_its_rate_and_waits_for_the_backlog() {
    let host = Host::with().config("[history]\nreplays_per_tenant_max = 1").start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"backlog_deliveries_max": 10}})).await;
    let source = acme.source("idp", Seed::Set).await;
    for number in 0..20 {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    subscription.pause().await;
    let asked = |per_second: u32| json!({"subscription": subscription.id, "since": LONG_AGO, "per_second": per_second});
    let id = until("all are fanned out, so that they are past events", async || {
        let begun = replay(&acme, asked(100)).await.expect(201).json();
        let id = begun["id"].as_str().unwrap().to_owned();
        let full = until("it has made as many as it may", async || {
            let shown = acme.get(&format!("/replays/{id}")).await;
            (shown["made"] == 8 || shown["state"] == "done").then_some(shown)
        })
        .await;
        (full["state"] == "running").then_some(id)
    })
    .await;
    // Eight of ten: two remain for regular events.
    let waiting = acme.get(&format!("/replays/{id}")).await;
    assert_eq!((&waiting["made"], &waiting["state"]), (&json!(8), &json!("running")), "{waiting}");
    source.accept(event::set("meanwhile")).await;
    let refused = replay(&acme, asked(100)).await;
    assert_eq!(refused.not_the_problem(409, "conflict"), None, "one runs at a time");
    assert!(refused.text().contains("replays_per_tenant_max"), "{}", refused.text());
    subscription.resume().await;
    let done = replay_in(&acme, "done", &id).await;
    assert_eq!(done["made"], 20, "it continued without a request: {done}");
    receiver.received(21).await;

    let begun = replay(&acme, asked(10)).await.expect(201).json();
    let id = begun["id"].as_str().unwrap();
    let received = receiver.received(21 + 20).await;
    let took = received[40].at.duration_since(received[21].at);
    // Twenty at ten per second: 1.9 s from the first to the last, and an attempt may be late.
    assert!(took >= Duration::from_millis(1_500), "the rate is not exceeded: {took:?}");
    replay_in(&acme, "done", id).await;
}

#[tokio::test]
async fn replay_can_be_cancelled_by_its_tenant_only() {
    let World { host, acme, source, receiver, subscription } = &World::start().await;
    let other = host.tenant("other").await;
    for number in 0..5 {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    receiver.received(5).await;
    let asked = json!({"subscription": subscription.id, "since": LONG_AGO, "per_second": 1});
    let begun = replay(acme, asked.clone()).await.expect(201).json();
    let id = begun["id"].as_str().unwrap();
    receiver.received(6).await;
    let theirs = format!("/replays/{id}");
    for answer in [other.client.get(&other.path(&theirs)).await, other.client.delete(&other.path(&theirs)).await] {
        assert_eq!(answer.not_the_problem(404, "not_found"), None);
    }
    assert_eq!(other.get("/replays").await["items"], json!([]));
    let cancelled = acme.client.delete(&acme.path(&theirs)).await.expect(200).json();
    assert_eq!((&cancelled["state"], &cancelled["reason"]), (&json!("cancelled"), &json!("by request")), "{cancelled}");
    assert!(cancelled["made"].as_u64() < Some(5), "it was cancelled before its end: {cancelled}");
    // A replay that has ended is not cancelled again.
    acme.client.delete(&acme.path(&theirs)).await.expect(200);
    let log = acme.get(&format!("/audit?kind=replay&object={id}")).await;
    let logged: Vec<_> = log["items"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert_eq!(logged, ["replay.cancel", "replay.start"], "newest first: {log}");
    assert_eq!(log["items"][1]["note"], subscription.id.as_str());
    assert!(log["items"][0]["by"].as_str().unwrap().starts_with("key_"), "{log}");

    // Removing its subscription cancels a replay.
    let begun = replay(acme, asked.clone()).await.expect(201).json();
    acme.client.delete(&subscription.path("")).await.expect(204);
    let ended = replay_in(acme, "cancelled", begun["id"].as_str().unwrap()).await;
    assert!(ended["reason"].as_str().unwrap().contains("removed"), "{ended}");
    let log = acme.get("/audit?action=replay.cancel&by=host").await;
    assert_eq!(log["items"][0]["object"]["id"], begun["id"], "{log}");

    let receiver = acme.subscribe(receiver).create().await;
    let with = |member: &str, value: Value| {
        let mut body = json!({"subscription": receiver.id, "since": LONG_AGO});
        body[member] = value;
        body
    };
    for (body, named) in [
        (asked, "subscription"),
        (with("since", json!("2999-01-01T00:00:00Z")), "since"),
        (with("until", json!("2019-01-01T00:00:00Z")), "since"),
        (with("per_second", json!(0)), "1 to 1000"),
        (with("per_second", json!(1_001)), "1 to 1000"),
        (with("events", json!(vec!["x"; 65])), "events"),
    ] {
        let answer = replay(acme, body).await;
        assert_eq!(answer.not_the_problem(422, "invalid_field"), None, "{named}");
        assert!(answer.text().contains(named), "{named}: {}", answer.text());
    }
}
