//! Receivers in practice: slow, broken, flooding, behind private authorities and proxies; and the resulting history.

use std::path::Path;

use serde_json::{Value, json};
use setgate_tests::certificate::Issued;
use setgate_tests::{Authority, Ingest, Manner, Proxy, Received, Receiver, Reply, Rude, Seed, World, event};
use sha2::{Digest, Sha256};

/// Timeouts that are short enough for a story, and far apart.
pub(crate) const SHORT_WAITS: &str = "[egress]\nhead_ms_max = 1000\nresponse_ms_max = 2500";

/// Lets a rude receiver misbehave once, and returns the attempt from the history. The next attempt succeeds.
async fn misbehaving_once(manner: Manner) -> (Value, Rude) {
    let Ingest { acme, source, .. } = &World::with().config(SHORT_WAITS).start_ingest().await;
    let receiver = Rude::start([manner]).await;
    let subscription = acme.subscribe_url(&receiver.url()).retry(&[1, 1]).create().await;
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    let delivered = acme.delivery_in("delivered", &id).await;
    assert_eq!(delivered["attempt_count"], 2, "the second attempt succeeded: {delivered}");
    assert_eq!(delivered["attempts"][1]["outcome"]["status"], 204, "{delivered}");
    let failed = delivered["attempts"][0].clone();
    assert_eq!(failed["connection"]["peer"], receiver.address.to_string(), "the peer is recorded: {failed}");
    let sent = failed["sent"]["url"].as_str().unwrap();
    assert!(sent.starts_with(&format!("http://{}/", receiver.address)), "the URL is recorded: {failed}");
    (failed["outcome"].clone(), receiver)
}

#[track_caller]
pub(crate) fn assert_failed(outcome: &Value, class: &str, words: &str) {
    let detail = outcome["detail"].as_str().unwrap_or_default();
    assert!(outcome["class"] == class && detail.contains(words), "{class}, {words}: {outcome}");
}

#[tokio::test]
async fn silent_receiver_times_out() {
    for manner in [Manner::Hang, Manner::TrickleHead] {
        let (outcome, receiver) = misbehaving_once(manner).await;
        assert_failed(&outcome, "timeout", "no response began within 1000 ms");
        receiver.hung_up(1).await;
    }
}

#[tokio::test]
async fn temporary_failures_are_recorded_and_retried() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    receiver.answer([500, 500, 503, 500].map(|status| Reply::status(status).header("x-trace", "t1")));
    let endpoint = json!({"url": receiver.url() + "?token=hush", "headers": {"X-Token": "hush"}});
    let subscription = acme.subscribe(&receiver).with("endpoint", endpoint).retry(&[1; 6]).create().await;
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);

    let delivered = acme.delivery_in("delivered", &id).await;
    let received = receiver.received(5).await;
    let exchanges = delivered["attempts"].as_array().unwrap();
    let statuses: Vec<_> = exchanges.iter().map(|exchange| &exchange["outcome"]["status"]).collect();
    assert_eq!(statuses, [500, 500, 503, 500, 204], "{delivered}");
    let trace = json!(["x-trace", "t1"]);
    assert!(
        exchanges[0]["outcome"]["headers"].as_array().unwrap().contains(&trace),
        "the answer's headers: {delivered}"
    );
    for (received, exchange) in received.iter().zip(exchanges) {
        assert_on_record(received, &exchange["sent"]);
        assert_eq!(exchange["connection"]["http"], "http/1.1", "{exchange}");
    }
    assert!(!delivered.to_string().contains("hush"), "no secret of the endpoint is in the history: {delivered}");
}

/// The request in the history equals the received one, except for secrets.
#[track_caller]
fn assert_on_record(received: &Received, sent: &Value) {
    let kept = sent["headers"].as_array().unwrap();
    assert_eq!(kept.len(), received.headers.len(), "{sent}");
    for (name, value) in &received.headers {
        let value = if name == "x-token" { "***" } else { value.to_str().unwrap() };
        assert!(kept.contains(&json!([name.as_str(), value])), "{name}: {value}: {sent}");
    }
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&received.body)));
    assert_eq!((&sent["body_digest"], &sent["body_bytes"]), (&json!(digest), &json!(received.body.len())));
}

