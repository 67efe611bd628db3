//! Damage in the ledger's files: losses are reported, readable data is processed, and nothing is deleted or recreated.

use setgate_tests::{Host, Receiver, Seed, World, event, until};

const PAGE: usize = 4096;
const WAL_HEADER: usize = 32;

/// Acknowledged commits that are damaged on disk cannot be recovered. They are reported, and the file is moved aside.
#[tokio::test]
async fn wal_damage_is_reported_and_set_aside() {
    let World { host, acme, source, subscription, .. } = &mut World::start().await;
    // Now the setup is in the ledger file, and the WAL is empty.
    host.restart().await;
    for n in 0..5 {
        let accepted = source.accept(event::set(&format!("n-{n}"))).await;
        acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    }
    host.kill9().await;
    let wal = host.data().join("ledger/ledger.db-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    assert!(bytes.len() > WAL_HEADER + 5 * PAGE);
    bytes[WAL_HEADER + 24 + 100] ^= 0xff;
    std::fs::write(&wal, &bytes).unwrap();

    let from = host.logged();
    host.start_again().await;
    let told = host.last_logged(from, &["the ledger's WAL is damaged"]).expect("the operator is notified");
    assert!(told.contains("ERROR") && told.contains("storage.md"), "{told}");
    assert_eq!(std::fs::read(wal.with_extension("db-wal.damaged")).unwrap(), bytes, "for a manual recovery");
    assert_eq!(host.metric("setgate_ledger_damaged", &[]).await, 1.0);
    let accepted = source.accept(event::set("after")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;

    // A WAL that ends within a commit is not damaged.
    host.kill9().await;
    let bytes = std::fs::read(&wal).unwrap();
    std::fs::write(&wal, &bytes[..bytes.len() - 500]).unwrap();
    let from = host.logged();
    host.start_again().await;
    assert_eq!(host.last_logged(from, &["is damaged"]), None);
    acme.get(&format!("/events/{}", accepted.event)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_rows_stop_their_tenant_only() {
    let mut host = Host::start().await;
    let (acme, other) = (host.tenant("acme").await, host.tenant("other").await);
    let receiver = Receiver::start().await;
    let of_acme = acme.subscribe(&receiver).create().await;
    of_acme.pause().await;
    let idp = acme.source("idp", Seed::Set).await;
    let mut damaged = Vec::new();
    for n in 0..60 {
        damaged.push(idp.accept(event::set(&format!("damaged-{n}"))).await);
    }
    let of_other = other.subscribe(&receiver).create().await;
    of_other.pause().await;
    let source = other.source("idp", Seed::Set).await;
    let mut whole = Vec::new();
    for n in 0..60 {
        whole.push(source.accept(event::set(&format!("whole-{n}"))).await);
    }
    // All deliveries are created, and all data is in the ledger file.
    let all = "all deliveries are made";
    until(all, async || (acme.deliveries("state=due").await.len() == 60).then_some(())).await;
    until(all, async || (other.deliveries("state=due").await.len() == 60).then_some(())).await;
    host.terminate().await;
    let file = host.data().join("ledger/ledger.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let marker = br#""jti":"damaged-30""#;
    let at = bytes.windows(marker.len()).position(|window| window == marker).expect("the SET is in the file");
    let page = at / PAGE * PAGE;
    assert!(!bytes[page..page + PAGE].windows(8).any(|window| window == b"\"whole-1"), "a page of acme's alone");
    bytes[page..page + PAGE].fill(0xff);
    std::fs::write(&file, &bytes).unwrap();

    let from = host.logged();
    host.start_again().await;
    until("the operator is notified", async || {
        host.last_logged(from, &["ledger file is damaged"]).filter(|line| line.contains("ERROR"))
    })
    .await;
    assert_eq!(host.metric("setgate_ledger_damaged", &[]).await, 1.0);
    let lost = acme.client.get(&acme.path(&format!("/events/{}", damaged[30].event))).await;
    assert_eq!(lost.not_the_problem(500, "ledger_damaged"), None);
    // The page contained several deliveries; the first one is on another page.
    acme.get(&format!("/events/{}", damaged[0].event)).await;

    of_acme.resume().await;
    of_other.resume().await;
    for event in &whole {
        other.delivery_in("delivered", &of_other.delivery_of(event)).await;
    }
    acme.delivery_in("delivered", &of_acme.delivery_of(&damaged[0])).await;
    source.accept(event::set("after")).await;
    let path = acme.path(&format!("/deliveries/{}", of_acme.delivery_of(&damaged[30])));
    assert_eq!(acme.client.get(&path).await.not_the_problem(500, "ledger_damaged"), None);
}

/// The dedupe index can be rebuilt from the events. The damage is still reported to the operator: the page remains in
/// the file, and may indicate a failing disk.
#[tokio::test]
async fn dedupe_index_damage_admits_no_duplicate() {
    let mut host = Host::with().config("[data]\ndedupe_run_events = 16\n").start().await;
    let source = host.tenant("acme").await.source("idp", Seed::Set).await;
    let mut events = Vec::new();
    for n in 0..40 {
        events.push(source.accept(event::set(&format!("n-{n}"))).await);
    }
    host.restart().await;
    assert!(host.metric("setgate_ledger_dedupe_bytes", &[]).await > 0.0, "two runs and the last events are in memory");
    host.terminate().await;
    let file = host.data().join("ledger/ledger.db");
    let page = {
        let conn = rusqlite::Connection::open(&file).unwrap();
        let sql = "SELECT rootpage, (SELECT count(*) FROM dedupe_part) FROM sqlite_schema WHERE name = 'dedupe_part'";
        let (page, parts): (u32, u32) = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert!(parts >= 2, "a run for each 16 events");
        page as usize
    };
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[(page - 1) * PAGE..page * PAGE].fill(0xff);
    std::fs::write(&file, &bytes).unwrap();

    let from = host.logged();
    host.start_again().await;
    let told = host.last_logged(from, &["the dedupe index was damaged"]);
    assert!(told.is_some_and(|line| line.contains("WARN")), "{}", host.log());
    for (n, event) in events.iter().enumerate() {
        let again = source.accept(event::set(&format!("n-{n}"))).await;
        assert!(again.duplicate && again.event == event.event, "{n}: {again:?}");
    }
    assert!(!source.accept(event::set("after")).await.duplicate);
    assert!(host.metric("setgate_ledger_dedupe_bytes", &[]).await > 0.0);
    let is_told = async || (host.metric("setgate_ledger_damaged", &[]).await > 0.0).then_some(());
    until("the operator is notified", is_told).await;
}

#[tokio::test]
async fn unreadable_ledger_is_untouched() {
    let mut host = Host::start().await;
    host.tenant("acme").await;
    host.terminate().await;
    let file = host.data().join("ledger/ledger.db");
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 100] {
        let mut bytes = whole.clone();
        match length {
            0 => bytes.clear(),
            length => bytes[..length].fill(0xff),
        }
        // An empty file is only recognised as an existing ledger by its WAL.
        if bytes.is_empty() {
            std::fs::write(file.with_extension("db-wal"), [1; 100]).unwrap();
        }
        std::fs::write(&file, &bytes).unwrap();
        let from = host.logged();
        host.launch();
        assert!(!host.ended().await.success(), "it must not start");
        host.read_to_the_end().await;
        assert!(host.last_logged(from, &["damaged"]).is_some_and(|line| line.contains("storage.md")), "{}", host.log());
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was recreated");
        std::fs::write(file.with_extension("db-wal"), []).unwrap();
    }
    std::fs::write(&file, &whole).unwrap();
    host.start_again().await;
    host.operator().get("/api/v1/tenants/acme").await.expect(200);
}
