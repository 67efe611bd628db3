//! Ten endpoints of one tenant: either all of them answer, or one accepts requests and never answers.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use setgate_tests::{Host, Seed};

use super::{DRAIN, EVENT_BYTES, FILTER};
use crate::Mode;
use crate::events::Template;
use crate::load::{Pace, Receiver, Record, Target, percentiles, send};
use crate::report::{Bound, Sheet};

const TARGET: &str = "p99 of nine endpoints beside a dead one / beside one that answers";
/// Number of measured endpoints; the tenth may be dead.
const MEASURED: usize = 9;
/// Events per second, each delivered to all ten.
const PACE: Pace = Pace::Open { per_second: 50.0 };
/// More than necessary, because with all connections busy, due events would not be sent.
const CONNECTIONS: usize = 32;
const EVENTS_MAX: usize = 10_000;
/// An attempt at the dead endpoint times out within the window, so that the consequences are measured too.
const SHORT: &str = "[egress]\nhead_ms_max = 1000";

pub(super) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let lasts = Duration::from_millis(if mode == Mode::Quick { 200 } else { 4_000 });
    // In a smoke run on a slow machine, a healthy endpoint might exceed the short timeout.
    let config = if mode == Mode::Quick { "" } else { SHORT };
    let (mut p50, mut p99) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..mode.rounds() {
        for (at, is_dead) in [false, true].into_iter().enumerate() {
            // A separate host for each, so that the measurement without a dead endpoint is not affected by one.
            let shown =
                window(is_dead, config, lasts).await.with_context(|| format!("one of ten is dead: {is_dead}"))?;
            p50[at].push(shown[0]);
            p99[at].push(shown[1]);
        }
    }
    let mut baseline = 0.0;
    for (at, what) in ["all ten answer", "one of ten is dead"].into_iter().enumerate() {
        let name = |percentile: &str| format!("nine endpoints, {what}: due to received, {percentile}");
        sheet.figure("fairness", &name("p50"), "ms", &p50[at]);
        let p99 = sheet.figure("fairness", &name("p99"), "ms", &p99[at]);
        if at == 0 {
            baseline = p99;
        }
    }
    let ratios: Vec<f64> = p99[1].iter().zip(&p99[0]).map(|(dead, none)| dead / none).collect();
    let ratio =
        sheet.figure("fairness", "nine endpoints beside a dead one: p99, of beside one that answers", "", &ratios);
    sheet.target(TARGET, "", Bound::AtMost(1.2), ratio, Some(baseline));
    Ok(())
}

/// p50 and p99 in milliseconds from the time each event was due to its arrival at nine endpoints.
async fn window(is_dead: bool, config: &str, lasts: Duration) -> anyhow::Result<[f64; 2]> {
    let host = Host::with().config(config).start().await;
    let tenant = host.tenant("bench").await;
    tenant.filter(FILTER).await;
    let source = tenant.source("idp", Seed::Wso2).await;
    let mut receivers = Vec::new();
    for place in 0..MEASURED {
        receivers.push(Receiver::at(place).await?);
    }
    let tenth = Receiver::start().await?;
    for receiver in receivers.iter().chain([&tenth]) {
        let chain = json!([{"filter": FILTER, "grants": ["config"], "config": {"drop": ["nothing"]}}]);
        tenant.subscribe_url(&receiver.url()).chain(chain).create().await;
    }
    let (template, target) = (Template::of(EVENT_BYTES), Target::of(&host, &source.path));
    let mut shown = None;
    // The first window is a warm-up, at the end of which the dead endpoint's circuit breaker is open.
    for lasts in [lasts / 3, lasts] {
        if is_dead {
            tenth.silence();
        }
        let record = Record::of_places(EVENTS_MAX, MEASURED);
        for receiver in &receivers {
            receiver.record(&record);
        }
        let sent = send(std::slice::from_ref(&target), &template, &record, CONNECTIONS, PACE, lasts).await?;
        record.all_arrived(sent.accepted * MEASURED, DRAIN).await?;
        shown = Some(percentiles(record.since_due_us()?)?);
    }
    shown.context("two windows")
}
