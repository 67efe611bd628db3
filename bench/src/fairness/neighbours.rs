//! A quiet tenant at a constant rate: alone, beside a tenant with ten times the rate, and beside one that saturates the
//! host.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use setgate_tests::{Host, Seed};

use super::{DRAIN, EVENT_BYTES, FILTER};
use crate::Mode;
use crate::events::Template;
use crate::load::{Pace, Receiver, Record, Target, percentiles, send};
use crate::report::Sheet;

/// Rate of the quiet tenant.
const QUIET: Pace = Pace::Open { per_second: 100.0 };
/// More than necessary, because with all connections busy, due events would not be sent.
const QUIET_CONNECTIONS: usize = 32;
/// Rate of the loud tenant, if it is limited.
const TEN_TIMES: Pace = Pace::Open { per_second: 1_000.0 };
const LOUD_CONNECTIONS: usize = 64;

/// A tenant with its sender and receiver.
struct Member {
    target: Target,
    receiver: Receiver,
}

impl Member {
    async fn new(host: &Host, name: &str) -> anyhow::Result<Self> {
        let receiver = Receiver::start().await?;
        let tenant = host.tenant(name).await;
        tenant.filter(FILTER).await;
        let source = tenant.source("idp", Seed::Wso2).await;
        let chain = json!([{"filter": FILTER, "grants": ["config"], "config": {"drop": ["nothing"]}}]);
        tenant.subscribe_url(&receiver.url()).chain(chain).create().await;
        Ok(Self { target: Target::of(host, &source.path), receiver })
    }

    /// Sends for the given time and waits for all deliveries. Returns p50 and p99 in milliseconds from the time each
    /// event was due to its arrival, and events per second.
    async fn sends(&self, pace: Pace, connections: usize, lasts: Duration) -> anyhow::Result<Shown> {
        let record = Record::of_window(lasts);
        self.receiver.record(&record);
        let targets = std::slice::from_ref(&self.target);
        let sent = send(targets, &Template::of(EVENT_BYTES), &record, connections, pace, lasts).await?;
        record.all_arrived(sent.accepted, DRAIN).await?;
        let [p50_ms, p99_ms] = percentiles(record.since_due_us()?)?;
        #[expect(clippy::cast_precision_loss, reason = "counts of events are small")]
        let per_second = sent.accepted as f64 / lasts.as_secs_f64();
        Ok(Shown { p50_ms, p99_ms, per_second })
    }
}

struct Shown {
    p50_ms: f64,
    p99_ms: f64,
    per_second: f64,
}

pub(super) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let lasts = Duration::from_millis(if mode == Mode::Quick { 200 } else { 4_000 });
    let host = Host::start().await;
    let (quiet, loud) = (Member::new(&host, "quiet").await?, Member::new(&host, "loud").await?);
    for member in [&quiet, &loud] {
        member.sends(Pace::Closed, QUIET_CONNECTIONS, lasts / 4).await.context("warming up")?;
    }
    let (mut alone, mut beside) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut taken = Vec::new();
    for _ in 0..mode.rounds() {
        alone.push(quiet.sends(QUIET, QUIET_CONNECTIONS, lasts).await.context("a quiet tenant alone")?);
        for (beside, pace) in beside.iter_mut().zip([TEN_TIMES, Pace::Closed]) {
            // The loud tenant starts first and ends last.
            let longer = lasts + lasts / 4;
            let (quiets, louds) = tokio::join!(
                async {
                    tokio::time::sleep(lasts / 8).await;
                    quiet.sends(QUIET, QUIET_CONNECTIONS, lasts).await
                },
                loud.sends(pace, LOUD_CONNECTIONS, longer),
            );
            beside.push(quiets.context("a quiet tenant beside a loud one")?);
            let louds = louds.context("a loud tenant")?;
            if matches!(pace, Pace::Closed) {
                taken.push(louds.per_second);
            }
        }
    }
    tell(sheet, "alone", &alone);
    for (name, beside) in ["beside one at ten times its rate", "beside one that sends all it can"].iter().zip(&beside) {
        tell(sheet, name, beside);
        let ratios: Vec<f64> = beside.iter().zip(&alone).map(|(beside, alone)| beside.p99_ms / alone.p99_ms).collect();
        sheet.figure("fairness", &format!("a quiet tenant {name}: p99, of alone"), "", &ratios);
    }
    sheet.figure("fairness", "the one that sends all it can: accepted", "events/s", &taken);
    Ok(())
}

fn tell(sheet: &mut Sheet, name: &str, rounds: &[Shown]) {
    let of = |what: fn(&Shown) -> f64| rounds.iter().map(what).collect::<Vec<_>>();
    let name = |what: &str| format!("a quiet tenant {name}: due to received, {what}");
    sheet.figure("fairness", &name("p50"), "ms", &of(|shown| shown.p50_ms));
    sheet.figure("fairness", &name("p99"), "ms", &of(|shown| shown.p99_ms));
}
