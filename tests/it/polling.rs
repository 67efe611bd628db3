//! Poll delivery of signed SETs (RFC 8936), with the numbers of the cases as in the standards' list.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Answer, Client, Host, Ingest, Source, Tenant, World, event, judges, until};

const AUDIENCE: &str = "https://rp.example/";
const ISSUER: &str = "https://edge.example/t/acme";

/// A receiver that polls.
struct Poller {
    client: Client,
    path: String,
    token: String,
    subscription: String,
}

impl Poller {
    /// Creates its subscription.
    async fn new(host: &Host, acme: &Tenant, more: &Value) -> Self {
        let mut asked = json!({"poll": {}, "format": "signed_set",
            "signed_set": {"audience": [AUDIENCE], "algorithm": "EdDSA"}});
        for (member, value) in more.as_object().unwrap() {
            asked[member] = value.clone();
        }
        let made = acme.client.post(&acme.path("/subscriptions"), &asked).await.expect(201).json();
        Self {
            client: host.stranger(),
            path: made["poll"]["path"].as_str().unwrap().to_owned(),
            token: made["poll_token"].as_str().expect("the token is shown once").to_owned(),
            subscription: made["id"].as_str().unwrap().to_owned(),
        }
    }

    async fn send(&self, body: impl Into<bytes::Bytes>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.client.send(Method::POST, &self.path, &headers, body).await
    }

    async fn poll(&self, body: &Value) -> Value {
        let answer = self.send(body.to_string()).await.expect(200).json();
        assert!(answer["sets"].is_object() && answer["moreAvailable"].is_boolean(), "{answer}");
        answer
    }

    /// Polls at once, and returns the `jti` of each SET.
    async fn fetch(&self) -> Vec<String> {
        jtis(&self.poll(&json!({"returnImmediately": true})).await)
    }

    /// Polls until there are so many SETs, which the receiver has not acknowledged.
    async fn fetched(&self, count: usize) -> Vec<String> {
        until(&format!("{count} SETs"), async || Some(self.fetch().await).filter(|sets| sets.len() == count)).await
    }

    async fn acknowledge(&self, jtis: &[String]) {
        let answer = self.poll(&json!({"maxEvents": 0, "ack": jtis})).await;
        assert_eq!(answer, json!({"sets": {}, "moreAvailable": false}));
    }
}

fn jtis(answer: &Value) -> Vec<String> {
    answer["sets"].as_object().unwrap().keys().cloned().collect()
}

async fn host_with(config: &str) -> Ingest {
    let config = format!("[server]\npublic_url = \"https://edge.example\"\n{config}");
    let ingest = World::with().config(&config).start_ingest().await;
    ingest.acme.client.post(&ingest.acme.path("/issuer-keys"), &json!({"algorithm": "EdDSA"})).await.expect(201);
    ingest
}

async fn host() -> Ingest {
    host_with("").await
}

async fn send(source: &Source, names: &[&str]) {
    for name in names {
        source.accept(event::set(name)).await;
    }
}

/// The outcome of the last attempt of a delivery.
async fn outcome(acme: &Tenant, state: &str, jti: &str) -> Value {
    acme.delivery_in(state, jti).await["attempts"].as_array().unwrap().last().unwrap()["outcome"].clone()
}

#[tokio::test]
async fn tx100_to_102_sets_are_fetched_and_acknowledged() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    send(source, &["one", "two"]).await;
    let jtis = receiver.fetched(2).await;
    let answer = receiver.poll(&json!({"returnImmediately": true})).await;
    let jwks = host.stranger().get("/t/acme/jwks.json").await.expect(200).text();
    for jti in &jtis {
        let token = answer["sets"][jti].as_str().unwrap();
        let claims = judges::claims_of_set(&jwks, token, AUDIENCE, ISSUER).await.unwrap();
        assert_eq!((&claims["jti"], &claims["iss"]), (&json!(jti), &json!(ISSUER)));
    }
    // TX101: the acknowledgement of the first comes with the next poll, TX102: that of the second alone.
    let next = receiver.poll(&json!({"returnImmediately": true, "ack": [jtis[0]]})).await;
    assert_eq!(next["sets"].as_object().unwrap().keys().collect::<Vec<_>>(), [&jtis[1]]);
    receiver.acknowledge(&jtis[1..]).await;
    for jti in &jtis {
        assert_eq!(outcome(acme, "delivered", jti).await, json!({"kind": "acknowledged"}));
        let shown = acme.delivery(jti).await;
        assert_eq!(shown["attempts"][0]["set"]["jti"], json!(jti), "{shown}");
    }
    assert!(receiver.fetch().await.is_empty());
    receiver.acknowledge(&jtis).await;
    assert_eq!(acme.delivery(&jtis[0]).await["attempt_count"], 1, "an acknowledgement that is repeated is ignored");
}

