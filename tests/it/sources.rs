//! Senders in practice: signatures, secrets and bytes as products and their proxies produce them.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use hmac::{Hmac, Mac};
use http::Method;
use serde_json::{Value, json};
use setgate_tests::signature::{hmac_hex, standard_headers};
use setgate_tests::{Accepted, Answer, Host, Receiver, Seed, Tenant, event};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

const SECRET: &str = "a-secret-of-the-sender";
const JSON: (&str, &str) = ("content-type", "application/json");

type Headers = Vec<(&'static str, String)>;

fn now_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a sender signs with the time of its own machine")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn hub(secret: &str, more: Value) -> Value {
    let mut settings = json!({"form": "set", "proofs": [{"kind": "hmac", "header": "hub", "secrets": [secret]}]});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

fn sha1(body: &str) -> String {
    let mac = <Hmac<Sha1> as Mac>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(body);
    format!("sha1={}", hex::encode(mac.finalize().into_bytes()))
}

fn sha512(body: &str) -> String {
    let mac = <Hmac<Sha512> as Mac>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(body);
    format!("sha512={}", hex::encode(mac.finalize().into_bytes()))
}

fn sha256(body: &[u8]) -> String {
    format!("sha256={}", hmac_hex(SECRET, body))
}

async fn send(tenant: &Tenant, source: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    let path = format!("/ingest/acme/{source}");
    tenant.client.without_key().send(Method::POST, &path, headers, body).await
}

async fn put(tenant: &Tenant, name: &str, settings: &Value) -> Answer {
    tenant.client.put(&tenant.path(&format!("/sources/{name}")), settings).await
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn signature_spellings_are_accepted() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    put(&acme, "hub", &hub(SECRET, json!({}))).await.expect(201);
    put(&acme, "old", &hub(SECRET, json!({"allow_sha1": true}))).await.expect(201);
    let names = ["x-hub-signature", "x-hub-signature-256"];
    let wrong_256 = format!("sha256={}", "0".repeat(64));
    let wrong_512 = format!("sha512={}", "0".repeat(128));
    let cases: Vec<(&str, &str, Headers, u16)> = {
        let body = event::set("x");
        let (weak, good, strong) = (sha1(&body), sha256(body.as_bytes()), sha512(&body));
        vec![
            ("as GitHub signs", "hub", vec![(names[0], weak.clone()), (names[1], good.clone())], 202),
            ("GitHub's newer header alone", "hub", vec![(names[1], good.clone())], 202),
            ("upper case", "hub", vec![(names[0], good.to_uppercase())], 202),
            ("a list", "hub", vec![(names[0], format!("{weak}, {good}"))], 202),
            ("sha1 alone", "hub", vec![(names[0], weak.clone())], 401),
            ("only sha1, if it is allowed", "old", vec![(names[0], weak.clone())], 202),
            ("a good sha1 beside a wrong sha256", "old", vec![(names[0], weak), (names[1], wrong_256)], 401),
            ("a good sha256 beside a wrong sha512", "hub", vec![(names[0], format!("{good},{wrong_512}"))], 401),
            ("two lines", "hub", vec![(names[0], good), (names[0], strong)], 202),
        ]
    };
    for (what, source, headers, status) in cases {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).chain([JSON]).collect();
        let answer = send(&acme, source, &headers, event::set("x")).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }

    let platform = Seed::Platform;
    acme.source("hook", platform).await;
    acme.source_with("patient", platform, &json!({"timestamp_tolerance_s": 7200})).await;
    acme.source_with("strict", platform, &json!({"timestamp_tolerance_s": 5})).await;
    let signed = |at: u64, id: &str, family: &str, body: &str| -> Vec<(String, String)> {
        let headers = standard_headers(platform.secret(), id, at, body.as_bytes());
        headers.into_iter().map(|(name, value)| (name.replace("webhook-", family), value)).collect()
    };
    for (what, source, age_s, family, status) in [
        ("svix headers", "hook", 0, "svix-", 202),
        ("an hour ago", "hook", 3600, "webhook-", 401),
        ("an hour ago, svix", "hook", 3600, "svix-", 401),
        ("an hour ago, to a patient source", "patient", 3600, "webhook-", 202),
        ("three hours ago, to a patient source", "patient", 10_800, "svix-", 401),
        ("a minute ago, to a strict source", "strict", 60, "webhook-", 401),
    ] {
        let body = event::platform(what);
        let headers = signed(now_s() - age_s, &format!("msg_{source}_{age_s}"), family, &body);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain([JSON]).collect();
        let answer = send(&acme, source, &headers, body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
    // The headers of one family must be complete; those of the other one are not covered by the signature.
    let body = event::platform("mixed");
    let svix = signed(now_s(), "msg_2", "svix-", &body);
    let mut mixed: Vec<_> = svix.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain([JSON]).collect();
    mixed[0].0 = "webhook-id";
    assert_eq!(send(&acme, "hook", &mixed, body.clone()).await.status, 401, "an id of the other family");
    let headers: Vec<_> = svix.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain([JSON]).collect();
    let first = Accepted::of(&send(&acme, "hook", &headers, body.clone()).await.expect(202));
    let replayed: Vec<_> = headers.iter().copied().chain([("webhook-id", "another"), ("x-delivery-id", "y")]).collect();
    let again = Accepted::of(&send(&acme, "hook", &replayed, body).await.expect(202));
    assert!(again.duplicate && again.event == first.event, "an id that was not signed makes no new event");
    for bad in [0, 86_401] {
        let refused = put(&acme, "hub", &hub(SECRET, json!({"timestamp_tolerance_s": bad}))).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{bad}");
    }
}

#[tokio::test]
async fn secret_is_read_by_its_encoding() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let hmac = |header: &str, secret: &str| json!({"form": "set", "proofs": [{"kind": "hmac", "header": header, "secrets": ["a-good-secret", secret]}]});
    let bearer = |token: &str| json!({"form": "set", "proofs": [{"kind": "bearer", "tokens": [token]}]});
    let mut bad = Vec::new();
    for carried in ["\n", "\r\n", " ", "\t", "\u{a0}", "\u{feff}", "\u{200b}", "\0"] {
        for text in [format!("a-good-secret{carried}"), format!("{carried}a-good-secret")] {
            bad.extend(["hub", "wso2", "logto"].map(|header| (hmac(header, &text), text.clone())));
            bad.push((bearer(&text), text));
        }
        let whsec = format!("whsec_c291cmNlLXNlY3JldC1vZi10aGUtcGxhdGZvcm0={carried}");
        bad.push((hmac("standard", &whsec), whsec));
    }
    for text in ["a-good\nsecret", "a-good\u{200d}secret", "Bearer a-good-secret", "a good secret", "a-gööd-secret"] {
        bad.push((bearer(text), text.to_owned()));
    }
    bad.push((hmac("standard", "c291cmNlLXNlY3JldC1vZi10aGUtcGxhdGZvcm0="), "no encoding".to_owned()));
    for (settings, what) in bad {
        let refused = put(&acme, "x", &settings).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{what:?}: {settings}");
        assert!(!refused.text().contains("good"), "nothing of it is shown: {}", refused.text());
    }
    assert_eq!(acme.get("/sources").await["items"], json!([]), "nothing of it is stored");

    // The same text, as text and as base64.
    let text = "c2VjcmV0LXNlY3JldA==";
    let key = BASE64_STANDARD.decode(text).unwrap();
    let mac = |key: &[u8], body: &str| {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(key).unwrap().chain_update(body);
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    };
    for (name, encoding, secret, key) in [
        ("text", Some("text"), text.to_owned(), text.as_bytes()),
        ("silent", None, text.to_owned(), text.as_bytes()),
        ("base64", Some("base64"), text.to_owned(), key.as_slice()),
        ("prefixed", None, format!("whsec_{text}"), key.as_slice()),
    ] {
        let mut proof = json!({"kind": "hmac", "header": "hub", "secrets": [secret]});
        if let Some(encoding) = encoding {
            proof["encoding"] = encoding.into();
        }
        let shown = put(&acme, name, &json!({"form": "set", "proofs": [proof]})).await.expect(201).json();
        assert_eq!(shown["proofs"][0]["encoding"], encoding.unwrap_or("text"), "{shown}");
        let body = event::set(name);
        let other: &[u8] = if key == text.as_bytes() { b"secret-secret" } else { text.as_bytes() };
        for (key, status) in [(key, 202), (other, 401)] {
            let signature = mac(key, &body);
            let answer = send(&acme, name, &[("x-hub-signature", &signature), JSON], body.clone()).await;
            assert_eq!(answer.status, status, "{name}: {}", answer.text());
        }
    }
    let said = json!({"kind": "hmac", "header": "hub", "secrets": [format!("whsec_{text}")], "encoding": "text"});
    let refused = put(&acme, "x", &json!({"form": "set", "proofs": [said]})).await;
    assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "`whsec_` is always followed by base64");
}

