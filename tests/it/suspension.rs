//! A filter that keeps faulting is suspended with a reason; its events are retained and rerun after a manual decision.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Host, Receiver, Seed, Source, Subscription, Tenant, event, until};

/// Number of faults that suspend a version in these stories.
const FAULTS_MAX: usize = 3;

/// A tenant whose filter `gate` is `redact-claims`, which fails on every event as long as it has no salt.
struct Story {
    host: Host,
    acme: Tenant,
    source: Source,
    receiver: Receiver,
    subscription: Subscription,
}

impl Story {
    async fn of(on_fault: &str) -> Self {
        let host = Host::start().await;
        let acme = host.tenant_with("acme", json!({"quota": {"filter_faults_max": FAULTS_MAX}})).await;
        let source = acme.source("idp", Seed::Set).await;
        acme.upload("gate", setgate_tests::place::filter("redact-claims")).await.expect(201);
        let receiver = Receiver::start().await;
        let chain = json!([{"filter": "gate", "grants": ["config"], "on_fault": on_fault}]);
        let subscription = acme.subscribe(&receiver).chain(chain).create().await;
        Self { host, acme, source, receiver, subscription }
    }

    /// Sends events one after another, and returns each delivery once it is in a state.
    async fn send(&self, events: std::ops::Range<usize>, state: &str) -> Vec<Value> {
        let mut deliveries = Vec::new();
        for number in events {
            let accepted = self.source.accept(event::set(&format!("e{number}"))).await;
            deliveries.push(self.acme.delivery_in(state, &self.subscription.delivery_of(&accepted)).await);
        }
        deliveries
    }

    async fn gate(&self) -> Value {
        self.acme.get("/filters/gate").await
    }

    /// Adds the salt to the binding.
    async fn mend(&self) {
        let mut subscription = self.subscription.show().await;
        let chain =
            json!([{"filter": "gate", "grants": ["config"], "on_fault": "hold", "secrets": {"salt": "pepper"}}]);
        let endpoint = json!({"url": subscription["endpoint"]["url"].take()});
        let body = json!({"endpoint": endpoint, "chain": chain}).to_string();
        let headers = [("content-type", "application/json")];
        self.acme.client.send(Method::PUT, &self.subscription.path(""), &headers, body).await.expect(200);
    }
}

fn id(delivery: &Value) -> &str {
    delivery["id"].as_str().expect("a delivery's id")
}

#[tokio::test]
async fn fail_hold_retains_and_resume_delivers() {
    let mut story = Story::of("hold").await;
    let mut held = story.send(0..FAULTS_MAX, "held").await;
    assert!(
        held.iter().all(|delivery| delivery["runs"][0]["fault"]["kind"] == "permanent"),
        "each was tried: {held:?}"
    );
    let gate = story.gate().await;
    assert_eq!(gate["suspended"]["faults"], FAULTS_MAX, "the suspension is shown: {gate}");
    assert!(gate["suspended"]["reason"].as_str().unwrap().contains("salt"), "with the last fault: {gate}");
    assert_eq!(
        story.host.metric("setgate_filter_suspensions_total", &["tenant=\"acme\"", "filter=\"gate\""]).await,
        1.0
    );

    let later = story.send(FAULTS_MAX..FAULTS_MAX + 2, "held").await;
    for delivery in &later {
        let run = &delivery["runs"][0];
        assert_eq!((&run["fault"]["kind"], &run["fuel"]), (&json!("suspended"), &json!(0)), "not called: {delivery}");
        assert!(delivery["reason"].as_str().unwrap().contains("suspended"), "{delivery}");
    }
    held.extend(later);

    story.mend().await;
    let resume = story.acme.path("/filters/gate/resume");
    let shown = story.acme.client.post(&resume, &json!({})).await.expect(200).json();
    assert_eq!(shown["suspended"], Value::Null, "{shown}");
    // The decision to rerun is durable, even if the host is killed.
    story.host.kill9().await;
    story.host.start_again().await;
    for delivery in &held {
        let ran = until("it is delivered", async || {
            let delivery = story.acme.delivery(id(delivery)).await;
            (delivery["state"] == "delivered").then_some(delivery)
        })
        .await;
        assert_eq!(ran["runs"][0]["verdict"], "patch", "the chain as it is now ran: {ran}");
    }
    let received = story.receiver.received(held.len()).await;
    assert!(received.iter().all(|one| one.text().contains("hmac:")), "the delivered event is redacted");
    until("the filter has released everything", async || (story.gate().await["releasing"] == false).then_some(()))
        .await;
    let refused = story.acme.client.post(&resume, &json!({})).await;
    assert_eq!(refused.not_the_problem(409, "conflict"), None, "there is nothing to resume any more");
}

#[tokio::test]
async fn new_version_takes_over_held_deliveries() {
    let story = Story::of("hold").await;
    let held = story.send(0..FAULTS_MAX + 1, "held").await;
    // Due with the suspended version, and not processed before the other one is active.
    story.subscription.pause().await;
    let accepted = story.source.accept(event::set("waits")).await;
    let waits = story.acme.delivery_in("due", &story.subscription.delivery_of(&accepted)).await;
    let good = setgate_tests::place::filter("drop-by-type");
    let shown = story.acme.upload("gate", good).await.expect(201).json();
    assert_eq!(shown["suspended"], Value::Null, "the active version is another one: {shown}");
    story.subscription.resume().await;
    for delivery in held.iter().chain([&waits]) {
        let ran = until("it is delivered", async || {
            let delivery = story.acme.delivery(id(delivery)).await;
            (delivery["state"] == "delivered").then_some(delivery)
        })
        .await;
        assert_eq!(ran["runs"][0]["digest"], shown["active"], "by the other version: {ran}");
    }
    assert_eq!(story.receiver.received(held.len() + 1).await.len(), held.len() + 1, "each once");
    let versions = shown["versions"].as_array().unwrap();
    assert!(versions[0]["suspended"].is_object() && versions[1]["suspended"].is_null(), "it is still shown: {shown}");
}

#[tokio::test]
async fn fail_open_continues_and_fail_drop_holds() {
    let open = Story::of("open").await;
    open.send(0..FAULTS_MAX, "delivered").await;
    let after = open.send(FAULTS_MAX..FAULTS_MAX + 1, "delivered").await;
    assert_eq!(after[0]["runs"][0]["fault"]["kind"], "suspended", "delivery continues without the filter: {after:?}");

    let drop = Story::of("drop").await;
    drop.send(0..FAULTS_MAX, "dropped").await;
    let after = drop.send(FAULTS_MAX..FAULTS_MAX + 1, "held").await;
    assert_eq!(after[0]["runs"][0]["fault"]["kind"], "suspended", "the event has not been filtered: {after:?}");
    assert_eq!(drop.receiver.count(), 0, "nothing leaks");
}

#[tokio::test]
async fn quota_of_zero_never_suspends() {
    let host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"filter_faults_max": 0}})).await;
    let source = acme.source("idp", Seed::Set).await;
    acme.upload("gate", setgate_tests::place::filter("redact-claims")).await.expect(201);
    let receiver = Receiver::start().await;
    let subscription =
        acme.subscribe(&receiver).chain(json!([{"filter": "gate", "grants": ["config"]}])).create().await;
    let mut last = Value::Null;
    for number in 0..60 {
        let accepted = source.accept(event::set(&format!("e{number}"))).await;
        last = acme.delivery_in("held", &subscription.delivery_of(&accepted)).await;
    }
    assert_eq!(last["runs"][0]["fault"]["kind"], "permanent", "{last}");
}