#[tokio::test]
async fn endless_response_body_is_cut_off() {
    const GIBIBYTE: u64 = 1 << 30;
    const MEBIBYTE: u64 = 1 << 20;
    let Ingest { host, acme, source } = &Ingest::start().await;
    let receiver = Rude::start([Manner::Well, Manner::Flood(GIBIBYTE)]).await;
    let subscription = acme.subscribe_url(&receiver.url()).retry(&[]).create().await;
    // Warm-up, so that the memory needed by any delivery is not measured.
    let first = subscription.delivery_of(&source.accept(event::set("one")).await);
    acme.delivery_in("delivered", &first).await;
    let before = peak_bytes(host.pid());

    let id = subscription.delivery_of(&source.accept(event::set("two")).await);
    let delivered = acme.delivery_in("delivered", &id).await;
    receiver.hung_up(1).await;
    let outcome = &delivered["attempts"][0]["outcome"];
    assert_eq!(outcome["status"], 200, "the receiver's first answer counts: {delivered}");
    assert_eq!(outcome["body_head"].as_str().unwrap().len(), 2048, "the rest is stored up to the limit");
    // Socket buffers accept some bytes before the host disconnects.
    assert!(receiver.written() < 64 * MEBIBYTE, "{} bytes were taken", receiver.written());
    let grown = peak_bytes(host.pid()).saturating_sub(before);
    assert!(grown < 32 * MEBIBYTE, "the host grew by {grown} bytes");
}

/// The peak memory of a process so far.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux has /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test]
async fn redirect_is_recorded_and_not_followed() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let subscription = acme.subscribe(&receiver).retry(&[]).create().await;
    for status in [301, 302, 303, 307, 308] {
        receiver.answer([Reply::status(status).header("location", &elsewhere.url())]);
        let id = subscription.delivery_of(&source.accept(event::set(&format!("e{status}"))).await);
        let dead = acme.delivery_in("dead", &id).await;
        let outcome = &dead["attempts"][0]["outcome"];
        assert_eq!(outcome["status"], status, "{dead}");
        let location = json!(["location", elsewhere.url()]);
        assert!(outcome["headers"].as_array().unwrap().contains(&location), "the target is recorded: {dead}");
    }
    assert_eq!((receiver.count(), elsewhere.count()), (5, 0), "nothing is followed");
}

