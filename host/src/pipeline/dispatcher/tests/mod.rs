//! Simulates days in seconds: the data plane over a real ledger and real receivers, with a clock that jumps to the next
//! event.
//!
//! A seed determines the script: events, outages, throttling, key rotations, pauses, restarts. Each receiver records
//! its requests and fails only during its scripted outages. At the end, all receivers work again, and the recorded
//! requests are compared with the accepted events and with the ledger (`checks.rs`).
//!
//! `SETGATE_SIMULATION_SEEDS=100 cargo test --workspace --lib days_of_trouble` runs more seeds than the default.

mod checks;
mod receivers;
mod world;

use setgate_domain::id::{Digest, SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::FilterRun;

use super::{Next, Tasks};
use crate::pipeline::settings::{Delivery, Ingest};
use receivers::Trouble;
use world::World;

/// One hour in milliseconds.
const HOUR: i64 = 3_600_000;
/// The start time of each simulation.
const START: Timestamp = Timestamp::from_millis(1_760_000_000_000);
/// Length of the script. Afterwards, all pending deliveries are completed.
const DAYS: i64 = 4;
/// Number of seeds in an ordinary run.
const SEEDS: u64 = 3;

/// Deterministic pseudo-random numbers for a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, exclusive.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below(u64::try_from(to - from).unwrap_or(1)).cast_signed()
    }
}

/// A scripted action.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Ingests that many events at once.
    Events(u64),
    /// Rotates the key of this subscription. The old key remains valid for two hours.
    Rotate(usize),
    Pause(usize),
    Resume(usize),
    /// The host stops and starts again.
    Restart,
    /// Runs retention once.
    Retain,
}

/// The script of a seed, in order of time.
fn script(random: &mut Random) -> Vec<(Timestamp, Act)> {
    let end = DAYS * 24 * HOUR;
    let mut acts = Vec::new();
    for _ in 0..60 {
        acts.push((random.between(0, end), Act::Events(1 + random.below(4))));
    }
    // A burst, to exercise rates and breakers.
    acts.push((random.between(0, end), Act::Events(40)));
    for _ in 0..6 {
        acts.push((random.between(0, end), Act::Rotate(random.below(4) as usize)));
        acts.push((random.between(0, end), Act::Restart));
    }
    for _ in 0..3 {
        let (subscription, from) = (random.below(4) as usize, random.between(0, end));
        acts.push((from, Act::Pause(subscription)));
        acts.push((from + random.between(HOUR / 60, 8 * HOUR), Act::Resume(subscription)));
    }
    for round in 0..end / (6 * HOUR) {
        acts.push((round * 6 * HOUR, Act::Retain));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts.into_iter().map(|(at, act)| (START.plus_millis(at), act)).collect()
}

/// The outages of one receiver, in order of time.
fn outages(random: &mut Random) -> Vec<(Timestamp, Timestamp, Trouble)> {
    let mut outages = Vec::new();
    let mut at = random.between(0, 6 * HOUR);
    while at < DAYS * 24 * HOUR {
        let trouble = match random.below(4) {
            0 => Trouble::Status(500),
            1 => Trouble::Throttle { status: 429, retry_after_s: 1 + random.below(1_800) },
            2 => Trouble::Throttle { status: 503, retry_after_s: 1 + random.below(300) },
            _ => Trouble::HangUp,
        };
        let end = at + random.between(1_000, 3 * HOUR);
        outages.push((START.plus_millis(at), START.plus_millis(end), trouble));
        at = end + random.between(HOUR / 4, 20 * HOUR);
    }
    outages
}

/// Counts the situations that occurred, because an invariant proves nothing if its situation never occurred.
#[derive(Debug, Default)]
struct Seen {
    delivered: usize,
    given_up: usize,
    retries: usize,
    throttled: usize,
    disabled: usize,
    blocked: usize,
}

async fn simulate(seed: u64, seen: &mut Seen) {
    let mut random = Random(seed);
    let mut world = World::new(&mut random).await;
    for (at, act) in script(&mut random) {
        world.until(at).await;
        match act {
            Act::Events(count) => world.events(&mut random, count).await,
            Act::Rotate(subscription) => world.rotate(subscription).await,
            Act::Pause(subscription) => world.pause(subscription, true).await,
            Act::Resume(subscription) => world.pause(subscription, false).await,
            Act::Restart => world.restart().await,
            Act::Retain => world.retain().await,
        }
        world.settle().await;
    }
    // Receivers no longer fail and all subscriptions are resumed, so all pending deliveries are completed.
    world.resume_all().await;
    world.until(START.plus_millis(60 * 24 * HOUR)).await;
    checks::all_went_well(seed, &world, seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "how long a test looks is no setting of the host")]
async fn days_of_trouble_lose_nothing_and_keep_every_promise() {
    let seeds = std::env::var("SETGATE_SIMULATION_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS);
    let mut seen = Seen::default();
    for seed in 1..=seeds {
        Box::pin(simulate(seed, &mut seen)).await;
    }
    let Seen { delivered, given_up, retries, throttled, disabled, blocked } = seen;
    assert!(delivered > 500 && retries > 100 && throttled > 10 && disabled > 0 && blocked > 10, "{seen:?}");
    // Four days with intermittent outages are shorter than the retry schedule.
    assert!(given_up < delivered / 10, "{seen:?}");
}

/// If the filters changed nothing, their runs are settled with the attempt. Without an attempt they must run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_paused_while_its_filters_ran_is_due_with_what_they_did_unsettled() {
    let mut random = Random(1);
    let mut world = World::new(&mut random).await;
    world.events(&mut random, 1).await;
    let due = world.first_due(0).await;
    world.pause(0, true).await;
    let passed = FilterRun::not_called("f".parse().unwrap(), Digest([1; 32]));
    for unsettled in [vec![], vec![passed]] {
        let attempter = &world.stages().dispatcher.attempter;
        let Ok(Next::Send(mut filtered)) = attempter.filter.run(due.clone()).await else { panic!("it is due") };
        let is_settled = unsettled.is_empty();
        filtered.passed = unsettled;
        let Ok(Next::Requeue(again)) = attempter.send(*filtered).await else { panic!("it stays due") };
        assert_eq!((again.seq, again.attempts, again.filtered), (due.seq, 0, is_settled));
    }
}
