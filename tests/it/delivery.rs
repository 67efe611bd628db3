//! The path of an event from ingest to signed delivery, and retries if the receiver does not accept it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use setgate_tests::{Host, Ingest, Received, Receiver, Reply, Seed, World, event, until};

#[tokio::test]
async fn signed_set_arrives_under_every_scheme() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    acme.filter("drop-by-type").await;
    let mut subscriptions = Vec::new();
    for (scheme, ed25519) in
        [("standard", false), ("standard", true), ("hub", false), ("wso2", false), ("logto", false)]
    {
        let receiver = Receiver::start().await;
        let chain = json!([{"filter": "drop-by-type", "grants": ["config"], "config": {"drop": ["sessionPresented"]}}]);
        let subscription = acme.subscribe(&receiver).signing(scheme, ed25519).chain(chain).create().await;
        subscriptions.push((scheme, subscription, receiver));
    }

    let sent = event::set("one");
    let accepted = source.accept(sent.clone()).await;
    assert!(!accepted.duplicate, "the first copy is no duplicate");

    for (scheme, subscription, receiver) in &subscriptions {
        let received = receiver.received(1).await.remove(0);
        assert_eq!(subscription.verify(&received), Ok(()), "{scheme}: the signature holds");
        let changed = Received { body: "{}".into(), ..received.clone() };
        assert!(subscription.verify(&changed).is_err(), "{scheme}: the signature covers the body");
        assert_eq!(received.text(), sent, "{scheme}: a SET that every filter passes arrives byte for byte");
        assert_eq!(received.header("content-type"), "application/json", "{scheme}: the content type is JSON");
        let id = subscription.delivery_of(&accepted);
        assert_eq!(received.id(), id, "{scheme}: `webhook-id` is the delivery's id");

        let delivery = acme.delivery_in("delivered", &id).await;
        assert_eq!(delivery["attempt_count"], 1, "{scheme}: one attempt was enough");
        assert_eq!(delivery["attempts"][0]["outcome"]["status"], 204, "{scheme}: the answer is in the history");
        let keys = delivery["attempts"][0]["signed_with"].as_array().map(Vec::len);
        assert_eq!(keys, Some(1), "{scheme}: the key is in the history");
        assert_eq!(delivery["runs"][0]["filter"], "drop-by-type", "{scheme}: the run is in the history");
        assert_eq!(delivery["jti"], "one", "{scheme}: the event is in the history");
    }
}

#[tokio::test]
async fn rotated_key_signs_beside_the_new_one() {
    let World { acme, source, receiver, subscription, .. } = &World::start().await;

    let rotated = acme.client.post(&subscription.path("/rotate-key"), &json!({})).await.expect(200).json();
    let new = setgate_tests::signature::Trust::of("standard", rotated["signing_secret"].as_str().unwrap(), None);
    source.accept(event::set("one")).await;

    let received = receiver.received(1).await.remove(0);
    let list = received.header("webhook-signature");
    assert_eq!(list.split(' ').count(), 2, "both keys sign during the overlap: {list}");
    assert_eq!(subscription.verify(&received), Ok(()), "a receiver with the old secret still verifies");
    assert_eq!(new.verify(&received.headers, &received.body), Ok(()), "a receiver with the new secret verifies");
}

#[tokio::test]
async fn retry_has_the_same_id_and_bytes() {
    let World { acme, source, receiver, subscription, .. } = &World::with().retry(&[2, 2]).start().await;
    receiver.answer([Reply::status(500), Reply::status(503)]);

    let accepted = source.accept(event::set("one")).await;
    let received = receiver.received(3).await;

    for attempt in &received {
        assert_eq!(attempt.id(), subscription.delivery_of(&accepted), "every attempt has the delivery's id");
        assert_eq!(attempt.body, received[0].body, "every attempt sends the same bytes");
        assert_eq!(subscription.verify(attempt), Ok(()), "every attempt is signed");
    }
    // The waits are at least 1.6 s, so the timestamps in seconds differ.
    let stamps: Vec<_> = received.iter().map(|attempt| attempt.header("webhook-timestamp")).collect();
    assert!(stamps[0] < stamps[1] && stamps[1] < stamps[2], "every attempt is signed at its own time: {stamps:?}");

    let delivery = acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    let history: Vec<_> = delivery["attempts"].as_array().unwrap().iter().map(status_of).collect();
    assert_eq!(history, [(1, 500), (2, 503), (3, 204)], "the history has each attempt with its answer");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let World { acme, source, receiver, subscription, .. } = &World::with().retry(&[1]).start().await;
    receiver.answer([Reply::status(429).header("retry-after", "3")]);

    let accepted = source.accept(event::set("one")).await;
    let received = receiver.received(2).await;

    let waited = received[1].at.duration_since(received[0].at);
    assert!(waited >= Duration::from_secs(3), "`Retry-After: 3` is honoured over a schedule of 1 s: {waited:?}");
    let delivery = acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    assert_eq!(delivery["attempts"][0]["outcome"]["retry_after_s"], 3, "the history has the value of `Retry-After`");
}

