//! The mechanics of RFC 8935: bytes, media types, and the form of the answers.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::Answer;
use setgate_tests::event::SET_TYPE;
use setgate_tests::transmitter::{ISSUER, SIGNED_SET, base64url, claims, not_the_refusal, push};

use super::{Signed, make, source, with};

async fn send(signed: &Signed, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    signed.host.stranger().send(Method::POST, &signed.path, headers, body).await
}

#[tokio::test]
async fn pm01_to_pm06_bytes_of_the_request() {
    let signed = Signed::start().await;
    let token = |jti: &str| signed.key.token(&claims(jti));
    for (number, (before, after)) in [("", "\n"), ("", "\r\n"), (" \t\n", " ")].into_iter().enumerate() {
        let body = format!("{before}{}{after}", token(&format!("pm01-{number}")));
        send(&signed, &[SIGNED_SET], body).await.expect(202);
    }
    let inside = token("pm01").replacen('.', ".\n", 1);
    assert_eq!(not_the_refusal(&send(&signed, &[SIGNED_SET], inside).await, "invalid_request"), None, "PM01 inside");
    let padded = format!("{}=", token("pm01"));
    assert_eq!(not_the_refusal(&send(&signed, &[SIGNED_SET], padded).await, "invalid_request"), None, "PM01 padding");

    for (number, given) in
        ["application/secevent+jwt; charset=utf-8", "Application/SecEvent+JWT"].into_iter().enumerate()
    {
        let body = token(&format!("pm02-{number}"));
        send(&signed, &[("content-type", given)], body).await.expect(202);
    }
    for headers in [
        &[("content-type", "application/jwt")][..],
        &[("content-type", "application/json")],
        &[("content-type", "text/plain")],
        &[],
        &[SIGNED_SET, ("content-encoding", "gzip")],
    ] {
        let answer = send(&signed, headers, token("pm03")).await;
        assert_eq!(not_the_refusal(&answer, "invalid_request"), None, "PM03 {headers:?}");
    }
    send(&signed, &[SIGNED_SET, ("content-encoding", "identity")], token("pm03")).await.expect(202);
    for body in ["", "\n", ".", "..", "e30.e30", "{}"] {
        assert_eq!(
            not_the_refusal(&send(&signed, &[SIGNED_SET], body).await, "invalid_request"),
            None,
            "PM04 {body:?}"
        );
    }
    let large = send(&signed, &[SIGNED_SET], vec![b'a'; (1 << 20) + 1]).await;
    assert_eq!(large.not_the_problem(413, "body_too_large"), None, "PM05");
    let encrypted = format!("{}.a.b.c.d", base64url(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#));
    let answer = send(&signed, &[SIGNED_SET], encrypted).await;
    assert_eq!(not_the_refusal(&answer, "invalid_request"), None, "PM06");
    assert!(answer.text().contains("encrypted"), "{}", answer.text());
    assert_eq!(signed.events().await.len(), 6);
}

#[tokio::test]
async fn pm07_duplicate_members_are_refused() {
    let signed = Signed::start().await;
    let (header, set) = (signed.key.header().to_string(), claims("one").to_string());
    for (header, set) in [
        (header.replacen('{', r#"{"alg":"none","#, 1), set.clone()),
        (header.clone(), set.replacen('{', r#"{"iss":"https://other.example","#, 1)),
        (header.clone(), set.replacen('{', &format!(r#"{{"iss":"{ISSUER}","#), 1)),
        (header.clone(), set.replace(r#""initiating_entity""#, r#""event_timestamp":1,"initiating_entity""#)),
    ] {
        let token = signed.key.token_of(&header, &set);
        signed.refuse(&token, "invalid_request").await;
    }
    for payload in ["[]", "7", "not json", "{", "\u{feff}", ""] {
        let token = signed.key.token_of(&header, payload);
        signed.refuse(&token, "invalid_request").await;
    }
}

#[tokio::test]
async fn pm08_to_pm10_claims_have_their_types() {
    let signed = Signed::start().await;
    let now_s = now_s();
    let aud = "https://rp.example/";
    for (number, change) in [
        json!({"aud": aud}),
        json!({"aud": [aud]}),
        json!({"aud": ["https://other.example/", aud]}),
        json!({"iat": now_s}),
        json!({"iat": now_s + 200}),
        json!({"iat": 1}),
        json!({"iat": 1_700_000_000.75}),
        json!({"toe": 1_700_000_000.5}),
        json!({"events": {SET_TYPE: {}, "urn:x:y": {}}}),
    ]
    .iter()
    .enumerate()
    {
        signed.accept(&with(&format!("{number}"), change)).await;
    }
    for (change, err, part) in [
        (json!({"aud": null}), "invalid_audience", "`aud` is missing"),
        (json!({"events": null}), "invalid_request", "`events` is missing"),
        (json!({"events": {}}), "invalid_request", "`events` is empty"),
        (json!({"events": [SET_TYPE]}), "invalid_request", "`events` has to be an object"),
        (json!({"events": {SET_TYPE: "x"}}), "invalid_request", "has to be an object"),
        (json!({"events": {SET_TYPE: null}}), "invalid_request", "has to be an object"),
        (json!({"events": {"session-revoked": {}}}), "invalid_request", "absolute URI"),
        (json!({"iat": null}), "invalid_request", "`iat` is missing"),
        (json!({"iat": now_s * 1000}), "invalid_request", "not a time in seconds"),
        (json!({"iat": now_s.to_string()}), "invalid_request", "`iat` has to be a number"),
        (json!({"iat": now_s + 3600}), "invalid_request", "s in the future"),
        (json!({"iat": -1}), "invalid_request", "not a time in seconds"),
        (json!({"jti": null}), "invalid_request", "`jti` is missing"),
        (json!({"jti": 7}), "invalid_request", "`jti` has to be a string"),
        (json!({"jti": ""}), "invalid_request", "`jti` is an empty string"),
        (json!({"txn": true}), "invalid_request", "`txn` has to be a string"),
        (json!({"toe": "1"}), "invalid_request", "`toe` has to be a number"),
    ] {
        let why = signed.refuse_claims(&with("bad", &change), err).await;
        assert!(why.contains(part), "{change}: {why}");
    }
    let millis = with("millis", &json!({"iat": 1_700_000_000_123_i64}));
    signed.refuse_claims(&millis, "invalid_request").await;
    assert_eq!(signed.events().await.len(), 9);
}

/// PM11 is checked by `not_the_refusal` in every story; here for each kind of answer.
#[tokio::test]
async fn pm11_answers_have_the_form_of_rfc_8935() {
    let signed = Signed::start().await;
    let answer = signed.push(&signed.key.token(&claims("one"))).await.expect(202);
    assert!(answer.body.is_empty() && answer.header("content-language").is_none(), "{answer:?}");
    let refused = signed.push("x").await;
    assert_eq!(not_the_refusal(&refused, "invalid_request"), None);
    assert!(refused.header("www-authenticate").is_none());
    let slash = format!("{}/?source=x", signed.path);
    push(&signed.acme.client, &slash, &signed.key.token(&claims("two"))).await.expect(202);
    let stranger = signed.host.stranger();
    let answer = stranger.get(&signed.path).await;
    assert_eq!(answer.not_the_problem(405, "no_method"), None);
    assert_eq!(answer.header("allow"), Some("POST"));

    // A limit of the tenant: the sender has to keep the SET.
    let quota = json!({"quota": {"ingest_bytes_per_second": 1}}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    signed.host.operator().send(Method::PATCH, "/api/v1/tenants/acme", &headers, quota).await.expect(200);
    let limited = setgate_tests::until("the rate is exceeded", async || {
        let answer = signed.push(&signed.key.token(&claims("three"))).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!(limited.not_the_problem(429, "too_many_bytes"), None);
    assert!(limited.header("retry-after").is_some());
}

#[tokio::test]
async fn pm12_two_senders_may_use_the_same_jti() {
    let signed = Signed::start().await;
    signed.accept(&claims("same")).await;
    let mut settings = source(&json!({"jwks_url": signed.server.url}), &json!({}));
    settings["proofs"][0]["issuer"] = json!("https://other.example");
    // Another source, and the same source with another issuer.
    let path = make(&signed.acme, "other", &settings).await;
    let token = signed.key.token(&with("same", &json!({"iss": "https://other.example"})));
    push(&signed.acme.client, &path, &token).await.expect(202);
    signed.acme.client.put(&signed.acme.path("/sources/idp"), &settings).await.expect(200);
    signed.push(&token).await.expect(202);
    let issuers: Vec<Value> = signed.events().await.iter().map(|event| event["jti"].clone()).collect();
    assert_eq!(issuers, ["same", "same", "same"]);
    assert_eq!(signed.counted("jti_conflict").await, 0.0);
}

#[tokio::test]
async fn signed_sets_and_ingest_are_two_ways() {
    let signed = Signed::start().await;
    let stranger = signed.host.stranger();
    let token = signed.key.token(&claims("one"));
    for path in ["/ingest/acme/idp", "/ingest/acme/nobody"] {
        let answer = stranger.send(Method::POST, path, &[SIGNED_SET], token.clone()).await;
        assert_eq!(answer.not_the_problem(415, "unsupported_media_type"), None, "{path}");
        assert!(answer.text().contains("/t/{tenant}/push/{source}"), "{}", answer.text());
        let mut answers = Vec::new();
        for headers in [&[][..], &[("x-hub-signature", "sha256=00")], &[("authorization", "Bearer x")]] {
            let headers: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
            let answer = stranger.send(Method::POST, path, &headers, claims("one").to_string()).await;
            assert_eq!(answer.status, 401, "{path}: {}", answer.text());
            answers.push(answer.text());
        }
    }
    assert!(signed.events().await.is_empty());
}

fn now_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a sender writes the time of its own machine")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
