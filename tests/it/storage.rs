//! A disk that fails, fills up and recovers: no accepted event is lost, no event is acknowledged without being stored,
//! and the host recovers automatically. The disk is `tests/shims/disk.c`, preloaded into the host.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Accepted, Answer, Host, Receiver, Reply, Seed, Shim, World, event, place, until};

fn is_linux(story: &str) -> bool {
    if !cfg!(target_os = "linux") {
        place::skip(story, "the library that fails the disk is for Linux");
    }
    cfg!(target_os = "linux")
}

async fn host_with_disk(config: &str) -> (Host, Shim) {
    let mut host = Host::with().config(config).prepare();
    let disk = Shim::disk(&mut host);
    host.start_again().await;
    host.take_operator_key();
    (host, disk)
}

/// A SET of about 60 kB that does not compress.
fn large(jti: &str) -> String {
    let mut set: Value = serde_json::from_str(&event::set(jti)).expect("a SET is JSON");
    let mut state = jti.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| state.rotate_left(8) ^ u64::from(byte));
    let letters = std::iter::repeat_with(|| {
        // Xorshift (Marsaglia 2003): letters without repetition.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 40) as u8 % 43)
    });
    set["padding"] = letters.filter(|letter| letter.is_ascii_alphanumeric()).take(60_000).collect::<String>().into();
    set.to_string()
}

#[track_caller]
fn assert_refused(answer: &Answer, code: &str) {
    assert_eq!(answer.not_the_problem(503, code), None);
    assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s > 0)), "{answer:?}");
}

async fn readiness(host: &Host) -> Answer {
    host.stranger().get("/readyz").await
}

