//! The whole path: an event is accepted, durable, filtered, signed and delivered. Compared in turns with a bare relay
//! that only forwards it (`relay`), with the same sender, receiver, body and connections.

pub(crate) mod relay;
mod sync_probe;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use setgate_tests::{Host, Seed};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::events::Template;
use crate::load::{Pace, Receiver, Record, Target, percentiles, send, settled};
use crate::report::{Bound, Sheet};
use crate::{Mode, process};
use sync_probe::SyncProbe;

/// Time limit of the last deliveries of a window.
const DRAIN: Duration = Duration::from_secs(120);
/// The filter of every chain: it checks the type and passes every event.
const FILTER: &str = "drop-by-type";

/// Bytes of an event: a login with its user, as a product sends it.
const EVENT_BYTES: usize = 900;
/// A p99 that meets the target regardless of the duration of a sync.
const HALF_LOAD_MS_MAX: f64 = 10.0;

const AT_16: &str = "whole path against bare relay, events per CPU-second, 16 connections";
const AT_256: &str = "whole path against bare relay, events per CPU-second, 256 connections";
const SYNCS: &str = "fsyncs per accepted event at 256 connections";
const HALF_LOAD: &str = "p99 from the 202 to the receiver at half of the maximum rate / fsync p99";

/// The results of one window.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    events: usize,
    /// From the first event to the last arrival.
    seconds: f64,
    /// CPU time of the measured process.
    cpu_s: f64,
    /// From due to answered: p50 and p99 in milliseconds.
    answer_ms: [f64; 2],
    /// From answered to arrived at the receiver: p50 and p99 in milliseconds.
    arrive_ms: [f64; 2],
}

impl Window {
    #[expect(clippy::cast_precision_loss, reason = "counts of events are small")]
    fn events_f64(&self) -> f64 {
        self.events as f64
    }

    fn per_second(&self) -> f64 {
        self.events_f64() / self.seconds
    }

    fn per_cpu_second(&self) -> f64 {
        self.events_f64() / self.cpu_s
    }

    fn cpu_us(&self) -> f64 {
        1e6 / self.per_cpu_second()
    }
}

/// A relay in a separate process; killed on drop.
struct Relay {
    process: Child,
    target: Target,
}

impl Relay {
    async fn start(receiver: &Receiver) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let to = receiver.url();
        let mut process = Command::new(program)
            .args(["relay", &to])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the relay")?;
        let mut lines = BufReader::new(process.stdout.take().context("its output")?).lines();
        let line = lines.next_line().await?.context("the relay prints its address")?;
        let authority = line.strip_prefix("listening on ").context("the relay prints its address")?.to_owned();
        Ok(Self { process, target: Target { authority, path: "/".to_owned() } })
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("the relay runs")
    }
}

/// A host with one tenant, one source and subscriptions to one receiver.
struct Stage {
    host: Host,
    target: Target,
}

impl Stage {
    async fn start(receiver: &Receiver, subscriptions: usize) -> anyhow::Result<Self> {
        let host = Host::start().await;
        let tenant = host.tenant("bench").await;
        tenant.filter(FILTER).await;
        let source = tenant.source("idp", Seed::Wso2).await;
        for _ in 0..subscriptions {
            tenant
                .subscribe_url(&receiver.url())
                .chain(json!([{"filter": FILTER, "grants": ["config"], "config": {"drop": ["nothing"]}}]))
                .create()
                .await;
        }
        let target = Target::of(&host, &source.path);
        Ok(Self { host, target })
    }
}

