//! One story per form in which events come in.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Accepted, Host, Receiver, Seed, Source, Subscription, Tenant, event, place};

/// A tenant with one source, and a receiver that takes everything as SETs.
struct Story {
    host: Host,
    acme: Tenant,
    source: Source,
    receiver: Receiver,
    subscription: Subscription,
}

impl Story {
    async fn of(seed: Seed) -> Self {
        let host = Host::start().await;
        let acme = host.tenant("acme").await;
        let source = acme.source("idp", seed).await;
        let receiver = Receiver::start().await;
        let subscription = acme.subscribe(&receiver).create().await;
        Self { host, acme, source, receiver, subscription }
    }

    /// Sends an event and gives the SET that arrives.
    async fn through(&self, body: &str) -> (Accepted, Value) {
        let accepted = self.source.accept(body.to_owned()).await;
        self.acme.delivery_in("delivered", &self.subscription.delivery_of(&accepted)).await;
        let id = self.subscription.delivery_of(&accepted);
        let received = self.receiver.all().into_iter().find(|received| received.id() == id).expect("it arrived");
        assert_eq!(self.subscription.verify(&received), Ok(()));
        let set = received.json();
        assert_eq!(not_a_set(&set), None, "what arrives is a SET: {set}");
        (accepted, set)
    }
}

/// What RFC 8417 section 2.2 asks of a SET, and what of it is missing here.
fn not_a_set(set: &Value) -> Option<String> {
    for claim in ["iss", "jti"] {
        if set[claim].as_str().is_none_or(str::is_empty) {
            return Some(format!("`{claim}` is {}", set[claim]));
        }
    }
    // Seconds: in milliseconds these would be instants after the year 5000.
    if set["iat"].as_u64().is_none_or(|iat| iat == 0 || iat > 100_000_000_000) {
        return Some(format!("`iat` is {}", set["iat"]));
    }
    let Some(events) = set["events"].as_object().filter(|events| !events.is_empty()) else {
        return Some("`events` has no member".to_owned());
    };
    let bad = events.iter().find(|(kind, body)| !kind.contains(':') || !body.is_object());
    bad.map(|(kind, _)| format!("the event `{kind}` is no URI with an object"))
}

#[tokio::test]
async fn wso2_identity_server() {
    let story = Story::of(Seed::Wso2).await;
    let (_, set) = story.through(&event::wso2("one")).await;
    assert_eq!(set["iat"], 1_751_709_144, "`iat` in milliseconds becomes seconds");
    assert_eq!(set["jti"], "one", "the product's own `jti` stays");
    assert_eq!(set["txn"], "05268edb-9a87-4656-87c0-0fb674dd03b1", "`rci` is the transaction: {set}");
    assert_eq!(set["sub_id"]["sub"], "u-17", "the user is the subject: {set}");
    let sent: Value = serde_json::from_str(&event::wso2("one")).unwrap();
    assert_eq!(set["events"], sent["events"], "the product's own body stands untouched");
}

#[tokio::test]
async fn asgardeo_through_its_hub() {
    let story = Story::of(Seed::Asgardeo).await;
    let settings = json!({"websub_topics": ["shop.example.*.event.login"]});
    let mut source = Seed::Asgardeo.settings();
    source["websub_topics"] = settings["websub_topics"].clone();
    story.acme.client.put(&story.acme.path("/sources/idp"), &source).await.expect(200);

    // The hub asks first whether the subscription is wanted (W3C WebSub section 5.3).
    let topic = "shop.example.o1.schema.wso2.v1.event.login";
    let asked = |mode: &str, topic: &str| {
        format!(
            "{}?hub.mode={mode}&hub.topic={topic}&hub.challenge=c%2B1-x&hub.lease_seconds=864000",
            story.source.path
        )
    };
    let hub = story.host.stranger();
    let answer = hub.get(&asked("subscribe", topic)).await.expect(200);
    assert_eq!(answer.text(), "c+1-x", "the challenge is the whole answer");
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "and nothing that a browser would run: {kind}");
    let other = hub.get(&asked("subscribe", "shop.example.o1.schema.wso2.v1.event.token")).await;
    assert_eq!(other.not_the_problem(404, "unexpected_verification"), None, "a topic that nobody asked for");
    let leave = hub.get(&asked("unsubscribe", topic)).await;
    assert_eq!(leave.not_the_problem(404, "unexpected_verification"), None, "nobody asked to leave");

    let (_, set) = story.through(&event::wso2("one")).await;
    assert_eq!(set["iat"], 1_751_709_144, "`iat` in milliseconds becomes seconds");
}

