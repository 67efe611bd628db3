//! Days in seconds: the data plane over a real ledger and real receivers, with a clock that jumps to whatever is next.
//!
//! A seed decides what happens: events, outages, throttling, rotations, pauses, restarts. Each receiver records what it
//! is asked and answers by the script of its outages; nobody but the script fails. In the end all is well again, and what
//! was recorded outside is held against what was accepted and against what the ledger says (`checks.rs`).
//!
//! `SETGATE_SIMULATION_SEEDS=100 cargo test --workspace --lib simulation` runs more seeds than the few of every test run.

mod checks;
mod receivers;
mod world;

use tokio::task::JoinSet;

use super::{Dispatcher, Ended, Handle, Pipeline};
use crate::config;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::time::Timestamp;
use crate::ledger;
use receivers::Trouble;
use world::World;

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;
/// When every simulation begins.
const START: Timestamp = Timestamp::from_millis(1_760_000_000_000);
/// How long things happen; what is under way then is seen to its end.
const DAYS: i64 = 4;
/// Seeds of an ordinary run.
const SEEDS: u64 = 3;

/// Numbers that look random and are the same for a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `end`, without `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below(u64::try_from(to - from).unwrap_or(1)).cast_signed()
    }
}

/// What happens, and when.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Some events come in, at once.
    Events(u64),
    /// A key of this subscription is rotated, the old one goes on for two hours.
    Rotate(usize),
    Pause(usize),
    Resume(usize),
    /// The host stops and starts again.
    Restart,
    /// A round of retention.
    Retain,
}

/// What happens in the simulation of a seed, in order of time.
fn script(random: &mut Random) -> Vec<(Timestamp, Act)> {
    let end = DAYS * 24 * HOUR;
    let mut acts = Vec::new();
    for _ in 0..60 {
        acts.push((random.between(0, end), Act::Events(1 + random.below(4))));
    }
    // A burst, on which rates and breakers have something to do.
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

/// The outages of one receiver, one after the other.
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

/// What a simulation had to do with: a promise that nothing ever put to the test is none.
#[derive(Debug, Default)]
struct Seen {
    delivered: usize,
    given_up: usize,
    retries: usize,
    throttled: usize,
    disabled: usize,
    kept_back: usize,
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
    // Nothing fails any more, and whoever was paused goes on: all that waits comes to its end.
    world.resume_all().await;
    world.until(START.plus_millis(60 * 24 * HOUR)).await;
    checks::all_went_well(seed, &world, seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_of_trouble_lose_nothing_and_keep_every_promise() {
    let seeds = std::env::var("SETGATE_SIMULATION_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS);
    let mut seen = Seen::default();
    for seed in 1..=seeds {
        Box::pin(simulate(seed, &mut seen)).await;
    }
    let Seen { delivered, given_up, retries, throttled, disabled, kept_back } = seen;
    assert!(delivered > 500 && retries > 100 && throttled > 10 && disabled > 0 && kept_back > 10, "{seen:?}");
    // Four days of trouble with pauses between are less than the schedule lasts.
    assert!(given_up < delivered / 10, "{seen:?}");
}
