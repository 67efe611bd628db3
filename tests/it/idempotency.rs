//! `Idempotency-Key`: a repeated POST gets the stored answer and is not executed again.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Answer, Client, Host, Receiver, Seed, event};

async fn post(client: &Client, path: &str, key: &str, body: &Value) -> Answer {
    client.send(Method::POST, path, &[JSON, ("idempotency-key", key)], body.to_string()).await
}

/// The parts of an answer that must be equal in a repeated answer.
fn shown(answer: &Answer) -> (u16, String, Vec<Option<String>>) {
    let headers = ["content-type", "etag", "location"].map(|name| answer.header(name).map(str::to_owned));
    (answer.status, answer.text(), headers.to_vec())
}

async fn count(client: &Client, path: &str) -> usize {
    client.get(&format!("{path}?limit=200")).await.expect(200).json()["items"].as_array().expect("items").len()
}

#[tokio::test]
async fn repeated_post_returns_the_stored_answer() {
    let mut host = Host::start().await;
    let operator = host.operator().clone();
    let tenant = json!({"id": "acme", "display_name": "Acme"});
    let first = post(&operator, "/api/v1/tenants", "t-1", &tenant).await.expect(201);
    assert_eq!(shown(&post(&operator, "/api/v1/tenants", "t-1", &tenant).await), shown(&first));
    assert_eq!(operator.post("/api/v1/tenants", &tenant).await.not_the_problem(409, "conflict"), None, "without a key");

    let acme = host.tenant("globex").await;
    acme.source("idp", Seed::Set).await.accept(event::set("one")).await;
    let receiver = Receiver::start().await;
    let endpoint = json!({"endpoint": {"url": receiver.url()}});
    let subscription = post(&acme.client, &acme.path("/subscriptions"), "s", &endpoint).await.expect(201);
    let id = subscription.json()["id"].as_str().unwrap().to_owned();
    let replay = json!({"subscription": id, "since": "2020-01-01T00:00:00Z"});
    let redrive = json!({"where": {"state": "dead"}});
    let mut made = vec![(acme.client.clone(), acme.path("/subscriptions"), "s".to_owned(), endpoint, subscription)];
    for (client, path, body, status) in [
        (&acme.client, acme.path("/keys"), &json!({"label": "ci"}), 201),
        (&operator, "/api/v1/keys".to_owned(), &json!({}), 201),
        (&acme.client, acme.path("/replays"), &replay, 201),
        (&acme.client, acme.path("/deliveries/redrive"), &redrive, 200),
        (&acme.client, acme.path(&format!("/subscriptions/{id}/test")), &json!({}), 202),
        (&acme.client, acme.path(&format!("/subscriptions/{id}/rotate-key")), &json!({}), 200),
        (&acme.client, acme.path(&format!("/subscriptions/{id}/pause")), &json!({}), 200),
    ] {
        let key = format!("\"{}\"", made.len());
        let answer = post(client, &path, &key, body).await.expect(status);
        made.push((client.clone(), path, key, body.clone(), answer));
    }
    assert!(made[1].4.json()["key"].as_str().unwrap().starts_with("sgk_"), "it is shown this once");
    // Neither a change in between nor a restart or a kill affects the stored answer.
    acme.client.post(&acme.path(&format!("/subscriptions/{id}/resume")), &json!({})).await.expect(200);
    let counts = async |client: &Client| {
        let mut counts = Vec::new();
        for list in ["/subscriptions", "/keys", "/replays", "/audit"] {
            counts.push(count(client, &acme.path(list)).await);
        }
        counts
    };
    let before = counts(&acme.client).await;
    for round in ["at once", "after a restart", "after a kill"] {
        match round {
            "after a restart" => host.restart().await,
            "after a kill" => {
                host.kill9().await;
                host.start_again().await;
            }
            _ => {}
        }
        for (client, path, key, body, first) in &made {
            let again = post(client, path, key, body).await;
            assert_eq!(shown(&again), shown(first), "{round}: POST {path}");
        }
        assert_eq!(counts(&acme.client).await, before, "{round}");
    }
    let whole = made[1].4.json()["key"].as_str().unwrap().to_owned();
    acme.client.with_key(&whole).get(&acme.path("/keys")).await.expect(200);
    // It is encrypted on disk.
    for file in std::fs::read_dir(host.data()).unwrap().chain(std::fs::read_dir(host.data()).unwrap()) {
        let path = file.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { continue };
        let secret = whole.rsplit('_').next().unwrap().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
    }
}

