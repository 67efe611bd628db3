//! Answers: their maximum size, and the memory of answers that are not read.

use std::time::Duration;

use serde_json::{Value, json};
use setgate_tests::h2::{Raw2, Seen};
use setgate_tests::{Host, Receiver, Seed, Tenant, until};

/// Number of events whose records exceed two pages.
const EVENTS: usize = 160;
/// Bytes of a page's entries.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Limit of the host's memory growth in these tests.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// An event with a large record: the maximum number of types, each of maximum length.
fn large(jti: &str) -> String {
    let events: serde_json::Map<String, Value> =
        (0..16).map(|number| (format!("https://example.com/{number}/{}", "t".repeat(1_000)), json!({}))).collect();
    json!({"iss": "https://idp.example.com/", "jti": jti, "iat": 1_615_305_159, "events": events}).to_string()
}

/// A tenant with this many large events, each delivered.
async fn with_history(host: &Host, name: &str, events: usize) -> (Tenant, Receiver) {
    let tenant = host.tenant(name).await;
    let source = tenant.source("open", Seed::Open).await;
    let receiver = Receiver::start().await;
    tenant.subscribe(&receiver).create().await;
    for number in 0..events {
        source.accept(large(&format!("e{number}"))).await;
    }
    until("all are delivered", async || {
        (tenant.get("/statistics").await["deliveries"]["delivered"] == events).then_some(())
    })
    .await;
    (tenant, receiver)
}

#[tokio::test]
async fn pages_are_limited_in_bytes() {
    let host = Host::start().await;
    let (acme, _receiver) = with_history(&host, "acme", EVENTS).await;
    for list in ["/deliveries", "/events"] {
        let (mut seen, mut pages, mut query) = (std::collections::BTreeSet::new(), 0, String::new());
        loop {
            let answer = acme.client.get(&acme.path(&format!("{list}?limit=200{query}"))).await.expect(200);
            let bytes = answer.body.len();
            assert!(bytes <= PAGE_BYTES_MAX + 1_000, "{list}: a page of {bytes} bytes");
            let page = answer.json();
            let items = page["items"].as_array().unwrap();
            assert!(!items.is_empty(), "{list}: each page has something");
            seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => query = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), EVENTS, "{list}: each of them");
        assert!(pages > 1, "{list}: {pages} pages");
    }
}

#[tokio::test]
async fn unread_answers_are_charged_to_their_tenant() {
    let host = Host::start().await;
    let (acme, _receiver) = with_history(&host, "acme", EVENTS).await;
    let zeta = host.tenant("zeta").await;
    let read = acme.client.post(&acme.path("/keys"), &json!({"scopes": ["read"]})).await.expect(201).json();
    let bearer = format!("Bearer {}", read["key"].as_str().unwrap());
    let key = [("authorization", bearer.as_str())];
    // Warm-up, so that only the answers are measured.
    acme.get("/deliveries?limit=200").await;
    let before = host.rss_bytes();
    let mut attacker = Raw2::open("127.0.0.2", &host.base(), 0).await.unwrap();
    for _ in 0..50 {
        attacker.request("GET", &acme.path("/deliveries?limit=200"), &key, true).await.unwrap();
        attacker.request("GET", &acme.path("/events?limit=200"), &key, true).await.unwrap();
    }
    // Each request is answered, and no answer is read.
    let mut heads = 0;
    while heads < 100 {
        match attacker.next().await {
            Seen::Head(_) => heads += 1,
            Seen::Reset(_) | Seen::Other => {}
            other => panic!("{other:?} after {heads} answers"),
        }
    }
    let grown = host.rss_bytes().saturating_sub(before);
    assert!(grown <= GROWTH_BYTES_MAX, "{} MiB more", grown >> 20);
    // Only the tenant with the exhausted share is refused.
    let refused = acme.client.get(&acme.path("/deliveries?limit=200")).await;
    assert_eq!(refused.not_the_problem(429, "busy"), None);
    assert!(
        refused.text().contains("8388608 bytes of memory, the limit per tenant"),
        "the limit is named: {}",
        refused.text()
    );
    assert!(refused.headers.contains_key("retry-after"), "and when to try again");
    zeta.get("/deliveries").await;
    drop(attacker);
    until("the share is free again", async || {
        (acme.client.get(&acme.path("/deliveries?limit=200")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn download_is_read_in_parts() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let rows: String =
        (0..60_000).map(|number| format!("{{\"key\":\"k{number}\",\"value\":\"{}\"}}\n", "v".repeat(150))).collect();
    let headers = [("content-type", "application/jsonl")];
    acme.client.send(http::Method::PUT, &acme.path("/tables/large"), &headers, rows).await.expect(201);
    let digest = acme.get("/tables/large").await["digest"].as_str().unwrap().to_owned();
    let path = acme.path(&format!("/tables/large/versions/{digest}"));
    let whole = acme.client.get(&path).await.expect(200);
    let length = whole.header("content-length").map(str::to_owned);
    assert_eq!(length, Some(whole.body.len().to_string()), "its length is announced");
    assert!(whole.body.len() > 8 << 20);
    assert_eq!(setgate_tests::everything::digest(&whole.body), digest, "it equals the stored document");
    let before = host.rss_bytes();
    let bearer = format!("Bearer {}", acme.key);
    let mut attacker = Raw2::open("127.0.0.2", &host.base(), 1_000).await.unwrap();
    for _ in 0..12 {
        attacker.request("GET", &path, &[("authorization", &bearer)], true).await.unwrap();
    }
    let mut heads = 0;
    while heads < 12 {
        if let Seen::Head(_) = attacker.next().await {
            heads += 1;
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = host.rss_bytes().saturating_sub(before);
    assert!(grown <= GROWTH_BYTES_MAX, "{} MiB more", grown >> 20);
    acme.client.get(&path).await.expect(200);
}
