//! Receivers that echo requests: no secret from a request is recorded, returned or logged. The path and query of an
//! endpoint's URL are secret as well.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use setgate_tests::{Host, Received, Receiver, Reply, Seed, Subscription, Tail, Tenant, event};

/// Parts of the secrets of [`endpoint`], none of which may appear anywhere.
const HUSH: [&str; 6] = ["B0aZ4711qwertz", "q-hush-0815", "tok-hush-4711", "pass-hush-99", "c00kie-hush", "hush"];

/// A typical endpoint with tokens in the path, the query and various headers.
fn endpoint(receiver: &Receiver) -> Value {
    let base = receiver.url().trim_end_matches("/in").to_owned();
    json!({
        "url": format!("{base}/services/T0AB/B0aZ4711qwertz?token=q-hush-0815"),
        "headers": {
            "Authorization": format!("Basic {}", STANDARD.encode("user:pass-hush-99")),
            "X-Api-Key": "tok-hush-4711",
            "Cookie": "session=c00kie-hush; theme=dark",
        },
    })
}

/// The whole request, as displayed by a debug page.
fn dump(received: &Received) -> String {
    let mut page = format!("POST {} HTTP/1.1\r\n", received.target);
    for (name, value) in &received.headers {
        page += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    page
}

/// The same as JSON with `/` escaped, as PHP does.
fn dump_json(received: &Received) -> String {
    let headers: serde_json::Map<String, Value> =
        received.headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap()))).collect();
    json!({"path": received.target, "headers": headers}).to_string().replace('/', "\\/")
}

fn dump_html(received: &Received) -> String {
    format!("<p>{}</p>", dump(received).replace('&', "&amp;").replace('"', "&quot;"))
}

fn dump_base64(received: &Received) -> String {
    STANDARD.encode(dump(received))
}

fn dump_upper_lower(received: &Received) -> String {
    let escaped = received.target.replace('/', "%2F").replace('?', "%3F").replace('=', "%3D");
    format!("{escaped} {} {}", escaped.replace("%2F", "%2f"), header(received, "x-api-key").to_lowercase())
}

/// A secret that the receiver truncated, and characters that control a terminal.
fn cut_short(received: &Received) -> String {
    format!("\u{1b}[2J\u{202e}key {}", &header(received, "x-api-key")[..12])
}

fn header<'a>(received: &'a Received, name: &str) -> &'a str {
    received.header(name)
}

fn target(received: &Received) -> String {
    received.target.clone()
}

fn location(received: &Received) -> String {
    format!("https://login.example/?next={}", received.target.replace('/', "%2F").replace('?', "%3F"))
}

fn key(received: &Received) -> String {
    header(received, "x-api-key").to_owned()
}

fn signature(received: &Received) -> String {
    header(received, "webhook-signature").to_owned()
}

async fn set_up(config: &str) -> (Host, Tenant, Receiver, Subscription) {
    let host = Host::with().config(config).start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    let asked = acme.subscribe(&receiver).with("endpoint", endpoint(&receiver)).retry(&[]);
    let subscription = asked.create().await;
    (host, acme, receiver, subscription)
}

#[track_caller]
fn assert_silent(place: &str, text: &str) {
    let loud = HUSH.iter().find(|secret| text.contains(**secret));
    assert_eq!(loud, None, "{place}: {text}");
}

#[tokio::test]
async fn echoed_secrets_are_not_recorded() {
    let (mut host, acme, receiver, subscription) = set_up("").await;
    let source = acme.source("idp", Seed::Set).await;
    let mut tail = Tail::open(&acme, "", None).await;
    let pages: [fn(&Received) -> String; 6] = [dump, dump_json, dump_html, dump_base64, dump_upper_lower, cut_short];
    for (n, page) in pages.into_iter().enumerate() {
        let reply = Reply::status(400).body(page).echo("location", location).echo("x-target", target);
        receiver.answer([reply.echo("x-key", key).echo("x-signature", signature)]);
        let id = subscription.delivery_of(&source.accept(event::set(&format!("e{n}"))).await);
        let dead = acme.delivery_in("dead", &id).await;
        let received = receiver.received(n + 1).await.remove(n);
        assert_eq!(header(&received, "x-api-key"), "tok-hush-4711", "the receiver got its secrets");
        assert_eq!(received.target, "/services/T0AB/B0aZ4711qwertz?token=q-hush-0815");
        let outcome = &dead["attempts"][0]["outcome"];
        assert_silent("the history", &dead.to_string());
        assert!(outcome["body_head"].as_str().unwrap().contains("[secret "), "it says that one was removed: {outcome}");
        let signature = header(&received, "webhook-signature").trim_start_matches("v1,").to_owned();
        assert!(!outcome.to_string().contains(&signature), "its own signature: {outcome}");
        assert!(!outcome.to_string().contains('\u{1b}') && !outcome.to_string().contains("\\u001b"), "{outcome}");
        let told = tail.next().await.expect("a settlement");
        assert_silent("the tail", &told.data.to_string());
    }
    // Verification keys are secrets as well, and the receiver has them.
    receiver.answer([Reply::status(400).body(|received| received.text())]);
    receiver.answer([Reply::status(400).body(dump)]);
    let refused = acme.client.post(&subscription.path("/verify"), &json!({})).await.expect(422);
    assert_silent("the verification", &refused.text());
    for below in [
        "/deliveries?limit=50",
        "/audit",
        "/statistics",
        "/subscriptions",
        &format!("/subscriptions/{}", subscription.id),
    ] {
        assert_silent(below, &acme.get(below).await.to_string());
    }
    assert_silent("the metrics", &host.operator().get("/metrics").await.expect(200).text());
    assert!(host.terminate().await.success());
    assert_silent("the log", &host.log());
    assert_eq!(holding(&host.data().join("ledger"), &HUSH[..3]), [""; 0], "no file of the ledger holds a secret");
}

