//! Looking back: what deliveries came to, and what can be asked of them.

use serde_json::{Value, json};
use setgate_tests::{Host, Receiver, Reply, Seed, event, until};

#[tokio::test]
async fn statistics_add_up() {
    let mut host = Host::start().await;
    let (acme, other) = (host.tenant("acme").await, host.tenant("other").await);
    let source = acme.source("idp", Seed::Set).await;
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.otherwise(Reply::status(503));
    let to_good = acme.subscribe(&good).create().await;
    let to_bad = acme.subscribe(&bad).retry(&[1]).create().await;
    let nowhere = acme.subscribe_url(&format!("http://{}/in", Receiver::nowhere().await)).retry(&[]).create().await;
    for number in 0..10 {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    let of_bad = until("all that can be settled is", async || {
        let all = acme.get("/statistics?window=1h").await;
        let rests = &all["deliveries"];
        let done = rests["delivered"] == 10 && rests["dead"] == 20;
        if done { Some(acme.get(&format!("/subscriptions/{}/statistics?window=1h", to_bad.id)).await) } else { None }
    })
    .await;
    assert_eq!(of_bad["attempts"]["count"], 20, "two attempts each: {of_bad}");
    assert_eq!(of_bad["attempts"]["failures"], json!({"5xx": 20}), "{of_bad}");
    assert_eq!(of_bad["attempts"]["success_rate"], 0.0, "{of_bad}");
    assert_eq!(of_bad["now"]["dead"], 10, "{of_bad}");
    assert!(of_bad["accepted_to_delivered_ms"].is_null(), "nothing was delivered: {of_bad}");

    let statistics = async |path: &str| acme.get(path).await;
    let of_nowhere = statistics(&format!("/subscriptions/{}/statistics", nowhere.id)).await;
    assert_eq!(of_nowhere["attempts"]["failures"], json!({"connect": 10}), "{of_nowhere}");
    assert_eq!(of_nowhere["window"], "24h", "a day where nothing is said: {of_nowhere}");

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
    for sum in &sums {
        assert_eq!(sum["attempts"]["count"], 40, "the tenant's are those of its subscriptions: {sum}");
        assert_eq!(sum["attempts"]["failures"], json!({"5xx": 20, "connect": 10}), "{sum}");
        assert_eq!(sum["deliveries"], json!({"delivered": 10, "dropped": 0, "held": 0, "dead": 20}), "{sum}");
        assert_eq!(sum["now"], json!({"due": 0, "held": 0, "dead": 20, "oldest_due": null}), "{sum}");
    }
    let theirs = other.get("/statistics").await;
    assert_eq!((&theirs["attempts"]["count"], &theirs["now"]["dead"]), (&json!(0), &json!(0)), "{theirs}");
    let theirs = other.client.get(&other.path(&format!("/subscriptions/{}/statistics", to_bad.id))).await;
    assert_eq!(theirs.not_the_problem(404, "not_found"), None, "a stranger's subscription is none");
    let wrong = acme.client.get(&acme.path("/statistics?window=2h")).await;
    assert_eq!(wrong.not_the_problem(400, "invalid_query"), None);
}

#[tokio::test]
async fn what_waits_is_in_sight() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    subscription.pause().await;
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("due", &subscription.delivery_of(&accepted)).await;
    let shown = acme.get(&format!("/subscriptions/{}/statistics", subscription.id)).await;
    assert_eq!(shown["now"]["due"], 1, "{shown}");
    let oldest: &Value = &shown["now"]["oldest_due"];
    assert!(oldest.as_str().is_some_and(|at| at <= shown["until"].as_str().unwrap()), "since when it waits: {shown}");
}
