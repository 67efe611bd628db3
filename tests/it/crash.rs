//! The crash suite, shortened: `cargo xtask crash` is the whole of it.

use std::hash::{BuildHasher, RandomState};

use setgate_tests::crash::{Options, run};
use setgate_tests::place;

/// Cuts at which the control has to have lost something, at the latest.
const CONTROL_CUTS_MAX: usize = 12;

/// Another one each time; a failure prints it.
fn seed() -> u64 {
    RandomState::new().hash_one("crash") >> 32
}

fn short(kills: usize) -> Options {
    Options { aimed: false, senders: 4, pause_ms: 30, ..Options::new(kills, seed()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_to_kills() {
    let options = short(8);
    let seed = options.seed;
    let summary = run(options, |_| {}).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert!(summary.totals.accepted > 0, "there was a load: {summary}");
    assert!(summary.totals.lost == 0 && summary.is_sound(), "seed {seed}: {summary}\n{:#?}", summary.totals.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_to_power_cuts_unless_the_disk_lies() {
    if !cfg!(target_os = "linux") {
        return place::skip("power cuts", "the library that cuts the power is for Linux");
    }
    let options = Options { power_cut: true, ..short(4) };
    let seed = options.seed;
    let summary = run(options, |_| {}).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert!(summary.totals.accepted > 0, "there was a load: {summary}");
    assert!(summary.totals.lost == 0 && summary.is_sound(), "seed {seed}: {summary}\n{:#?}", summary.totals.said);

    // The control: a suite that finds nothing here would find nothing anywhere.
    let options = Options { no_fsync: true, pause_ms: 5, ..short(CONTROL_CUTS_MAX) };
    let seed = options.seed;
    let summary = run(options, |_| {}).await.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert!(summary.totals.lost > 0, "seed {seed}: without fsync, {CONTROL_CUTS_MAX} cuts lose something: {summary}");
}
