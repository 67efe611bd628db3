//! Load: a sender that keeps its pace, a receiver that notes what arrives, and what came of both.

mod receiver;
mod sender;

use std::time::Duration;

use anyhow::Context as _;

pub(crate) use receiver::{Receiver, Record};
pub(crate) use sender::{Pace, Target, send};

/// Events of a second at the most, for which a window has room: more than any machine sends.
const EVENTS_PER_S_MAX: usize = 500_000;
/// How long a host is left alone after the last arrival of a window. What is left to do then belongs to it: its settlement.
const SETTLES: Duration = Duration::from_millis(200);

/// Waits until all is done that a window of that length has brought.
pub(crate) async fn settled(lasts: Duration) {
    // Of a short one, in a smoke run, nobody reads what it cost.
    tokio::time::sleep(SETTLES.min(lasts / 2)).await;
}

/// p50 and p99 in milliseconds, of microseconds in any order.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a window")]
pub(crate) fn percentiles(mut latencies_us: Vec<u64>) -> anyhow::Result<[f64; 2]> {
    latencies_us.sort_unstable();
    let at = |permille: usize| {
        let last = latencies_us.len().checked_sub(1).context("a window without any event")?;
        anyhow::Ok(latencies_us[last * permille / 1_000] as f64 / 1e3)
    };
    Ok([at(500)?, at(990)?])
}
