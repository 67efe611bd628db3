//! Collects spans in batches and sends them. Only this task waits for the collector. Shutdown waits for it, with a
//! timeout.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use prost::Message as _;
use setgate_base::crypto;
use setgate_base::telemetry::{LogThrottle, metric};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Recorder;
use super::collector::{Collector, Refused};
use super::otlp::{self, KeyValue, Value};
use super::{QUEUE_SPANS_MAX, Settings};

/// Spans in one request to the collector.
const BATCH_SPANS_MAX: usize = 512;
/// Longest time for which spans are batched before a request is sent, in milliseconds.
const BATCH_MS_MAX: u64 = 2_000;
/// Time limit for sending the queued spans when the host stops, in milliseconds.
const FLUSH_MS_MAX: u64 = 5_000;
/// Tries for a batch before it is dropped, if the collector's failures are temporary.
const TRIES_MAX: u32 = 6;
/// Delay in milliseconds before the first retry. It doubles with each retry.
const WAIT_MS: u64 = 1_000;
/// Longest delay before a retry in milliseconds, regardless of the collector's `Retry-After`.
const WAIT_MS_MAX: u64 = 30_000;
/// Seconds between two log lines about a failing collector.
const TOLD_EVERY_S: u64 = 60;

/// The running exporter. Empty if tracing is disabled.
#[derive(Debug, Default)]
pub struct Exporting(Option<(CancellationToken, JoinHandle<()>)>);

impl Exporting {
    pub(super) fn start(exporter: Exporter) -> Self {
        let stop = CancellationToken::new();
        Self(Some((stop.clone(), tokio::spawn(exporter.run(stop)))))
    }

    /// Sends the queued spans within `FLUSH_MS_MAX`. Must be called after the last span has begun.
    pub async fn finish(self) {
        let Some((stop, running)) = self.0 else { return };
        stop.cancel();
        if let Err(error) = running.await {
            error!(%error, "the part that sends spans ended badly");
        }
    }
}

/// Sends spans until it is stopped.
pub(super) struct Exporter {
    queue: mpsc::Receiver<otlp::Span>,
    recorder: Arc<Recorder>,
    collector: Collector,
    resource: otlp::Resource,
    batch_spans_max: usize,
    batch: Duration,
    flush: Duration,
    told: LogThrottle,
    /// Spans that were taken from the queue and are neither sent nor dropped yet.
    under_way: u64,
    /// Whether the last batch failed.
    failing: bool,
}