#[tokio::test]
async fn shown_source_can_be_put_back() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let settings = json!({"form": "wso2", "timestamp_tolerance_s": 60, "allow_sha1": true, "issuer": "https://x", "proofs": [
        {"kind": "hmac", "header": "wso2", "secrets": [Seed::Wso2.secret(), "another-secret"]},
        {"kind": "hmac", "header": "standard", "secrets": [Seed::Platform.secret()]},
        {"kind": "bearer", "tokens": ["a-token-of-it"]},
        {"kind": "key"},
    ]});
    put(&acme, "idp", &settings).await.expect(201);
    let shown = acme.get("/sources/idp").await;
    assert!(!shown.to_string().contains("secret-"), "{shown}");
    let again = put(&acme, "idp", &shown).await.expect(200).json();
    assert_eq!(again, shown);
    let source = acme.known_source("/ingest/acme/idp", Seed::Wso2);
    source.accept(event::wso2("one")).await;
    let token = [("authorization", "Bearer a-token-of-it"), JSON];
    send(&acme, "idp", &token, event::wso2("two")).await.expect(202);

    // One proof removed, one secret changed, the others unchanged.
    let mut fewer = shown.clone();
    fewer["proofs"] = json!([{"kind": "bearer", "tokens": ["another-token"]}, {"kind": "hmac", "header": "wso2"}]);
    put(&acme, "idp", &fewer).await.expect(200);
    source.accept(event::wso2("three")).await;
    assert_eq!(send(&acme, "idp", &token, event::wso2("four")).await.status, 401, "the token was removed");
    for (what, proofs) in [
        ("another number", json!([{"kind": "hmac", "header": "wso2", "secrets": ["***", "***", "***"]}])),
        ("another header", json!([{"kind": "hmac", "header": "hub", "secrets": ["***", "***"]}])),
        ("twice the same", json!([{"kind": "hmac", "header": "wso2"}, {"kind": "hmac", "header": "wso2"}])),
        ("an encoding that they are not in", json!([{"kind": "hmac", "header": "wso2", "encoding": "base64"}])),
    ] {
        let mut asked = shown.clone();
        asked["proofs"] = proofs;
        assert_eq!(put(&acme, "idp", &asked).await.not_the_problem(422, "invalid_field"), None, "{what}");
    }
    source.accept(event::wso2("five")).await;
}

