//! Live tails: settlements over Server-Sent Events.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use setgate_tests::certificate::Issued;
use setgate_tests::{Host, Receiver, Reply, Seed, Source, Tail, Tenant, World, assert_document, event, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn tail_resumes_after_a_disconnect() {
    // A stream is not subject to the request timeout.
    let World { host, acme, source, receiver, subscription } =
        &mut World::with().config("[listen]\nrequest_ms_max = 2000").retry(&[3]).start().await;
    let other = host.tenant("other").await;
    receiver.answer([Reply::status(503)]);
    let mut tail = Tail::open(acme, "", None).await;
    let begin = tail.last_id.clone();

    let first = source.accept(event::set("one")).await;
    let failed = tail.settlement().await;
    let delivery = subscription.delivery_of(&first);
    let record = acme.delivery(&delivery).await;
    let expected = json!({
        "delivery": delivery, "event": first.event, "subscription": subscription.id, "state": "due", "at": "<time>",
        "source": "idp", "types": [event::SET_TYPE], "subject": "jane@example.com", "attempt": record["attempts"][0],
    });
    assert_document(&failed, &expected);
    assert_eq!(failed["attempt"]["outcome"]["status"], 503, "{failed}");
    // Three seconds later, and so after the request timeout.
    let delivered = tail.settlement().await;
    assert_eq!((&delivered["state"], &delivered["attempt"]["number"]), (&json!("delivered"), &json!(2)), "{delivered}");

    // After a disconnect no settlement is missed.
    let seen = tail.last_id.clone();
    drop(tail);
    let mut expected = BTreeSet::new();
    for number in 0..30 {
        let accepted = source.accept(event::set(&format!("e{number}"))).await;
        expected.insert(subscription.delivery_of(&accepted));
    }
    for id in &expected {
        acme.delivery_in("delivered", id).await;
    }
    let mut resumed = Tail::open(acme, "", Some(&seen)).await;
    let mut settled = Vec::new();
    for _ in 0..expected.len() {
        let settlement = resumed.settlement().await;
        assert_eq!(settlement["state"], "delivered", "{settlement}");
        settled.push(settlement["delivery"].as_str().unwrap().to_owned());
    }
    assert_eq!(settled.iter().cloned().collect::<BTreeSet<_>>(), expected, "each of them once");

    // The cursor of the query is equivalent; the header takes precedence.
    let mut by_query = Tail::open(acme, &format!("?cursor={seen}&subscription={}", subscription.id), None).await;
    assert_eq!(by_query.settlement().await["delivery"], settled[0].as_str());
    let mut dead = Tail::open(acme, &format!("?cursor={seen}&state=dead"), None).await;
    let mut newest = Tail::open(acme, &format!("?cursor={seen}"), Some(&resumed.last_id)).await;
    let last = source.accept(event::set("last")).await;
    assert_eq!(newest.settlement().await["delivery"], subscription.delivery_of(&last), "no earlier settlement is sent");
    receiver.otherwise(Reply::status(410));
    let gone = source.accept(event::set("gone")).await;
    assert_eq!(dead.settlement().await["delivery"], subscription.delivery_of(&gone), "only the requested state");

    // One tenant's cursor is not valid for another one.
    let path = other.path("/deliveries/tail");
    let foreign = other.client.send(http::Method::GET, &path, &[("last-event-id", &begin)], "").await;
    assert_eq!(foreign.not_the_problem(400, "bad_cursor"), None);
    let theirs = other.source("idp", Seed::Set).await;
    let own = other.subscribe(&Receiver::start().await).retry(&[]).create().await;
    let mut tail = Tail::open(&other, "", None).await;
    let accepted = theirs.accept(event::set("theirs")).await;
    assert_eq!(tail.settlement().await["delivery"], own.delivery_of(&accepted), "none of another tenant");

    // A host that stops ends its streams, and does not wait for their clients.
    assert!(host.terminate().await.success(), "{}", host.log());
    let mut end = None;
    while let Some(event) = resumed.next().await {
        end = Some(event);
    }
    let end = end.expect("a last event");
    assert_eq!(end.kind, "end", "{end:?}");
    assert!(end.data["reason"].as_str().unwrap().contains("stopping"), "{end:?}");
}

#[tokio::test]
async fn tail_is_notified_of_the_gap_after_a_restart() {
    let World { mut host, acme, source, subscription, receiver: _receiver } = World::start().await;
    let mut tail = Tail::open(&acme, "", None).await;
    let first = source.accept(event::set("first")).await;
    assert_eq!(tail.settlement().await["delivery"], subscription.delivery_of(&first));
    let seen = tail.last_id.clone();
    drop(tail);
    let unseen = source.accept(event::set("unseen")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&unseen)).await;
    host.kill9().await;
    host.start_again().await;

    let mut resumed = Tail::open(&acme, "", Some(&seen)).await;
    let missed = resumed.next().await.expect("it is open");
    assert_eq!(missed.kind, "missed", "{missed:?}");
    assert!(missed.data["reason"].as_str().unwrap().contains("/deliveries"), "it says where else to look: {missed:?}");
    acme.delivery_in("delivered", &subscription.delivery_of(&unseen)).await;
    let second = source.accept(event::set("second")).await;
    assert_eq!(resumed.settlement().await["delivery"], subscription.delivery_of(&second), "the stream continues");

    // From a position of this process nothing is missing.
    let seen = resumed.last_id.clone();
    drop(resumed);
    let third = source.accept(event::set("third")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&third)).await;
    let mut resumed = Tail::open(&acme, "", Some(&seen)).await;
    assert_eq!(resumed.settlement().await["delivery"], subscription.delivery_of(&third));
}