impl Exporter {
    pub(super) fn new(
        settings: &Settings,
        collector: Collector,
        recorder: Arc<Recorder>,
        queue: mpsc::Receiver<otlp::Span>,
    ) -> Self {
        let named = |key: &str, value: &str| KeyValue::new(key, Value::Text(value.to_owned()));
        let attributes = vec![
            named("service.name", &settings.service_name),
            named("service.version", env!("CARGO_PKG_VERSION")),
            // Distinguishes hosts with the same name, and the runs of a host before and after a restart.
            named("service.instance.id", &hex::encode(crypto::random_bytes::<16>())),
        ];
        Self {
            queue,
            recorder,
            collector,
            resource: otlp::Resource { attributes },
            batch_spans_max: BATCH_SPANS_MAX,
            batch: Duration::from_millis(BATCH_MS_MAX),
            flush: Duration::from_millis(FLUSH_MS_MAX),
            told: LogThrottle::new(Duration::from_secs(TOLD_EVERY_S)),
            under_way: 0,
            failing: false,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        info!(collector = self.collector.origin(), "spans are sent to a collector");
        let (flush, stopped) = (self.flush, stop.clone());
        let overdue = async {
            stopped.cancelled().await;
            sleep(flush).await;
        };
        tokio::select! {
            () = self.send_all(&stop) => {}
            () = overdue => {}
        }
        let left = self.under_way + self.queue.len() as u64;
        if left > 0 {
            self.recorder.drop_some(left, "shutdown");
            warn!(spans = left, "the last spans were not sent within {FLUSH_MS_MAX} ms");
        }
    }

    /// Returns when all spans that were queued at the time of the stop have been sent.
    async fn send_all(&mut self, stop: &CancellationToken) {
        loop {
            let spans = self.gather(stop).await;
            if spans.is_empty() {
                return;
            }
            self.under_way = spans.len() as u64;
            self.send(spans, stop).await;
            self.under_way = 0;
            // Reported separately, because the queue may overflow even if the collector works.
            if !self.failing {
                self.tell_dropped();
            }
        }
    }

    /// Waits for the first span, and then for a limited time for more. Empty if the exporter was stopped and the queue
    /// is drained.
    async fn gather(&mut self, stop: &CancellationToken) -> Vec<otlp::Span> {
        let mut spans = Vec::new();
        let first = tokio::select! {
            biased;
            first = self.queue.recv() => first,
            () = stop.cancelled() => {
                self.queue.close();
                self.queue.recv().await
            }
        };
        spans.extend(first);
        let until = tokio::time::Instant::now() + self.batch;
        while !spans.is_empty() && spans.len() < self.batch_spans_max {
            let room = self.batch_spans_max - spans.len();
            let more = tokio::select! {
                biased;
                more = self.queue.recv_many(&mut spans, room) => more > 0,
                () = sleep_until(until) => false,
                () = stop.cancelled() => false,
            };
            if !more {
                break;
            }
        }
        spans
    }

    /// Sends a batch with retries. After the stop there are no retries.
    async fn send(&mut self, spans: Vec<otlp::Span>, stop: &CancellationToken) {
        let count = spans.len() as u64;
        let body = self.encode(spans);
        for number in 1.. {
            let (why, after) = match self.collector.send(body.clone()).await {
                Ok(rejected) => return self.taken(count, rejected),
                Err(Refused::ForNow { why, after }) if number < TRIES_MAX && !stop.is_cancelled() => (why, after),
                Err(Refused::ForNow { why, .. } | Refused::ForGood { why }) => {
                    self.failing = true;
                    self.recorder.drop_some(count, "collector");
                    return self.tell(&why);
                }
            };
            self.failing = true;
            self.tell(&why);
            tokio::select! {
                () = sleep(wait(number, after, crypto::random_unit())) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn taken(&mut self, count: u64, rejected: Option<(u64, String)>) {
        if self.failing {
            self.failing = false;
            debug!(collector = self.collector.origin(), "the collector takes spans again");
        }
        let (rejected, why) = rejected.unwrap_or_default();
        let rejected = rejected.min(count);
        counter!(metric::TRACE_SPANS_SENT).increment(count - rejected);
        if rejected > 0 {
            self.recorder.drop_some(rejected, "rejected");
            self.tell(&format!("it rejected {rejected} of {count} spans: {why}"));
        }
    }

    fn encode(&self, spans: Vec<otlp::Span>) -> Bytes {
        let scope = otlp::Scope { name: "setgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![otlp::ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![otlp::ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        otlp::Export { resource_spans }.encode_to_vec().into()
    }

    /// Logs, with a rate limit, that the collector does not accept spans.
    fn tell(&self, why: &str) {
        if self.told.allow().is_some() {
            let dropped = self.recorder.dropped.swap(0, Ordering::Relaxed);
            let collector = self.collector.origin();
            warn!(collector, why, dropped, "the collector of traces does not take spans; events go on");
        }
    }

    fn tell_dropped(&self) {
        if self.recorder.dropped.load(Ordering::Relaxed) > 0 && self.told.allow().is_some() {
            let dropped = self.recorder.dropped.swap(0, Ordering::Relaxed);
            warn!(dropped, "spans were dropped: the queue of {QUEUE_SPANS_MAX} spans was full");
        }
    }
}

/// The delay after a failed try. `jitter` in 0.0..1.0 reduces it by up to half.
fn wait(number: u32, after: Option<Duration>, jitter: f64) -> Duration {
    let most = Duration::from_millis(WAIT_MS_MAX);
    let by_ourselves = Duration::from_millis(WAIT_MS << number.saturating_sub(1).min(16)).min(most);
    let by_ourselves = by_ourselves.mul_f64(1.0 - jitter / 2.0);
    after.map_or(by_ourselves, |after| after.max(by_ourselves).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_keep_what_the_collector_asks_for() {
        let millis =
            |number, after: Option<u64>, jitter| wait(number, after.map(Duration::from_secs), jitter).as_millis();
        assert_eq!([1, 2, 3, 6, 99].map(|number| millis(number, None, 0.0)), [1_000, 2_000, 4_000, 30_000, 30_000]);
        assert_eq!(millis(2, None, 1.0), 1_000);
        assert_eq!(millis(1, Some(7), 0.5), 7_000);
        assert_eq!(millis(1, Some(7_000), 0.5), 30_000);
        assert_eq!(millis(3, Some(0), 0.0), 4_000);
    }
}
