//! Connections: their clients, the limits per client, and the closing of idle ones.

use std::time::Duration;

use serde_json::json;
use setgate_tests::h2::{Raw2, Seen, connect_from};
use setgate_tests::{Client, Host, Ingest, Seed, Tenant, World, event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A blocked host does not answer within this time, and any other does on the busiest machine.
const SOON: Duration = Duration::from_secs(25);

async fn answers(client: &Client) -> bool {
    let asked = client.try_send(http::Method::GET, "/healthz", &[], "");
    matches!(tokio::time::timeout(SOON, asked).await, Ok(Ok(answer)) if answer.status == 200)
}

#[tokio::test]
async fn client_is_limited_to_its_share() {
    let Ingest { host, source, .. } = &World::with()
        .config("[listen]\nconnections_max = 12\nconnections_per_peer_max = 4")
        .source("open", Seed::Open)
        .start_ingest()
        .await;
    let head =
        format!("POST {} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n", source.path);
    let mut served = Vec::new();
    for _ in 0..4 {
        let mut one = connect_from("127.0.0.2", &host.base()).await.unwrap();
        one.write_all(head.as_bytes()).await.unwrap();
        // The host is waiting for its body, so it is not an idle connection that can be closed for the next one.
        let read = tokio::time::timeout(SOON, one.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(Ok(1..))), "{read:?}");
        served.push(one);
    }
    for _ in 0..8 {
        let mut one = connect_from("127.0.0.2", &host.base()).await.unwrap();
        let _ = one.write_all(head.as_bytes()).await;
        let read = tokio::time::timeout(SOON, one.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "one beyond its share is closed: {read:?}");
    }
    assert!(answers(&host.stranger()).await, "others find a place");
    source.accept(event::set("one")).await;
    for one in &mut served {
        let read = tokio::time::timeout(Duration::from_millis(100), one.read(&mut [0; 64])).await;
        assert!(read.is_err(), "those within its share stay open: {read:?}");
    }
    assert!(host.metric("setgate_connections_refused_total", &[]).await >= 8.0, "and counted");
}

#[tokio::test]
async fn idle_http2_connections_are_evicted() {
    let host = Host::with().config("[listen]\nconnections_max = 4").start().await;
    let mut idle = Vec::new();
    for number in 2..6 {
        let mut one = Raw2::open(&format!("127.0.0.{number}"), &host.base(), 65_535).await.unwrap();
        idle.push(tokio::spawn(async move { while one.next().await != Seen::End {} }));
    }
    for _ in 0..6 {
        assert!(answers(&host.stranger()).await, "an idle one makes place");
    }
    assert!(idle.iter().any(|one| one.is_finished()), "it was closed");
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let host = Host::with().config("[listen]\nidle_ms_max = 1000").start().await;
    let mut one = Raw2::open("127.0.0.1", &host.base(), 65_535).await.unwrap();
    one.request("GET", "/healthz", &[], true).await.unwrap();
    let ended = async { while one.next().await != Seen::End {} };
    assert!(tokio::time::timeout(SOON * 2, ended).await.is_ok(), "it answers each ping, and is closed");
}

/// The client address in the audit log for a change made by this request.
async fn audited(host: &Host, acme: &Tenant, from: &str, before: &str, name: &str, headers: &str) -> Option<String> {
    let body = json!({"form": "set", "proofs": [{"kind": "open"}]}).to_string();
    let mut stream = connect_from(from, &host.base()).await.unwrap();
    let request = format!(
        "{before}PUT {} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        acme.path(&format!("/sources/{name}")),
        acme.key,
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    if !answer.starts_with("HTTP/1.1 201") {
        return None;
    }
    // Read by the operator, from a listener that requires no header.
    let path = acme.path(&format!("/audit?kind=source&object={name}"));
    let audit = host.operator().get(&path).await.expect(200).json();
    audit["items"][0]["remote"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn trusted_proxy_names_clients_by_header() {
    let config = "[listen]\ntrusted_proxies = [\"127.0.0.2/32\"]\nclient_address = \"x_forwarded_for\"\n\
        connections_per_peer_max = 3";
    let host = Host::with().config(config).start().await;
    let acme = host.tenant("acme").await;
    let named = "x-forwarded-for: 203.0.113.1, 198.51.100.7\r\n";
    let seen = audited(&host, &acme, "127.0.0.2", "", "one", named).await;
    assert_eq!(seen.as_deref(), Some("198.51.100.7"), "the address that the proxy recorded");
    let forged = audited(&host, &acme, "127.0.0.3", "", "two", named).await;
    assert_eq!(forged.as_deref(), Some("127.0.0.3"), "the header of an untrusted peer is ignored");

    // Requests of one client count together, those of other clients do not.
    let source = acme.source("open", Seed::Open).await;
    let mut crowd = Vec::new();
    let begin = async |client: &str| {
        let mut one = connect_from("127.0.0.2", &host.base()).await.unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\nx-forwarded-for: {client}\r\n\r\n",
            source.path
        );
        one.write_all(head.as_bytes()).await.unwrap();
        one
    };
    for _ in 0..3 {
        crowd.push(begin("192.0.2.1").await);
    }
    let refused = setgate_tests::until("its share is used up", async || {
        let mut over = begin("192.0.2.1").await;
        let mut answer = vec![0; 1024];
        match tokio::time::timeout(Duration::from_millis(500), over.read(&mut answer)).await {
            Ok(Ok(bytes)) => Some(String::from_utf8_lossy(&answer[..bytes]).into_owned()),
            // It arrived before one of the three.
            _ => {
                crowd.push(over);
                None
            }
        }
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    let other = audited(&host, &acme, "127.0.0.2", "", "three", "x-forwarded-for: 192.0.2.2\r\n").await;
    assert_eq!(other.as_deref(), Some("192.0.2.2"));
}

#[tokio::test]
async fn trusted_proxy_names_clients_by_proxy_protocol() {
    let config = "[listen]\ntrusted_proxies = [\"127.0.0.2/32\"]\nclient_address = \"proxy_protocol\"";
    let host = Host::with().config(config).start().await;
    let acme = host.tenant("acme").await;
    let header = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n";
    let seen = audited(&host, &acme, "127.0.0.2", header, "one", "").await;
    assert_eq!(seen.as_deref(), Some("203.0.113.9"));
    let without = audited(&host, &acme, "127.0.0.2", "", "two", "").await;
    assert_eq!(without, None, "a connection of the proxy begins with it");
    let stranger = audited(&host, &acme, "127.0.0.3", header, "three", "").await;
    assert_eq!(stranger, None, "from elsewhere it is no HTTP");
    let plain = audited(&host, &acme, "127.0.0.3", "", "four", "").await;
    assert_eq!(plain.as_deref(), Some("127.0.0.3"));
}
