//! Settings that are accepted although they have no effect: the answer contains a warning for each, with the name of
//! the member.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Host, Seed, Tenant};

/// The warnings of a document: kind and member of each.
fn warned(document: &Value) -> Vec<(&str, &str)> {
    let warnings = document["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(warnings.iter().all(|warning| warning["detail"].is_string()), "{document}");
    warnings.iter().map(|one| (one["code"].as_str().unwrap(), one["pointer"].as_str().unwrap())).collect()
}

/// The text of the first warning of a document.
fn detail(document: &Value) -> &str {
    document["warnings"][0]["detail"].as_str().unwrap_or_else(|| panic!("no warning: {document}"))
}

async fn subscribe(acme: &Tenant, url: &str, events: Value) -> Value {
    acme.subscribe_url(url).with("events", events).ask().await.expect(201).json()
}

const OPEN: &str = "https://receiver.example.com/in";
const UNMATCHED: &str = "pattern_matches_nothing";

#[tokio::test]
async fn unmatched_pattern_suggests_the_nearest() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.source("idp", Seed::Wso2).await;
    for (given, meant) in [
        ("wso2/login/loginSucess", "wso2/login/loginSuccess"),
        ("LoginFailed", "loginFailed"),
        ("wso2/logn/*", "wso2/login/*"),
        ("session", "session/*"),
        ("User.Create", "User.Created"),
        (
            "https://schemas.openid.net/secevent/risc/event-type/account-disable",
            "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
        ),
    ] {
        let made = subscribe(&acme, OPEN, json!(["login/*", given])).await;
        assert_eq!(warned(&made), [(UNMATCHED, "/events/1")], "{made}");
        assert!(detail(&made).contains(&format!("did you mean `{meant}`?")), "{given}: {made}");
        let right = subscribe(&acme, OPEN, json!([meant])).await;
        assert_eq!(right.get("warnings"), None, "{right}");
    }
    let far = subscribe(&acme, OPEN, json!(["https://events.example.com/parcel/sent"])).await;
    assert_eq!(warned(&far), [(UNMATCHED, "/events/0")]);
    // A source of SETs can send any type, so only a near miss is suspicious.
    acme.source("others", Seed::Set).await;
    let events = json!(["https://events.example.com/parcel/sent", "loginFaild"]);
    let custom = subscribe(&acme, OPEN, events.clone()).await;
    assert_eq!(warned(&custom), [(UNMATCHED, "/events/1")], "{custom}");
    let of_idp = acme.subscribe_url(OPEN).with("events", events).with("sources", json!(["idp"])).ask().await;
    assert_eq!(warned(&of_idp.expect(201).json()).len(), 2);
}

#[tokio::test]
async fn replay_patterns_are_checked() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.source("idp", Seed::Wso2).await;
    let subscription = subscribe(&acme, OPEN, json!(["*"])).await;
    for (events, expected) in [
        (json!(["userCreatd"]), vec![(UNMATCHED, "/events/0")]),
        (json!(["user/*", "sesion/*"]), vec![(UNMATCHED, "/events/1")]),
        (json!(["user/*"]), vec![]),
    ] {
        let asked = json!({"subscription": subscription["id"], "since": "2020-01-01T00:00:00Z", "events": events});
        let begun = acme.client.post(&acme.path("/replays"), &asked).await.expect(201).json();
        assert_eq!(warned(&begun), expected, "{begun}");
        assert!(begun["id"].is_string() && begun["state"].is_string(), "{begun}");
    }
}

#[tokio::test]
async fn always_refused_endpoint_gives_a_warning() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let own = host.base().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let refused = [
        ("https://10.1.2.3/in".to_owned(), "a private address"),
        ("https://169.254.169.254/latest".to_owned(), "metadata"),
        ("https://[::1]/in".to_owned(), "a loopback address"),
        ("http://[::ffff:8.8.8.8]/in".to_owned(), "IPv4-mapped"),
        // 192.168.0.1, written as one number.
        ("https://3232235521/in".to_owned(), "a private address"),
        (format!("http://127.0.0.1:{own}/in"), "own listener"),
        (format!("http://localhost:{own}/in"), "own listener"),
    ];
    for (url, why) in &refused {
        let made = subscribe(&acme, url, json!(["*"])).await;
        assert_eq!(warned(&made), [("endpoint_refused", "/endpoint/url")], "{made}");
        assert!(detail(&made).contains(why), "{url}: {made}");
    }
    for url in [OPEN, "https://8.8.8.8/in", "http://127.0.0.1:1/in", "http://localhost:1/in"] {
        let made = subscribe(&acme, url, json!(["*"])).await;
        assert_eq!(made.get("warnings"), None, "{made}");
    }
}