#[tokio::test]
async fn compressed_event_is_decoded() {
    let host = Host::with().config("[ingest]\nbody_bytes_max = 200000").start().await;
    let acme = host.tenant("acme").await;
    acme.source("open", Seed::Open).await;
    put(&acme, "hub", &hub(SECRET, json!({}))).await.expect(201);
    let coded = |coding: &'static str| [("content-encoding", coding), JSON];
    for (number, coding) in ["gzip", "x-gzip", "GZIP", "identity, gzip", "identity", ""].iter().enumerate() {
        let body = event::set(&format!("coded-{number}"));
        let bytes =
            if coding.to_lowercase().contains("gzip") { gzip(body.as_bytes()) } else { body.clone().into_bytes() };
        let accepted = Accepted::of(&send(&acme, "open", &coded(coding), bytes).await.expect(202));
        let again = Accepted::of(&send(&acme, "open", &[JSON], body).await.expect(202));
        assert!(again.duplicate && again.event == accepted.event, "{coding}: the same event, as it was before");
    }
    for coding in ["br", "deflate", "zstd", "gzip, gzip", "compress", "gzip, br"] {
        let refused = send(&acme, "open", &coded(coding), gzip(event::set("x").as_bytes())).await;
        assert_eq!(refused.not_the_problem(415, "unsupported_coding"), None);
        assert!(refused.text().contains(coding), "{}", refused.text());
        assert_eq!(refused.header("accept-encoding"), Some("gzip"));
    }
    // A sender signs either before or after it compresses.
    let (before, after) = (event::set("signed-before"), gzip(event::set("signed-after").as_bytes()));
    for (what, signed, sent, status) in [
        ("before", before.as_bytes(), gzip(before.as_bytes()), 202),
        ("after", &after, after.clone(), 202),
        ("something else", b"{}", gzip(event::set("forged").as_bytes()), 401),
    ] {
        let signature = sha256(signed);
        let headers = [("x-hub-signature", signature.as_str()), ("content-encoding", "gzip"), JSON];
        let answer = send(&acme, "hub", &headers, sent).await;
        assert_eq!(answer.status, status, "signed {what}: {}", answer.text());
    }
    let large = event::set("large").replace("1615304991", &format!("1615304991,\"x\":\"{}\"", "ab ".repeat(70_000)));
    let bomb = vec![b' '; 4 << 20];
    for (what, sent, status, code) in [
        ("over the limit", gzip(large.as_bytes()), 413, "body_too_large"),
        ("a bomb", gzip(&bomb), 413, "body_too_large"),
        ("not gzip", event::set("x").into_bytes(), 400, "coding_broken"),
        ("cut off", gzip(event::set("x").as_bytes())[..40].to_vec(), 400, "coding_broken"),
        ("twice", gzip(&gzip(event::set("x").as_bytes())), 400, "not_utf8"),
    ] {
        let refused = send(&acme, "open", &coded("gzip"), sent.clone()).await;
        assert_eq!(refused.not_the_problem(status, code), None, "{what}");
        let signature = sha256(b"another body");
        let headers = [("x-hub-signature", signature.as_str()), ("content-encoding", "gzip"), JSON];
        let stranger = send(&acme, "hub", &headers, sent).await;
        assert_eq!(stranger.not_the_problem(401, "bad_signature"), None, "{what}: a stranger learns nothing of it");
    }
    // Routes without content codings refuse them, instead of reading compressed bytes as a document.
    for (path, kind) in
        [("/sources/x", "application/json"), ("/tables/x", "text/csv"), ("/filters/x", "application/wasm")]
    {
        let headers = [("content-type", kind), ("content-encoding", "gzip")];
        let refused = acme.client.send(Method::PUT, &acme.path(path), &headers, gzip(b"key,a\nx,y\n")).await;
        assert_eq!(refused.not_the_problem(415, "unsupported_coding"), None, "{path}");
    }
}