#[tokio::test]
async fn bad_certificate_is_named() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let Ingest { acme, source, .. } = &World::with().config(&trust(folder.path(), &authority)).start_ingest().await;
    let bad: [(&str, Issued, &str); 3] = [
        ("expired", authority.issue_expired("127.0.0.1"), "expired"),
        ("of another name", authority.issue("receiver.example"), "not valid for name"),
        ("of an unknown authority", Authority::new().issue("127.0.0.1"), "UnknownIssuer"),
    ];
    for (what, issued, words) in bad {
        let receiver = Receiver::start_tls(issued.server(None)).await;
        let subscription = acme.subscribe(&receiver).retry(&[]).create().await;
        let id = subscription.delivery_of(&source.accept(event::set(what)).await);
        let dead = acme.delivery_in("dead", &id).await;
        assert_failed(&dead["attempts"][0]["outcome"], "tls", words);
        assert_eq!(receiver.count(), 0, "nothing is sent to a receiver without a valid certificate");

        receiver.present(authority.issue("127.0.0.1").server(None));
        acme.redrive(&id, "again").await.expect(200);
        let delivered = acme.delivery_in("delivered", &id).await;
        assert_eq!(delivered["attempt_count"], 2, "{delivered}");
        assert_eq!(delivered["attempts"][1]["connection"]["http"], "h2", "HTTP/2 is spoken where it is offered");
        assert_eq!(subscription.verify(&receiver.received(1).await[0]), Ok(()), "{what}");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

/// Configuration lines of a host that trusts an authority for all endpoints.
fn trust(folder: &Path, authority: &Authority) -> String {
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    format!("[egress]\nca_files = ['{}']", file.display())
}

#[tokio::test]
async fn endpoint_can_have_its_own_authority() {
    let (everywhere, own) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let Ingest { acme, source, .. } = &World::with().config(&trust(folder.path(), &everywhere)).start_ingest().await;
    let receiver = Receiver::start_tls(own.issue("127.0.0.1").server(None)).await;
    let endpoint = json!({"url": receiver.url(), "tls": {"ca_pem": own.pem()}});
    let with = acme.subscribe(&receiver).with("endpoint", endpoint).retry(&[]).create().await;
    let without = acme.subscribe(&receiver).retry(&[]).create().await;

    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("delivered", &with.delivery_of(&accepted)).await;
    let dead = acme.delivery_in("dead", &without.delivery_of(&accepted)).await;
    assert_failed(&dead["attempts"][0]["outcome"], "tls", "UnknownIssuer");
    let shown = &with.show().await["endpoint"]["tls"];
    assert_eq!(shown["ca_pem"], own.pem(), "an authority is no secret");
    assert!(shown["ca_fingerprints"][0].as_str().unwrap().starts_with("sha256:"), "{shown}");

    // The host's authorities are ignored if an endpoint names its own.
    receiver.present(everywhere.issue("127.0.0.1").server(None));
    let moved = Receiver::start_tls(everywhere.issue("127.0.0.1").server(None)).await;
    let endpoint = json!({"url": moved.url(), "tls": {"ca_pem": own.pem()}});
    acme.client.put(&with.path(""), &json!({"endpoint": endpoint, "retry": []})).await.expect(200);
    let dead = acme.delivery_in("dead", &with.delivery_of(&source.accept(event::set("two")).await)).await;
    assert_failed(&dead["attempts"][0]["outcome"], "tls", "UnknownIssuer");
}

#[tokio::test]
async fn pinned_certificate_is_the_only_one_trusted() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let elsewhere = Authority::new();
    for (what, own) in [
        ("that may sign", Issued::by_itself(&["127.0.0.1"], true, 4096)),
        ("that may not sign", Issued::by_itself(&["127.0.0.1"], false, 4096)),
        ("of an authority that is not given", elsewhere.issue("127.0.0.1")),
    ] {
        let receiver = Receiver::start_tls(own.server(None)).await;
        let endpoint = json!({"url": receiver.url(), "tls": {"ca_pem": own.certificate_pem()}});
        let subscription = acme.subscribe(&receiver).with("endpoint", endpoint).retry(&[]).create().await;
        let id = subscription.delivery_of(&source.accept(event::set(what)).await);
        acme.delivery_in("delivered", &id).await;

        for other in [Issued::by_itself(&["127.0.0.1"], true, 4096), elsewhere.issue("127.0.0.1")] {
            // A new port, because existing connections to the first one stay open.
            let receiver = Receiver::start_tls(other.server(None)).await;
            let endpoint = json!({"url": receiver.url(), "tls": {"ca_pem": own.certificate_pem()}});
            acme.client.put(&subscription.path(""), &json!({"endpoint": endpoint, "retry": []})).await.expect(200);
            let id = subscription.delivery_of(&source.accept(event::set(&format!("{what}, another"))).await);
            let dead = acme.delivery_in("dead", &id).await;
            assert_failed(&dead["attempts"][0]["outcome"], "tls", "invalid peer certificate");
            assert_eq!(receiver.count(), 0, "{what}");
        }
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn useless_ca_pem_is_refused_with_a_remedy() {
    let Ingest { acme, .. } = &Ingest::start().await;
    let good = Issued::by_itself(&["127.0.0.1"], false, 4096).certificate_pem();
    let other = Issued::by_itself(&["receiver.example"], false, 4096).certificate_pem();
    let expired = Issued::by_itself(&["127.0.0.1"], false, 2020).certificate_pem();
    for (pem, why) in [
        (other.clone(), "for other hosts than the endpoint's"),
        (expired.clone(), "has expired"),
        (Issued::by_itself(&[], false, 4096).certificate_pem(), "names no host"),
        (other.clone() + &expired, "for other hosts"),
        (Authority::new().issue_expired("127.0.0.1").certificate_pem(), "has expired"),
    ] {
        let endpoint = json!({"url": "https://127.0.0.1:1/", "tls": {"ca_pem": pem}});
        let answer = acme.subscribe_url("https://127.0.0.1:1/").with("endpoint", endpoint).ask().await;
        assert_eq!(answer.not_the_problem(422, "invalid_field"), None, "{why}");
        let text = answer.text();
        assert!(text.contains(why) && text.contains("subjectAltName=IP:127.0.0.1"), "{why}: {text}");
    }
    // One valid certificate is enough, so that certificates can be replaced.
    let endpoint = json!({"url": "https://127.0.0.1:1/", "tls": {"ca_pem": other + &good + &expired}});
    acme.subscribe_url("https://127.0.0.1:1/").with("endpoint", endpoint).create().await;
}

#[tokio::test]
async fn client_certificate_is_presented_and_its_key_hidden() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let Ingest { host, acme, source } = &Ingest::start().await;
    let receiver = Receiver::start_tls(servers.issue("127.0.0.1").server(Some(&clients))).await;
    let mine = clients.issue("setgate");
    let (certificate, key) = (mine.certificate_pem(), mine.key_pem());
    let endpoint = |tls: Value| json!({"endpoint": {"url": receiver.url(), "tls": tls}, "retry": []});
    let asked = endpoint(json!({"ca_pem": servers.pem()}));
    let subscription = acme.subscribe(&receiver).with("endpoint", asked["endpoint"].clone()).retry(&[]).create().await;

    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    let dead = acme.delivery_in("dead", &id).await;
    // In TLS 1.3 the receiver refuses after the handshake, so the alert or the end of the connection may be seen first.
    let class = dead["attempts"][0]["outcome"]["class"].as_str().unwrap_or_default();
    assert!(["tls", "broken"].contains(&class), "{dead}");

    let tls = json!({"ca_pem": servers.pem(), "client_certificate_pem": certificate, "client_key_pem": key});
    let answer = acme.client.put(&subscription.path(""), &endpoint(tls)).await.expect(200);
    acme.redrive(&id, "again").await.expect(200);
    acme.delivery_in("delivered", &id).await;
    assert_eq!(receiver.count(), 1, "only with the certificate is anything sent");

    // The key is kept if it is not given again, and is never returned.
    let tls = json!({"ca_pem": servers.pem(), "client_certificate_pem": certificate, "client_key_pem": "***"});
    acme.client.put(&subscription.path(""), &endpoint(tls)).await.expect(200);
    acme.client
        .put(&subscription.path(""), &json!({"endpoint": {"url": receiver.url()}, "retry": []}))
        .await
        .expect(200);
    acme.delivery_in("delivered", &subscription.delivery_of(&source.accept(event::set("two")).await)).await;
    let shown = subscription.show().await;
    assert_eq!(shown["endpoint"]["tls"]["client_certificate_pem"], certificate);
    let line = key.lines().nth(1).unwrap();
    for text in [shown.to_string(), answer.text(), acme.delivery(&id).await.to_string(), host.log()] {
        assert!(!text.contains(line) && !text.contains("PRIVATE KEY"), "{text}");
    }
    for file in ["ledger.db", "ledger.db-wal"] {
        let bytes = std::fs::read(host.data().join("ledger").join(file)).unwrap_or_default();
        assert!(!bytes.windows(line.len()).any(|window| window == line.as_bytes()), "the key is in {file}");
    }
}

#[tokio::test]
async fn invalid_certificates_are_refused() {
    let Ingest { acme, .. } = &Ingest::start().await;
    let receiver = Receiver::start_tls(Authority::new().issue("127.0.0.1").server(None)).await;
    let (one, two) = (Authority::new().issue("setgate"), Authority::new().issue("setgate"));
    let (certificate, key) = (one.certificate_pem(), one.key_pem());
    for (tls, field) in [
        (json!({"ca_pem": "nothing"}), "endpoint/tls/ca_pem"),
        (json!({"ca_pem": certificate.repeat(17)}), "endpoint/tls/ca_pem"),
        (json!({"ca_pem": " ".repeat(70_000) + &certificate}), "endpoint/tls/ca_pem"),
        (json!({"ca_pem": key}), "endpoint/tls/ca_pem"),
        (json!({"client_certificate_pem": certificate}), "endpoint/tls/client_key_pem"),
        (json!({"client_certificate_pem": certificate, "client_key_pem": "x"}), "endpoint/tls/client_key_pem"),
        (
            json!({"client_certificate_pem": certificate, "client_key_pem": two.key_pem()}),
            "endpoint/tls/client_key_pem",
        ),
        (
            json!({"client_certificate_pem": certificate.clone() + &key, "client_key_pem": key}),
            "client_certificate_pem",
        ),
        (json!({"client_key_pem": key}), "endpoint/tls/client_certificate_pem"),
    ] {
        let asked = json!({"url": receiver.url(), "tls": tls});
        let answer = acme.subscribe(&receiver).with("endpoint", asked).ask().await;
        assert_eq!(answer.not_the_problem(422, "invalid_field"), None, "{tls}");
        assert!(
            answer.text().contains(field) && !answer.text().contains(key.lines().nth(1).unwrap()),
            "{}",
            answer.text()
        );
    }
    let plain = json!({"url": "http://127.0.0.1:1/", "tls": {"ca_pem": Authority::new().pem()}});
    let answer = acme.subscribe(&receiver).with("endpoint", plain).ask().await;
    assert_eq!(answer.not_the_problem(422, "invalid_field"), None);

    // For another origin, the stored secrets must be given again.
    let tls = json!({"client_certificate_pem": certificate, "client_key_pem": key});
    let asked = json!({"url": receiver.url(), "tls": tls});
    let subscription = acme.subscribe(&receiver).with("endpoint", asked).create().await;
    for tls in [None, Some(json!({"client_certificate_pem": certificate}))] {
        let mut asked = json!({"endpoint": {"url": "https://127.0.0.1:1/"}});
        if let Some(tls) = tls {
            asked["endpoint"]["tls"] = tls;
        }
        let answer = acme.client.put(&subscription.path(""), &asked).await;
        assert_eq!(answer.not_the_problem(422, "invalid_field"), None);
        assert!(answer.text().contains("the endpoint is another one"), "{}", answer.text());
    }
    let asked = json!({"endpoint": {"url": "https://127.0.0.1:1/", "tls": {}}});
    let shown = acme.client.put(&subscription.path(""), &asked).await.expect(200).json();
    assert_eq!(shown["endpoint"].get("tls"), None, "`{{}}` is nothing: {shown}");
}

#[tokio::test]
async fn http2_connection_is_shared_within_a_tenant() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let Ingest { host, acme, source } = &World::with().config(&trust(folder.path(), &authority)).start_ingest().await;
    let receiver = Receiver::start_tls(authority.issue("127.0.0.1").server(None)).await;
    let subscription = acme.subscribe(&receiver).create().await;
    // A single request first, so that the connection exists when the others start.
    for number in 0..20 {
        let id = subscription.delivery_of(&source.accept(event::set(&format!("e{number}"))).await);
        if number == 0 {
            acme.delivery_in("delivered", &id).await;
        }
    }
    receiver.received(20).await;
    assert_eq!(receiver.connections(), 1, "twenty attempts, one connection");

    let globex = host.tenant("globex").await;
    let theirs = globex.source("idp", Seed::Set).await;
    globex.subscribe(&receiver).create().await;
    theirs.accept(event::set("one")).await;
    receiver.received(21).await;
    assert_eq!(receiver.connections(), 2, "another tenant has its own connection");
}

