//! What all tenants use at once: each has a share, and whoever takes all of its own keeps nobody else waiting.

use http::Method;
use serde_json::json;
use setgate_tests::{Host, Receiver, Seed, Tenant, event};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Begins a request that announces a body and sends all of it but the last byte.
async fn begin(host: &Host, head: &str, bytes: usize) -> TcpStream {
    let address = host.base().trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(&address).await.unwrap();
    let head = format!("{head} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {bytes}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![b' '; bytes - 1]).await.unwrap();
    connection
}

#[tokio::test]
async fn bodies_of_one_tenant_cannot_take_the_room_of_others() {
    let settings =
        "[ingest]\nbody_bytes_max = 4000\n[listen]\nbodies_bytes_max = 10000\nbodies_bytes_per_tenant_max = 8000";
    let host = Host::with().config(settings).start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    let head = format!("POST {}", ours.path);
    let mut slow = Vec::new();
    let refused = setgate_tests::until("the share is taken", async || {
        // One that comes while an event is being read may find no room itself, so there are always more.
        slow.push(begin(&host, &head, 4000).await);
        let answer = ours.send(event::set("one")).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert_eq!(refused.not_the_problem(429, "busy"), None);
    assert!(refused.text().contains("listen.bodies_bytes_per_tenant_max"), "the limit is named: {}", refused.text());
    assert!(refused.headers.contains_key("retry-after"), "and when to try again");
    theirs.accept(event::set("two")).await;
    assert!(host.metric("setgate_ingest_total", &["tenant=\"acme\"", "outcome=\"busy\""]).await > 0.0, "it is counted");

    drop(slow);
    setgate_tests::until("the share is free again", async || {
        (ours.send(event::set("three")).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn uploads_of_one_tenant_cannot_take_the_room_of_others() {
    let settings = "[quota]\nfilter_bytes_max = 400000\ntable_bytes_max = 400000\n\
        [listen]\nuploads_bytes_max = 1000000\nuploads_bytes_per_tenant_max = 500000";
    let host = Host::with().config(settings).start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let upload = format!("PUT {}", acme.path("/filters/slow"));
    let key = format!("\r\nauthorization: Bearer {}\r\ncontent-type: application/wasm", acme.key);
    let address = host.base().trim_start_matches("http://").to_owned();
    let head = format!("{upload} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 400000{key}\r\n\r\n");
    let mut slow = Vec::new();
    let rows = "{\"key\": \"a\", \"value\": 1}\n".to_owned() + &" ".repeat(200_000);
    let headers = [("content-type", "application/jsonl")];
    let put = async |tenant: &Tenant| {
        tenant.client.send(Method::PUT, &tenant.path("/tables/apps"), &headers, rows.clone()).await
    };
    let refused = setgate_tests::until("the share is taken", async || {
        // One that comes while a table is being read may find no room itself, so there are always more.
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&vec![0; 399_999]).await.unwrap();
        slow.push(connection);
        let answer = put(&acme).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!(refused.text().contains("listen.uploads_bytes_per_tenant_max"), "the limit is named: {}", refused.text());
    let others = put(&zeta).await;
    assert_ne!(others.status, 429, "another tenant has its own share: {}", others.text());
    assert_ne!(others.status, 503, "and the host has room for it: {}", others.text());
}

#[tokio::test]
async fn a_flood_of_one_tenant_is_refused_first_and_only_there() {
    let settings = "[ingest]\nappends_max = 2\nappends_per_tenant_max = 1\nwaiting_per_tenant_max = 1";
    let host = Host::with().config(settings).start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    let (mut accepted, mut refused, mut round) = (0, Vec::new(), 0);
    // One event is at the ledger and one waits; of a hundred at once some find both places taken.
    while refused.is_empty() {
        let flood = (0..100).map(|number| {
            let (source, body) = (ours.clone(), event::set(&format!("flood-{round}-{number}")));
            tokio::spawn(async move { source.send(body).await })
        });
        let flood: Vec<_> = flood.collect();
        theirs.accept(event::set(&format!("calm-{round}"))).await;
        for sent in flood {
            let answer = sent.await.unwrap();
            match answer.status {
                202 => accepted += 1,
                _ => refused.push(answer),
            }
        }
        round += 1;
        assert!(round < 50, "a hundred events at once never found both places taken");
    }
    for answer in &refused {
        assert_eq!(answer.not_the_problem(429, "busy"), None);
        assert!(answer.text().contains("ingest.waiting_per_tenant_max"), "the limit is named: {}", answer.text());
    }
    let kept = host.metric("setgate_ingest_total", &["tenant=\"acme\"", "outcome=\"accepted\""]).await;
    assert_eq!(kept, f64::from(accepted), "what was refused is not stored, what was accepted is");
}

#[tokio::test]
async fn fuel_of_a_second_that_is_spent_makes_deliveries_late_and_not_faulty() {
    let host = Host::start().await;
    let receiver = Receiver::start().await;
    let send = async |tenant: &Tenant, events: usize| {
        let source = tenant.source("open", Seed::Open).await;
        tenant.filter("drop-by-type").await;
        let subscription = tenant.subscribe(&receiver).chain(json!([{"filter": "drop-by-type"}])).create().await;
        let mut deliveries = Vec::new();
        for number in 0..events {
            let id = subscription.delivery_of(&source.accept(event::set(&format!("e{number}"))).await);
            deliveries.push(tenant.delivery_in("delivered", &id).await);
        }
        deliveries
    };
    let rich = host.tenant("rich").await;
    let fuel = send(&rich, 1).await[0]["runs"][0]["fuel"].as_u64().expect("the fuel of a call");
    // Each call takes what two thirds of a second give, so the second finds nothing to begin with.
    let quota = json!({"quota": {"fuel_per_second": fuel * 3 / 2}});
    let poor = host.tenant_with("poor", quota).await;
    for delivery in send(&poor, 6).await {
        assert_eq!(delivery["runs"][0]["verdict"], "pass", "it is no fault: {delivery}");
    }
    let put_off =
        async |tenant: &str| host.metric("setgate_deliveries_put_off_total", &[&format!("tenant=\"{tenant}\"")]).await;
    assert!(put_off("poor").await > 0.0, "some had to wait for the next second's fuel");
    assert!(put_off("rich").await < 1.0, "where there is fuel nothing waits");
}
