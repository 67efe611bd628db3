//! The receiver of a run, and the record of when which event was where.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::events;

/// What is known of each event of a run, by its number.
pub(crate) struct Record {
    begin: Instant,
    /// The number of its first event: no two windows of a process share one, or the host would know them for copies.
    first: usize,
    /// Nanoseconds from the begin to the 202; 0: none yet.
    accepted: Vec<AtomicU64>,
    /// Nanoseconds from the begin to its last arrival.
    arrived: Vec<AtomicU64>,
    arrivals: Vec<AtomicU32>,
    /// Arrivals of all events together.
    count: AtomicUsize,
}

impl Record {
    /// For so many events at the most.
    pub(crate) fn new(events_max: usize) -> Arc<Self> {
        static FIRST: AtomicUsize = AtomicUsize::new(0);
        Arc::new(Self {
            begin: Instant::now(),
            first: FIRST.fetch_add(events_max, Ordering::Relaxed),
            accepted: std::iter::repeat_with(AtomicU64::default).take(events_max).collect(),
            arrived: std::iter::repeat_with(AtomicU64::default).take(events_max).collect(),
            arrivals: std::iter::repeat_with(AtomicU32::default).take(events_max).collect(),
            count: AtomicUsize::new(0),
        })
    }

    pub(crate) fn events_max(&self) -> usize {
        self.accepted.len()
    }

    /// The number that the event at this place of the record bears.
    pub(crate) fn number(&self, place: usize) -> u64 {
        (self.first + place) as u64
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn accept(&self, event: usize) {
        self.accepted[event].store(self.now_ns(), Ordering::Relaxed);
    }

    fn arrive(&self, number: usize) {
        // What is late from another window is not this one's.
        if let Some(event) = number.checked_sub(self.first).filter(|event| *event < self.arrived.len()) {
            self.arrived[event].store(self.now_ns(), Ordering::Relaxed);
            self.arrivals[event].fetch_add(1, Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Arrivals so far.
    pub(crate) fn arrived(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Microseconds from its 202 to its last arrival, of each event that was accepted; 0 where it arrived before its
    /// sender had read the answer.
    pub(crate) fn latencies_us(&self, copies: u32) -> anyhow::Result<Vec<u64>> {
        let mut latencies = Vec::new();
        for (number, accepted) in self.accepted.iter().enumerate() {
            let accepted = accepted.load(Ordering::Relaxed);
            if accepted == 0 {
                continue;
            }
            let arrivals = self.arrivals[number].load(Ordering::Relaxed);
            anyhow::ensure!(arrivals == copies, "event {number} arrived {arrivals} times, not {copies}");
            latencies.push(self.arrived[number].load(Ordering::Relaxed).saturating_sub(accepted) / 1_000);
        }
        Ok(latencies)
    }
}

/// A receiver that answers 204 at once.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    record: Arc<std::sync::Mutex<Arc<Record>>>,
}

impl Receiver {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the receiver")?;
        let address = listener.local_addr()?;
        let record = Arc::new(std::sync::Mutex::new(Record::new(0)));
        let shared = record.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let shared = shared.clone();
                        async move {
                            let body = request.into_body().collect().await.map(|body| body.to_bytes());
                            if let Some(event) = body.ok().and_then(|body| events::number(&body)) {
                                let record = shared.lock().expect("nobody panics while holding it").clone();
                                record.arrive(event);
                            }
                            let mut answer = Response::new(Empty::<Bytes>::new());
                            *answer.status_mut() = http::StatusCode::NO_CONTENT;
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, record })
    }

    /// From now on, what arrives goes into this record.
    pub(crate) fn record(&self, record: &Arc<Record>) {
        *self.record.lock().expect("nobody panics while holding it") = record.clone();
    }
}
