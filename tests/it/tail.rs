//! Looking on: settlements as they come, over Server-Sent Events.

use std::collections::BTreeSet;

use serde_json::json;
use setgate_tests::{Host, Receiver, Reply, Seed, Tail, event, until};

#[tokio::test]
async fn a_tail_shows_what_happens_and_goes_on_where_it_was_cut_off() {
    // A stream outlives what a request may take as a whole.
    let mut host = Host::with().config("[listen]\nrequest_ms_max = 500").start().await;
    let (acme, other) = (host.tenant("acme").await, host.tenant("other").await);
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    receiver.answer([Reply::status(503)]);
    let subscription = acme.subscribe(&receiver).retry(&[1]).create().await;
    let mut tail = Tail::open(&acme, "", None).await;
    let begin = tail.last_id.clone();

    let first = source.accept(event::set("one")).await;
    let failed = tail.settlement().await;
    assert_eq!((&failed["state"], &failed["attempt"]["outcome"]["status"]), (&json!("due"), &json!(503)), "{failed}");
    assert_eq!(failed["delivery"], subscription.delivery_of(&first), "{failed}");
    assert_eq!((&failed["event"], &failed["subscription"]), (&json!(first.event), &json!(subscription.id)), "{failed}");
    assert_eq!((&failed["types"], &failed["source"]), (&json!([event::SET_TYPE]), &json!("idp")), "{failed}");
    // A second later, and so after the request's time.
    let delivered = tail.settlement().await;
    assert_eq!((&delivered["state"], &delivered["attempt"]["number"]), (&json!("delivered"), &json!(2)), "{delivered}");

    // Cut off: what happens meanwhile is not missed, also over a kill.
    let seen = tail.last_id.clone();
    drop(tail);
    let mut expected = BTreeSet::new();
    for number in 0..30 {
        let accepted = source.accept(event::set(&format!("e{number}"))).await;
        expected.insert(subscription.delivery_of(&accepted));
    }
    for id in &expected {
        acme.delivery_in("delivered", id).await;
    }
    host.kill9().await;
    host.start_again().await;
    let mut resumed = Tail::open(&acme, "", Some(&seen)).await;
    let mut settled = Vec::new();
    for _ in 0..expected.len() {
        let settlement = resumed.settlement().await;
        assert_eq!(settlement["state"], "delivered", "{settlement}");
        settled.push(settlement["delivery"].as_str().unwrap().to_owned());
    }
    assert_eq!(settled.iter().cloned().collect::<BTreeSet<_>>(), expected, "each of them once");

    // The query's cursor is the same; the header goes before it.
    let mut by_query = Tail::open(&acme, &format!("?cursor={seen}&subscription={}", subscription.id), None).await;
    assert_eq!(by_query.settlement().await["delivery"], settled[0].as_str());
    let mut dead = Tail::open(&acme, &format!("?cursor={seen}&state=dead"), None).await;
    let mut newest = Tail::open(&acme, &format!("?cursor={seen}"), Some(&resumed.last_id)).await;
    let last = source.accept(event::set("last")).await;
    assert_eq!(newest.settlement().await["delivery"], subscription.delivery_of(&last), "nothing of before comes");
    receiver.otherwise(Reply::status(410));
    let gone = source.accept(event::set("gone")).await;
    assert_eq!(dead.settlement().await["delivery"], subscription.delivery_of(&gone), "only what was asked for");

    // A place of one tenant is none of another's, which has only its own.
    let path = other.path("/deliveries/tail");
    let foreign = other.client.send(http::Method::GET, &path, &[("last-event-id", &begin)], "").await;
    assert_eq!(foreign.not_the_problem(400, "bad_cursor"), None);
    let theirs = other.source("idp", Seed::Set).await;
    let own = other.subscribe(&Receiver::start().await).retry(&[]).create().await;
    let mut tail = Tail::open(&other, "", None).await;
    let accepted = theirs.accept(event::set("theirs")).await;
    assert_eq!(tail.settlement().await["delivery"], own.delivery_of(&accepted), "nothing of others comes before");

    // A host that stops says so, and does not wait for those who look on.
    assert!(host.terminate().await.success(), "{}", host.log());
    let mut end = None;
    while let Some(event) = resumed.next().await {
        end = Some(event);
    }
    let end = end.expect("a last event");
    assert_eq!(end.kind, "end", "{end:?}");
    assert!(end.data["reason"].as_str().unwrap().contains("stopping"), "{end:?}");
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    // More than the stream holds at a time.
    const EVENTS: usize = 350;
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    acme.subscribe(&receiver).create().await;
    let mut tail = Tail::open(&acme, "", None).await;
    for number in 0..EVENTS {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    until("all are delivered, and nobody has looked", async || {
        (acme.get("/statistics").await["deliveries"]["delivered"] == EVENTS).then_some(())
    })
    .await;
    let mut seen = BTreeSet::new();
    for _ in 0..EVENTS {
        seen.insert(tail.settlement().await["delivery"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, receiver.ids(), "each of them once");
}

#[tokio::test]
async fn a_reader_that_comes_too_late_is_told() {
    let config = "[history]\ntail_retention_s = 1\n[data]\nretention_every_s = 1";
    let host = Host::with().config(config).start().await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let before = Tail::open(&acme, "", None).await.last_id;
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    let missed = until("the log has forgotten it", async || {
        let mut late = Tail::open(&acme, "", Some(&before)).await;
        let event = late.next().await.expect("it is open");
        (event.kind == "missed").then_some(event)
    })
    .await;
    assert!(missed.data["reason"].as_str().unwrap().contains("/deliveries"), "it says where else to look: {missed:?}");
}

#[tokio::test]
async fn only_so_many_tails_are_open_and_a_key_that_is_gone_opens_none() {
    let host = Host::with().config("[history]\ntails_max = 3\ntails_per_tenant_max = 2").start().await;
    let (acme, other) = (host.tenant("acme").await, host.tenant("other").await);
    let open = [Tail::open(&acme, "", None).await, Tail::open(&acme, "", None).await];
    let third = acme.client.get(&acme.path("/deliveries/tail")).await;
    assert_eq!(third.not_the_problem(429, "busy"), None, "two of a tenant");
    assert!(third.text().contains("tails_per_tenant_max"), "{}", third.text());
    let theirs = Tail::open(&other, "", None).await;
    let fourth = other.client.get(&other.path("/deliveries/tail")).await;
    assert!(fourth.text().contains("history.tails_max"), "three of the host: {}", fourth.text());
    drop((open, theirs));
    until("a place is free again", async || {
        let response = acme.client.open(&acme.path("/deliveries/tail"), &[]).await;
        (response.status() == 200).then_some(())
    })
    .await;

    for cursor in ["x", "00000000000000ff00000000", "0"] {
        let answer = acme.client.get(&acme.path(&format!("/deliveries/tail?cursor={cursor}"))).await;
        assert_eq!(answer.not_the_problem(400, "bad_cursor"), None, "{cursor}");
    }
    let foreign = other.client.get(&acme.path("/deliveries/tail")).await;
    assert_eq!(foreign.not_the_problem(403, "forbidden"), None);
    let nobody = host.stranger().get(&acme.path("/deliveries/tail")).await;
    assert_eq!(nobody.not_the_problem(401, "bad_key"), None);
}
