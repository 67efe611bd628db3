//! Resources shared by all tenants: each tenant has a share, and exhausting it does not delay others.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::h2::{Raw2, connect_from};
use setgate_tests::{Answer, Host, Ingest, Manner, Receiver, Rude, Seed, Tenant, World, event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Starts a request that announces a body, and sends all but its last byte.
async fn begin(host: &Host, from: &str, head: &str, bytes: usize) -> TcpStream {
    let mut connection = connect_from(from, &host.base()).await.unwrap();
    let head = format!("{head} HTTP/1.1\r\nhost: h\r\ncontent-length: {bytes}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![b' '; bytes - 1]).await.unwrap();
    connection
}

#[tokio::test]
async fn event_bodies_leave_memory_for_others() {
    let settings = "[ingest]\nbody_bytes_max = 4000\n[listen]\nbodies_bytes_max = 32000";
    let host = Host::with().config(settings).start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    let head = format!("POST {}", ours.path);
    let mut slow = Vec::new();
    let refused = setgate_tests::until("the share is used up", async || {
        // A request that arrives while an event is being read may be refused itself, so new ones are added
        // continuously. One client can use at most half of the budget, so there are two.
        let from = if slow.len() % 2 == 0 { "127.0.0.2" } else { "127.0.0.3" };
        slow.push(begin(&host, from, &head, 4000).await);
        let answer = ours.send(event::set("one")).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert_eq!(refused.not_the_problem(429, "busy"), None);
    assert!(refused.text().contains("listen.bodies_bytes_max"), "the limit is named: {}", refused.text());
    assert!(refused.headers.contains_key("retry-after"), "and when to try again");
    theirs.accept(event::set("two")).await;
    assert!(host.metric("setgate_ingest_total", &["tenant=\"acme\"", "outcome=\"busy\""]).await > 0.0, "it is counted");

    drop(slow);
    setgate_tests::until("the share is free again", async || {
        (ours.send(event::set("three")).await.status == 202).then_some(())
    })
    .await;
}

/// Three quarters of the share of one tenant.
const UPLOAD_BYTES: usize = 24_000_000;

#[tokio::test]
async fn uploads_leave_memory_for_others() {
    let host = Host::start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let upload = format!("PUT {}", acme.path("/filters/slow"));
    let key = format!("\r\nauthorization: Bearer {}\r\ncontent-type: application/wasm", acme.key);
    let address = host.base().trim_start_matches("http://").to_owned();
    let head = format!("{upload} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {UPLOAD_BYTES}{key}\r\n\r\n");
    let mut slow = Vec::new();
    let rows = "{\"key\": \"a\", \"value\": 1}\n".to_owned() + &" ".repeat(12_000_000);
    let headers = [("content-type", "application/jsonl")];
    let put = async |tenant: &Tenant| {
        tenant.client.send(Method::PUT, &tenant.path("/tables/apps"), &headers, rows.clone()).await
    };
    let refused = setgate_tests::until("the share is used up", async || {
        // A request that arrives while a table is being read may be refused itself, so new ones are added continuously.
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        // Fails if this upload is the one that is refused.
        let _refused = connection.write_all(&vec![0; UPLOAD_BYTES - 1]).await;
        slow.push(connection);
        let answer = put(&acme).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!(
        refused.text().contains("33554432 bytes of memory, the limit per tenant"),
        "the limit is named: {}",
        refused.text()
    );
    let others = put(&zeta).await;
    assert_ne!(others.status, 429, "another tenant has its own share: {}", others.text());
    assert_ne!(others.status, 503, "and the host accepts it: {}", others.text());
}

#[tokio::test]
async fn flooding_tenant_alone_is_refused() {
    let settings = "[ingest]\nappends_max = 1";
    let host = Host::with().config(settings).start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    let (mut accepted, mut refused, mut round) = (0, Vec::new(), 0);
    // One event is being appended and two are queued; some of a hundred concurrent ones find all slots taken.
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
        assert!(round < 50, "a hundred concurrent events never used both slots");
    }
    for answer in &refused {
        assert_eq!(answer.not_the_problem(429, "busy"), None);
        assert!(answer.text().contains("ingest.appends_max"), "the limit is named: {}", answer.text());
    }
    let kept = host.metric("setgate_ingest_total", &["tenant=\"acme\"", "outcome=\"accepted\""]).await;
    assert_eq!(kept, f64::from(accepted), "accepted events are stored, refused ones are not");
}

#[tokio::test]
async fn spent_fuel_delays_without_faults() {
    let host = Host::start().await;
    let receiver = Receiver::start().await;
    let send = async |tenant: &Tenant, events: usize| {
        let source = tenant.source("open", Seed::Open).await;
        tenant.filter("drop-by-type").await;
        let subscription =
            tenant.subscribe(&receiver).chain(json!([{"filter": "drop-by-type", "grants": ["config"]}])).create().await;
        let mut deliveries = Vec::new();
        for number in 0..events {
            let id = subscription.delivery_of(&source.accept(event::set(&format!("e{number}"))).await);
            deliveries.push(tenant.delivery_in("delivered", &id).await);
        }
        deliveries
    };
    let rich = host.tenant("rich").await;
    let fuel = send(&rich, 1).await[0]["runs"][0]["fuel"].as_u64().expect("the fuel of a call");
    // Each call uses the fuel of two thirds of a second, so the second one has to wait.
    let quota = json!({"quota": {"fuel_per_second": fuel * 3 / 2}});
    let poor = host.tenant_with("poor", quota).await;
    for delivery in send(&poor, 6).await {
        assert_eq!(delivery["runs"][0]["verdict"], "pass", "it is no fault: {delivery}");
    }
    let put_off =
        async |tenant: &str| host.metric("setgate_deliveries_put_off_total", &[&format!("tenant=\"{tenant}\"")]).await;
    assert!(put_off("poor").await > 0.0, "some waited for the next second's fuel");
    assert!(put_off("rich").await < 1.0, "nothing waits if there is fuel");
}

/// An event with the maximum number of types, each of maximum length and with many possible starts of a match.
fn long_types(jti: &str) -> String {
    let types = (0..16).map(|number| format!("\"urn:{}{}{number:02}\":{{}}", "a:".repeat(31), "a".repeat(940)));
    let types: Vec<String> = types.collect();
    let (head, tail) = (r#"{"iss":"https://idp.example.com/","iat":1615305159,"jti":""#, types.join(","));
    format!("{head}{jti}\",\"events\":{{{tail}}}}}")
}

/// Patterns for which a backtracking matcher has to try every position of a type.
fn slow_patterns() -> Vec<String> {
    (0..64).map(|number| format!("a*{}{number:02}b", "a".repeat(200))).collect()
}

#[tokio::test]
async fn slow_patterns_delay_no_other_tenant() {
    // A matcher with a cost of the product of both lengths would take minutes for these events, longer than the request
    // timeout.
    let host = Host::with().config("[listen]\nrequest_ms_max = 15000\n").start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    let receiver = Receiver::start().await;
    acme.subscribe(&receiver).with("events", json!(slow_patterns())).create().await;
    let all = acme.subscribe(&receiver).with("events", json!(["urn:*a*15"])).create().await;
    let slow: Vec<_> = (0..24)
        .map(|number| {
            let (source, body) = (ours.clone(), long_types(&format!("slow-{number}")));
            tokio::spawn(async move { source.send(body).await })
        })
        .collect();
    for number in 0..10 {
        theirs.accept(event::set(&format!("calm-{number}"))).await;
    }
    for sent in slow {
        let answer = sent.await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(receiver.received(24).await.len(), 24, "each is for {} alone", all.id);

    // A replay matches the same patterns against the same events.
    let asked =
        json!({"subscription": all.id, "since": "2020-01-01T00:00:00Z", "events": slow_patterns(), "per_second": 1000});
    let replay = acme.client.post(&acme.path("/replays"), &asked).await.expect(201).json();
    setgate_tests::until("the replay has looked at all of them", async || {
        let replay = acme.get(&format!("/replays/{}", replay["id"].as_str().unwrap())).await;
        (replay["state"] == "done").then_some(())
    })
    .await;
}

#[tokio::test]
async fn patterns_are_limited_per_tenant() {
    let host = Host::start().await;
    let receiver = Receiver::start().await;
    let of_number = host.tenant_with("number", json!({"quota": {"patterns_max": 100}})).await;
    let of_bytes = host.tenant_with("bytes", json!({"quota": {"patterns_bytes_max": 20_000}})).await;
    for (tenant, quota) in [(&of_number, "patterns_max"), (&of_bytes, "patterns_bytes_max")] {
        let first = tenant.subscribe(&receiver).with("events", json!(slow_patterns())).create().await;
        let second = tenant.subscribe(&receiver).with("events", json!(slow_patterns())).ask().await;
        assert_eq!(second.not_the_problem(409, "conflict"), None);
        assert!(second.text().contains(quota), "the limit is named: {}", second.text());
        tenant.client.delete(&first.path("")).await.expect(204);
        tenant.subscribe(&receiver).with("events", json!(slow_patterns())).create().await;
    }
}

/// A subscription with about 16 KiB of metadata.
async fn heavy(tenant: &Tenant, receiver: &Receiver) -> Answer {
    let metadata: serde_json::Map<String, Value> =
        (0..32).map(|number| (format!("note-{number}"), Value::from("x".repeat(500)))).collect();
    tenant.subscribe(receiver).with("metadata", Value::Object(metadata)).ask().await
}

#[tokio::test]
async fn documents_are_limited_in_bytes() {
    let mut host = Host::start().await;
    let receiver = Receiver::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"documents_bytes_max": 100_000}})).await;
    // Concurrently: uncommitted documents are counted as well.
    let (one, two) = (acme.clone(), receiver.url());
    let asked: Vec<_> = (0..12)
        .map(|_| {
            let (tenant, url) = (one.clone(), two.clone());
            let metadata: serde_json::Map<String, Value> =
                (0..32).map(|number| (format!("note-{number}"), Value::from("x".repeat(500)))).collect();
            tokio::spawn(
                async move { tenant.subscribe_url(&url).with("metadata", Value::Object(metadata)).ask().await },
            )
        })
        .collect();
    let mut made = Vec::new();
    for asked in asked {
        let answer = asked.await.unwrap();
        if answer.status == 201 {
            made.push(answer.json()["id"].as_str().unwrap().to_owned());
        } else {
            assert_eq!(answer.not_the_problem(409, "conflict"), None);
            assert!(answer.text().contains("documents_bytes_max"), "the limit is named: {}", answer.text());
        }
    }
    assert!((3..=5).contains(&made.len()), "{} of more than 17 KiB each", made.len());

    // All other kinds of documents count towards the same limit, and so do larger replacements.
    let topics = json!({"websub_topics": vec!["t".repeat(1_000); 90]});
    let mut source = Seed::Open.settings();
    source["websub_topics"] = topics["websub_topics"].clone();
    let refused = acme.client.put(&acme.path("/sources/heavy"), &source).await;
    assert_eq!(refused.not_the_problem(409, "conflict"), None);
    let small = acme.source("idp", Seed::Open).await;
    let refused = acme.client.put(&acme.path("/sources/idp"), &source).await;
    assert_eq!(refused.not_the_problem(409, "conflict"), None);
    small.accept(event::set("one")).await;

    // With a quota below the current use, everything works except additions; the ledger also opens at a restart.
    let lower = json!({"quota": {"documents_bytes_max": 1_000}});
    let change = json!({"quota": lower["quota"]});
    let headers = [("content-type", "application/json")];
    let path = "/api/v1/tenants/acme";
    host.operator().send(Method::PATCH, path, &headers, change.to_string()).await.expect(200);
    host.restart().await;
    let of = |id: &str| acme.path(&format!("/subscriptions/{id}"));
    for id in &made {
        acme.client.get(&of(id)).await.expect(200);
    }
    acme.client.post(&format!("{}/pause", of(&made[0])), &json!({"reason": "for now"})).await.expect(200);
    acme.client.post(&format!("{}/resume", of(&made[0])), &json!({})).await.expect(200);
    small.accept(event::set("two")).await;
    assert_eq!(heavy(&acme, &receiver).await.not_the_problem(409, "conflict"), None);
    for id in &made {
        acme.client.delete(&of(id)).await.expect(204);
    }
}

#[tokio::test]
async fn hanging_receivers_leave_slots_for_another_tenant() {
    let config = "[delivery]\nin_flight_max = 24\nin_flight_per_tenant_max = 8\nbreaker_failures_max = 0\n\
        [egress]\nhead_ms_max = 600000\nresponse_ms_max = 600000\n";
    let host = Host::with().config(config).start().await;
    let mut hanging = Vec::new();
    for number in 0..5 {
        let tenant = host.tenant(&format!("hang-{number}")).await;
        let source = tenant.source("open", Seed::Open).await;
        let receiver = Rude::start(std::iter::repeat_n(Manner::Hang, 100)).await;
        tenant.subscribe_url(&receiver.url()).create().await;
        for event in 0..12 {
            source.accept(event::set(&format!("e{event}"))).await;
        }
        hanging.push((tenant, receiver));
    }
    let in_flight = async || host.metric("setgate_deliveries_in_flight", &[]).await;
    setgate_tests::until("the receivers hold their requests", async || (in_flight().await >= 18.0).then_some(())).await;

    let healthy = host.tenant("healthy").await;
    let source = healthy.source("open", Seed::Open).await;
    let receiver = Receiver::start().await;
    let subscription = healthy.subscribe(&receiver).create().await;
    for number in 0..20 {
        let accepted = source.accept(event::set(&format!("calm-{number}"))).await;
        healthy.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    }
    for (tenant, _receiver) in &hanging {
        let tried = host.metric("setgate_attempts_total", &[&format!("tenant=\"{}\"", tenant.name)]).await;
        assert!(tried < 1.0, "nothing of `{}` had ended", tenant.name);
    }
}

#[tokio::test]
async fn announced_bodies_take_no_memory() {
    let Ingest { host, acme, source: ours } = &World::with().source("open", Seed::Open).start_ingest().await;
    // Without a key, on one connection: many times the tenant's share.
    let mut announces = Raw2::open("127.0.0.2", &host.base(), 65_535).await.unwrap();
    // Large ones first, and smaller ones for the rest.
    let sizes = [("250000", 72), ("10000", 25), ("1000", 15), ("100", 15)];
    for size in sizes.iter().flat_map(|(size, count)| std::iter::repeat_n(*size, *count)) {
        let headers = [("content-type", "application/json"), ("content-length", size)];
        announces.request("POST", &ours.path, &headers, false).await.unwrap();
    }
    let address = host.base().trim_start_matches("http://").to_owned();
    let mut others = Vec::new();
    for _ in 0..40 {
        let mut one = TcpStream::connect(&address).await.unwrap();
        let head = format!("POST {} HTTP/1.1\r\nhost: h\r\ncontent-length: 250000\r\n\r\n", ours.path);
        one.write_all(head.as_bytes()).await.unwrap();
        others.push(one);
    }
    // And with a key, for the memory budget of uploads.
    let mut uploads = Vec::new();
    for bytes in [16_000_000, 16_000_000, 1_500_000, 54_000, 400, 30] {
        let mut one = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\ncontent-type: application/wasm\r\n\
             content-length: {bytes}\r\n\r\n",
            acme.path("/filters/slow"),
            acme.key
        );
        one.write_all(head.as_bytes()).await.unwrap();
        uploads.push(one);
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for number in 0..20 {
        let answer = ours.send(event::set(&format!("e{number}"))).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    acme.table("apps", &[("a", json!(1))]).await;
}

/// Sends this incomplete request and returns the answer.
async fn answer_to(host: &Host, sent: &str) -> String {
    let address = host.base().trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(&address).await.unwrap();
    connection.write_all(sent.as_bytes()).await.unwrap();
    let (mut answer, mut part) = (String::new(), [0; 4096]);
    let read = async {
        while let Ok(bytes @ 1..) = connection.read(&mut part).await {
            answer.push_str(&String::from_utf8_lossy(&part[..bytes]));
            if answer.contains("\"detail\"") {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(40), read).await;
    answer
}

#[tokio::test]
async fn stalled_body_times_out() {
    let Ingest { host, acme, source: ours } = &World::with().source("open", Seed::Open).start_ingest().await;
    let key = format!("authorization: Bearer {}\r\n", acme.key);
    let event = format!("POST {} HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n{{", ours.path);
    let table = format!(
        "PUT {} HTTP/1.1\r\nhost: h\r\n{key}content-type: text/csv\r\ncontent-length: 1000\r\n\r\n",
        acme.path("/tables/t")
    );
    let document = format!(
        "PUT {} HTTP/1.1\r\nhost: h\r\n{key}content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{",
        acme.path("/sources/s")
    );
    let answers = [answer_to(host, &event), answer_to(host, &table), answer_to(host, &document)];
    let [event, table, document] = answers;
    for answer in <[String; 3]>::from(tokio::join!(event, table, document)) {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_too_slow"), "{answer}");
    }
}

#[tokio::test]
async fn unfinished_bodies_leave_memory_for_other_clients() {
    // Signed, so that the proof can only be checked at the end of the body.
    let Ingest { host, source: ours, .. } = &World::with().source("signed", Seed::Wso2).start_ingest().await;
    let mut stalled = Vec::new();
    // Large ones first, and smaller ones for the rest.
    let sizes = [(200_000, 84), (20_000, 9), (2_000, 9), (200, 9)];
    for bytes in sizes.iter().flat_map(|(bytes, count)| std::iter::repeat_n(*bytes, *count)) {
        if stalled.last().is_some_and(|(before, _)| *before != bytes) {
            // Smaller ones fill the rest once the larger ones have arrived.
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        }
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\nx-wso2-event-signature: sha256={}\r\n\
             content-length: {bytes}\r\n\r\n",
            ours.path,
            "0".repeat(64)
        );
        let body = vec![b' '; bytes - 1];
        let mut one = connect_from("127.0.0.2", &host.base()).await.unwrap();
        let sent = async {
            one.write_all(head.as_bytes()).await?;
            one.write_all(&body).await
        };
        // Requests beyond the client's share may be refused while they are being sent.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), sent).await;
        stalled.push((bytes, one));
    }
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    for number in 0..20 {
        let answer = ours.send(event::wso2(&format!("e{number}"))).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    drop(stalled);
}

#[tokio::test]
async fn rejected_head_reads_no_body() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let post =
        |path: &str, headers: &str| format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n{headers}\r\n");
    let (open, token) = (acme.source("open", Seed::Open).await, acme.source("token", Seed::Set).await);
    let (wso2, standard) = (acme.source("wso2", Seed::Wso2).await, acme.source("std", Seed::Platform).await);
    let json = "content-type: application/json\r\n";
    let sources = acme.path("/sources");
    for (what, sent, expected) in [
        ("another media type", post(&open.path, "content-type: text/html\r\n"), "415"),
        ("no token", post(&token.path, json), "401"),
        ("a wrong token", post(&token.path, &format!("{json}authorization: Bearer nonsense\r\n")), "401"),
        ("no signature", post(&wso2.path, json), "401"),
        ("no signature of Standard Webhooks", post(&standard.path, json), "401"),
        ("no key", format!("PUT {sources}/a HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n{json}\r\n"), "401"),
        (
            "too much",
            format!("POST {} HTTP/1.1\r\nhost: h\r\ncontent-length: 900000000\r\n{json}\r\n", open.path),
            "413",
        ),
    ] {
        let answer = answer_to(&host, &sent).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{what}: {answer}");
    }
}

/// A SET of about 20 kB that does not compress.
pub(crate) fn bulky(jti: &str) -> String {
    let mut set: Value = serde_json::from_str(&event::set(jti)).expect("a SET is JSON");
    let mut state = jti.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| state.rotate_left(8) ^ u64::from(byte));
    let letters = std::iter::repeat_with(|| {
        // Xorshift (Marsaglia 2003): letters without repetition.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 40) as u8 % 43)
    });
    set["padding"] = letters.filter(|letter| letter.is_ascii_alphanumeric()).take(20_000).collect::<String>().into();
    set.to_string()
}

async fn stored(tenant: &Tenant) -> u64 {
    tenant.get("/statistics").await["now"]["stored_bytes"]
        .as_u64()
        .expect("a tenant's statistics show what it has stored")
}

#[tokio::test]
async fn stored_bytes_quota_hits_its_tenant_only() {
    let mut host = Host::with().config("[data]\nretention_every_s = 1\n").start().await;
    let (acme, zeta) =
        (host.tenant_with("acme", json!({"quota": {"stored_bytes_max": 200_000}})).await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let mut accepted = Vec::new();
    let refused = loop {
        assert!(accepted.len() < 30, "600 kB were accepted");
        let answer = ours.send(bulky(&format!("e{}", accepted.len()))).await;
        if answer.status != 202 {
            break answer;
        }
        accepted.push(answer.json()["event"].as_str().unwrap().to_owned());
    };
    assert_eq!(refused.not_the_problem(429, "storage_full"), None);
    assert!(
        refused.text().contains("stored_bytes_max") && refused.headers.contains_key("retry-after"),
        "{}",
        refused.text()
    );
    assert!(accepted.len() > 4, "{} events of some 20 kB", accepted.len());
    theirs.accept(bulky("calm")).await;
    // Accepted events are still delivered, and other ways to fill the disk are blocked as well.
    receiver.received(accepted.len()).await;
    let rows = json!({"key": "a", "value": "x".repeat(1_000)}).to_string();
    let headers = [("content-type", "application/jsonl")];
    let table = acme.client.send(Method::PUT, &acme.path("/tables/apps"), &headers, rows).await;
    assert_eq!(table.not_the_problem(429, "storage_full"), None);
    let delivered = acme.delivery_in("delivered", &subscription.delivery_of_any()(&accepted[0])).await;
    assert_eq!(delivered["attempt_count"], 1);

    // The count is exact to the byte after a crash.
    let before = setgate_tests::until("nothing is under way", async || {
        let before = stored(&acme).await;
        let due = acme.get("/statistics").await["now"]["due"].as_u64();
        (due == Some(0) && stored(&acme).await == before).then_some(before)
    })
    .await;
    assert!(before >= 200_000, "{before}");
    let shown = host.metric("setgate_stored_bytes", &["tenant=\"acme\""]).await;
    assert_eq!(shown, before as f64);
    host.kill9().await;
    host.launch();
    setgate_tests::until("the host is back", async || host.is_listening().unwrap().then_some(())).await;
    assert_eq!(stored(&acme).await, before);
    assert_eq!(ours.send(bulky("after the crash")).await.status, 429);

    // Expired data frees space.
    host.set_env("SETGATE_DATA__RETENTION_S", "1");
    host.restart().await;
    setgate_tests::until("requests are accepted again", async || {
        (ours.send(bulky("later")).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ingest_rate_quota_hits_its_tenant_only() {
    let host = Host::start().await;
    let (acme, zeta) =
        (host.tenant_with("acme", json!({"quota": {"ingest_bytes_per_second": 1}})).await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    ours.accept(event::set("one")).await;
    let refused = ours.send(event::set("two")).await;
    assert_eq!(refused.not_the_problem(429, "too_many_bytes"), None);
    assert!(refused.text().contains("ingest_bytes_per_second"), "the limit is named: {}", refused.text());
    assert!(refused.headers.contains_key("retry-after"), "and when to try again");
    for number in 0..5 {
        theirs.accept(event::set(&format!("calm-{number}"))).await;
    }
    let quota = json!({"quota": {"ingest_bytes_per_second": 0}}).to_string();
    let headers = [("content-type", "application/json")];
    host.operator().send(Method::PATCH, "/api/v1/tenants/acme", &headers, quota).await.expect(200);
    ours.accept(event::set("two")).await;
}

/// A limit of three quarters of the free space simulates a disk that fills up.
#[tokio::test]
async fn filling_disk_refuses_the_largest_tenant_first() {
    let mut host = Host::start().await;
    let (acme, zeta) = (host.tenant("acme").await, host.tenant("zeta").await);
    let (ours, theirs) = (acme.source("open", Seed::Open).await, zeta.source("open", Seed::Open).await);
    for number in 0..10 {
        ours.accept(bulky(&format!("e{number}"))).await;
    }
    theirs.accept(bulky("calm")).await;
    assert!(stored(&acme).await > 5 * stored(&zeta).await);
    let free = setgate_tests::until("the disk was looked at", async || {
        let free = host.metric("setgate_disk_free_bytes", &[]).await;
        (free > 0.0).then_some(free)
    })
    .await;
    host.set_env("SETGATE_DATA__DISK_FREE_BYTES_MIN", &format!("{:.0}", free / 4.0 * 3.0));
    host.restart().await;
    let refused = setgate_tests::until("the disk was looked at", async || {
        let answer = ours.send(bulky("one more")).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!(refused.not_the_problem(503, "disk_low"), None);
    assert!(refused.text().contains("equal share"), "it has a reason: {}", refused.text());
    theirs.accept(bulky("and calm")).await;
    assert_eq!(host.stranger().get("/readyz").await.status, 200, "the host is ready for others");
}
