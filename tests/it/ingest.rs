//! One story for each form of events.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Accepted, Host, Ingest, LateBody, Receiver, Seed, World, assert_document, event, place};

/// Sends an event and returns the SET that arrives.
async fn through(world: &World, body: &str) -> (Accepted, Value) {
    let accepted = world.source.accept(body.to_owned()).await;
    let id = world.subscription.delivery_of(&accepted);
    world.acme.delivery_in("delivered", &id).await;
    let received = world.receiver.all().into_iter().find(|received| received.id() == id).expect("it arrived");
    assert_eq!(world.subscription.verify(&received), Ok(()));
    let set = received.json();
    assert_eq!(not_a_set(&set), None, "it is a SET: {set}");
    (accepted, set)
}

/// The first requirement of RFC 8417 section 2.2 that a SET violates. `None` if it is valid.
fn not_a_set(set: &Value) -> Option<String> {
    for claim in ["iss", "jti"] {
        if set[claim].as_str().is_none_or(str::is_empty) {
            return Some(format!("`{claim}` is {}", set[claim]));
        }
    }
    // In seconds: in milliseconds these would be times after the year 5000.
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
    let world = World::with().source("idp", Seed::Wso2).start().await;
    let (_, set) = through(&world, &event::wso2("one")).await;
    let sent: Value = serde_json::from_str(&event::wso2("one")).unwrap();
    // `iat` in milliseconds becomes seconds, `rci` is the transaction, and the user is the subject.
    let expected = json!({
        "iss": sent["iss"], "jti": "one", "iat": 1_751_709_144, "rci": sent["rci"], "txn": sent["rci"],
        "sub_id": {"format": "iss_sub", "iss": sent["iss"], "sub": "u-17"},
        "events": sent["events"],
    });
    assert_document(&set, &expected);
}

#[tokio::test]
async fn asgardeo_hub() {
    let world = World::with().source("idp", Seed::Asgardeo).start().await;
    let settings = json!({"websub_topics": ["shop.example.*.event.login"]});
    let mut source = Seed::Asgardeo.settings();
    source["websub_topics"] = settings["websub_topics"].clone();
    world.acme.client.put(&world.acme.path("/sources/idp"), &source).await.expect(200);

    // The hub first verifies the intent of the subscriber (W3C WebSub section 5.3).
    let topic = "shop.example.o1.schema.wso2.v1.event.login";
    let asked = |mode: &str, topic: &str| {
        format!(
            "{}?hub.mode={mode}&hub.topic={topic}&hub.challenge=c%2B1-x&hub.lease_seconds=864000",
            world.source.path
        )
    };
    let hub = world.host.stranger();
    let answer = hub.get(&asked("subscribe", topic)).await.expect(200);
    assert_eq!(answer.text(), "c+1-x", "the challenge is the whole answer");
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "and nothing that a browser would run: {kind}");
    let other = hub.get(&asked("subscribe", "shop.example.o1.schema.wso2.v1.event.token")).await;
    assert_eq!(other.not_the_problem(404, "unexpected_verification"), None, "a topic that is not configured");
    let leave = hub.get(&asked("unsubscribe", topic)).await;
    assert_eq!(leave.not_the_problem(404, "unexpected_verification"), None, "the host did not request to unsubscribe");

    let (_, set) = through(&world, &event::wso2("one")).await;
    assert_eq!(set["iat"], 1_751_709_144, "`iat` in milliseconds becomes seconds");
}

#[tokio::test]
async fn hub_can_end_an_unlisted_subscription() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let mut listed = Seed::Asgardeo.settings();
    listed["websub_topics"] = json!(["wanted"]);
    acme.client.put(&acme.path("/sources/hub"), &listed).await.expect(201);
    acme.client.put(&acme.path("/sources/gone"), &listed).await.expect(201);
    acme.client.delete(&acme.path("/sources/gone")).await.expect(204);
    let hub = host.stranger();
    let ask = async |place: &str, mode: &str, topic: &str, challenge: &str| {
        hub.get(&format!("/ingest/{place}?hub.mode={mode}&hub.topic={topic}&hub.challenge={challenge}&more=1")).await
    };
    for (place, topic) in [
        ("acme/hub", "dropped"),
        ("acme/gone", "wanted"),
        ("acme/never", "wanted"),
        ("nobody/hub", "wanted"),
        ("No_Name/hub", "wanted"),
        ("acme/hub/", "dropped"),
    ] {
        let answer = ask(place, "unsubscribe", topic, "%3Cb%3Ec").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "<b>c"), "{place}, {topic}");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{place}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{place}");
        let answer = hub.get(&format!("/ingest/{place}?hub.mode=denied&hub.topic={topic}&hub.reason=x")).await;
        assert_eq!(answer.status, 200, "{place}: a denial is taken note of");
    }
    let (long, longest) = ("c".repeat(1025), "c".repeat(1024));
    for (place, mode, topic, challenge) in [
        ("acme/hub", "unsubscribe", "wanted", "c"),
        ("acme/hub", "subscribe", "dropped", "c"),
        ("acme/gone", "subscribe", "wanted", "c"),
        ("acme/hub", "unsubscribe", "dropped", long.as_str()),
        ("acme/hub", "subscribe", "wanted", long.as_str()),
        ("nobody/hub", "unsubscribe", "wanted", long.as_str()),
        ("nobody/hub", "unsubscribe", "wanted", ""),
        ("nobody/hub", "unsubscribe", "", "c"),
        ("nobody/hub", "renew", "wanted", "c"),
    ] {
        let answer = ask(place, mode, topic, challenge).await;
        assert_eq!(answer.not_the_problem(404, "unexpected_verification"), None, "{place}, {mode}, {topic}");
    }
    assert_eq!(ask("acme/hub", "subscribe", "wanted", &longest).await.text(), longest);
}