#[tokio::test]
async fn status_410_pauses_the_subscription() {
    let World { acme, source, receiver, subscription, .. } = &World::start().await;
    receiver.answer([Reply::status(410)]);

    let first = source.accept(event::set("one")).await;
    let dead = acme.delivery_in("dead", &subscription.delivery_of(&first)).await;
    assert!(dead["reason"].as_str().unwrap().contains("410"), "it has a reason: {dead}");
    let paused = until("410 pauses the subscription", async || {
        let shown = subscription.show().await;
        shown["paused"].is_object().then_some(shown)
    })
    .await;
    assert!(paused["paused"]["reason"].as_str().unwrap().contains("410"), "the pause has a reason: {paused}");

    let second = source.accept(event::set("two")).await;
    acme.delivery_in("due", &subscription.delivery_of(&second)).await;
    assert_eq!(receiver.count(), 1, "nothing is sent after a 410");
    subscription.resume().await;
    acme.delivery_in("delivered", &subscription.delivery_of(&second)).await;
    assert_eq!(receiver.count(), 2, "the pending delivery arrives once after the resume");
}

#[tokio::test]
async fn redrive_has_the_same_id_and_bytes() {
    let World { acme, source, receiver, subscription, .. } = &World::with().retry(&[1]).start().await;
    receiver.answer([Reply::status(500), Reply::status(500)]);

    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    let dead = acme.delivery_in("dead", &id).await;
    assert_eq!(dead["attempt_count"], 2, "the schedule of one wait allows two attempts: {dead}");
    assert!(dead["reason"].as_str().is_some_and(|reason| reason.contains("2 attempts")), "it has a reason: {dead}");

    acme.redrive(&id, "release").await.expect(409);
    acme.redrive(&id, "again").await.expect(200);
    let delivered = acme.delivery_in("delivered", &id).await;
    assert_eq!(delivered["attempt_count"], 3, "the history continues: {delivered}");
    let received = receiver.received(3).await;
    assert!(received.iter().all(|one| one.id() == id), "a redrive has the same id");
    assert!(received.iter().all(|one| one.body == received[0].body), "a redrive sends the stored bytes");
    assert_eq!(subscription.verify(&received[2]), Ok(()), "a redrive is signed");
    acme.redrive(&id, "again").await.expect(409);
}

#[tokio::test]
async fn dead_letter_can_be_discarded() {
    let World { acme, source, receiver, subscription, .. } = &World::with().retry(&[]).start().await;
    receiver.answer([Reply::status(500)]);

    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    acme.delivery_in("dead", &id).await;
    acme.redrive(&id, "discard").await.expect(200);
    acme.delivery_in("dropped", &id).await;
    acme.redrive(&id, "again").await.expect(409);
    assert_eq!(receiver.count(), 1, "a discarded delivery is not sent");
}

#[tokio::test]
async fn late_receiver_misses_nothing() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let address = Receiver::nowhere().await;
    let subscription = acme.subscribe_url(&format!("http://{address}/in")).retry(&[1; 30]).create().await;

    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    let failed = until("an attempt fails", async || {
        let answer = acme.client.get(&acme.path(&format!("/deliveries/{id}"))).await;
        (answer.status == 200).then(|| answer.json()).filter(|delivery| delivery["attempts"][0].is_object())
    })
    .await;
    let outcome = &failed["attempts"][0]["outcome"];
    assert_eq!(outcome["class"], "connect", "the connection was refused: {outcome}");
    let receiver = Receiver::start_at(address).await;
    let received = receiver.received(1).await.remove(0);
    assert_eq!(subscription.verify(&received), Ok(()));
    acme.delivery_in("delivered", &id).await;
}

#[tokio::test]
async fn pause_loses_and_repeats_nothing() {
    let World { acme, source, receiver, subscription, .. } = &World::start().await;
    subscription.pause().await;

    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(subscription.delivery_of(&source.accept(event::set(&format!("e{number}"))).await));
    }
    for id in &ids {
        acme.delivery_in("due", id).await;
    }
    assert_eq!(receiver.count(), 0, "nothing is sent while the subscription is paused");
    subscription.resume().await;
    for id in &ids {
        acme.delivery_in("delivered", id).await;
    }
    assert_eq!(receiver.count(), 5, "each arrives once");
    assert_eq!(receiver.ids(), ids.into_iter().collect(), "and each arrives");
}

