//! Rate, order and duration of deliveries to a receiver, and isolation between receivers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use setgate_tests::{Host, Ingest, Receiver, Reply, World, event, until};

#[tokio::test]
async fn dead_endpoint_delays_no_other() {
    // The dead endpoint has more deliveries than there are slots: they would all be occupied without a circuit breaker.
    let Ingest { acme, source, .. } =
        &World::with().config("[delivery]\nin_flight_max = 12\nin_flight_per_tenant_max = 12\n").start_ingest().await;
    let dead = Receiver::start().await;
    dead.otherwise(Reply::hang());
    let stuck = acme.subscribe(&dead).with("pacing", json!({"in_flight_max": 4})).create().await;
    let mut others = Vec::new();
    for _ in 0..9 {
        let receiver = Receiver::start().await;
        let subscription = acme.subscribe(&receiver).create().await;
        others.push((receiver, subscription));
    }
    let mut accepted = Vec::new();
    for n in 0..40 {
        accepted.push(source.accept(event::set(&format!("e{n}"))).await);
    }
    for (receiver, _) in &others {
        receiver.received(40).await;
    }
    // Meanwhile the dead endpoint has not answered at all.
    let waiting = acme.deliveries(&format!("subscription={}&state=due", stuck.id)).await;
    assert_eq!(waiting.len(), 40, "the dead endpoint's own wait");
    assert!(dead.count() <= 4, "it occupies its own slots only: {}", dead.count());
    dead.release();
}

#[tokio::test]
async fn open_breaker_sends_single_probes() {
    let World { host, acme, source, receiver, subscription } = &World::with()
        .config("[delivery]\nbreaker_failures_max = 3\nbreaker_open_ms_max = 1000\nin_flight_per_endpoint_max = 1\n")
        .retry(&[1; 30])
        .start()
        .await;
    receiver.otherwise(Reply::status(500));
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(subscription.delivery_of(&source.accept(event::set(&format!("e{n}"))).await));
    }
    until("the breaker opens", async || (host.metric("setgate_breakers_open", &[]).await > 0.0).then_some(())).await;
    // Three failures opened the circuit breaker. Since then single probes are sent, so most deliveries have not been
    // tried.
    receiver.received(6).await;
    let untried = acme.deliveries("state=due").await.iter().filter(|one| one["attempt_count"] == 0).count();
    assert!(untried >= 20, "{untried} of 30 wait without an attempt");
    receiver.otherwise(Reply::status(204));
    for id in &ids {
        let delivered = acme.delivery_in("delivered", id).await;
        assert!(delivered["attempt_count"].as_u64() <= Some(12), "no attempts are wasted on an outage: {delivered}");
    }
    until("the breaker closes", async || (host.metric("setgate_breakers_open", &[]).await < 1.0).then_some(())).await;
}

#[tokio::test]
async fn retry_after_holds_the_whole_endpoint() {
    let World { source, receiver, .. } =
        &World::with().config("[delivery]\nin_flight_per_endpoint_max = 1\n").start().await;
    receiver.answer([Reply::status(429).header("retry-after", "3")]);
    source.accept(event::set("one")).await;
    let first = receiver.received(1).await.remove(0).at;
    source.accept(event::set("two")).await;
    let second = receiver.received(2).await.remove(1).at;
    let waited = second.duration_since(first);
    assert!(waited >= Duration::from_secs(3), "another event waits as well: {waited:?}");
}

#[tokio::test]
async fn rate_limits_a_subscription() {
    let World { source, receiver, .. } = &World::with().subscription("pacing", json!({"per_second": 20})).start().await;
    let begin = Instant::now();
    for n in 0..41 {
        source.accept(event::set(&format!("e{n}"))).await;
    }
    receiver.received(41).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1_900), "41 deliveries at 20 a second take two seconds: {took:?}");
}

#[tokio::test]
async fn events_of_a_subject_stay_in_order() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    // The very first attempt fails: all later events about its subject have to wait for its retry.
    receiver.answer([Reply::status(500)]);
    let subscription =
        acme.subscribe(&receiver).retry(&[2, 2]).with("pacing", json!({"ordering": "subject"})).create().await;
    let first = source.accept(event::about("lock-1", "ada")).await;
    receiver.received(1).await;
    let mut sent = vec!["lock-1".to_owned()];
    for n in 1..6 {
        for what in ["unlock", "lock"] {
            let jti = format!("{what}-{n}b");
            source.accept(event::about(&jti, "ada")).await;
            sent.push(jti);
        }
        source.accept(event::about(&format!("other-{n}"), "bob")).await;
    }
    acme.delivery_in("delivered", &subscription.delivery_of(&first)).await;
    let received = receiver.received(1 + 1 + 10 + 5).await;
    let arrived: Vec<String> =
        received[1..].iter().map(|one| one.json()["jti"].as_str().unwrap_or_default().to_owned()).collect();
    let ada: Vec<&String> = arrived.iter().filter(|jti| jti.contains("lock")).collect();
    assert_eq!(ada, sent.iter().collect::<Vec<_>>(), "in the order in which they were accepted");
    // Events about other subjects did not wait.
    let place = |jti: &str| arrived.iter().position(|one| one == jti);
    assert!(place("other-1") < place("lock-1"), "another subject is not delayed: {arrived:?}");
}

