//! A short run of the crash suite; `cargo xtask crash` runs all of it.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;

use setgate_tests::crash::copy::Copy;
use setgate_tests::crash::first::first_starts;
use setgate_tests::crash::load::{End, Sent, TARGETS};
use setgate_tests::crash::record::Record;
use setgate_tests::crash::{Options, run};
use setgate_tests::{Host, place};

/// Number of power cuts after which the control must have lost something.
const CONTROL_CUTS_MAX: usize = 12;

/// A random seed; it is printed on a failure.
fn seed() -> u64 {
    RandomState::new().hash_one("crash") >> 32
}

fn short(kills: usize) -> Options {
    Options { aimed: false, senders: 4, pause_ms: 30, ..Options::new(kills, seed()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_no_accepted_event() {
    let options = short(8);
    let seed = options.seed;
    let summary = run(options, |_| {}).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert!(summary.totals.accepted > 0, "there was a load: {summary}");
    assert!(summary.totals.lost == 0 && summary.is_sound(), "seed {seed}: {summary}\n{:#?}", summary.totals.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_no_accepted_event() {
    if !cfg!(target_os = "linux") {
        return place::skip("power cuts", "the library that cuts the power is for Linux");
    }
    let options = Options { power_cut: true, ..short(4) };
    let seed = options.seed;
    let summary = run(options, |_| {}).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert!(summary.totals.accepted > 0, "there was a load: {summary}");
    assert!(summary.totals.lost == 0 && summary.is_sound(), "seed {seed}: {summary}\n{:#?}", summary.totals.said);

    // The control: a suite that detects no loss here would never detect any.
    let options = Options { no_fsync: true, pause_ms: 5, ..short(CONTROL_CUTS_MAX) };
    let seed = options.seed;
    let summary = run(options, |_| {}).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert!(summary.totals.lost > 0, "seed {seed}: without fsync, {CONTROL_CUTS_MAX} cuts lose something: {summary}");
}

/// After a failed sync, a later successful sync does not make the data durable: it must be written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_fsyncs_lose_no_accepted_event() {
    if !cfg!(target_os = "linux") {
        return place::skip("failing syncs", "the library that cuts the power is for Linux");
    }
    let options = Options { power_cut: true, sync_fails: 60, pause_ms: 5, ..short(6) };
    let seed = options.seed;
    let summary = run(options, |_| {}).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert!(summary.totals.accepted > 0, "there was a load: {summary}");
    assert!(summary.totals.lost == 0 && summary.is_sound(), "seed {seed}: {summary}\n{:#?}", summary.totals.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_first_start_is_completed() {
    let seed = seed();
    first_starts(4, seed, false).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    if cfg!(target_os = "linux") {
        first_starts(6, seed, true).await.unwrap_or_else(|why| panic!("seed {seed}, power cut: {why}"));
    }
}

/// The key file is written before the key is durable, so a kill in between leaves the file without the key in the
/// ledger.
#[tokio::test]
async fn key_of_an_interrupted_first_start_is_used() {
    let other = Host::start().await;
    let mut host = Host::with().prepare();
    std::fs::copy(other.path("operator.key"), host.path("operator.key")).unwrap();
    host.start_again().await;
    host.take_operator_key();
    host.operator().get("/api/v1/tenants").await.expect(200);

    for (what, mode, said) in [("not a key", 0o600, "is not a key"), ("sgk_short", 0o644, "other users")] {
        let mut host = Host::with().prepare();
        std::fs::write(host.path("operator.key"), what).unwrap();
        std::fs::set_permissions(host.path("operator.key"), std::fs::Permissions::from_mode(mode)).unwrap();
        host.launch();
        assert!(!host.ended().await.success(), "{what}: it must not start");
        host.read_to_the_end().await;
        assert!(host.log().contains(said), "{what}: {}", host.log());
    }
}

/// The record of a run judges it: this test shows it every fault that it must detect.
#[test]
fn record_detects_violations() {
    let (event, all) = ("evt_E", ["P", "R", "S", "X", "F", "N", "H", "L"]);
    // An event of the first source: one plain delivery, one redacted.
    let sent = (0..).map(|number| Sent::new(1, number)).find(|sent| sent.source == 0).unwrap();
    let (plain, redacted) = ("dlv_E_P_0", "dlv_E_R_0");
    assert_eq!(TARGETS[0].end_of(&sent), End::Delivered);
    let record = || {
        let record = Record::default();
        record.subscribed(&all.map(|id| format!("sub_{id}")));
        record.accepted(event, &sent);
        record
    };
    let arrive = |record: &Record, id: &str, body: &str, status: Option<u16>| {
        record.arrived(id, body.as_bytes());
        record.ended(id, status);
    };
    let mut copy = Copy::default();
    copy.events.insert(event.to_owned());
    let due = setgate_tests::crash::copy::Due { filtered: true };

    let one = record();
    arrive(&one, plain, "a", Some(204));
    assert_eq!((one.totals().delivered, one.totals().lost), (1, 1), "a missing delivery is counted as lost");
    arrive(&one, plain, "a", Some(204));
    assert_eq!((one.totals().duplicates, one.totals().misplaced), (1, 1), "no kill happened between the two");

    let two = record();
    arrive(&two, plain, "a", Some(204));
    copy.due.insert(plain.to_owned(), due);
    assert_eq!(two.compare(&copy, 1).taken_unsettled, 1, "the kill happened between answer and settlement");
    arrive(&two, plain, "a", Some(204));
    assert_eq!((two.totals().duplicates, two.totals().misplaced), (1, 0), "that kill explains the second copy");
    arrive(&two, plain, "b", Some(204));
    assert_eq!((two.totals().duplicates, two.totals().misplaced), (2, 1), "and no third one");
    assert!(two.totals().said.iter().any(|line| line.contains("different bytes")), "{:?}", two.totals().said);

    let three = record();
    arrive(&three, redacted, "a", None);
    assert_eq!(three.totals().lost, 2, "a request that was broken off has not arrived");
    copy.due.clear();
    copy.at_rest.insert(redacted.to_owned(), Some(End::Dropped));
    three.compare(&copy, 1);
    assert_eq!(three.totals().faults, 1, "it was not to be dropped");
    assert_eq!(three.compare(&Copy::default(), 2).lost, 2, "the event was removed before its deliveries ended");
    assert_eq!(three.lost(), 2);

    let four = record();
    four.acknowledged(&[plain.to_owned()]);
    copy.at_rest.clear();
    four.compare(&copy, 1);
    assert_eq!(four.totals().faults, 0, "an acknowledged delivery is not due");
    copy.due.insert(plain.to_owned(), due);
    four.compare(&copy, 2);
    assert_eq!(four.totals().faults, 1, "{:?}", four.totals().said);

    let five = Record::default();
    five.subscribed(&all.map(|id| format!("sub_{id}")));
    five.accepted_unnamed(&sent);
    assert_eq!(five.open(), 1);
    copy.events_by_jti.insert(format!("crash-{}", sent.number), event.to_owned());
    assert_eq!((five.compare(&copy, 1).lost, five.totals().accepted), (0, 1), "the copy names the event");
    five.accepted_unnamed(&sent);
    assert_eq!(
        five.compare(&Copy::default(), 2).lost,
        1 + 2,
        "one that the ledger does not have, and the two deliveries"
    );
}
