//! Load generation: a sender with a constant pace, a receiver that records arrivals, and the results of both.

mod receiver;
mod sender;

use std::time::Duration;

use anyhow::Context as _;

pub(crate) use receiver::{Receiver, Record};
pub(crate) use sender::{Pace, Target, send};

/// Capacity of a record in events per second: more than any machine sends.
const EVENTS_PER_S_MAX: usize = 500_000;
/// How long to wait after the last arrival of a window, because the host's settlement of it still belongs to the
/// window.
const SETTLES: Duration = Duration::from_millis(200);

/// Waits until all work caused by a window of that length is done.
pub(crate) async fn settled(lasts: Duration) {
    // In a smoke run the costs are ignored, so a short wait is enough.
    tokio::time::sleep(SETTLES.min(lasts / 2)).await;
}

/// p50 and p99 in milliseconds, from unsorted microseconds.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a window")]
pub(crate) fn percentiles(mut latencies_us: Vec<u64>) -> anyhow::Result<[f64; 2]> {
    latencies_us.sort_unstable();
    let at = |permille: usize| {
        let last = latencies_us.len().checked_sub(1).context("a window without any event")?;
        anyhow::Ok(latencies_us[last * permille / 1_000] as f64 / 1e3)
    };
    Ok([at(500)?, at(990)?])
}