#[tokio::test]
async fn utf_8_names_and_bom_are_accepted() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.source("open", Seed::Open).await;
    acme.source_with("logto", Seed::Logto, &json!({"proofs": [{"kind": "open"}]})).await;
    for (number, kind) in [
        "application/json; charset=utf8",
        "application/json;charset=UTF-8",
        "application/json; charset=\"Utf8\"",
        "application/secevent+json; charset = utf-8",
    ]
    .iter()
    .enumerate()
    {
        send(&acme, "open", &[("content-type", kind)], event::set(&format!("named-{number}"))).await.expect(202);
    }
    for charset in ["iso-8859-1", "utf-16", "windows-1252"] {
        let kind = format!("application/json; charset={charset}");
        let refused = send(&acme, "open", &[("content-type", &kind)], event::set("x")).await;
        assert_eq!(refused.not_the_problem(415, "unsupported_media_type"), None);
        assert!(refused.text().contains(&format!("charset `{charset}`")), "{}", refused.text());
        let source = acme.client.send(Method::PUT, &acme.path("/sources/x"), &[("content-type", &kind)], "{}").await;
        assert_eq!(source.not_the_problem(415, "unsupported_media_type"), None, "a document in {charset}");
        let kind = format!("text/csv; charset={charset}");
        let table =
            acme.client.send(Method::PUT, &acme.path("/tables/x"), &[("content-type", &kind)], "key\na\n").await;
        assert_eq!(table.not_the_problem(415, "unsupported_media_type"), None, "a table in {charset}");
    }

    let receiver = Receiver::start().await;
    let original = acme.subscribe(&receiver).format("original").create().await;
    for (source, body) in [("open", event::set("marked")), ("logto", event::logto("marked"))] {
        let accepted = Accepted::of(&send(&acme, source, &[JSON], format!("\u{feff}{body}")).await.expect(202));
        let id = original.delivery_of(&accepted);
        acme.delivery_in("delivered", &id).await;
        let received = receiver.all().into_iter().find(|received| received.id() == id).unwrap();
        assert_eq!(received.text(), body, "{source}: the mark is no part of it");
    }
    let settings = format!("\u{feff}{}", Seed::Open.settings());
    acme.client.send(Method::PUT, &acme.path("/sources/marked"), &[JSON], settings).await.expect(201);
}

