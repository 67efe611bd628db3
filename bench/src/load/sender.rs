//! The sender of a run: a number of connections, each with one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use setgate_tests::{Host, Seed};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::receiver::Record;
use crate::events::Template;

/// Number of accepted events that have not arrived at which a sustained load waits.
const OPEN_MAX: usize = 1_000;

/// The destination of events; all of a run belong to one host.
#[derive(Clone)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Target {
    /// A path of a host at its current address.
    pub(crate) fn of(host: &Host, path: &str) -> Self {
        Self { authority: host.base().trim_start_matches("http://").to_owned(), path: path.to_owned() }
    }
}

/// The pace of sending.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends the next event as soon as it has its answer.
    Closed,
    /// Like `Closed`, but waits while [`OPEN_MAX`] events have not arrived, so that it measures throughput instead of
    /// filling a queue.
    Sustained {
        /// Arrivals of each event.
        copies: usize,
    },
    /// A fixed total rate. Events are due at fixed times whether or not a connection is free, and waiting for a
    /// connection counts as latency.
    Open { per_second: f64 },
}

/// The events sent in a window.
pub(crate) struct Sent {
    pub(crate) accepted: usize,
    /// Microseconds from the time each was due to its answer.
    pub(crate) latencies_us: Vec<u64>,
}

struct Shared {
    targets: Vec<Target>,
    template: Template,
    record: Arc<Record>,
    begin: Instant,
    pace: Pace,
    next: AtomicUsize,
    stop: AtomicBool,
}

/// Sends for the given time, to all targets in turn, and waits for the last answers.
pub(crate) async fn send(
    targets: &[Target],
    template: &Template,
    record: &Arc<Record>,
    connections: usize,
    pace: Pace,
    lasts: Duration,
) -> anyhow::Result<Sent> {
    let mut open = Vec::new();
    let authority = &targets.first().context("somewhere to send to")?.authority;
    for _ in 0..connections {
        open.push(connect(authority).await?);
    }
    let shared = Arc::new(Shared {
        targets: targets.to_vec(),
        template: template.clone(),
        record: record.clone(),
        begin: Instant::now(),
        pace,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    });
    let mut running = JoinSet::new();
    for connection in open {
        running.spawn(shared.clone().sends(connection));
    }
    tokio::time::sleep(lasts).await;
    shared.stop.store(true, Ordering::Relaxed);
    let mut latencies_us = Vec::new();
    while let Some(sent) = running.join_next().await {
        latencies_us.extend(sent??);
    }
    Ok(Sent { accepted: latencies_us.len(), latencies_us })
}

async fn connect(authority: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(authority).await.with_context(|| format!("connecting to {authority}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Shared {
    async fn sends(self: Arc<Self>, mut connection: SendRequest<Full<Bytes>>) -> anyhow::Result<Vec<u64>> {
        let mut latencies = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            anyhow::ensure!(number < self.record.events_max(), "more events than the record can hold");
            let due = match self.pace {
                Pace::Closed => Instant::now(),
                Pace::Sustained { copies } => {
                    while self.record.open(copies) > OPEN_MAX && !self.stop.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Instant::now()
                }
                Pace::Open { per_second } => {
                    #[expect(clippy::cast_precision_loss, reason = "numbers of events are small")]
                    let due = self.begin + Duration::from_secs_f64(number as f64 / per_second);
                    sleep_until(due.into()).await;
                    due
                }
            };
            self.send(&mut connection, number).await?;
            self.record.accept(number, due);
            latencies.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        Ok(latencies)
    }

    async fn send(&self, connection: &mut SendRequest<Full<Bytes>>, number: usize) -> anyhow::Result<()> {
        let target = &self.targets[number % self.targets.len()];
        let body = Bytes::from(self.template.event(self.record.number(number)));
        loop {
            let mut request = Request::post(&target.path)
                .header("host", &target.authority)
                .header("content-type", "application/json");
            for (name, value) in Seed::Wso2.proof(&body) {
                request = request.header(name, value);
            }
            connection.ready().await?;
            let answer = connection.send_request(request.body(Full::new(body.clone()))?).await?;
            let status = answer.status().as_u16();
            let text = answer.into_body().collect().await?.to_bytes();
            match status {
                200..=299 => return Ok(()),
                // Overload: retried as by any sender, which counts as latency.
                429 | 503 => tokio::time::sleep(Duration::from_millis(5)).await,
                _ => bail!("event {number} was answered {status}: {}", String::from_utf8_lossy(&text)),
            }
        }
    }
}
