//! Fixtures of the ledger's tests, and tests of the handle itself.

use std::path::Path;

use bytes::Bytes;
use setgate_base::clock::Clock;
use setgate_domain::attempt::{Attempt, Connection, HttpVersion, Outcome, SentRequest};
use setgate_domain::delivery::{DueDelivery, NewDelivery, Settlement, Step};
use setgate_domain::event::{Dedupe, EventSeq, NewEvent};
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, Digest, EventId, SubscriptionId};
use setgate_domain::set::SetToken;
use setgate_domain::tenant::Tenant;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::{FilterRun, VerdictKind};
use tempfile::TempDir;

use crate::{Error, FanOut, Ledger, Options, Precondition, SQLITE_VERSION_MIN};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_751_705_149_662);
pub(crate) const TENANT: &str = "acme";

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(future)
}

pub(crate) fn open() -> (TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open_at(&folder);
    (folder, ledger)
}

pub(crate) fn open_at(folder: &TempDir) -> Ledger {
    // The tests move the clock by weeks, which must not count as downtime. Small runs exercise the dedupe index.
    let options = Options { downtime_ms_min: i64::MAX, dedupe_run_events: 4, ..Options::new(folder.path()) };
    Ledger::open(options, Clock::manual(NOW)).unwrap()
}

pub(crate) async fn reopen(folder: &TempDir, ledger: Ledger) -> Ledger {
    ledger.shutdown().await;
    open_at(folder)
}

/// The files as a crash at this moment would leave them. The lock and the shared memory end with the process.
pub(crate) fn copy(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["ledger.db", "ledger.db-wal"] {
        let _ = std::fs::copy(folder.path().join(name), copy.path().join(name));
    }
    copy
}

pub(crate) fn tenant() -> Tenant {
    Tenant { id: TENANT.parse().unwrap(), display_name: None, quota: None, issuer: None, created_at: NOW }
}

pub(crate) async fn with_tenant(ledger: &Ledger) {
    ledger.registry.put_tenant(tenant(), Precondition::Any).await.unwrap();
}

pub(crate) fn event(n: u64) -> NewEvent {
    let mut key = [0; 32];
    // All keys share the indexed part, so only the event rows distinguish them.
    key[24..].copy_from_slice(&n.to_be_bytes());
    NewEvent {
        id: EventId::new(NOW, u128::from(n)),
        tenant: TENANT.parse().unwrap(),
        source: "idp".parse().unwrap(),
        set: SetToken {
            text: format!("{{\"jti\":\"{n}\"}}"),
            issuer: "https://idp.example".into(),
            jti: n.to_string(),
            issued_at: 1_751_705_149,
            types: vec![format!("https://e/{n}")],
        },
        subject: Some(format!("user-{n}")),
        original: Bytes::from(format!("original {n}")),
        content_type: "application/json".into(),
        accepted_at: NOW,
        dedupe: Dedupe { key, body: [1; 32], window_ms: None },
        trace: None,
    }
}

/// Creates a tenant, `count` events and a plan.
pub(crate) async fn with_events(ledger: &Ledger, count: u64) -> Digest {
    with_tenant(ledger).await;
    for n in 1..=count {
        ledger.events.append(event(n)).await.unwrap();
    }
    ledger.plans.intern(&Plan::default()).await.unwrap()
}

pub(crate) fn subscription(n: u128) -> SubscriptionId {
    SubscriptionId::new(NOW, n)
}

pub(crate) fn new_delivery(event_seq: u64, subscription_number: u128, plan: Digest) -> NewDelivery {
    NewDelivery {
        id: DeliveryId { event: event(event_seq).id, subscription: subscription(subscription_number), run: 0 },
        event: EventSeq(event_seq.cast_signed()),
        tenant: TENANT.parse().unwrap(),
        plan,
        due_at: NOW,
        order_key: None,
        bytes: 40,
    }
}

/// Incompressible bytes that depend on the seed.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut block = [0; 32];
    block[..8].copy_from_slice(&seed.to_le_bytes());
    let mut noise = Vec::with_capacity(bytes + block.len());
    while noise.len() < bytes {
        block = setgate_base::crypto::sha256(&block);
        noise.extend_from_slice(&block);
    }
    noise.truncate(bytes);
    noise
}

/// A ledger with one event and one due delivery of it.
pub(crate) async fn due_one(ledger: &Ledger) -> DueDelivery {
    let plan = with_events(ledger, 1).await;
    let fan_out = FanOut { through: EventSeq(1), deliveries: vec![new_delivery(1, 1, plan)] };
    ledger.events.fan_out(fan_out).await.unwrap().remove(0)
}