#[tokio::test]
async fn trailing_slash_is_accepted() {
    let world = World::with().source("idp", Seed::Wso2).start().await;
    let sent = event::wso2("one");
    let proof = Seed::Wso2.proof(sent.as_bytes());
    let headers: Vec<_> = proof.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let slashed = format!("{}/", world.source.path);
    let answer = world.host.stranger().send(Method::POST, &slashed, &headers, sent.clone()).await.expect(202).json();
    let again = world.source.accept(sent).await;
    assert_eq!((answer["event"].as_str(), again.duplicate), (Some(again.event.as_str()), true), "the same source");
    let unproven = world.host.stranger().send(Method::POST, &slashed, &[], "{}").await;
    assert_eq!(unproven.not_the_problem(401, "bad_signature"), None);
    for (method, path) in [(Method::PUT, slashed.as_str()), (Method::DELETE, "/ingest/acme/idp/")] {
        let answer = world.host.stranger().send(method, path, &[], "").await;
        assert_eq!(answer.not_the_problem(405, "no_method"), None);
    }
    for path in ["/ingest/acme/idp//", "/ingest//acme/idp", "/ingest/acme/idp/x", "/ingest/acme/"] {
        let answer = world.host.stranger().send(Method::POST, path, &[], "{}").await;
        assert_eq!(answer.not_the_problem(404, "no_route"), None, "{path}");
    }
    let route = [r#"route="/ingest/{tenant}/{source}""#, "status=\"202\""];
    assert_eq!(world.host.metric("setgate_http_requests_total", &route).await, 2.0, "one route in the metrics");
}

#[tokio::test]
async fn logto() {
    let world = World::with().source("idp", Seed::Logto).start().await;
    let (_, set) = through(&world, &event::logto("s1")).await;
    let kind = "https://schemas.setgate.dev/events/logto/interaction/event-type/PostSignIn";
    let sent: Value = serde_json::from_str(&event::logto("s1")).unwrap();
    // The source is the issuer, `createdAt` the time of issue, and the user the subject. The id is a hash of the body.
    let iss = "https://schemas.setgate.dev/sources/acme/idp";
    let expected = json!({
        "iss": iss, "jti": "b-b5e5999fe654c1b6e058a7a3beabe8c8", "iat": 1_787_314_569,
        "sub_id": {"format": "iss_sub", "iss": iss, "sub": "u-17"},
        "events": { (kind): sent },
    });
    assert_document(&set, &expected);
}

#[tokio::test]
async fn user_data_never_sets_the_subject() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (logto, wso2) = (acme.source("logto", Seed::Logto).await, acme.source("wso2", Seed::Wso2).await);
    let platform = acme.source("platform", Seed::PlatformBearer).await;
    // Custom data is an object chosen by the user, with arbitrary members.
    let written = json!({"id": "u-victim", "userId": "u-victim", "sub": "u-victim", "user": {"id": "u-victim"}});
    let hook = |event: &str, route: &str, params: Value, data: &Value| {
        json!({"event": event, "createdAt": "2026-08-21T12:16:09.000Z", "path": route.replace(":userId", "u-17"), "method": "PATCH",
            "status": 200, "params": params, "matchedRoute": route, "data": data, "hookId": "h"})
    };
    let user = json!({"userId": "u-17"});
    let profile = json!({"type": "user.profile_updated", "timestamp": "2026-08-21T12:16:09Z",
        "data": {"user_id": "u-17", "id": "u-victim", "email": "u-victim", "metadata": written}});
    let renamed = json!({"type": "user.email_changed", "timestamp": "2026-08-21T12:16:09Z",
        "data": {"email": "victim@example.com", "profile": written}});
    // The name in a failed registration may belong to another user, which may be the reason for the failure.
    let refused =
        event::wso2("taken").replace("login/event-type/loginFailed", "registration/event-type/registrationFailed");
    let refused = refused.replace(r#""id":"u-17","#, "");
    assert!(refused.contains("registrationFailed") && !refused.contains("u-17"), "{refused}");
    for (what, source, body, expected) in [
        (
            "custom data",
            &logto,
            hook("User.Data.Updated", "/users/:userId/custom-data", user.clone(), &written),
            json!("u-17"),
        ),
        (
            "a profile",
            &logto,
            hook("User.Data.Updated", "/users/:userId/profile", user.clone(), &written),
            json!("u-17"),
        ),
        (
            "custom data without params",
            &logto,
            hook("User.Data.Updated", "/users/:userId/custom-data", json!({}), &written),
            Value::Null,
        ),
        (
            "a trusted device",
            &logto,
            hook("TrustedDevice.Created", "/devices", json!({}), &json!({"id": "d", "userId": "u-17"})),
            json!("u-17"),
        ),
        (
            "one member",
            &logto,
            hook(
                "Organization.Membership.Updated",
                "/organizations/:id/users/:userId",
                json!({"id": "o", "userId": "u-17"}),
                &Value::Null,
            ),
            json!("u-17"),
        ),
        (
            "an organization's custom data",
            &logto,
            hook("Organization.Data.Updated", "/organizations/:id", json!({"id": "o"}), &written),
            Value::Null,
        ),
        ("a platform profile", &platform, profile, json!("u-17")),
        ("a platform address", &platform, renamed, Value::Null),
        ("a registration that failed", &wso2, serde_json::from_str(&refused).unwrap(), Value::Null),
    ] {
        let accepted = source.accept(body.to_string()).await;
        let event = acme.get(&format!("/events/{}", accepted.event)).await;
        assert_eq!(event["subject"], expected, "{what}: {event}");
    }
}

#[tokio::test]
async fn platform_with_standard_webhooks() {
    let world = World::with().source("idp", Seed::Platform).start().await;
    let (_, set) = through(&world, &event::platform("u-17")).await;
    let kind = "https://schemas.setgate.dev/events/platform/security/event-type/security.suspicious_login";
    let sent: Value = serde_json::from_str(&event::platform("u-17")).unwrap();
    let iss = "https://schemas.setgate.dev/sources/acme/idp";
    let expected = json!({
        "iss": iss, "jti": "<text>", "iat": 1_787_314_569,
        "sub_id": {"format": "iss_sub", "iss": iss, "sub": "u-17"},
        "events": { (kind): sent },
    });
    assert_document(&set, &expected);

    // The sender's retry: the same id, signed at another time.
    let again = world.source.accept(event::platform("u-17")).await;
    assert!(again.duplicate, "the same `webhook-id` is the same event");
}

#[tokio::test]
async fn platform_with_a_bearer_token() {
    let world = World::with().source("idp", Seed::PlatformBearer).start().await;
    let (_, set) = through(&world, &event::platform("u-17")).await;
    assert_eq!(set["iat"], 1_787_314_569, "`timestamp` is when it was issued");
    let at_seconds = event::platform("u-18").replace("\"2026-08-21T12:16:09Z\"", "1787314570123");
    let (_, set) = through(&world, &at_seconds).await;
    assert_eq!(set["iat"], 1_787_314_570, "a number of milliseconds is read too");
}

#[tokio::test]
async fn plain_sets() {
    let world = World::start().await;
    let sent = event::set("one");
    let (_, set) = through(&world, &sent).await;
    assert_eq!(set, serde_json::from_str::<Value>(&sent).unwrap(), "a SET stays as it is");
    let received = world.receiver.received(1).await.remove(0);
    assert_eq!(received.text(), sent, "byte for byte");
}

#[tokio::test]
async fn every_product_sample_becomes_a_set() {
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
        // The other samples are not events: an answer, a poll, a request to create a webhook.
        let seeds: &[Seed] = match name.split(['.', '-']).next().unwrap() {
            "wso2" if name.starts_with("wso2-is") => &[Seed::Wso2, Seed::Asgardeo],
            "logto" => &[Seed::Logto],
            "caep" | "risc" | "ssf" | "rfc8417" => &[Seed::Set],
            _ => continue,
        };
        for seed in seeds {
            // A separate source for each, because some samples of a product have the same `jti`.
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
async fn duplicate_is_accepted_and_delivered_once() {
    let world = World::start().await;
    let (first, _) = through(&world, &event::set("one")).await;
    let second = world.source.accept(event::set("one")).await;
    assert!(second.duplicate && second.event == first.event, "the answer names the first copy: {second:?}");
    let other = world.source.send(event::set("one").replace("1615304991", "1615304992")).await;
    assert_eq!(other.not_the_problem(409, "jti_conflict"), None, "another body under the same `jti`");

    // After a later event has arrived, no copy can still be in flight.
    through(&world, &event::set("two")).await;
    assert_eq!(world.receiver.count(), 2, "one delivery each");
    assert_eq!(world.acme.deliveries("").await.len(), 2);
    let conflicts = world.host.metric("setgate_ingest_total", &["outcome=\"jti_conflict\""]).await;
    let duplicates = world.host.metric("setgate_ingest_total", &["outcome=\"duplicate\""]).await;
    assert_eq!((duplicates, conflicts), (1.0, 1.0), "both are counted");
    let route = r#"route="/ingest/{tenant}/{source}""#;
    for (status, answers) in [("202", 3.0), ("409", 1.0)] {
        let labels = [route, &format!("status=\"{status}\"")];
        assert_eq!(world.host.metric("setgate_http_requests_total", &labels).await, answers, "{status}");
    }
}

#[tokio::test]
async fn body_identifies_an_event_without_id() {
    let world = World::with().source("idp", Seed::Logto).start().await;
    let first = world.source.accept(event::logto("s1")).await;
    let again = world.source.accept(event::logto("s1")).await;
    assert!(again.duplicate && again.event == first.event, "the sender's retry: the same bytes within the window");
    let other = world.source.accept(event::logto("s2")).await;
    assert!(!other.duplicate, "other bytes are another event");
}

#[tokio::test]
async fn same_jti_from_two_sources_is_two_events() {
    let world = World::start().await;
    let other = world.acme.source("other", Seed::Set).await;
    let first = world.source.accept(event::set("one")).await;
    let second = other.accept(event::set("one")).await;
    assert!(!second.duplicate && second.event != first.event, "a `jti` is its source's own");
}

#[tokio::test]
async fn original_format_returns_the_products_bytes() {
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
async fn missing_content_type_means_json() {
    let Ingest { host, source, .. } = &World::with().source("idp", Seed::Open).start_ingest().await;
    host.stranger().send(Method::POST, &source.path, &[], event::set("one")).await.expect(202);
    let charset = [("content-type", "application/json; charset=utf-8")];
    host.stranger().send(Method::POST, &source.path, &charset, event::set("two")).await.expect(202);
}

#[tokio::test]
async fn old_and_new_proof_overlap() {
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

#[tokio::test]
async fn source_removed_while_a_body_arrives_accepts_nothing() {
    let Ingest { host, acme, .. } = &Ingest::start().await;
    let key = acme.client.post(&acme.path("/keys"), &json!({"scopes": ["ingest"]})).await.expect(201).json();
    let bearer = |token: &str| format!("Bearer {token}");
    let by_key = bearer(key["key"].as_str().unwrap());
    let by_token = bearer(Seed::Set.secret());
    let settings = [
        ("keyed", json!({"form": "set", "proofs": [{"kind": "key"}]}), by_key.as_str()),
        ("token", Seed::Set.settings(), by_token.as_str()),
        ("changed", Seed::Set.settings(), by_token.as_str()),
        ("kept", Seed::Set.settings(), by_token.as_str()),
        ("open", Seed::Open.settings(), ""),
    ];
    let mut late = Vec::new();
    for (name, settings, authorization) in &settings {
        acme.client.put(&acme.path(&format!("/sources/{name}")), settings).await.expect(201);
        let headers = [("authorization", *authorization), ("content-type", "application/json")];
        late.push(LateBody::begin(host, &format!("/ingest/acme/{name}"), &headers, event::set(name)).await);
    }
    let id = key["id"].as_str().unwrap();
    acme.client.delete(&acme.path(&format!("/keys/{id}"))).await.expect(204);
    acme.client.delete(&acme.path("/sources/token")).await.expect(204);
    acme.client.delete(&acme.path("/sources/open")).await.expect(204);
    let other = json!({"form": "set", "proofs": [{"kind": "bearer", "tokens": ["another-token-of-it"]}]});
    acme.client.put(&acme.path("/sources/changed"), &other).await.expect(200);
    for ((name, ..), late) in settings.iter().zip(late) {
        let answer = late.end().await;
        let expected = if *name == "kept" { "HTTP/1.1 202" } else { "HTTP/1.1 401" };
        assert!(answer.starts_with(expected), "{name}: {answer}");
    }
    let events = acme.get("/events").await;
    let jtis: Vec<_> = events["items"].as_array().unwrap().iter().map(|event| &event["jti"]).collect();
    assert_eq!(jtis, ["kept"]);
}