#[tokio::test]
async fn lone_surrogate_has_its_own_error() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let open = json!({"proofs": [{"kind": "open"}]});
    acme.source("set", Seed::Open).await;
    acme.source_with("logto", Seed::Logto, &open).await;
    let replacing = json!({"proofs": [{"kind": "open"}], "replace_lone_surrogates": true});
    acme.source_with("set-mended", Seed::Open, &replacing).await;
    acme.source_with("logto-mended", Seed::Logto, &replacing).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    for (number, lone) in [r"cut \ud83d", r"\udc00 low", r"\ud83d\ud83d twice", r"\ud83dx"].iter().enumerate() {
        let set = event::set(&format!("lone-{number}")).replace("1615304991", &format!("1615304991,\"x\":\"{lone}\""));
        let logto = event::logto(&format!("s{number}")).replace("Jane Doe", lone);
        for (source, body) in [("set", set), ("logto", logto)] {
            let refused = send(&acme, source, &[JSON], body.clone()).await;
            assert_eq!(refused.not_the_problem(400, "lone_surrogate"), None, "{source}, {lone}");
            let mended = format!("{source}-mended");
            let accepted = Accepted::of(&send(&acme, &mended, &[JSON], body.clone()).await.expect(202));
            let id = subscription.delivery_of(&accepted);
            acme.delivery_in("delivered", &id).await;
            let received = receiver.all().into_iter().find(|received| received.id() == id).unwrap();
            let arrived = received.text();
            assert!(arrived.contains(r"\ufffd") && !arrived.contains(r"\ud83d"), "{source}, {lone}: {arrived}");
            serde_json::from_str::<Value>(&arrived).expect("any reader reads it");
        }
    }
    // Complete surrogate pairs and escaped backslashes are accepted.
    let whole = event::set("whole").replace("1615304991", r#"1615304991,"x":"\ud83d\ude00 \\ud83d""#);
    send(&acme, "set", &[JSON], whole).await.expect(202);
    let broken = send(&acme, "set", &[JSON], r#"{"a": nope, "b": "\ud83d"}"#).await;
    assert_eq!(broken.not_the_problem(400, "malformed_json"), None, "the first fault is named");
}

#[tokio::test]
async fn older_set_forms_are_accepted() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.source("strict", Seed::Open).await;
    acme.source_with("plain", Seed::Open, &json!({"allow_plain_event_names": true})).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let pattern = acme.subscribe(&receiver).with("events", json!(["set/other/session*"])).create().await;
    let original = acme.subscribe(&receiver).format("original").create().await;

    let number = event::set("number").replace("\"8675309\"", "8675309");
    let accepted = Accepted::of(&send(&acme, "strict", &[JSON], number.clone()).await.expect(202));
    let received = async |id: String| {
        acme.delivery_in("delivered", &id).await;
        receiver.all().into_iter().find(|received| received.id() == id).unwrap()
    };
    let arrived = received(subscription.delivery_of(&accepted)).await.json();
    assert_eq!(arrived["txn"], "8675309", "text, as the RFC requires: {arrived}");
    assert_eq!(received(original.delivery_of(&accepted)).await.text(), number, "and back again, byte for byte");
    for bad in ["true", "[1]", "{}"] {
        let refused = send(&acme, "strict", &[JSON], event::set("x").replace("\"8675309\"", bad)).await;
        assert_eq!(refused.not_the_problem(400, "bad_claim"), None, "txn {bad}");
    }

    for name in ["session_revoked", "session revoked/é"] {
        let plain = event::set(name).replace(event::SET_TYPE, name);
        let refused = send(&acme, "strict", &[JSON], plain.clone()).await;
        assert_eq!(refused.not_the_problem(400, "bad_claim"), None, "{name}");
        assert!(refused.text().contains("allow_plain_event_names"), "it names the remedy: {}", refused.text());
        let accepted = Accepted::of(&send(&acme, "plain", &[JSON], plain.clone()).await.expect(202));
        let arrived = received(pattern.delivery_of(&accepted)).await.json();
        let uris: Vec<_> = arrived["events"].as_object().unwrap().keys().cloned().collect();
        assert!(uris[0].starts_with("https://schemas.setgate.dev/events/set/other/event-type/session"), "{arrived}");
        assert!(!uris[0].contains([' ', 'é']), "{arrived}");
        assert_eq!(received(original.delivery_of(&accepted)).await.text(), plain, "its own name is returned");
    }
    let uri = send(&acme, "plain", &[JSON], event::set("uri")).await;
    let accepted = Accepted::of(&uri.expect(202));
    assert_eq!(received(subscription.delivery_of(&accepted)).await.text(), event::set("uri"), "URIs stay");
    let twice = r#""session_revoked":{},"https://schemas.setgate.dev/events/set/other/event-type/session_revoked":{}"#;
    let twice = format!(r#"{{"iss":"i","jti":"j","iat":1,"events":{{{twice}}}}}"#);
    let refused = send(&acme, "plain", &[JSON], twice).await;
    assert_eq!(refused.not_the_problem(400, "duplicate_key"), None, "two names would become one");
}

#[tokio::test]
async fn largest_product_events_pass_filters() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let (logto, wso2) = (acme.source("logto", Seed::Logto).await, acme.source("wso2", Seed::Wso2).await);
    let filters = ["drop-by-type", "enrich-from-table", "flag-suspicious-login", "redact-claims", "translate-to-caep"];
    for filter in filters {
        acme.filter(filter).await;
    }
    acme.table("organizations", &[]).await;
    acme.table("apps", &[]).await;
    let chain = json!([
        {"filter": "drop-by-type", "grants": ["config"], "config": {"drop": ["logto/interaction/*"]}},
        {"filter": "enrich-from-table", "grants": ["config", "lookup"]},
        {"filter": "flag-suspicious-login", "grants": ["config"]},
        {"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": "0123456789abcdef0123456789abcdef"}},
        {"filter": "translate-to-caep"},
    ]);
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).chain(chain).create().await;

    // Four lists of 5,000 ids of 21 characters; 2,000 users with a role.
    let ids = |list: char| (0..5000).map(|n| format!("{list}{n:020}")).collect::<Vec<_>>();
    let membership = json!({"event": "Organization.Membership.Updated", "createdAt": "2026-08-21T12:16:09.000Z",
        "path": "/organizations/o/users", "method": "PUT", "status": 204, "params": {"id": "o"}, "organizationId": "o",
        "addedUserIds": ids('a'), "removedUserIds": ids('b'), "addedApplicationIds": ids('c'),
        "removedApplicationIds": ids('d'), "hookId": "h"});
    let users: Vec<_> = (0..2000)
        .map(|n| {
            json!({"id": format!("6c7f23d9-8083-4bf7-ab2c-{n:012}"), "userStoreDomain": "PRIMARY",
            "claims": [{"uri": "http://wso2.org/claims/username", "value": format!("user{n}@example.com")}]})
        })
        .collect();
    let role = json!({"iss": "https://localhost:9443/t/x", "jti": "bulk", "iat": 1_783_322_202_677_u64, "rci": "r", "events": {
        "https://schemas.identity.wso2.org/events/role/event-type/roleUsersUpdated":
            {"initiatorType": "ADMIN", "action": "ROLE_UPDATE", "role": {"id": "1", "name": "R", "addedUsers": users}}}});
    for (source, body, at_least) in [(&logto, membership, 470_000), (&wso2, role, 300_000)] {
        let body = body.to_string();
        assert!(body.len() > at_least, "{} bytes", body.len());
        let accepted = source.accept(body).await;
        let id = subscription.delivery_of(&accepted);
        acme.delivery_in("delivered", &id).await;
        let received = receiver.all().into_iter().find(|received| received.id() == id).unwrap();
        assert_eq!(subscription.verify(&received), Ok(()));
        assert!(received.text().len() > at_least / 2, "all of it arrives");
    }
    // The default limit is exactly 1 MiB.
    let open = acme.source("open", Seed::Open).await;
    let padded = |bytes: usize| {
        let body = event::set(&format!("padded-{bytes}"));
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    open.accept(padded(1 << 20)).await;
    let over = open.send(padded((1 << 20) + 1)).await;
    assert_eq!(over.not_the_problem(413, "body_too_large"), None);
}
