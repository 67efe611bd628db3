//! Recovery: kills a working host with pending deliveries and restarts it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use setgate_tests::{Host, Seed, until};

use super::EVENT_BYTES;
use super::lives::Lives;
use crate::events::Template;
use crate::load::{Pace, Receiver, Record, Target, send};
use crate::report::Sheet;
use crate::{Mode, host};

/// Maximum number of events sent to the host before each kill.
const SENT_MAX: usize = 100_000;
/// Time limit of a delivery after the kill.
const DELIVERY: Duration = Duration::from_secs(60);

/// Times from a host's start until it was available.
struct Back {
    listening: Duration,
    first: Duration,
}

pub(super) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    let (pending, lasts) = match mode {
        Mode::Quick => (500, Duration::from_millis(100)),
        Mode::Default => (100_000, Duration::from_millis(1_000)),
        Mode::Full => (1_000_000, Duration::from_millis(1_000)),
    };
    let receiver = Receiver::start().await?;
    let mut host = Host::start().await;
    let quota = json!({"quota": {"backlog_deliveries_max": 4_000_000}});
    let tenant = host.tenant_with("bench", quota).await;
    let source = tenant.source("idp", Seed::Wso2).await;
    let subscription = tenant.subscribe_url(&receiver.url()).create().await;

    let mut few = Vec::new();
    for _ in 0..mode.rounds() {
        let before = receiver.arrivals();
        let (sent, back) = kill(&mut host, &source.path, &receiver, Duration::from_millis(30)).await?;
        few.push(back);
        arrived(&receiver, before + sent).await?;
    }
    tell(sheet, "few", &few);

    // This delivery stays due and serves as the model for further deliveries of the subscription.
    receiver.silence();
    source.accept(Template::of(EVENT_BYTES).event(Record::new(1).number(0))).await;
    until("the delivery exists", async || tenant.deliveries("state=due").await.pop()).await;
    host.kill9().await;
    // Written while the host is down, which is faster, but with the same content as by the host.
    let record = Record::new(usize::try_from(pending)?);
    let lives = Lives::of_host(&host.data(), &subscription.id, record.number(0)).await?;
    lives.pend(pending).await?;
    lives.ledger().shutdown().await;
    drop(lives);
    host::start(&mut host).await?;
    let mut many = Vec::new();
    for _ in 0..mode.rounds() {
        many.push(kill(&mut host, &source.path, &receiver, lasts).await?.1);
    }
    tell(sheet, &pending.to_string(), &many);
    Ok(())
}

fn tell(sheet: &mut Sheet, pending: &str, rounds: &[Back]) {
    let ms = |what: fn(&Back) -> Duration| rounds.iter().map(|back| what(back).as_secs_f64() * 1e3).collect::<Vec<_>>();
    let name = |what: &str| format!("started after a kill, {pending} deliveries pending: {what}");
    sheet.figure("ledger", &name("to listening"), "ms", &ms(|back| back.listening));
    sheet.figure("ledger", &name("to the first delivery"), "ms", &ms(|back| back.first));
}

/// Sends for the given time while the receiver does not answer, so that no delivery ends, then kills and restarts the
/// host. Returns the number of events accepted meanwhile.
async fn kill(host: &mut Host, path: &str, receiver: &Receiver, lasts: Duration) -> anyhow::Result<(usize, Back)> {
    receiver.silence();
    let record = Record::new(SENT_MAX);
    let template = Template::of(EVENT_BYTES);
    let target = [Target::of(host, path)];
    let mut accepted = 0;
    while accepted == 0 {
        accepted = send(&target, &template, &record, 16, Pace::Closed, lasts).await?.accepted;
    }
    host.kill9().await;
    receiver.answer();
    let before = receiver.arrivals();
    let begin = Instant::now();
    let listening = host::start(host).await.context("after a kill")?;
    arrived(receiver, before + 1).await.context("the first delivery after a kill")?;
    Ok((accepted, Back { listening, first: begin.elapsed() }))
}

/// Waits until the total number of arrivals reaches `expected`.
async fn arrived(receiver: &Receiver, expected: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    while receiver.arrivals() < expected {
        ensure!(begin.elapsed() < DELIVERY, "{} of {expected} deliveries arrived in {DELIVERY:?}", receiver.arrivals());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok(())
}