#[tokio::test]
async fn truncation_leaves_no_part_of_a_secret() {
    for kept in [40, 47, 52] {
        let limits = format!("[egress]\nresponse_bytes_kept = {kept}");
        let (_host, acme, receiver, subscription) = set_up(&limits).await;
        let source = acme.source("idp", Seed::Set).await;
        // The limit cuts the secret, in the body and in the header.
        let body: fn(&Received) -> String = |received| format!("{}{}", "x".repeat(35), header(received, "x-api-key"));
        receiver.answer([Reply::status(400)
            .echo("a", |received| format!("{}{}", "x".repeat(34), key(received)))
            .body(body)]);
        let id = subscription.delivery_of(&source.accept(event::set("one")).await);
        let dead = acme.delivery_in("dead", &id).await;
        let outcome = dead["attempts"][0]["outcome"].to_string();
        assert!(!outcome.contains("xto") && outcome.contains("xxx"), "{kept}: {outcome}");
    }
}

/// Names of the files in a directory that contain one of these texts.
fn holding(folder: &Path, secrets: &[&str]) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file"));
    let holds = |file: &std::fs::DirEntry| {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        secrets.iter().any(|secret| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()))
    };
    files.filter(holds).map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn endpoint_path_and_query_are_sealed() {
    let (host, acme, receiver, subscription) = set_up("").await;
    let source = acme.source("idp", Seed::Set).await;
    let origin = receiver.url().trim_end_matches("/in").to_owned();
    let shown = subscription.show().await;
    assert_eq!(shown["endpoint"]["url"], format!("{origin}/***0815"), "scheme, host and the last four characters");
    assert_eq!(shown["endpoint"]["headers"], json!({"authorization": "***", "cookie": "***", "x-api-key": "***"}));
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    let delivered = acme.delivery_in("delivered", &id).await;
    assert_eq!(delivered["attempts"][0]["sent"]["url"], format!("{origin}/***0815"));
    let tested = acme.client.post(&subscription.path("/test"), &json!({})).await.expect(202).text();
    for (place, text) in [("a test", tested), ("the history", delivered.to_string()), ("it", shown.to_string())] {
        assert_silent(place, &text);
    }
    // While the host is running, recent writes are in the WAL.
    assert_eq!(holding(&host.data().join("ledger"), &HUSH), [""; 0]);
    let back = host.path("backup");
    let mut command = Host::command(&host.path("."));
    let made = command.args(["admin", "backup", "--data"]).arg(host.data()).arg("--to").arg(&back).status().await;
    assert!(made.is_ok_and(|status| status.success()), "a backup is made");
    assert_eq!(holding(&back, &HUSH), [""; 0]);
}

#[tokio::test]
async fn masked_url_keeps_the_stored_one() {
    let (_host, acme, receiver, subscription) = set_up("").await;
    let source = acme.source("idp", Seed::Set).await;
    let origin = receiver.url().trim_end_matches("/in").to_owned();
    let put = async |endpoint: Value| acme.client.put(&subscription.path(""), &json!({"endpoint": endpoint})).await;
    for kept in [json!({}), json!({"url": format!("{origin}/***0815")}), json!({"headers": {"x-api-key": "***"}})] {
        put(kept).await.expect(200);
    }
    for (endpoint, word) in [
        (json!({"url": format!("{origin}/***0816")}), "redacted"),
        (json!({"url": "http://127.0.0.1:1/***0815"}), "redacted"),
        (json!({"url": "http://127.0.0.1:1/in"}), "give the value"),
        (json!({"url": null}), "leave it out"),
        (json!({"headers": {"x-other": "***"}}), "x-other"),
    ] {
        let refused = put(endpoint.clone()).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{endpoint}");
        assert!(refused.text().contains(word), "{endpoint}: {}", refused.text());
    }
    let refused = acme.subscribe_url(&format!("{origin}/***0815")).ask().await;
    assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "there is nothing to keep");
    let shown = put(json!({"headers": {"x-api-key": null}})).await.expect(200).json();
    assert_eq!(shown["endpoint"]["headers"], json!({"authorization": "***", "cookie": "***"}));
    source.accept(event::set("one")).await;
    let received = receiver.received(1).await.remove(0);
    assert_eq!(received.target, "/services/T0AB/B0aZ4711qwertz?token=q-hush-0815");
    assert_eq!(
        (received.headers.contains_key("x-api-key"), header(&received, "cookie")),
        (false, "session=c00kie-hush; theme=dark")
    );
    let shown = put(json!({"headers": null, "url": format!("{origin}/other-path-4711")})).await.expect(200).json();
    assert_eq!(
        (&shown["endpoint"]["headers"], &shown["endpoint"]["url"]),
        (&Value::Null, &json!(format!("{origin}/***4711")))
    );
}