#[tokio::test]
async fn tx103_held_poll_is_answered_by_an_event() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    let begin = Instant::now();
    let (answer, ()) = tokio::join!(async { receiver.poll(&json!({})).await }, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        send(source, &["one"]).await;
    });
    assert_eq!(jtis(&answer).len(), 1);
    assert!(begin.elapsed() >= Duration::from_millis(500) && begin.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn tx104_held_poll_runs_out_with_an_empty_answer() {
    let Ingest { host, acme, .. } = &host_with("[listen]\nrequest_ms_max = 2000\n").await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    let begin = Instant::now();
    assert_eq!(receiver.poll(&json!({})).await, json!({"sets": {}, "moreAvailable": false}));
    assert!(begin.elapsed() >= Duration::from_millis(900), "it was held for half of the request's limit");
}

#[tokio::test]
async fn tx105_rejected_set_is_dead_with_the_reason_and_can_be_redriven() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    send(source, &["one"]).await;
    let jtis = receiver.fetched(1).await;
    let errors = json!({&jtis[0]: {"err": "invalid_audience", "description": "not for us"}});
    let asked = json!({"returnImmediately": true, "setErrs": errors, "ack": jtis});
    assert_eq!(receiver.poll(&asked).await["sets"], json!({}), "an error outweighs an acknowledgement");
    let dead = acme.delivery_in("dead", &jtis[0]).await;
    assert_eq!(dead["reason"], "the receiver rejected the SET: invalid_audience: not for us");
    let recorded = json!({"kind": "rejected", "err": "invalid_audience", "description": "not for us"});
    assert_eq!(dead["attempts"][0]["outcome"], recorded);
    acme.redrive(&jtis[0], "again").await.expect(200);
    assert_eq!(receiver.fetched(1).await, jtis);
    receiver.acknowledge(&jtis).await;
    assert_eq!(outcome(acme, "delivered", &jtis[0]).await, json!({"kind": "acknowledged"}));
}

#[tokio::test]
async fn tx106_unacknowledged_set_comes_again_with_the_same_bytes() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    send(source, &["one"]).await;
    receiver.fetched(1).await;
    let at_once = json!({"returnImmediately": true});
    let (first, second) = (receiver.poll(&at_once).await, receiver.poll(&at_once).await);
    assert_eq!(first, second);
    // A held poll does not get it before its lease ends.
    let held = tokio::time::timeout(Duration::from_secs(2), receiver.poll(&json!({}))).await;
    assert!(held.is_err(), "{held:?}");
}

#[tokio::test]
async fn tx107_max_events_limits_and_more_available_tells() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    send(source, &["one", "two", "three"]).await;
    let all = receiver.fetched(3).await;
    receiver.acknowledge(&all).await;
    send(source, &["four", "five", "six"]).await;
    let first = until("two SETs", async || {
        let answer = receiver.poll(&json!({"maxEvents": 2, "returnImmediately": true})).await;
        (jtis(&answer).len() == 2 && answer["moreAvailable"] == true).then_some(answer)
    })
    .await;
    let rest = receiver.poll(&json!({"maxEvents": 2, "returnImmediately": true, "ack": jtis(&first)})).await;
    assert_eq!((jtis(&rest).len(), &rest["moreAvailable"]), (1, &json!(false)));
}

