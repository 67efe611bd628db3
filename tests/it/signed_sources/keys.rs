//! Keys of issuers that are fetched: rotation, failures, and the addresses that may be asked.

use serde_json::json;
use setgate_tests::transmitter::{claims, not_the_refusal, push};
use setgate_tests::{Host, KeyServer, SetKey, until};

use super::{Signed, make, source};

#[tokio::test]
async fn rx26_rotated_key_is_fetched_once() {
    let signed = Signed::start().await;
    signed.accept(&claims("one")).await;
    assert_eq!(signed.server.hits(), 1);
    let (next, unknown) = (SetKey::new("key-2"), SetKey::new("key-3"));
    signed.server.publish(&[&signed.key, &next]);
    for jti in ["two", "three"] {
        signed.push(&next.token(&claims(jti))).await.expect(202);
    }
    assert_eq!(signed.server.hits(), 2, "one fetch for the new key");
    for _ in 0..3 {
        assert_eq!(not_the_refusal(&signed.push(&unknown.token(&claims("x"))).await, "invalid_key"), None);
    }
    assert_eq!(signed.server.hits(), 2, "and none for unknown keys soon after");
    let fetched = ["tenant=\"acme\"", "outcome=\"fetched\""];
    assert_eq!(signed.host.metric("setgate_jwks_fetches_total", &fetched).await, 2.0);
    // An old key that is withdrawn is accepted until the lifetime ends.
    signed.server.publish(&[&next]);
    signed.accept(&claims("four")).await;
}

#[tokio::test]
async fn rx27_unreachable_key_set_is_temporary() {
    let signed = Signed::start().await;
    signed.server.answer(500, "application/json", "");
    let token = signed.key.token(&claims("one"));
    for _ in 0..2 {
        let answer = signed.push(&token).await;
        assert_eq!(answer.not_the_problem(503, "keys_unavailable"), None);
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(answer.text().contains("the status 500"), "{}", answer.text());
    }
    assert_eq!(signed.server.hits(), 1, "a failed fetch is not repeated at once");
    assert_eq!(signed.counted("keys_unavailable").await, 2.0);
    signed.server.publish(&[&signed.key]);
    until("the key set is fetched again", async || (signed.push(&token).await.status == 202).then_some(())).await;
    // With a usable key set, known keys are accepted although the server is down, and unknown ones are not refused.
    signed.server.answer(500, "application/json", "");
    signed.accept(&claims("two")).await;
    let unknown = SetKey::new("key-2").token(&claims("three"));
    for _ in 0..2 {
        assert_eq!(signed.push(&unknown).await.not_the_problem(503, "keys_unavailable"), None);
    }
    signed.accept(&claims("four")).await;
    assert_eq!(signed.events().await.len(), 3);
}

#[tokio::test]
async fn concurrent_sets_share_one_fetch() {
    let signed = Signed::start().await;
    signed.server.hold();
    let pushes: Vec<_> = (0..50)
        .map(|number| {
            let (client, path) = (signed.acme.client.clone(), signed.path.clone());
            let token = signed.key.token(&claims(&format!("{number}")));
            tokio::spawn(async move { push(&client, &path, &token).await.status })
        })
        .collect();
    until("the fetch has begun", async || (signed.server.hits() > 0).then_some(())).await;
    signed.server.release();
    for push in pushes {
        assert_eq!(push.await.unwrap(), 202);
    }
    assert_eq!(signed.server.hits(), 1);
    assert_eq!(signed.events().await.len(), 50);
}

#[tokio::test]
async fn a_sender_that_leaves_does_not_end_the_fetch() {
    let signed = Signed::start().await;
    signed.server.hold();
    let (client, path, token) = (signed.acme.client.clone(), signed.path.clone(), signed.key.token(&claims("one")));
    let leaves = tokio::spawn(async move { push(&client, &path, &token).await });
    until("the fetch has begun", async || (signed.server.hits() > 0).then_some(())).await;
    leaves.abort();
    signed.server.release();
    until("the key set is there", async || {
        (signed.host.metric("setgate_jwks_fetches_total", &["outcome=\"fetched\""]).await > 0.0).then_some(())
    })
    .await;
    signed.accept(&claims("two")).await;
    assert_eq!(signed.server.hits(), 1);
}

#[tokio::test]
async fn key_sets_are_fetched_from_permitted_addresses_only() {
    let key = SetKey::new("key-1");
    let server = KeyServer::start(&[&key]).await;
    let host = Host::with().env("SETGATE_EGRESS__ALLOW", "[]").start().await;
    let acme = host.tenant("acme").await;
    let settings = source(&json!({"jwks_url": server.url}), &json!({}));
    let made = acme.client.put(&acme.path("/sources/idp"), &settings).await.expect(201).json();
    let warning = &made["warnings"][0];
    assert_eq!((&warning["code"], &warning["pointer"]), (&json!("endpoint_refused"), &json!("/proofs/0/jwks_url")));
    assert!(warning["detail"].as_str().unwrap().contains("a loopback address"), "{warning}");
    let path = made["push_path"].as_str().unwrap();
    let answer = push(&acme.client, path, &key.token(&claims("one"))).await;
    assert_eq!(answer.not_the_problem(503, "keys_unavailable"), None);
    assert!(answer.text().contains("a loopback address"), "{}", answer.text());
    assert_eq!(server.hits(), 0);
    let listed = acme.get("/sources").await;
    assert!(listed["items"][0].get("warnings").is_none(), "lists have no warnings: {listed}");

    // https only, if the operator says so.
    let strict = Host::with().env("SETGATE_EGRESS__ALLOW_HTTP", "false").start().await;
    let acme = strict.tenant("acme").await;
    let refused = acme.client.put(&acme.path("/sources/idp"), &settings).await;
    assert_eq!(refused.not_the_problem(422, "invalid_field"), None);
    assert!(refused.text().contains("egress.allow_http"), "{}", refused.text());
}

#[tokio::test]
async fn odd_answers_of_a_key_server_are_no_key_set() {
    let signed = Signed::start().await;
    let good = setgate_tests::transmitter::jwks(&[&signed.key]).to_string();
    let token = signed.key.token(&claims("one"));
    for (number, (status, content_type, body, part)) in [
        (302, "application/json", good.as_str(), "the status 302"),
        (200, "text/html", good.as_str(), "content type"),
        (200, "application/json", "{\"keys\":{}}", "no array `keys`"),
        (200, "application/json", "{\"keys\":[],\"keys\":[]}", "JWKS"),
        (200, "application/json", &format!("{}{good}", " ".repeat(256 << 10)), "larger than"),
    ]
    .into_iter()
    .enumerate()
    {
        signed.server.answer(status, content_type, body);
        let path =
            make(&signed.acme, &format!("idp-{number}"), &source(&json!({"jwks_url": signed.server.url}), &json!({})))
                .await;
        let answer = push(&signed.acme.client, &path, &token).await;
        assert_eq!(answer.not_the_problem(503, "keys_unavailable"), None, "{part}");
        assert!(answer.text().contains(part), "{part}: {}", answer.text());
    }
}