#[tokio::test]
async fn held_delivery_blocks_its_subject() {
    // A config that the filter cannot read causes a fault, and a fault holds the delivery.
    let broken = json!([{"filter": "drop-by-type", "grants": ["config"], "config": {"drop": 5}}]);
    let ordered = json!({"ordering": "subject"});
    let World { acme, source, receiver, subscription, .. } =
        &World::with().filter("drop-by-type").chain(broken).subscription("pacing", ordered.clone()).start().await;
    let first = source.accept(event::about("lock", "ada")).await;
    let held = subscription.delivery_of(&first);
    acme.delivery_in("held", &held).await;
    // With the fixed config, the later delivery could be sent.
    let mended = json!({
        "endpoint": {"url": receiver.url()},
        "chain": [{"filter": "drop-by-type", "grants": ["config"], "config": {"drop": []}}],
        "pacing": ordered,
    });
    acme.client.put(&subscription.path(""), &mended).await.expect(200);
    let second = subscription.delivery_of(&source.accept(event::about("unlock", "ada")).await);
    let other = source.accept(event::about("other", "bob")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&other)).await;
    assert_eq!(acme.delivery(&second).await["state"], "due", "the unlock waits for the lock");
    acme.redrive(&held, "again").await.expect(200);
    acme.delivery_in("delivered", &second).await;
    let arrived: Vec<Value> = receiver.received(3).await.iter().map(|one| one.json()["jti"].clone()).collect();
    assert_eq!(arrived, [json!("other"), json!("lock"), json!("unlock")]);
}

#[tokio::test]
async fn failing_subscription_is_paused_with_a_notice() {
    let Ingest { host, acme, source } = &mut Ingest::start().await;
    let ears = Receiver::start().await;
    let notices = acme.subscribe(&ears).with("sources", json!(["setgate"])).create().await;
    let address = Receiver::nowhere().await;
    let failing = acme
        .subscribe_url(&format!("http://{address}/in?token=hush"))
        .retry(&[1; 30])
        .with("pacing", json!({"pause_after_s": 4}))
        .create()
        .await;
    let id = failing.delivery_of(&source.accept(event::set("one")).await);
    until("it is attempted", async || {
        let due = acme.deliveries("state=due").await;
        due.iter().any(|one| one["id"] == id.as_str() && one["attempt_count"].as_u64() >= Some(1)).then_some(())
    })
    .await;
    // The start of the failures is remembered over a restart.
    host.restart().await;
    let paused = until("it is paused", async || {
        let shown = failing.show().await;
        shown["paused"].is_object().then_some(shown)
    })
    .await;
    assert_eq!(paused["paused"]["cause"], "failing");
    let told = ears.received(1).await.remove(0);
    assert_eq!(notices.verify(&told), Ok(()), "a notice is signed like any event");
    let body = &told.json()["events"]["https://schemas.setgate.dev/events/operations/event-type/subscription-disabled"];
    assert_eq!(body["subscription"], failing.id.as_str());
    assert!(!told.text().contains("hush"), "the URL's query is not disclosed: {}", told.text());
    // It is retained, and sent once the problem is fixed.
    assert_eq!(acme.delivery(&id).await["state"], "due");
    let later = failing.delivery_of(&source.accept(event::set("two")).await);
    let receiver = Receiver::start_at(address).await;
    failing.resume().await;
    for id in [&id, &later] {
        acme.delivery_in("delivered", id).await;
    }
    receiver.received(2).await;
    assert_eq!(ears.count(), 1, "one notice only");
}

#[tokio::test]
async fn pacing_values_have_bounds() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    for (pacing, word) in [
        (json!({"per_second": 0}), "invalid_body"),
        (json!({"per_second": 100_001}), "invalid_field"),
        (json!({"in_flight_max": 0}), "invalid_body"),
        (json!({"response_ms_max": 60_001}), "invalid_field"),
        (json!({"ordering": "sometimes"}), "invalid_body"),
        (json!({"speed": 1}), "invalid_body"),
    ] {
        let answer = acme.subscribe_url("http://127.0.0.1:9/").with("pacing", pacing.clone()).ask().await;
        let status = if word == "invalid_body" { 400 } else { 422 };
        assert_eq!(answer.not_the_problem(status, word), None, "{pacing}");
    }
}

#[tokio::test]
async fn receiver_can_abort_or_disable() {
    let disable = |status| Reply::status(status).header("webhook-delivery", "Disable");
    let World { acme, source, receiver, subscription, .. } = &World::with().retry(&[1; 9]).start().await;
    receiver.answer([Reply::status(400).header("webhook-delivery", "abort"), disable(204), disable(500)]);
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    let dead = acme.delivery_in("dead", &id).await;
    assert_eq!(dead["attempt_count"], 1, "it is not tried again: {dead}");

    // Accepted, and no further deliveries are wanted.
    let id = subscription.delivery_of(&source.accept(event::set("two")).await);
    acme.delivery_in("delivered", &id).await;
    let paused = async || {
        let shown = subscription.show().await;
        (shown["paused"]["cause"] == "receiver").then_some(())
    };
    until("it is paused", paused).await;
    // Not accepted, and no further deliveries are wanted: it is retained with the others.
    subscription.resume().await;
    let id = subscription.delivery_of(&source.accept(event::set("three")).await);
    until("it is paused again", paused).await;
    assert_eq!(acme.delivery(&id).await["state"], "due");
    subscription.resume().await;
    acme.delivery_in("delivered", &id).await;
}