#[tokio::test]
async fn proxy_carries_everything() {
    let authority = Authority::new();
    let receiver = Receiver::start_tls(authority.issue("receiver.invalid").server(None)).await;
    let proxy = Proxy::start("me:hush", &[("receiver.invalid", receiver.address)]).await;
    let setting = format!("http://me:hush@{}", proxy.address);
    let Ingest { host, acme, source } = &mut World::with().env("SETGATE_EGRESS__PROXY", &setting).start_ingest().await;
    let endpoint = |name: &str| json!({"url": format!("https://{name}/in"), "tls": {"ca_pem": authority.pem()}});
    let known = acme.subscribe(&receiver).with("endpoint", endpoint("receiver.invalid")).retry(&[]).create().await;
    let unknown = acme.subscribe(&receiver).with("endpoint", endpoint("nobody.invalid")).retry(&[]).create().await;
    let inside = acme.subscribe(&receiver).with("endpoint", endpoint("10.0.0.1")).retry(&[]).create().await;

    let accepted = source.accept(event::set("one")).await;
    let delivered = acme.delivery_in("delivered", &known.delivery_of(&accepted)).await;
    assert_eq!(delivered["attempts"][0]["connection"], json!({"http": "h2", "proxied": true}), "{delivered}");
    assert_eq!(known.verify(&receiver.received(1).await[0]), Ok(()), "TLS and signature are the receiver's own");
    let dead = acme.delivery_in("dead", &unknown.delivery_of(&accepted)).await;
    assert_failed(&dead["attempts"][0]["outcome"], "proxy", "(502)");
    let dead = acme.delivery_in("dead", &inside.delivery_of(&accepted)).await;
    assert_failed(&dead["attempts"][0]["outcome"], "forbidden", "a private address");
    let mut asked = proxy.asked();
    asked.sort();
    assert_eq!(asked, ["nobody.invalid:443", "receiver.invalid:443"], "a forbidden address is not sent to the proxy");

    // With a wrong password, every attempt reports it.
    host.set_env("SETGATE_EGRESS__PROXY", &setting.replace("hush", "hash"));
    host.restart().await;
    let id = known.delivery_of(&source.accept(event::set("two")).await);
    let dead = acme.delivery_in("dead", &id).await;
    assert_failed(&dead["attempts"][0]["outcome"], "proxy", "in `egress.proxy` (407)");
    host.set_env("SETGATE_EGRESS__PROXY", &setting);
    host.restart().await;
    acme.redrive(&id, "again").await.expect(200);
    acme.delivery_in("delivered", &id).await;
    assert!(!host.log().contains("hush"), "the password is in no log");
}