#[tokio::test]
async fn endpoint_warnings_follow_reloaded_settings() {
    let mut host = Host::start().await;
    let acme = host.tenant("acme").await;
    let mut made = Vec::new();
    for (url, setting) in [
        ("https://localhost/in", "`egress.allow`"),
        ("https://api.localhost:8443/in", "`egress.allow`"),
        ("https://127.1/in", "`egress.allow`"),
        ("http://receiver.example.com/in", "`egress.allow_http`"),
    ] {
        let subscription = subscribe(&acme, url, json!(["*"])).await;
        assert_eq!(subscription.get("warnings"), None, "{subscription}");
        made.push((format!("/subscriptions/{}", subscription["id"].as_str().unwrap()), setting));
    }
    host.set_env("SETGATE_EGRESS__ALLOW", "[]");
    host.set_env("SETGATE_EGRESS__ALLOW_HTTP", "false");
    host.restart().await;
    for (path, setting) in made {
        let shown = acme.get(&path).await;
        assert_eq!(warned(&shown), [("endpoint_refused", "/endpoint/url")], "{shown}");
        assert!(detail(&shown).contains(setting), "{shown}");
    }
}

#[tokio::test]
async fn shown_document_with_warnings_can_be_put() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let path = acme.path("/subscriptions/by-name");
    let asked = json!({"endpoint": {"url": "https://10.0.0.1/in"}, "events": ["loginFaild"]});
    let both = [(UNMATCHED, "/events/0"), ("endpoint_refused", "/endpoint/url")];
    let made = acme.client.put(&path, &asked).await.expect(201).json();
    assert_eq!(warned(&made), both, "{made}");
    let by_id = acme.path(&format!("/subscriptions/{}", made["id"].as_str().unwrap()));
    for path in [&path, &by_id] {
        let shown = acme.client.get(path).await.expect(200).json();
        assert_eq!(warned(&shown), both, "{shown}");
        let mut put = acme.client.put(path, &shown).await.expect(200).json();
        put["updated_at"] = shown["updated_at"].clone();
        assert_eq!(put, shown);
    }
    let mended = json!({"endpoint": {"url": OPEN}, "events": ["loginFailed"], "warnings": made["warnings"]});
    let put = acme.client.put(&by_id, &mended).await.expect(200).json();
    assert_eq!(put.get("warnings"), None, "{put}");
}

#[tokio::test]
async fn quota_above_the_host_limit_gives_a_warning() {
    let config = "[sandbox]\nmemory_bytes_max = 67108864\n[data]\nledger_bytes_max = 1073741824";
    let host = Host::with().config(config).start().await;
    let (operator, path) = (host.operator(), "/api/v1/tenants/acme");
    let quota = json!({"memory_bytes_max": 67_108_865_u64, "table_elements_max": 1_000_000});
    let made = operator.post("/api/v1/tenants", &json!({"id": "acme", "quota": quota})).await.expect(201).json();
    let above = "above_host_limit";
    let both = [(above, "/quota/memory_bytes_max"), (above, "/quota/table_elements_max")];
    assert_eq!(warned(&made), both, "{made}");
    assert!(detail(&made).contains("`sandbox.memory_bytes_max`, which is 67108864"), "{made}");
    // Sent back as shown.
    let shown = operator.get(path).await.expect(200).json();
    assert_eq!(warned(&shown), both, "{shown}");
    let sent = operator.send(Method::PATCH, path, &[JSON], shown.to_string()).await.expect(200).json();
    assert_eq!(sent, shown);
    for (key, value, setting) in [
        ("filter_bytes_max", 32_u64 << 20, "filter_bytes_max"),
        ("table_bytes_max", 32 << 20, "table_bytes_max"),
        ("filters_bytes_max", 2 << 30, "data.ledger_bytes_max"),
    ] {
        let change = json!({"quota": {key: value}}).to_string();
        let changed = operator.send(Method::PATCH, path, &[JSON], change).await.expect(200).json();
        assert_eq!(warned(&changed), [(above, format!("/quota/{key}").as_str())], "{changed}");
        assert!(detail(&changed).contains(&format!("`{setting}`")), "{changed}");
    }
    for quota in [json!({"memory_bytes_max": 67_108_864, "filters_bytes_max": 1 << 30}), Value::Null] {
        let change = json!({"quota": quota}).to_string();
        let changed = operator.send(Method::PATCH, path, &[JSON], change).await.expect(200).json();
        assert_eq!(changed.get("warnings"), None, "{changed}");
    }
}