pub(crate) fn attempt(number: u32, status: u16) -> Attempt {
    let outcome = Outcome::Answered {
        status,
        body_head: "said".into(),
        retry_after_s: None,
        headers: vec![("server".into(), "a receiver".into())],
        directive: None,
        body_incomplete: None,
    };
    let sent = SentRequest {
        url: "https://receiver.example/in".into(),
        headers: vec![("webhook-id".into(), "dlv_1".into())],
        body_digest: Digest([7; 32]),
        body_bytes: 2,
    };
    let connection = Connection { http: HttpVersion::Http2, peer: Some("192.0.2.1:443".into()), proxied: false };
    Attempt {
        number,
        at: NOW,
        latency_us: 1_500,
        outcome,
        signed_with: vec![],
        set: None,
        sent: Some(sent),
        connection: Some(connection),
    }
}

pub(crate) fn run() -> FilterRun {
    FilterRun {
        filter: "redact".parse().unwrap(),
        digest: Digest([3; 32]),
        verdict: Some(VerdictKind::Patch),
        reason: None,
        fault: None,
        fuel: 1_000,
        memory_bytes: 65_536,
        elapsed_us: 90,
        log: vec![],
        engine: Some("wasmtime 1.2.3 00000000".into()),
        instance_events: None,
    }
}

/// Sends requests while the writer is blocked, so that they form one batch. The writer continues once all are sent.
pub(crate) async fn in_one_batch<T>(ledger: &Ledger, requests: impl Future<Output = T>) -> T {
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let busy = ledger.store.queue().write(move |_| {
        let _ = started.send(());
        let _ = may_go_on.recv();
        Ok(())
    });
    let send_all = async {
        has_started.await.unwrap();
        let open = async { drop(go_on) };
        // Each request is sent at its first poll, before the writer is unblocked.
        tokio::join!(biased; requests, open).0
    };
    tokio::join!(busy, send_all).1
}

#[test]
fn linked_sqlite_is_supported() {
    assert!(rusqlite::version_number() >= SQLITE_VERSION_MIN);
}

#[test]
fn second_process_is_refused() {
    block_on(async {
        let (folder, ledger) = open();
        let second = Ledger::open(Options::new(folder.path()), Clock::manual(NOW));
        assert!(matches!(second, Err(Error::Locked(_))));
        ledger.upkeep.meta_put("host", b"one").await.unwrap();
        drop(ledger);
        let third = open_at(&folder);
        assert_eq!(third.upkeep.meta_get("host").await.unwrap().as_deref(), Some(b"one".as_slice()));
    });
}

#[cfg(unix)]
#[test]
fn folder_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/ledger");
    drop(Ledger::open(Options::new(&path), Clock::manual(NOW)).unwrap());
    assert_eq!(std::fs::metadata(Path::new(&path)).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn shutdown_commits_queued_requests() {
    block_on(async {
        let (folder, ledger) = open();
        with_tenant(&ledger).await;
        let (appended, ()) = tokio::join!(ledger.events.append(event(1)), ledger.shutdown());
        appended.unwrap();
        assert!(matches!(ledger.events.append(event(2)).await, Err(Error::Closed)));
        assert!(matches!(ledger.upkeep.meta_get("x").await, Err(Error::Closed)));
        assert!(!ledger.usage.stats().open);
        assert_eq!(open_at(&folder).events.events_after(EventSeq(0), 9).await.unwrap().len(), 1);
    });
}

/// The WAL does not grow without bound under a writer that never pauses.
#[test]
fn wal_is_reset_under_constant_writes() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            checkpoint_poll_ms: 1,
            checkpoint_pages_min: 8,
            wal_pages_max: 64,
            ..Options::new(folder.path())
        };
        let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
        with_tenant(&ledger).await;
        let mut written = 0_u64;
        for n in 1..=2_000 {
            let mut event = event(n);
            event.original = Bytes::from(noise(8 << 10, n));
            written += 8 << 10;
            ledger.events.append(event).await.unwrap();
        }
        assert!(ledger.usage.stats().wal_bytes < written / 2, "{:?}", ledger.usage.stats());
    });
}

/// After a clock that was years ahead, postponed deliveries must not wait for years.
#[test]
fn clock_far_ahead_does_not_delay_retries() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let real = Clock::system().now();
        let ahead = real.plus_millis(2 * 365 * 24 * 3_600_000);
        let ledger = Ledger::open(Options::new(folder.path()), Clock::manual(ahead)).unwrap();
        with_tenant(&ledger).await;
        let plan = ledger.plans.intern(&Plan::default()).await.unwrap();
        ledger.events.append(NewEvent { accepted_at: ahead, ..event(1) }).await.unwrap();
        let delivery = NewDelivery { due_at: ahead, ..new_delivery(1, 1, plan) };
        let made = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries: vec![delivery] }).await.unwrap();
        let step = Step::Retry { attempt: attempt(1, 500), due_at: ahead.plus_millis(60_000) };
        ledger.deliveries.settle(Settlement::new(made[0].seq, ahead, step)).await.unwrap();
        ledger.shutdown().await;
        let ledger = Ledger::open(Options::new(folder.path()), Clock::system()).unwrap();
        let due = ledger.deliveries.due(&tenant().id, subscription(1), ahead, None, 9).await.unwrap();
        let wait_ms = due[0].due_at.since(real);
        assert!((60_000..600_000).contains(&wait_ms), "{wait_ms} ms");
    });
}