#[tokio::test]
async fn logto() {
    let story = Story::of(Seed::Logto).await;
    let (_, set) = story.through(&event::logto("s1")).await;
    let kind = "https://schemas.setgate.dev/events/logto/interaction/event-type/PostSignIn";
    let sent: Value = serde_json::from_str(&event::logto("s1")).unwrap();
    assert_eq!(set["events"], json!({ (kind): sent }), "the body is the value of an event type of ours");
    assert_eq!(set["iss"], "https://schemas.setgate.dev/sources/acme/idp", "the source is the issuer: {set}");
    assert_eq!(set["iat"], 1_787_314_569, "`createdAt` is when it was issued");
    assert_eq!(set["sub_id"]["sub"], "u-17", "the user is the subject: {set}");
}

#[tokio::test]
async fn the_platform_with_standard_webhooks() {
    let story = Story::of(Seed::Platform).await;
    let (_, set) = story.through(&event::platform("u-17")).await;
    let kind = "https://schemas.setgate.dev/events/platform/security/event-type/security.suspicious_login";
    let sent: Value = serde_json::from_str(&event::platform("u-17")).unwrap();
    assert_eq!(set["events"], json!({ (kind): sent }), "the body is the value of an event type of ours");
    assert_eq!(set["sub_id"]["sub"], "u-17", "the user is the subject: {set}");

    // The sender's retry: the same id, signed at another time.
    let again = story.source.accept(event::platform("u-17")).await;
    assert!(again.duplicate, "the same `webhook-id` is the same event");
}

#[tokio::test]
async fn the_platform_with_a_bearer_token() {
    let story = Story::of(Seed::PlatformBearer).await;
    let (_, set) = story.through(&event::platform("u-17")).await;
    assert_eq!(set["iat"], 1_787_314_569, "`timestamp` is when it was issued");
    let at_seconds = event::platform("u-18").replace("\"2026-08-21T12:16:09Z\"", "1787314570123");
    let (_, set) = story.through(&at_seconds).await;
    assert_eq!(set["iat"], 1_787_314_570, "a number of milliseconds is read too");
}

#[tokio::test]
async fn plain_sets() {
    let story = Story::of(Seed::Set).await;
    let sent = event::set("one");
    let (_, set) = story.through(&sent).await;
    assert_eq!(set, serde_json::from_str::<Value>(&sent).unwrap(), "a SET stays as it is");
    let received = story.receiver.received(1).await.remove(0);
    assert_eq!(received.text(), sent, "byte for byte");
}

#[tokio::test]
async fn every_sample_of_every_product_is_taken_and_becomes_a_set() {
    let Some(folder) = place::events() else {
        return place::skip("every_sample_of_every_product", "shared/events is not beside the repository");
    };
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;

    let mut sent = BTreeMap::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        // What is beside them is no event: an answer, a poll, a request to create a webhook.
        let seeds: &[Seed] = match name.split(['.', '-']).next().unwrap() {
            "wso2" if name.starts_with("wso2-is") => &[Seed::Wso2, Seed::Asgardeo],
            "logto" => &[Seed::Logto],
            "caep" | "risc" | "ssf" | "rfc8417" => &[Seed::Set],
            _ => continue,
        };
        for seed in seeds {
            // A source each: some samples of one product share a `jti`.
            let source = acme.source(&format!("s{number}-{}", format!("{seed:?}").to_lowercase()), *seed).await;
            let answer = source.send(std::fs::read(file).unwrap()).await;
            assert_eq!(answer.status, 202, "{name} as {seed:?}: {}", answer.text());
            let event = answer.json()["event"].as_str().unwrap().to_owned();
            let id = subscription.delivery_of(&Accepted { event, duplicate: false });
            sent.insert(id, (name.clone(), *seed, std::fs::read_to_string(file).unwrap()));
        }
    }
    assert!(sent.len() >= 80, "the folder has samples of every product: {}", sent.len());

    receiver.received(sent.len()).await;
    for received in receiver.all() {
        let (name, seed, body) = &sent[received.id()];
        let set = received.json();
        assert_eq!(not_a_set(&set), None, "{name} as {seed:?}: {set}");
        assert_eq!(subscription.verify(&received), Ok(()), "{name} as {seed:?}");
        let body: Value = serde_json::from_str(body).unwrap();
        let inside = if *seed == Seed::Logto { &body } else { &body["events"] };
        let arrived = if *seed == Seed::Logto {
            set["events"].as_object().unwrap().values().next().unwrap()
        } else {
            &set["events"]
        };
        assert_eq!(arrived, inside, "{name} as {seed:?}: the product's own body stands untouched");
    }
}

