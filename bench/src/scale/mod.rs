//! Scale: memory, CPU and start time of a host with many tenants, each with a source, a subscription and a unique
//! filter, idle and under load.

mod cold;
mod crowd;
mod kept;

use std::time::Duration;

use anyhow::Context as _;

use crate::Mode;
use crate::events::Template;
use crate::load::{Pace, Receiver, Record, Target, send, settled};
use crate::process;
use crate::report::{Bound, Sheet, median};
use crowd::Crowd;

/// Bytes of an event: a login with its user, as a product sends it.
const EVENT_BYTES: usize = 900;
/// Number of tenants in the long row.
const FULL_SIZE: usize = 10_000;
/// Maximum number of tenants that send events.
const ACTIVE_MAX: usize = 1_000;
/// Time limit for deliveries to arrive.
const DRAIN: Duration = Duration::from_secs(120);

const IDLE: &str = "resident memory idle";
const FULL: &str = "resident memory with 10,000 tenants, 1,000 of them active";
const COLD: &str = "filter cold start from disk cache, Rust guest";
const START: &str = "start-up to ready with 10,000 filters on disk";

const MIB: f64 = 1_048_576.0;

/// The results of a crowd of one size.
struct Shown {
    tenants: usize,
    /// Resident and anonymous bytes after a start, and after every active tenant has sent.
    idle: [f64; 2],
    active: [f64; 2],
    start_ms: Vec<f64>,
    cold_us: Vec<f64>,
}

/// Measures the section.
pub(crate) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let sizes: &[usize] = match mode {
        Mode::Quick => &[1, 2],
        Mode::Default => &[1, 100, 300],
        Mode::Full => &[1, 100],
    };
    let receiver = Receiver::start().await?;
    let mut crowd = Crowd::temporary().await;
    let mut all = Vec::new();
    for size in sizes {
        all.push(measure_size(sheet, mode, &mut crowd, *size, &receiver).await?);
    }
    drop(crowd);
    if mode == Mode::Full {
        let mut crowd = Crowd::kept().await?;
        all.push(measure_size(sheet, mode, &mut crowd, FULL_SIZE, &receiver).await?);
        crowd.stop().await?;
    }
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(()) };
    if last.tenants > first.tenants {
        for (what, state) in
            [("idle", [first.idle, last.idle]), ("after all active have sent", [first.active, last.active])]
        {
            #[expect(clippy::cast_precision_loss, reason = "counts of tenants are small")]
            let more = (last.tenants - first.tenants) as f64;
            let kib = (state[1][0] - state[0][0]) / more / 1024.0;
            let name = format!("{} tenants: memory of a tenant, {what}", last.tenants);
            sheet.figure("scale", &name, "KiB", &[kib]);
        }
    }
    targets(sheet, mode, first, last);
    Ok(())
}

fn targets(sheet: &mut Sheet, mode: Mode, first: &Shown, last: &Shown) {
    sheet.target(IDLE, "MiB", Bound::AtMost(40.0), first.idle[0] / MIB, None);
    let (full, start) = (Bound::AtMost(400.0), Bound::AtMost(500.0));
    if mode == Mode::Full {
        sheet.target(FULL, "MiB", full, last.active[0] / MIB, None);
        sheet.target(START, "ms", start, median(&last.start_ms), first.start_ms.first().copied());
    } else {
        let tenants = last.tenants;
        let why =
            format!("10,000 tenants need --full; with {tenants} active ones it is {:.0} MiB", last.active[0] / MIB);
        sheet.unmeasured(FULL, "MiB", full, &why);
        let why = format!("10,000 filters need --full; with {tenants} it is {:.0} ms", median(&last.start_ms));
        sheet.unmeasured(START, "ms", start, &why);
    }
    sheet.target(COLD, "ms", Bound::AtMost(2.0), median(&last.cold_us) / 1e3, None);
}

/// Grows the crowd to that size, and measures it.
async fn measure_size(
    sheet: &mut Sheet,
    mode: Mode,
    crowd: &mut Crowd,
    size: usize,
    receiver: &Receiver,
) -> anyhow::Result<Shown> {
    crowd.grow(size, receiver).await.with_context(|| format!("setting up {size} tenants"))?;
    crowd.adopt(ACTIVE_MAX, receiver).await?;
    measure_crowd(sheet, mode, crowd, receiver).await.with_context(|| format!("{size} tenants"))
}