#[tokio::test]
async fn hanging_receiver_delays_no_other() {
    // The hanging attempts outlast the story, so none of them may time out.
    let Ingest { acme, source, .. } =
        &World::with().config("[egress]\nhead_ms_max = 300000\nresponse_ms_max = 300000").start_ingest().await;
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    slow.otherwise(Reply::hang());
    let to_slow = acme.subscribe(&slow).create().await;
    let to_quick = acme.subscribe(&quick).create().await;

    // More than one endpoint may have in flight.
    let mut events = Vec::new();
    for number in 0..40 {
        events.push(source.accept(event::set(&format!("e{number}"))).await);
    }
    let expected = events.iter().map(|event| to_quick.delivery_of(event)).collect();
    until("the quick receiver has received everything while the slow one hangs", async || {
        (quick.ids() == expected).then_some(())
    })
    .await;
    let delivered = acme.deliveries(&format!("state=delivered&subscription={}", to_slow.id)).await;
    assert!(delivered.is_empty(), "the slow receiver has answered nothing so far: {delivered:?}");

    slow.release();
    until("the slow receiver has received everything", async || (slow.ids().len() == 40).then_some(())).await;
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    receiver.answer([Reply::status(307).header("location", &elsewhere.url())]);
    let subscription = acme.subscribe(&receiver).retry(&[]).create().await;

    let dead = acme.delivery_in("dead", &subscription.delivery_of(&source.accept(event::set("one")).await)).await;
    assert_eq!(status_of(&dead["attempts"][0]), (1, 307), "a redirect is a failure");
    assert_eq!(elsewhere.count(), 0, "the redirect is not followed");
}

#[tokio::test]
async fn private_address_is_refused_by_default() {
    let World { acme, source, receiver, subscription, .. } =
        &World::with().env("SETGATE_EGRESS__ALLOW", "[]").retry(&[]).start().await;

    let dead = acme.delivery_in("dead", &subscription.delivery_of(&source.accept(event::set("one")).await)).await;
    assert_eq!(dead["attempts"][0]["outcome"]["class"], "forbidden", "the class of the failure is recorded: {dead}");
    assert_eq!(receiver.count(), 0, "nothing was sent");
}

#[tokio::test]
async fn patterns_and_sources_select_events() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (wso2, set) = (acme.source("wso2", Seed::Wso2).await, acme.source("ssf", Seed::Set).await);
    let (logins, caep, one_source) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let by_name = acme.subscribe(&logins).with("events", json!(["wso2/login/*"])).create().await;
    let by_uri = acme.subscribe(&caep).with("events", json!(["https://schemas.openid.net/secevent/caep/*"]));
    let by_uri = by_uri.create().await;
    let by_source = acme.subscribe(&one_source).with("sources", json!(["ssf"])).create().await;

    let login = wso2.accept(event::wso2("one")).await;
    let revoked = set.accept(event::set("two")).await;
    acme.delivery_in("delivered", &by_name.delivery_of(&login)).await;
    acme.delivery_in("delivered", &by_uri.delivery_of(&revoked)).await;
    acme.delivery_in("delivered", &by_source.delivery_of(&revoked)).await;
    // Fan-out writes all deliveries of an event at once, so no more will follow.
    let all = acme.deliveries("").await;
    assert_eq!(all.len(), 3, "nothing else matches: {all:?}");
}

fn status_of(exchange: &Value) -> (u64, u64) {
    (exchange["number"].as_u64().unwrap(), exchange["outcome"]["status"].as_u64().unwrap())
}

/// Some events get their deliveries in the same commit, others from the fan-out loop. The result must be the same, even
/// after a crash in between.
#[tokio::test]
async fn fanout_reaches_all_subscriptions() {
    let Ingest { host, acme, source } = &mut World::with().config("[data]\ninline_fanout_max = 1").start_ingest().await;
    let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    acme.subscribe(&receivers[0]).create().await;
    source.accept(event::set("with one")).await;
    receivers[0].received(1).await;
    for receiver in &receivers[1..] {
        acme.subscribe(receiver).create().await;
    }
    source.accept(event::set("with three")).await;
    for (receiver, count) in receivers.iter().zip([2, 1, 1]) {
        receiver.received(count).await;
    }
    source.accept(event::set("and a crash")).await;
    host.kill9().await;
    host.start_again().await;
    for (receiver, expected) in receivers.iter().zip([3, 2, 2]) {
        // A delivery in flight at the crash may arrive twice, with the same id.
        until("every event has arrived at every receiver", async || (receiver.ids().len() == expected).then_some(()))
            .await;
        let jtis: BTreeSet<_> = receiver.all().iter().map(|received| received.json()["jti"].to_string()).collect();
        assert_eq!(jtis.len(), expected, "no event arrived with two ids: {jtis:?}");
    }
}
