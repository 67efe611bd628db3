//! The receiver of a run, and the record of each event's times.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::EVENTS_PER_S_MAX;
use crate::events;

/// The times of each event of a run, by number.
pub(crate) struct Record {
    begin: Instant,
    /// The number of the first event. Windows never share a number, or the host would treat events as duplicates. Nor
    /// do two runs, since a host's data may be reused.
    first: usize,
    /// Number of receivers that write to this record.
    places: usize,
    /// Nanoseconds from the begin until the event was due to be sent.
    due: Vec<AtomicU64>,
    /// Nanoseconds from the begin to the 202 answer; 0 if there is none yet.
    accepted: Vec<AtomicU64>,
    /// Nanoseconds from the begin to its last arrival, at each place.
    arrived: Vec<AtomicU64>,
    arrivals: Vec<AtomicU32>,
    /// Arrivals of all events together.
    count: AtomicUsize,
    accepts: AtomicUsize,
}

impl Record {
    /// A record for one receiver and at most `events_max` events.
    pub(crate) fn new(events_max: usize) -> Arc<Self> {
        Self::of_places(events_max, 1)
    }

    /// A record for as many events as can be sent in the given time.
    pub(crate) fn of_window(lasts: Duration) -> Arc<Self> {
        let ms = usize::try_from(lasts.as_millis()).unwrap_or(usize::MAX);
        Self::new(ms.saturating_mul(EVENTS_PER_S_MAX / 1_000))
    }

    /// A record for several receivers, numbered from 0.
    pub(crate) fn of_places(events_max: usize, places: usize) -> Arc<Self> {
        // Numbers grow more slowly than the clock, so a run ends below the start of the next one.
        static FIRST: LazyLock<AtomicUsize> = LazyLock::new(|| AtomicUsize::new(now_ns()));
        let nothing = |count: usize| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Arc::new(Self {
            begin: Instant::now(),
            first: FIRST.fetch_add(events_max, Ordering::Relaxed),
            places,
            due: nothing(events_max),
            accepted: nothing(events_max),
            arrived: nothing(events_max * places),
            arrivals: std::iter::repeat_with(AtomicU32::default).take(events_max * places).collect(),
            count: AtomicUsize::new(0),
            accepts: AtomicUsize::new(0),
        })
    }

    pub(crate) fn events_max(&self) -> usize {
        self.accepted.len()
    }

    /// The number of the event at this position in the record.
    pub(crate) fn number(&self, place: usize) -> u64 {
        (self.first + place) as u64
    }

    fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Records that the event was due at `due` and has been answered now.
    pub(crate) fn accept(&self, event: usize, due: Instant) {
        self.due[event].store(self.ns(due), Ordering::Relaxed);
        self.accepted[event].store(self.ns(Instant::now()), Ordering::Relaxed);
        self.accepts.fetch_add(1, Ordering::Relaxed);
    }

    fn arrive(&self, number: usize, place: usize) {
        // Late arrivals from another window are not counted in this one.
        if let Some(event) = number.checked_sub(self.first).filter(|event| *event < self.accepted.len()) {
            let at = event * self.places + place;
            self.arrived[at].store(self.ns(Instant::now()), Ordering::Relaxed);
            self.arrivals[at].fetch_add(1, Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Approximate number of accepted events that have not arrived at all receivers yet.
    pub(crate) fn open(&self, copies: usize) -> usize {
        self.accepts.load(Ordering::Relaxed).saturating_sub(self.arrived() / copies.max(1))
    }

    /// Arrivals so far.
    pub(crate) fn arrived(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until the total number of arrivals at all places reaches `expected`.
    pub(crate) async fn all_arrived(&self, expected: usize, wait: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.arrived() < expected {
            let arrived = self.arrived();
            anyhow::ensure!(begin.elapsed() < wait, "{arrived} of {expected} deliveries arrived in {wait:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Microseconds from the 202 to the last arrival of each accepted event; 0 if it arrived before its sender had read
    /// the answer.
    pub(crate) fn latencies_us(&self, copies: u32) -> anyhow::Result<Vec<u64>> {
        self.since(&self.accepted, copies)
    }

    /// Microseconds from the time each accepted event was due until it arrived, at each place.
    pub(crate) fn since_due_us(&self) -> anyhow::Result<Vec<u64>> {
        self.since(&self.due, 1)
    }

    fn since(&self, begins: &[AtomicU64], copies: u32) -> anyhow::Result<Vec<u64>> {
        let mut latencies = Vec::new();
        for (event, begin) in begins.iter().enumerate() {
            if self.accepted[event].load(Ordering::Relaxed) == 0 {
                continue;
            }
            for place in 0..self.places {
                let at = event * self.places + place;
                let arrivals = self.arrivals[at].load(Ordering::Relaxed);
                anyhow::ensure!(
                    arrivals == copies,
                    "event {event} arrived {arrivals} times at receiver {place}, not {copies}"
                );
                let arrived = self.arrived[at].load(Ordering::Relaxed);
                latencies.push(arrived.saturating_sub(begin.load(Ordering::Relaxed)) / 1_000);
            }
        }
        Ok(latencies)
    }
}

#[expect(clippy::disallowed_methods, reason = "it only has to be another one in each run")]
fn now_ns() -> usize {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    usize::try_from(since.as_nanos()).unwrap_or(0)
}

/// A receiver that answers 204 immediately, unless it is silenced.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    place: usize,
    record: Mutex<Arc<Record>>,
    silent: AtomicBool,
    arrivals: AtomicUsize,
}

impl Receiver {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::at(0).await
    }

    /// One of several receivers, with its position in their records.
    pub(crate) async fn at(place: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the receiver")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            place,
            record: Mutex::new(Record::new(0)),
            silent: AtomicBool::new(false),
            arrivals: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                let shared = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| shared.clone().answer(request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Records further arrivals in this record.
    pub(crate) fn record(&self, record: &Arc<Record>) {
        *self.shared.record.lock().expect("no thread panics while holding it") = record.clone();
    }

    /// Accepts further requests without answering or counting them.
    pub(crate) fn silence(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    /// Answers further requests.
    pub(crate) fn answer(&self) {
        self.shared.silent.store(false, Ordering::SeqCst);
    }

    /// Arrivals so far, over all records.
    pub(crate) fn arrivals(&self) -> usize {
        self.shared.arrivals.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let Some(event) = body.ok().and_then(|body| events::number(&body)) {
            let record = self.record.lock().expect("no thread panics while holding it").clone();
            record.arrive(event, self.place);
            self.arrivals.fetch_add(1, Ordering::Relaxed);
        }
        let mut answer = Response::new(Empty::new());
        *answer.status_mut() = http::StatusCode::NO_CONTENT;
        Ok(answer)
    }
}