#[tokio::test]
async fn key_belongs_to_one_request_of_one_caller() {
    let host = Host::start().await;
    let (acme, other) = (host.tenant("acme").await, host.tenant("globex").await);
    let keys = acme.path("/keys");
    let first = post(&acme.client, &keys, "one", &json!({"label": "a"})).await.expect(201);
    for (path, body) in [
        (keys.clone(), json!({"label": "b"})),
        (keys.clone(), json!({"label": "a", "scopes": ["read"]})),
        (acme.path("/replays"), json!({"label": "a"})),
    ] {
        let reused = post(&acme.client, &path, "\"one\"", &body).await;
        assert_eq!(reused.not_the_problem(422, "idempotency_key_reused"), None, "{path} {body}");
    }
    let matched = [JSON, ("idempotency-key", "one"), ("if-match", "\"7\"")];
    let matched = acme.client.send(Method::POST, &keys, &matched, json!({"label": "a"}).to_string()).await;
    assert_eq!(matched.not_the_problem(422, "idempotency_key_reused"), None, "another version is another request");

    // Another API key, or one of another tenant, is another caller.
    let second = first.json()["key"].as_str().unwrap().to_owned();
    for client in [acme.client.with_key(&second), host.operator().clone()] {
        let made = post(&client, &keys, "one", &json!({"label": "a"})).await.expect(201);
        assert_ne!(made.json()["id"], first.json()["id"]);
    }
    post(&other.client, &other.path("/keys"), "one", &json!({"label": "a"})).await.expect(201);
    let foreign = post(&other.client, &keys, "one", &json!({"label": "a"})).await;
    assert_eq!(foreign.not_the_problem(403, "forbidden"), None, "a stored answer opens nothing");
    let stranger = post(&host.stranger(), &keys, "one", &json!({"label": "a"})).await;
    assert_eq!(stranger.not_the_problem(401, "bad_key"), None);
    acme.client.delete(&acme.path(&format!("/keys/{}", first.json()["id"].as_str().unwrap()))).await.expect(204);
    let gone = post(&acme.client.with_key(&second), &keys, "one", &json!({"label": "a"})).await;
    assert_eq!(gone.not_the_problem(401, "bad_key"), None, "nor does it to a key that has ended");

    for bad in ["", "\"", "a b", "a, b", &"k".repeat(256)] {
        let refused = post(&acme.client, &keys, bad, &json!({})).await;
        assert_eq!(refused.not_the_problem(400, "idempotency_key_invalid"), None, "{bad:?}");
    }
}

#[tokio::test]
async fn refused_request_can_be_sent_again() {
    let host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"keys_max": 1}})).await;
    let keys = acme.path("/keys");
    let full = post(&acme.client, &keys, "k", &json!({})).await;
    assert_eq!(full.not_the_problem(409, "conflict"), None);
    let invalid = post(&acme.client, &keys, "k", &json!({"colour": "red"})).await;
    assert_eq!(invalid.not_the_problem(400, "invalid_body"), None);
    let change = json!({"quota": {"keys_max": 9}}).to_string();
    host.operator().send(Method::PATCH, &acme.path(""), &[JSON], change).await.expect(200);
    let made = post(&acme.client, &keys, "k", &json!({})).await.expect(201);
    assert_eq!(shown(&post(&acme.client, &keys, "k", &json!({})).await), shown(&made));
}

#[tokio::test]
async fn concurrent_copies_run_once() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (client, path) = (acme.client.clone(), acme.path("/keys"));
        senders.spawn(async move {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            loop {
                let answer = post(&client, &path, "one", &json!({"label": "together"})).await;
                if answer.status == 201 {
                    return answer.text();
                }
                assert_eq!(answer.not_the_problem(409, "idempotency_key_in_progress"), None);
                assert!(answer.header("retry-after").is_some());
                assert!(std::time::Instant::now() < deadline, "it is made, by this one or another");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
    }
    let answers = senders.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let labelled = acme.get("/keys").await;
    let labelled = labelled["items"].as_array().unwrap().iter().filter(|key| key["label"] == "together");
    assert_eq!(labelled.count(), 1);
}

/// Kills the host repeatedly during requests: none is executed twice.
#[tokio::test]
async fn kill_repeats_nothing() {
    let mut host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"keys_max": 1000}})).await;
    for round in 0..4 {
        let mut senders = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (client, path) = (acme.client.clone(), acme.path("/keys"));
            senders.spawn(async move {
                let label = format!("{round}-{number}");
                let body = json!({"label": label}).to_string();
                let headers = [JSON, ("idempotency-key", label.as_str())];
                let _ = client.try_send(Method::POST, &path, &headers, body).await;
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(5 * round + 1)).await;
        host.kill9().await;
        senders.join_all().await;
        host.start_again().await;
        for number in 0..8 {
            let label = format!("{round}-{number}");
            let answer = post(&acme.client, &acme.path("/keys"), &label, &json!({"label": label})).await;
            if answer.status != 201 {
                assert_eq!(answer.not_the_problem(409, "idempotency_answer_lost"), None, "{label}");
            }
            let keys = acme.get("/keys?limit=200").await;
            let made = keys["items"].as_array().unwrap().iter().filter(|key| key["label"] == label.as_str()).count();
            assert_eq!(made, 1, "{label} was made once: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn full_answer_store_refuses_its_tenant_only() {
    const ANSWERS_PER_TENANT_MAX: usize = 1_000;
    let host = Host::start().await;
    let (acme, other) = (host.tenant("acme").await, host.tenant("globex").await);
    let redrive = json!({"where": {"state": "dead"}});
    let path = acme.path("/deliveries/redrive");
    for number in 0..ANSWERS_PER_TENANT_MAX {
        post(&acme.client, &path, &number.to_string(), &redrive).await.expect(200);
    }
    let full = post(&acme.client, &path, "one more", &redrive).await;
    assert_eq!(full.status, 400, "a blank needs quotes");
    let full = post(&acme.client, &path, "one-more", &redrive).await;
    assert_eq!(full.not_the_problem(429, "idempotency_answers_full"), None);
    post(&acme.client, &path, "0", &redrive).await.expect(200);
    acme.client.post(&path, &redrive).await.expect(200);
    post(&other.client, &other.path("/deliveries/redrive"), "one-more", &redrive).await.expect(200);
}
