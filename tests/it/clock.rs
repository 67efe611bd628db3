//! Jumps of the system clock: a year ahead and back, an hour back. The clock is `tests/shims/clock.c`, preloaded into
//! the host; the head of `host/crates/base/src/clock.rs` describes the host's reaction.

use serde_json::json;
use setgate_tests::{Accepted, Host, Receiver, Reply, Seed, Shim, event, place, until};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 366 * 24 * HOUR_MS;

async fn host_with_clock(story: &str, config: &str) -> Option<(Host, Shim)> {
    if !cfg!(target_os = "linux") {
        place::skip(story, "the library that sets the clock is for Linux");
        return None;
    }
    let config = format!("[log]\nlevel = \"info,setgate::app=debug\"\n[data]\nretention_every_s = 1\n{config}");
    let mut host = Host::with().config(&config).prepare();
    let clock = Shim::clock(&mut host);
    host.start_again().await;
    host.take_operator_key();
    Some((host, clock))
}

/// Waits for two retention runs that start from now on.
async fn rounds_of_retention(host: &Host) {
    let from = host.logged();
    until("retention has run twice", async || {
        let log = host.log();
        let ended = log.lines().skip(from).skip_while(|line| !line.contains("retention run started"));
        (ended.filter(|line| line.contains("retention run finished")).count() >= 2).then_some(())
    })
    .await;
}

/// Checks that ids and the list are in the order in which the events were sent.
async fn assert_order(tenant: &setgate_tests::Tenant, accepted: &[Accepted]) {
    let ids: Vec<_> = accepted.iter().map(|accepted| accepted.event.clone()).collect();
    assert!(ids.is_sorted() && ids.windows(2).all(|two| two[0] != two[1]), "ids rise: {ids:?}");
    let listed = tenant.get("/events?limit=200").await;
    let listed: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, ids, "newest first");
}

/// A time some weeks or months after the host's last event, and less than a year.
async fn in_some_months(tenant: &setgate_tests::Tenant) -> String {
    let events = tenant.get("/events").await;
    let at = events["items"][0]["accepted_at"].as_str().expect("an instant");
    let year: u32 = at[..4].parse().expect("a year");
    if &at[5..7] < "06" { format!("{year}-06-15T00:00:00Z") } else { format!("{}-03-15T00:00:00Z", year + 1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jump_of_a_year_and_back_changes_nothing() {
    let Some((host, clock)) = host_with_clock("a year ahead", "retention_s = 86400").await else { return };
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let (receiver, refuses) = (Receiver::start().await, Receiver::start().await);
    refuses.otherwise(Reply::status(500));
    let subscription = acme.subscribe(&receiver).create().await;
    let dead = acme.subscribe(&refuses).retry(&[]).create().await;
    let mut accepted = vec![source.accept(event::set("before")).await];
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted[0])).await;
    acme.delivery_in("dead", &dead.delivery_of(&accepted[0])).await;
    let key = acme
        .client
        .post(&acme.path("/keys"), &json!({"expires_at": in_some_months(&acme).await}))
        .await
        .expect(201)
        .json();
    let key = acme.client.with_key(key["key"].as_str().unwrap());

    for (jump, name) in [(YEAR_MS, "ahead"), (0, "and back"), (-HOUR_MS, "an hour back"), (0, "and ahead")] {
        let from = host.logged();
        clock.tell(&jump.to_string());
        until("the jump is logged", async || {
            host.last_logged(from, &["the system clock jumped", "the system clock agrees"])
        })
        .await;
        let new = source.accept(event::set(name)).await;
        acme.delivery_in("delivered", &subscription.delivery_of(&new)).await;
        acme.delivery_in("dead", &dead.delivery_of(&new)).await;
        accepted.push(new);
        rounds_of_retention(&host).await;
        assert!(source.accept(event::set("before")).await.duplicate, "{name}: a second copy is a duplicate");
        key.get(&acme.path("/events")).await.expect(200);
        assert_eq!(acme.delivery(&dead.delivery_of(&accepted[0])).await["state"], "dead", "{name}");
        assert_eq!(acme.delivery(&subscription.delivery_of(&accepted[0])).await["state"], "delivered", "{name}");
    }
    assert_order(&acme, &accepted).await;
    assert_eq!(receiver.ids().len(), receiver.count(), "each of them once");
    let jumps = host.log().lines().filter(|line| line.contains("the system clock jumped")).count();
    assert_eq!(jumps, 2, "once for each");
    assert_eq!(host.metric("setgate_clock_jumps_total", &["direction=\"ahead\""]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lasting_jump_is_followed_and_wipes_nothing() {
    let config = "retention_s = 86400\nclock_settle_s = 2";
    let Some((mut host, clock)) = host_with_clock("a year ahead, for good", config).await else { return };
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let refuses = Receiver::start().await;
    refuses.otherwise(Reply::status(500));
    let dead = acme.subscribe(&refuses).retry(&[]).create().await;
    let old = source.accept(event::set("old")).await;
    acme.delivery_in("dead", &dead.delivery_of(&old)).await;
    rounds_of_retention(&host).await;

    let from = host.logged();
    clock.tell(&YEAR_MS.to_string());
    until("the host follows", async || host.last_logged(from, &["kept its new offset"])).await;
    until("retention sees it", async || host.last_logged(from, &["the host was down or its clock jumped"])).await;
    rounds_of_retention(&host).await;
    assert_eq!(acme.delivery(&dead.delivery_of(&old)).await["state"], "dead", "its retention time has not passed");
    let new = source.accept(event::set("new")).await;
    assert!(new.event > old.event);
    acme.delivery_in("dead", &dead.delivery_of(&new)).await;

    // Nor at the next start, nor at a start with the right time.
    for shift in [YEAR_MS, 0] {
        clock.tell(&shift.to_string());
        host.restart().await;
        rounds_of_retention(&host).await;
        for event in [&old, &new] {
            assert_eq!(acme.delivery(&dead.delivery_of(event)).await["state"], "dead", "{shift}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jump_back_delays_no_retry_and_keeps_the_order() {
    let Some((mut host, clock)) = host_with_clock("an hour back", "").await else { return };
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).retry(&[2, 2, 2, 2]).create().await;
    let mut accepted = Vec::new();
    for n in 0..3 {
        accepted.push(source.accept(event::set(&format!("before-{n}"))).await);
        acme.delivery_in("delivered", &subscription.delivery_of(&accepted[n])).await;
    }
    receiver.answer([Reply::status(500)]);
    accepted.push(source.accept(event::set("retried")).await);
    receiver.received(4).await;
    clock.tell(&(-HOUR_MS).to_string());
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted[3])).await;
    accepted.push(source.accept(event::set("after")).await);
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted[4])).await;

    // A restart does not change that: the host's time continues from the newest stored timestamp.
    receiver.answer([Reply::status(500)]);
    accepted.push(source.accept(event::set("retried over a start")).await);
    receiver.received(7).await;
    host.restart().await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted[5])).await;
    accepted.push(source.accept(event::set("after the start")).await);
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted[6])).await;
    assert_order(&acme, &accepted).await;
    assert!(source.accept(event::set("before-0")).await.duplicate);
}