#[tokio::test]
async fn tx108_malformed_polls_and_tokens_are_refused() {
    let Ingest { host, acme, .. } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    for body in [r#"{"maxEvents":"1"}"#, r#"{"ack":"x"}"#, r#"{"returnImmediately":1}"#, "[]", ";{ broken"] {
        let refused = receiver.send(body).await;
        assert_eq!(refused.not_the_problem(400, "invalid_body"), None, "{body}");
        assert!(refused.text().contains("RFC 8936"), "{}", refused.text());
    }
    let poll = async |path: &str, headers: &[(&str, &str)]| {
        receiver.client.send(Method::POST, path, headers, r#"{"returnImmediately":true}"#).await
    };
    let json = ("content-type", "application/json");
    let none = poll(&receiver.path, &[json]).await;
    assert_eq!((none.status, none.header("www-authenticate")), (401, Some(r#"Bearer realm="poll""#)));
    let in_query = format!("{}?access_token={}", receiver.path, receiver.token);
    assert_eq!(poll(&in_query, &[json]).await.status, 401, "a token in the query is ignored");
    let unknown = receiver.path.replace("/acme/", "/nobody/");
    let good = format!("Bearer {}", receiver.token);
    for (path, token) in [
        (receiver.path.as_str(), "Bearer sgp_wrong"),
        (receiver.path.as_str(), receiver.token.as_str()),
        (unknown.as_str(), good.as_str()),
        ("/t/acme/poll/sub_00000000000000000000000000", good.as_str()),
        ("/t/acme/poll/nonsense", good.as_str()),
    ] {
        let refused = poll(path, &[("authorization", token), json]).await;
        let challenge = refused.header("www-authenticate");
        assert_eq!((refused.status, challenge), (401, Some(r#"Bearer realm="poll", error="invalid_token""#)), "{path}");
    }
    let other = Poller::new(host, acme, &json!({})).await;
    let bearer = format!("Bearer {}", other.token);
    assert_eq!(poll(&receiver.path, &[("authorization", &bearer), json]).await.status, 401, "of another subscription");
}

#[tokio::test]
async fn tx109_a_later_poll_ends_the_one_that_is_held() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    let begin = Instant::now();
    let (first, second) = tokio::join!(async { receiver.poll(&json!({})).await }, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (answer, ()) = tokio::join!(async { receiver.poll(&json!({})).await }, async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            send(source, &["one"]).await;
        });
        answer
    });
    assert_eq!((jtis(&first).len(), jtis(&second).len()), (0, 1), "each SET goes to one of them");
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn tx110_restart_between_delivery_and_acknowledgement_loses_nothing() {
    let mut ingest = host().await;
    let Ingest { host, acme, source } = &mut ingest;
    let receiver = Poller::new(host, acme, &json!({})).await;
    send(source, &["one", "two"]).await;
    receiver.fetched(2).await;
    let before = receiver.poll(&json!({"returnImmediately": true})).await;
    host.kill9().await;
    host.start_again().await;
    let receiver = Poller { client: host.stranger(), ..receiver };
    let after = receiver.poll(&json!({})).await;
    assert_eq!(after["sets"], before["sets"], "leases end with the process, and the bytes are the stored ones");
    receiver.acknowledge(&jtis(&after)).await;
    assert!(receiver.fetch().await.is_empty());
}

#[tokio::test]
async fn filters_order_and_pause_apply() {
    let Ingest { host, acme, source } = &host().await;
    acme.filter("drop-by-type").await;
    let chain = json!([{"filter": "drop-by-type", "grants": ["config"], "config": {"drop": ["session-revoked"]}}]);
    let dropping = Poller::new(host, acme, &json!({"chain": chain})).await;
    let ordered = Poller::new(host, acme, &json!({"pacing": {"ordering": "subject"}})).await;
    send(source, &["one", "two"]).await;
    // The filter runs when the receiver polls.
    assert!(dropping.fetch().await.is_empty());
    until("both are dropped", async || {
        let dropped = acme.deliveries(&format!("subscription={}&state=dropped", dropping.subscription)).await;
        assert!(dropping.fetch().await.is_empty());
        (dropped.len() == 2).then_some(())
    })
    .await;
    let first = ordered.fetched(1).await;
    assert_eq!(ordered.fetch().await, first, "the second waits for the first");
    let path = acme.path(&format!("/subscriptions/{}", ordered.subscription));
    acme.client.post(&format!("{path}/pause"), &json!({})).await.expect(200);
    assert!(ordered.fetch().await.is_empty(), "nothing is offered while it is paused");
    ordered.acknowledge(&first).await;
    acme.client.post(&format!("{path}/resume"), &json!({})).await.expect(200);
    let second = ordered.fetched(1).await;
    assert_ne!(second, first);
}

#[tokio::test]
async fn token_is_rotated_with_an_overlap() {
    let Ingest { host, acme, .. } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    let path = acme.path(&format!("/subscriptions/{}", receiver.subscription));
    let rotate = async |hours: u32| {
        let rotated = acme.client.post(&format!("{path}/rotate-poll-token"), &json!({"overlap_hours": hours})).await;
        let token = rotated.expect(200).json()["poll_token"].as_str().unwrap().to_owned();
        Poller { client: host.stranger(), token, path: receiver.path.clone(), subscription: String::new() }
    };
    let second = rotate(1).await;
    assert!(receiver.fetch().await.is_empty() && second.fetch().await.is_empty(), "both are accepted");
    let third = rotate(0).await;
    assert!(third.fetch().await.is_empty());
    for old in [&receiver, &second] {
        assert_eq!(old.send("{}").await.status, 401);
    }
    let shown = acme.client.get(&path).await.expect(200);
    assert!(!shown.text().contains("sgp_"), "a token is shown once: {}", shown.text());
    let shown = shown.json();
    let put = acme.client.put(&path, &shown).await.expect(200).json();
    assert_eq!(put["poll"], shown["poll"], "a replacement keeps the tokens");
    assert!(third.fetch().await.is_empty());

    // At most four tokens are valid: a fifth one ends the oldest, whatever its overlap.
    let mut tokens = vec![third];
    for _ in 0..4 {
        assert!(tokens[0].fetch().await.is_empty());
        tokens.push(rotate(24).await);
    }
    assert_eq!(tokens[0].send("{}").await.status, 401);
    for token in &tokens[1..] {
        assert!(token.fetch().await.is_empty());
    }
}

#[tokio::test]
async fn held_poll_ends_with_its_token() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    let path = acme.path(&format!("/subscriptions/{}", receiver.subscription));
    let begin = Instant::now();
    let (refused, ()) = tokio::join!(async { receiver.send("{}").await }, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let rotated = acme.client.post(&format!("{path}/rotate-poll-token"), &json!({"overlap_hours": 0})).await;
        rotated.expect(200);
        send(source, &["one"]).await;
    });
    let challenge = refused.header("www-authenticate");
    assert_eq!((refused.status, challenge), (401, Some(r#"Bearer realm="poll", error="invalid_token""#)));
    assert!(begin.elapsed() < Duration::from_secs(15), "it ends when the token ends");
}

#[tokio::test]
async fn change_between_poll_and_push_and_removal_lose_nothing() {
    let Ingest { host, acme, source } = &host().await;
    let receiver = Poller::new(host, acme, &json!({})).await;
    send(source, &["one"]).await;
    let jtis = receiver.fetched(1).await;
    let pushed = setgate_tests::Receiver::start().await;
    let path = acme.path(&format!("/subscriptions/{}", receiver.subscription));
    let settings = json!({"audience": [AUDIENCE], "algorithm": "EdDSA"});
    let push = json!({"endpoint": {"url": pushed.url()}, "format": "signed_set", "signed_set": settings});
    acme.client.put(&path, &push).await.expect(200);
    pushed.received(1).await;
    acme.delivery_in("delivered", &jtis[0]).await;
    assert_eq!(receiver.send("{}").await.status, 401, "the receiver does not poll any more");

    let receiver = Poller::new(host, acme, &json!({})).await;
    send(source, &["two"]).await;
    let jtis = receiver.fetched(1).await;
    acme.client.delete(&acme.path(&format!("/subscriptions/{}", receiver.subscription))).await.expect(204);
    let dead = acme.delivery_in("dead", &jtis[0]).await;
    assert_eq!(dead["reason"], "its subscription was removed");
}

#[tokio::test]
async fn invalid_settings_are_refused_with_a_remedy() {
    let Ingest { acme, .. } = &host().await;
    let set = json!({"audience": [AUDIENCE], "algorithm": "EdDSA"});
    let endpoint = json!({"url": "https://receiver.example/"});
    for (asked, field) in [
        (json!({}), "endpoint"),
        (json!({"poll": {}}), "poll"),
        (json!({"poll": {}, "endpoint": endpoint, "format": "signed_set", "signed_set": set}), "poll"),
        (json!({"poll": {}, "signing": {}, "format": "signed_set", "signed_set": set}), "signing"),
    ] {
        let refused = acme.client.post(&acme.path("/subscriptions"), &asked).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{asked}");
        assert!(refused.text().contains(&format!("`{field}`")) || refused.text().contains(field), "{}", refused.text());
    }
}
