//! The cost of processing an event with a short and a long history. Both ledgers are open at the same time.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::lives::Lives;
use crate::Mode;
use crate::process;
use crate::report::{Bound, Sheet};

const TARGET: &str = "cost per event with 10 million events of history / with 10 thousand";
const BOUND: Bound = Bound::AtMost(1.1);

/// Events in the two histories and in a turn, and number of turns of each.
struct Sizes {
    short: u64,
    long: u64,
    turn: u64,
    turns: usize,
}

/// The cost of an event in one turn, in microseconds.
struct Cost {
    cpu_us: f64,
    wall_us: f64,
}

pub(super) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let mut sizes = match mode {
        Mode::Quick => Sizes { short: 256, long: 1_024, turn: 256, turns: 1 },
        Mode::Default => Sizes { short: 10_000, long: 300_000, turn: 2_560, turns: 9 },
        Mode::Full => Sizes { short: 10_000, long: 10_000_000, turn: 2_560, turns: 15 },
    };
    let (short_folder, long_folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let short = Lives::new(short_folder.path()).await?;
    short.live(sizes.short).await?;
    let mut why_not = (mode != Mode::Full).then(|| "10 million events need --full".to_owned());
    if mode == Mode::Full {
        let room = Room::look(short_folder.path(), sizes.short)?;
        if room.is_too_little_for(sizes.long) {
            why_not = Some(format!("a history of {} events {}", sizes.long, room.told_for(sizes.long)));
            sizes.long = room.millions().max(sizes.short);
        }
    }
    let long = Lives::new(long_folder.path()).await?;
    long.live(sizes.long).await?;
    // Warms up both caches before the first measurement.
    for lives in [&short, &long] {
        lives.live(sizes.turn).await?;
    }
    let (mut of_short, mut of_long) = (Vec::new(), Vec::new());
    for turn in 0..sizes.turns {
        // In turns, and in alternating order.
        if turn % 2 == 0 {
            of_short.push(cost(&short, sizes.turn).await?);
            of_long.push(cost(&long, sizes.turn).await?);
        } else {
            of_long.push(cost(&long, sizes.turn).await?);
            of_short.push(cost(&short, sizes.turn).await?);
        }
    }
    short.ledger().shutdown().await;
    long.ledger().shutdown().await;

    let of = |costs: &[Cost], what: fn(&Cost) -> f64| costs.iter().map(what).collect::<Vec<_>>();
    let ratios = |what: fn(&Cost) -> f64| {
        of_long.iter().zip(&of_short).map(|(long, short)| what(long) / what(short)).collect::<Vec<_>>()
    };
    let mut cpu = [0.0; 2];
    for (at, (events, costs)) in [(sizes.short, &of_short), (sizes.long, &of_long)].into_iter().enumerate() {
        let name = |what: &str| format!("{events} events of history: append with its delivery, and settlement, {what}");
        cpu[at] = sheet.figure("ledger", &name("CPU"), "us", &of(costs, |cost| cost.cpu_us));
        sheet.figure("ledger", &name("wall"), "us", &of(costs, |cost| cost.wall_us));
    }
    let name = |what: &str| format!("{} events of history, of {}: {what}", sizes.long, sizes.short);
    let ratio = sheet.figure("ledger", &name("CPU of an event"), "", &ratios(|cost| cost.cpu_us));
    sheet.figure("ledger", &name("wall of an event"), "", &ratios(|cost| cost.wall_us));
    match why_not {
        None => sheet.target(TARGET, "", BOUND, ratio, Some(cpu[0])),
        Some(why) => {
            let why = format!("{why}; with {} it is {ratio:.2}", sizes.long);
            sheet.unmeasured(TARGET, "", BOUND, &why);
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of events are small")]
async fn cost(lives: &Lives, events: u64) -> anyhow::Result<Cost> {
    let (cpu, begin) = (process::own_cpu(), Instant::now());
    lives.live(events).await?;
    let (wall, cpu) = (begin.elapsed(), process::own_cpu().saturating_sub(cpu));
    Ok(Cost { cpu_us: cpu.as_secs_f64() * 1e6 / events as f64, wall_us: wall.as_secs_f64() * 1e6 / events as f64 })
}

/// Free disk space for temporary files, and the size of an event.
struct Room {
    free_bytes: u64,
    event_bytes: u64,
}

impl Room {
    /// Estimates the size of an event from the short history.
    fn look(short: &Path, events: u64) -> anyhow::Result<Self> {
        let mut bytes = 0;
        for file in std::fs::read_dir(short)? {
            bytes += file?.metadata()?.len();
        }
        let space = rustix::fs::statvfs(short).context("the free space on the disk of temporary files")?;
        // Adds a fifth for the WAL and other writes on the machine.
        let event_bytes = (bytes / events / 5 * 6).max(1);
        Ok(Self { free_bytes: space.f_bavail * space.f_frsize, event_bytes })
    }

    fn is_too_little_for(&self, events: u64) -> bool {
        events * self.event_bytes > self.free_bytes
    }

    fn told_for(&self, events: u64) -> String {
        let gib = |bytes: u64| bytes >> 30;
        let (needed, free) = (gib(events * self.event_bytes), gib(self.free_bytes));
        format!("needs {needed} GiB in TMPDIR; {free} are free")
    }

    /// The number of events that fit into half of the free space, rounded down to a million.
    fn millions(&self) -> u64 {
        self.free_bytes / 2 / self.event_bytes / 1_000_000 * 1_000_000
    }
}
