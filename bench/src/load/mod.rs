//! Load: a sender that keeps its pace, a receiver that notes what arrives, and what came of both.

mod receiver;
mod sender;

use anyhow::Context as _;

pub(crate) use receiver::{Receiver, Record};
pub(crate) use sender::{Pace, Target, send};

/// Events of one window at the most.
pub(crate) const EVENTS_MAX: usize = 2_000_000;

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