#[tokio::test]
async fn the_same_event_again_is_accepted_and_delivered_once() {
    let story = Story::of(Seed::Set).await;
    let (first, _) = story.through(&event::set("one")).await;
    let second = story.source.accept(event::set("one")).await;
    assert!(second.duplicate && second.event == first.event, "the answer names the first copy: {second:?}");
    let other = story.source.send(event::set("one").replace("1615304991", "1615304992")).await;
    assert_eq!(other.not_the_problem(409, "jti_conflict"), None, "another body under the same `jti`");

    // What comes later shows that nothing of the copies is on its way.
    story.through(&event::set("two")).await;
    assert_eq!(story.receiver.count(), 2, "one delivery each");
    assert_eq!(story.acme.deliveries("").await.len(), 2);
    let conflicts = story.host.metric("setgate_ingest_total", &["outcome=\"jti_conflict\""]).await;
    let duplicates = story.host.metric("setgate_ingest_total", &["outcome=\"duplicate\""]).await;
    assert_eq!((duplicates, conflicts), (1.0, 1.0), "both are counted");
    let route = r#"route="/ingest/{tenant}/{source}""#;
    for (status, answers) in [("202", 3.0), ("409", 1.0)] {
        let labels = [route, &format!("status=\"{status}\"")];
        assert_eq!(story.host.metric("setgate_http_requests_total", &labels).await, answers, "{status}");
    }
}

#[tokio::test]
async fn a_body_without_an_id_is_told_apart_by_itself() {
    let story = Story::of(Seed::Logto).await;
    let first = story.source.accept(event::logto("s1")).await;
    let again = story.source.accept(event::logto("s1")).await;
    assert!(again.duplicate && again.event == first.event, "the sender's retry: the same bytes within the window");
    let other = story.source.accept(event::logto("s2")).await;
    assert!(!other.duplicate, "other bytes are another event");
}

#[tokio::test]
async fn the_same_jti_from_two_sources_is_two_events() {
    let story = Story::of(Seed::Set).await;
    let other = story.acme.source("other", Seed::Set).await;
    let first = story.source.accept(event::set("one")).await;
    let second = other.accept(event::set("one")).await;
    assert!(!second.duplicate && second.event != first.event, "a `jti` is its source's own");
}

#[tokio::test]
async fn the_original_format_gives_back_the_products_own_bytes() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    for (name, seed, sent, scheme) in
        [("logto", Seed::Logto, event::logto("s1"), "logto"), ("wso2", Seed::Wso2, event::wso2("one"), "wso2")]
    {
        let source = acme.source(name, seed).await;
        let receiver = Receiver::start().await;
        let subscription = acme.subscribe(&receiver).with("sources", json!([name])).format("original");
        let subscription = subscription.signing(scheme, false).create().await;
        source.accept(sent.clone()).await;
        let received = receiver.received(1).await.remove(0);
        assert_eq!(received.text(), sent, "{name}: byte for byte, with the product's own `iat`");
        assert_eq!(subscription.verify(&received), Ok(()), "{name}: signed as the product signs");
    }
}

#[tokio::test]
async fn an_event_without_a_content_type_is_json() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Open).await;
    host.stranger().send(Method::POST, &source.path, &[], event::set("one")).await.expect(202);
    let charset = [("content-type", "application/json; charset=utf-8")];
    host.stranger().send(Method::POST, &source.path, &charset, event::set("two")).await.expect(202);
}

#[tokio::test]
async fn two_secrets_and_two_proofs_are_taken_while_one_replaces_the_other() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let both = json!({"proofs": [
        {"kind": "bearer", "tokens": ["the-next-token", "the-one-after"]},
        {"kind": "hmac", "header": "wso2", "secrets": ["the-next-secret", Seed::Wso2.secret()]},
    ]});
    let source = acme.source_with("idp", Seed::Wso2, &both).await;
    source.accept(event::wso2("by-the-old-secret")).await;
    let token = [("authorization", "Bearer the-one-after"), ("content-type", "application/json")];
    host.stranger().send(Method::POST, &source.path, &token, event::wso2("by-a-token")).await.expect(202);
}