/// A disk that temporarily refuses writes, and the name of the fault in the host's log.
async fn an_outage(fault: &str, named: &str) {
    let (host, disk) = host_with_disk("").await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).retry(&[1, 1, 1]).create().await;
    let before = source.accept(event::set("before")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&before)).await;
    receiver.otherwise(Reply::hang());
    let between = source.accept(event::set("between")).await;
    receiver.received(2).await;

    // The receiver accepts the delivery, but its settlement cannot be stored.
    disk.tell(fault);
    let from = host.logged();
    receiver.release();
    for n in 0..5 {
        assert_refused(&source.send(event::set(&format!("refused {n}"))).await, "not_stored");
    }
    let ready = readiness(&host).await;
    assert_eq!(ready.not_the_problem(503, "not_ready"), None, "{fault}");
    assert!(ready.text().contains(named), "{fault}: {}", ready.text());
    // Stored data is readable, and the delivery in flight is still due.
    let shown = acme.delivery(&subscription.delivery_of(&between)).await;
    assert_eq!(shown["state"], "due", "{fault}: {shown}");
    assert_eq!(acme.get("/events").await["items"].as_array().map(Vec::len), Some(2), "{fault}");
    // Several rounds of all retries.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let said =
        host.log().lines().skip(from).filter(|line| line.contains("ERROR")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(said.len(), 1, "{fault}: the operator is told once: {said:#?}");
    assert!(said[0].contains("the ledger cannot write") && said[0].contains(named), "{fault}: {said:?}");

    // The fault ends; no request triggers the recovery.
    disk.tell("");
    until("the host is ready again", async || (readiness(&host).await.status == 200).then_some(())).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&between)).await;
    for n in 0..5 {
        let again = source.accept(event::set(&format!("refused {n}"))).await;
        assert!(!again.duplicate, "{fault}: what was refused was not taken");
        acme.delivery_in("delivered", &subscription.delivery_of(&again)).await;
    }
    assert_eq!((receiver.count(), receiver.ids().len()), (7, 7), "{fault}: each of them once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_loses_no_event() {
    if is_linux("a full disk") {
        an_outage("write=ENOSPC", "the disk is full").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_fsync_loses_no_event() {
    if is_linux("a failing sync") {
        an_outage("sync=EIO", "the disk fails").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_disk_loses_no_event() {
    if is_linux("a read-only disk") {
        an_outage("write=EROFS open=EROFS", "the disk is read-only").await;
    }
}

/// A sync of the ledger file fails, not of the WAL: commits succeed, and the data moved by the checkpoint is not
/// trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_checkpoint_fsync_reopens_the_file() {
    if !is_linux("a failing checkpoint") {
        return;
    }
    let (mut host, disk) = host_with_disk("").await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    disk.tell("sync=EIO only=ledger.db");
    let from = host.logged();
    let mut accepted = Vec::new();
    let has_failed = || host.last_logged(from, &["checkpoint of the ledger failed"]).is_some();
    // Until a checkpoint is due: after 16 MiB of the WAL.
    while host.last_logged(from, &["files were reopened"]).is_none() {
        let answer = source.send(large(&format!("n-{}", accepted.len()))).await;
        if answer.status == 202 {
            accepted.push(Accepted::of(&answer));
        } else {
            // Reopening the file syncs it, which also fails as long as the disk does.
            assert_refused(&answer, "not_stored");
            until("a checkpoint has failed", async || has_failed().then_some(())).await;
        }
        assert!(accepted.len() < 2_000, "a checkpoint is run, and fails");
        if has_failed() {
            disk.tell("");
        }
    }
    accepted.push(source.accept(event::set("after")).await);
    for event in &accepted {
        acme.delivery_in("delivered", &subscription.delivery_of(event)).await;
    }
    host.kill9().await;
    host.start_again().await;
    assert_eq!(acme.get(&format!("/events/{}", accepted[0].event)).await["id"], accepted[0].event.as_str());
    assert_eq!(receiver.ids().len(), accepted.len());
}

/// A high limit of free space simulates a disk that is nearly full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nearly_full_disk_stops_ingest_only() {
    let World { host, acme, source, receiver, subscription } = &mut World::with().retry(&[1, 1, 1]).start().await;
    receiver.answer([Reply::status(500)]);
    let under_way = source.accept(event::set("under way")).await;
    receiver.received(1).await;
    assert!(host.metric("setgate_disk_free_bytes", &[]).await > 0.0);

    host.set_env("SETGATE_DATA__DISK_FREE_BYTES_MIN", "4000000000000000000");
    let from = host.logged();
    host.restart().await;
    until("ingest is shut", async || (readiness(host).await.status == 503).then_some(())).await;
    assert!(readiness(host).await.text().contains("disk_low"));
    assert_refused(&source.send(event::set("refused")).await, "disk_low");
    assert_refused(&acme.upload("redact-claims", place::filter("redact-claims")).await, "disk_low");
    let row = json!({"key": "a", "value": 1}).to_string();
    let headers = [("content-type", "application/jsonl")];
    assert_refused(&acme.client.send(Method::PUT, &acme.path("/tables/apps"), &headers, row).await, "disk_low");
    assert_eq!(host.metric("setgate_ledger_short_of_space", &[]).await, 1.0);
    // There is enough space for deliveries in flight to end, and for changing a subscription.
    acme.delivery_in("delivered", &subscription.delivery_of(&under_way)).await;
    subscription.pause().await;
    subscription.resume().await;
    let told = host.log().lines().skip(from).filter(|line| line.contains("the disk is nearly full")).count();
    assert_eq!(told, 1, "the operator is notified once");

    host.set_env("SETGATE_DATA__DISK_FREE_BYTES_MIN", "1");
    host.restart().await;
    let accepted = source.accept(event::set("refused")).await;
    assert!(!accepted.duplicate);
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledger_size_limit_removes_old_history_only() {
    let config =
        "[data]\nledger_bytes_max = 12000000\nretention_min_s = 1\nretention_every_s = 1\ndisk_free_bytes_min = 0";
    let World { host, acme, source, receiver, subscription } = &World::with().config(config).start().await;
    let mut sent = 0;
    let mut first = None;
    until("history is given up", async || {
        for _ in 0..10 {
            let answer = source.send(large(&format!("n-{sent}"))).await;
            if answer.status == 202 {
                first.get_or_insert(answer.json()["event"].as_str().expect("an id").to_owned());
                sent += 1;
            }
        }
        (host.metric("setgate_ledger_retained_by_size_total", &[]).await > 0.0).then_some(())
    })
    .await;
    receiver.received(sent).await;
    assert_eq!(receiver.ids().len(), sent, "accepted events are delivered, even if others are dropped later");
    let first = first.expect("one was accepted");
    let gone = acme.client.get(&acme.path(&format!("/events/{first}"))).await;
    assert_eq!(gone.status, 404, "the oldest is removed first");

    // Now no delivery can end.
    subscription.pause().await;
    until("the ledger is full", async || {
        for _ in 0..20 {
            sent += 1;
            if source.send(large(&format!("n-{sent}"))).await.status == 503 {
                return Some(());
            }
        }
        None
    })
    .await;
    assert_refused(&source.send(large("one more")).await, "ledger_full");
    assert!(readiness(host).await.text().contains("ledger_full"));
    let due = acme.deliveries("state=due").await.len();
    assert!(due > 50, "{due} are due");
    // They are delivered, which makes events removable.
    subscription.resume().await;
    until("the host is ready again", async || (readiness(host).await.status == 200).then_some(())).await;
    source.accept(large("one more")).await;
}