#[tokio::test]
async fn slow_reader_misses_nothing() {
    // More than the stream buffers.
    const EVENTS: usize = 350;
    let World { acme, source, receiver, .. } = &World::start().await;
    let mut tail = Tail::open(acme, "", None).await;
    for number in 0..EVENTS {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    until("all are delivered, and none has been read", async || {
        (acme.get("/statistics").await["deliveries"]["delivered"] == EVENTS).then_some(())
    })
    .await;
    let mut seen = BTreeSet::new();
    for _ in 0..EVENTS {
        seen.insert(tail.settlement().await["delivery"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, receiver.ids(), "each of them once");
}

#[tokio::test]
async fn tail_is_notified_if_deliveries_were_deleted() {
    let config = "[data]\nretention_s = 5\nretention_every_s = 1";
    let World { acme, source, subscription, .. } = &World::with().config(config).start().await;
    let before = Tail::open(acme, "", None).await.last_id;
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    let missed = until("retention has deleted the delivery", async || {
        let mut late = Tail::open(acme, "", Some(&before)).await;
        let event = late.next().await.expect("it is open");
        (event.kind == "missed").then_some(event)
    })
    .await;
    assert!(missed.data["reason"].as_str().unwrap().contains("/deliveries"), "it names the list: {missed:?}");
}

/// Open tails of one tenant.
const TAILS_PER_TENANT_MAX: usize = 16;

#[tokio::test]
async fn tails_are_limited_and_need_a_valid_key() {
    let host = Host::start().await;
    let (acme, other) = (host.tenant("acme").await, host.tenant("other").await);
    let mut open = Vec::new();
    for _ in 0..TAILS_PER_TENANT_MAX {
        open.push(Tail::open(&acme, "", None).await);
    }
    let refused = acme.client.get(&acme.path("/deliveries/tail")).await;
    assert_eq!(refused.not_the_problem(429, "busy"), None, "a tenant is limited to its share");
    assert!(refused.text().contains("16 open tails, the limit per tenant"), "{}", refused.text());
    drop((open, Tail::open(&other, "", None).await));
    until("a place is free again", async || {
        let response = acme.client.open(&acme.path("/deliveries/tail"), &[]).await;
        (response.status() == 200).then_some(())
    })
    .await;

    for cursor in ["x", "00000000000000ff00000000", "0"] {
        let answer = acme.client.get(&acme.path(&format!("/deliveries/tail?cursor={cursor}"))).await;
        assert_eq!(answer.not_the_problem(400, "bad_cursor"), None, "{cursor}");
    }
    let foreign = other.client.get(&acme.path("/deliveries/tail")).await;
    assert_eq!(foreign.not_the_problem(403, "forbidden"), None);
    let nobody = host.stranger().get(&acme.path("/deliveries/tail")).await;
    assert_eq!(nobody.not_the_problem(401, "bad_key"), None);
}

/// How a client disconnects.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    Closes,
    /// Closes its sending side only.
    Ends,
    Resets,
}

#[tokio::test]
async fn disconnect_frees_the_slot() {
    for speaks_tls in [false, true] {
        let certificate = Issued::by_itself(&["127.0.0.1"], false, 4096);
        let folder = tempfile::tempdir().unwrap();
        let mut config = String::new();
        if speaks_tls {
            for (key, name, pem) in [
                ("tls_certificate", "c.pem", certificate.certificate_pem()),
                ("tls_key", "k.pem", certificate.key_pem()),
            ] {
                std::fs::write(folder.path().join(name), pem).unwrap();
                let place = if key == "tls_key" { "" } else { "[listen]\n" };
                config.push_str(&format!("{place}{key} = \"{}\"\n", folder.path().join(name).display()));
            }
        }
        let host = Host::with().config(&config).trust(certificate.der()).start().await;
        let ways: &[_] = if speaks_tls { &[Leaves::Closes] } else { &[Leaves::Closes, Leaves::Ends, Leaves::Resets] };
        for &leaves in ways {
            let acme = host.tenant(&format!("{leaves:?}").to_lowercase()).await;
            let path = acme.path("/deliveries/tail");
            // All slots but one are in use for the whole time.
            let mut others = Vec::new();
            for _ in 1..TAILS_PER_TENANT_MAX {
                others.push(Tail::open(&acme, "", None).await);
            }
            let mut raw = None;
            if speaks_tls {
                drop(Tail::open(&acme, "", None).await);
            } else {
                let mut stream = TcpStream::connect(host.base().trim_start_matches("http://")).await.unwrap();
                let key = acme.client.key().unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut begin = String::new();
                while !begin.contains("event: open") {
                    begin.push(char::from(stream.read_u8().await.unwrap()));
                }
                match leaves {
                    Leaves::Closes => drop(stream),
                    Leaves::Ends => {
                        stream.shutdown().await.unwrap();
                        raw = Some(stream);
                    }
                    Leaves::Resets => {
                        stream.set_zero_linger().unwrap();
                        drop(stream);
                    }
                }
            }
            // Before the first heartbeat, whose write could fail.
            let free =
                until("the slot is free", async || (acme.client.open(&path, &[]).await.status() == 200).then_some(()));
            let in_time = tokio::time::timeout(Duration::from_secs(12), free).await;
            assert!(in_time.is_ok(), "TLS {speaks_tls}: a client that {leaves:?} still has its slot");
            if let Some(mut stream) = raw {
                stream.read_to_end(&mut Vec::new()).await.expect("the connection ends");
            }
            drop(others);
        }
    }
}

/// Sends events continuously, so that a tail always has data.
fn traffic(source: &Source) -> tokio::task::JoinHandle<()> {
    let source = source.clone();
    tokio::spawn(async move {
        for number in 0_u64.. {
            // The tenant may be removed meanwhile.
            let _ = source.try_send(event::set(&format!("traffic-{number}"))).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// Reads until the stream ends, and returns the reason it gives and the deliveries of its settlements.
async fn read_to_end(tail: &mut Tail) -> (String, Vec<String>) {
    let mut seen = Vec::new();
    let reading = async {
        loop {
            match tail.next().await {
                Some(event) if event.kind == "end" => return event.data["reason"].as_str().unwrap().to_owned(),
                Some(event) if event.kind == "settlement" => seen.push(delivery_of(&event.data)),
                Some(_) => {}
                None => return "it ended without a word".to_owned(),
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(60), reading).await;
    (reason.unwrap_or_else(|_| "it continues".to_owned()), seen)
}

/// Reads until the stream ends, and returns the reason it gives.
async fn end_of(mut tail: Tail) -> String {
    read_to_end(&mut tail).await.0
}

fn delivery_of(settlement: &Value) -> String {
    settlement["delivery"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tail_ends_with_its_key_even_if_busy() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    acme.subscribe(&receiver).create().await;
    let source = acme.source("idp", Seed::Set).await;
    let sending = traffic(&source);
    let made = async |more: Value| {
        let key = acme.client.post(&acme.path("/keys"), &more).await.expect(201).json();
        (key["id"].as_str().unwrap().to_owned(), Tenant::new("acme", key["key"].as_str().unwrap(), &acme.client))
    };
    let (removed, by_removed) = made(json!({"scopes": ["read"]})).await;
    let (rotated, by_rotated) = made(json!({"scopes": ["read"]})).await;
    let (_, by_expiring) = made(json!({"scopes": ["read"], "expires_at": in_a_while()})).await;
    let mut own = Tail::open(&acme, "", None).await;
    let mut of_removed = Tail::open(&by_removed, "", None).await;
    let of_rotated = Tail::open(&by_rotated, "", None).await;
    let of_expiring = Tail::open(&by_expiring, "", None).await;
    let operators = Tail::open(&Tenant::new("acme", host.key(), &acme.client), "", None).await;

    acme.client.delete(&acme.path(&format!("/keys/{removed}"))).await.expect(204);
    let (reason, mut seen) = read_to_end(&mut of_removed).await;
    assert_eq!(reason, "the key was removed");
    // From its last position, another key continues without a gap and without repetition.
    let mut resumed = Tail::open(&acme, "", Some(&of_removed.last_id)).await;
    for _ in 0..20 {
        seen.push(delivery_of(&resumed.settlement().await));
    }
    let mut all = Vec::new();
    while all.last() != seen.last() {
        all.push(delivery_of(&own.settlement().await));
    }
    assert!(all.ends_with(&seen), "{seen:?} in {all:?}");
    let path = acme.path(&format!("/keys/{rotated}/rotate"));
    acme.client.post(&path, &json!({"overlap_hours": 0})).await.expect(201);
    assert_eq!(end_of(of_rotated).await, "the key has expired, or ended after it was rotated");
    assert_eq!(end_of(of_expiring).await, "the key has expired, or ended after it was rotated");
    host.operator().delete("/api/v1/tenants/acme").await.expect(204);
    for tail in [own, operators] {
        assert_eq!(end_of(tail).await, "the tenant was removed");
    }
    sending.abort();
}

/// The time twenty seconds from now in RFC 3339.
#[expect(clippy::disallowed_methods, reason = "the host is another process with the real clock")]
fn in_a_while() -> String {
    let soon = std::time::SystemTime::now() + Duration::from_secs(20);
    let seconds = soon.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date: Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[tokio::test]
async fn cursors_and_tags_end_with_their_tenant() {
    let host = Host::start().await;
    let before = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    before.subscribe(&receiver).create().await;
    let source = before.source("idp", Seed::Set).await;
    for number in 0..3 {
        source.accept(event::set(&format!("e{number}"))).await;
    }
    until("all are delivered", async || {
        (before.get("/statistics").await["deliveries"]["delivered"] == 3).then_some(())
    })
    .await;
    let operator = Tenant::new("acme", host.key(), &before.client);
    let mut stream = Tail::open(&operator, "", None).await;
    let mut cursors = vec![("/deliveries/tail", stream.last_id.clone())];
    for list in ["/deliveries", "/events", "/audit"] {
        let next = before.get(&format!("{list}?limit=1")).await["next"].as_str().expect("more than one").to_owned();
        cursors.push((list, next));
    }
    let tag = before.client.get(&before.path("/sources/idp")).await.header("etag").expect("a tag").to_owned();

    host.operator().delete("/api/v1/tenants/acme").await.expect(204);
    until("the name is free again", async || {
        let made = host.operator().post("/api/v1/tenants", &json!({"id": "acme"})).await;
        (made.status == 201).then_some(())
    })
    .await;
    let key = host.operator().post("/api/v1/tenants/acme/keys", &json!({})).await.expect(201).json();
    let after = Tenant::new("acme", key["key"].as_str().unwrap(), &before.client);
    let theirs = after.source("idp", Seed::Set).await;
    let subscription = after.subscribe(&receiver).create().await;
    let secret = theirs.accept(event::set("secret")).await;
    after.delivery_in("delivered", &subscription.delivery_of(&secret)).await;

    let old = after.client.with_key(&before.key).get(&after.path("/deliveries")).await;
    assert_eq!(old.not_the_problem(401, "bad_key"), None, "a key");
    let reading = async {
        while let Some(event) = stream.next().await {
            assert_ne!(event.data["delivery"], subscription.delivery_of(&secret).as_str(), "a stream: {event:?}");
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), reading).await.is_ok(), "the stream ends");
    for client in [&after.client, host.operator()] {
        for (list, cursor) in &cursors {
            let answer = client.get(&after.path(&format!("{list}?cursor={cursor}"))).await;
            assert_eq!(answer.not_the_problem(400, "bad_cursor"), None, "a cursor of {list}");
        }
    }
    let body = json!({"form": "set", "proofs": [{"kind": "open"}]}).to_string();
    let headers = [("content-type", "application/json"), ("if-match", tag.as_str())];
    let changed = after.client.send(http::Method::PUT, &after.path("/sources/idp"), &headers, body).await;
    assert_eq!(changed.not_the_problem(412, "version_changed"), None, "a tag");
}

#[tokio::test]
async fn key_deleted_during_an_upload_changes_nothing() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    for (name, kind, path) in
        [("table", "application/jsonl", "/tables/late"), ("document", "application/json", "/sources/late")]
    {
        let key = acme.client.post(&acme.path("/keys"), &json!({})).await.expect(201).json();
        let body = match name {
            "table" => "{\"key\":\"a\",\"value\":1}\n".to_owned(),
            _ => json!({"form": "set", "proofs": [{"kind": "open"}]}).to_string(),
        };
        let address = host.base().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\nconnection: close\r\nexpect: 100-continue\r\n\r\n",
            acme.path(path),
            key["key"].as_str().unwrap(),
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The host requests the body after checking the key.
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&go_on));
        let id = key["id"].as_str().unwrap();
        acme.client.delete(&acme.path(&format!("/keys/{id}"))).await.expect(204);
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{name}: {answer}");
        assert_eq!(acme.client.get(&acme.path(path)).await.status, 404, "{name}: nothing was made");
    }
}
