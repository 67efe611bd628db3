//! Durable appends at various levels of concurrency, compared with bare writes of the same bytes, synced as often as by
//! a perfect group commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::bare::Bare;
use super::lives::Lives;
use crate::Mode;
use crate::report::Sheet;

/// Numbers of concurrent appenders.
const LOADS: [usize; 4] = [1, 16, 256, 1024];

pub(super) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let lives = Lives::new(folder.path()).await?;
    let mut bare = Bare::new()?;
    let bytes = lives.event_bytes()?;
    let lasts = Duration::from_millis(if mode == Mode::Quick { 100 } else { 1_500 });
    append(&lives, 16, lasts / 2).await?;
    for load in LOADS {
        let (mut ours, mut theirs, mut syncs, mut ratios) = (vec![], vec![], vec![], vec![]);
        for _ in 0..mode.rounds() {
            let baseline;
            (bare, baseline) = tokio::task::spawn_blocking(move || {
                let per_second = bare.per_second(bytes, load, lasts / 2);
                (bare, per_second)
            })
            .await?;
            let (baseline, shown) = (baseline?, append(&lives, load, lasts).await?);
            ours.push(shown.per_second);
            syncs.push(shown.syncs);
            ratios.push(shown.per_second / baseline);
            theirs.push(baseline);
        }
        let name = |what: &str| format!("{load} appending at once: {what}");
        sheet.figure("ledger", &name("bare write and sync, all in one"), "events/s", &theirs);
        sheet.figure("ledger", &name("durable appends"), "events/s", &ours);
        sheet.figure("ledger", &name("durable appends, of the bare writes'"), "", &ratios);
        sheet.figure("ledger", &name("syncs of an event"), "", &syncs);
    }
    lives.ledger().shutdown().await;
    Ok(())
}

struct Shown {
    per_second: f64,
    syncs: f64,
}

/// Appends for the given time, sequentially in each appender, and waits for the last append.
#[expect(clippy::cast_precision_loss, reason = "counts of events are small")]
async fn append(lives: &Lives, load: usize, lasts: Duration) -> anyhow::Result<Shown> {
    let stop = Arc::new(AtomicBool::new(false));
    let appended = Arc::new(AtomicU64::new(0));
    let (begin, commits) = (Instant::now(), lives.ledger().usage.stats().commits);
    let mut running = JoinSet::new();
    for _ in 0..load {
        let (lives, stop, appended) = (lives.clone(), stop.clone(), appended.clone());
        running.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                lives.append().await?;
                appended.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(lasts).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let (events, seconds) = (appended.load(Ordering::Relaxed) as f64, begin.elapsed().as_secs_f64());
    let syncs = (lives.ledger().usage.stats().commits - commits) as f64 / events;
    Ok(Shown { per_second: events / seconds, syncs })
}