/// Measures the current crowd, starting from a fresh start.
async fn measure_crowd(sheet: &mut Sheet, mode: Mode, crowd: &mut Crowd, receiver: &Receiver) -> anyhow::Result<Shown> {
    let tenants = crowd.len();
    let name = |what: &str| format!("{tenants} tenants: {what}");
    let mut start_ms = Vec::new();
    for _ in 0..mode.rounds() {
        start_ms.push(crowd.restart().await?.as_secs_f64() * 1e3);
    }
    sheet.figure("scale", &name("start-up, to listening"), "ms", &start_ms);

    let idles = Duration::from_millis(if mode == Mode::Quick { 100 } else { 10_000 });
    let cpu = process::cpu(crowd.host.pid())?;
    tokio::time::sleep(idles).await;
    let cpu_ms = (process::cpu(crowd.host.pid())? - cpu).as_secs_f64() * 1e3;
    sheet.figure("scale", &name("CPU of an idle second"), "ms", &[cpu_ms / idles.as_secs_f64()]);
    let idle = memory(sheet, &name("memory idle"), crowd)?;

    let active = crowd.len().min(ACTIVE_MAX);
    let cold = cold::measure(crowd, active, receiver).await?;
    sheet.figure("scale", &name("a filter's first call, from the cache on disk"), "us", &[median(&cold.first_us)]);
    sheet.figure("scale", &name("a filter's second call"), "us", &[median(&cold.second_us)]);
    let costs = spread(mode, crowd, active, receiver).await?;
    sheet.figure("scale", &name("CPU of an event, all of one tenant"), "us", &costs.one_us);
    sheet.figure("scale", &name(&format!("CPU of an event, spread over {active}")), "us", &costs.spread_us);
    let ratios: Vec<f64> = costs.spread_us.iter().zip(&costs.one_us).map(|(spread, one)| spread / one).collect();
    sheet.figure("scale", &name("CPU of an event, spread over all, of one tenant's"), "", &ratios);
    let active = memory(sheet, &name("memory after all active have sent"), crowd)?;
    Ok(Shown { tenants, idle, active, start_ms, cold_us: cold.first_us })
}

/// Records the host's resident and anonymous memory and returns both; also records the size of its memory-backed files.
#[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
fn memory(sheet: &mut Sheet, name: &str, crowd: &Crowd) -> anyhow::Result<[f64; 2]> {
    let (resident, anonymous) = process::resident(crowd.host.pid())?;
    let bytes = [resident as f64, anonymous as f64];
    sheet.figure("scale", &format!("{name}, resident"), "MiB", &[bytes[0] / MIB]);
    sheet.figure("scale", &format!("{name}, anonymous"), "MiB", &[bytes[1] / MIB]);
    let files = process::files_of_memory(crowd.host.pid())? as f64;
    sheet.figure("scale", &format!("{name}, files in memory, mapped or not"), "MiB", &[files / MIB]);
    Ok(bytes)
}

/// CPU microseconds per event in each round.
#[derive(Default)]
struct Costs {
    one_us: Vec<f64>,
    spread_us: Vec<f64>,
}

/// The same load on one tenant and on all active ones, in turns.
async fn spread(mode: Mode, crowd: &Crowd, active: usize, receiver: &Receiver) -> anyhow::Result<Costs> {
    let lasts = Duration::from_millis(if mode == Mode::Quick { 100 } else { 1_500 });
    let mut costs = Costs::default();
    cost(crowd, 1, receiver, lasts / 3).await?;
    for _ in 0..mode.rounds() {
        costs.one_us.push(cost(crowd, 1, receiver, lasts).await?);
        costs.spread_us.push(cost(crowd, active, receiver, lasts).await?);
    }
    Ok(costs)
}

/// Sends to the first `tenants` of the crowd in turn; returns the host's CPU microseconds per event.
#[expect(clippy::cast_precision_loss, reason = "counts of events are small")]
async fn cost(crowd: &Crowd, tenants: usize, receiver: &Receiver, lasts: Duration) -> anyhow::Result<f64> {
    let targets: Vec<Target> =
        crowd.members()[..tenants].iter().map(|member| Target::of(&crowd.host, &member.source.path)).collect();
    let record = Record::of_window(lasts);
    receiver.record(&record);
    let template = Template::of(EVENT_BYTES);
    let cpu = process::cpu(crowd.host.pid())?;
    let sent = send(&targets, &template, &record, 16, Pace::Closed, lasts).await?;
    record.all_arrived(sent.accepted, DRAIN).await?;
    settled(lasts).await;
    let cpu = process::cpu(crowd.host.pid())? - cpu;
    // Checks that every event has arrived exactly once.
    record.latencies_us(1)?;
    Ok(cpu.as_secs_f64() * 1e6 / sent.accepted as f64)
}