/// Sends for the given time to `target`, served by the process `pid`, and waits until everything has arrived.
async fn window(
    (target, pid): (&Target, u32),
    receiver: &Receiver,
    template: &Template,
    copies: u32,
    connections: usize,
    pace: Pace,
    lasts: Duration,
) -> anyhow::Result<Window> {
    let record = Record::of_window(lasts);
    receiver.record(&record);
    let (cpu, begin) = (process::cpu(pid)?, Instant::now());
    let sent = send(std::slice::from_ref(target), template, &record, connections, pace, lasts).await?;
    let expected = sent.accepted * copies as usize;
    while record.arrived() < expected {
        let (arrived, waited) = (record.arrived(), begin.elapsed());
        anyhow::ensure!(waited < lasts + DRAIN, "{arrived} of {expected} deliveries arrived in {waited:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seconds = begin.elapsed().as_secs_f64();
    settled(lasts).await;
    let cpu_s = (process::cpu(pid)? - cpu).as_secs_f64();
    let answer_ms = percentiles(sent.latencies_us)?;
    let arrive_ms = percentiles(record.latencies_us(copies)?)?;
    Ok(Window { events: sent.accepted, seconds, cpu_s, answer_ms, arrive_ms })
}

/// One row of the section.
struct Case {
    connections: usize,
    subscriptions: usize,
}

/// Measures the section.
pub(crate) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let relay = Relay::start(&receiver).await?;
    let template = Template::of(EVENT_BYTES);
    let lasts = Duration::from_millis(if mode == Mode::Quick { 100 } else { 4_000 });
    let mut busiest = 0.0;
    for subscriptions in [1, 10] {
        let stage = Stage::start(&receiver, subscriptions).await?;
        for connections in [1, 16, 256] {
            if mode == Mode::Quick && connections * subscriptions > 256 {
                // Even a tenth of a second means thousands of deliveries, which take far longer on a busy machine.
                continue;
            }
            let case = Case { connections, subscriptions };
            let per_second = measure_case(sheet, mode, &case, (&stage, &relay, &receiver), &template, lasts).await?;
            if subscriptions == 1 && connections == 256 {
                busiest = per_second;
            }
        }
        if subscriptions == 1 {
            at_half_load(sheet, mode, (&stage, &receiver), &template, busiest / 2.0, lasts).await?;
        }
    }
    Ok(())
}

/// Returns the number of events that the host accepted and delivered per second.
async fn measure_case(
    sheet: &mut Sheet,
    mode: Mode,
    case: &Case,
    (stage, relay, receiver): (&Stage, &Relay, &Receiver),
    template: &Template,
    lasts: Duration,
) -> anyhow::Result<f64> {
    let Case { connections, subscriptions } = *case;
    let copies = u32::try_from(subscriptions)?;
    let (mut bare, mut ours, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..mode.rounds() {
        let at = (&relay.target, relay.pid()?);
        bare.push(window(at, receiver, template, 1, connections, Pace::Sustained { copies: 1 }, lasts / 2).await?);
        let before = syncs_of(&stage.host).await;
        let at = (&stage.target, stage.host.pid());
        let shown =
            window(at, receiver, template, copies, connections, Pace::Sustained { copies: subscriptions }, lasts)
                .await?;
        syncs.push((syncs_of(&stage.host).await - before) / shown.events_f64());
        ours.push(shown);
    }
    let of = |windows: &[Window], what: fn(&Window) -> f64| windows.iter().map(what).collect::<Vec<_>>();
    let name = |what: &str| format!("{connections} connections, {subscriptions} subscriptions: {what}");
    let ratios: Vec<f64> =
        ours.iter().zip(&bare).map(|(ours, bare)| ours.per_cpu_second() / bare.per_cpu_second()).collect();
    let baseline = sheet.figure("path", &name("relay, CPU of an event"), "us", &of(&bare, Window::cpu_us));
    sheet.figure("path", &name("host, CPU of an event"), "us", &of(&ours, Window::cpu_us));
    let ratio = sheet.figure("path", &name("events per CPU-second, of the relay's"), "", &ratios);
    sheet.figure("path", &name("relay"), "events/s", &of(&bare, Window::per_second));
    let per_second = sheet.figure("path", &name("host, to the receiver"), "events/s", &of(&ours, Window::per_second));
    sheet.figure("path", &name("host, to the 202, p50"), "ms", &of(&ours, |window| window.answer_ms[0]));
    sheet.figure("path", &name("host, to the 202, p99"), "ms", &of(&ours, |window| window.answer_ms[1]));
    let syncs = sheet.figure("path", &name("commits of an event, each a sync"), "", &syncs);
    if subscriptions == 1 {
        match connections {
            16 => sheet.target(AT_16, "", Bound::AtLeast(0.25), ratio, Some(1e6 / baseline)),
            256 => {
                sheet.target(AT_256, "", Bound::AtLeast(0.40), ratio, Some(1e6 / baseline));
                sheet.target(SYNCS, "", Bound::AtMost(0.05), syncs, None);
            }
            _ => {}
        }
    }
    Ok(per_second)
}

/// An open load at half of the host's capacity: the latency from the 202 to the receiver, beside the duration of a
/// sync.
async fn at_half_load(
    sheet: &mut Sheet,
    mode: Mode,
    (stage, receiver): (&Stage, &Receiver),
    template: &Template,
    per_second: f64,
    lasts: Duration,
) -> anyhow::Result<()> {
    let (mut p50, mut p99, mut answers, mut syncs, mut ratios) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..mode.rounds() {
        let probe = SyncProbe::start()?;
        let at = (&stage.target, stage.host.pid());
        let shown = window(at, receiver, template, 1, 64, Pace::Open { per_second }, lasts).await?;
        let sync = probe.p99_ms()?;
        p50.push(shown.arrive_ms[0]);
        p99.push(shown.arrive_ms[1]);
        answers.push(shown.answer_ms[1]);
        syncs.push(sync);
        ratios.push(shown.arrive_ms[1] / sync);
    }
    sheet.figure("path", "half of the maximum rate", "events/s", &[per_second]);
    sheet.figure("path", "half of the maximum rate: to the 202, p99", "ms", &answers);
    sheet.figure("path", "half of the maximum rate: from the 202 to the receiver, p50", "ms", &p50);
    let p99 = sheet.figure("path", "half of the maximum rate: from the 202 to the receiver, p99", "ms", &p99);
    let sync = sheet.figure("path", "half of the maximum rate: a sync of the same disk, p99", "ms", &syncs);
    let ratio = sheet.figure("path", "half of the maximum rate: p99 to the receiver, of a sync's", "", &ratios);
    sheet.target(HALF_LOAD, "", Bound::AtMost(5.0), ratio, Some(sync));
    if p99 <= HALF_LOAD_MS_MAX {
        sheet.met_otherwise(format!("p99 is {p99:.2} ms, within {HALF_LOAD_MS_MAX} ms"));
    }
    Ok(())
}

async fn syncs_of(host: &Host) -> f64 {
    host.metric("setgate_ledger_commit_seconds_count", &[]).await
}
