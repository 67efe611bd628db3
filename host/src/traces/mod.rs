//! Tracing of events, exported to a collector (OpenTelemetry, OTLP over HTTP).
//!
//! ```text
//! accept                        the sender's request, in the trace of its `traceparent` or in a new trace
//!   fan-out                     once per event
//!   filter, filter ...          each call of a chain
//!   sign, attempt               once per attempt; the receiver gets the attempt's context as `traceparent`
//! ```
//!
//! All other spans are children of `accept`. Its context is stored with the event, so that later spans belong to the
//! same trace, even after days or a crash. The sampling decision is made once, at the beginning: by the sender's flag,
//! or else by `traces.sample_ratio`.
//!
//! Invariants: if tracing is disabled, a span is a null pointer; starting it and adding attributes cost one branch
//! each, without allocation or formatting. A finished span is put into a bounded queue, or is dropped and counted;
//! nothing ever waits for the collector. Spans contain only names and ids of the host, numbers, and stable outcome
//! codes. They contain no claims, subjects, headers or secrets, and only the origin of an endpoint.

mod collector;
mod exporter;
mod otlp;
mod settings;
mod span;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ClientConfig;
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::telemetry::{metric, persistent_counters};
use setgate_domain::trace::TraceContext;
use tokio::sync::mpsc;

use collector::Collector;
use exporter::Exporter;

/// Spans queued for the collector; further ones are dropped and counted.
const QUEUE_SPANS_MAX: usize = 4_096;
/// Reasons for dropped spans: queue overflow, collector failure, rejection by the collector, and shutdown.
pub const DROP_REASONS: [&str; 4] = ["queue", "collector", "rejected", "shutdown"];

pub use collector::Error;
pub use exporter::Exporting;
pub use settings::Settings;
pub use span::{Kind, Span};

/// Span attributes. Those without the `setgate` prefix are OpenTelemetry semantic conventions.
pub mod attribute {
    /// The tenant.
    pub const TENANT: &str = "setgate.tenant";
    /// The source of the event.
    pub const SOURCE: &str = "setgate.source";
    /// The event.
    pub const EVENT: &str = "setgate.event";
    /// Result of the request: `accepted`, `duplicate`, or a problem code.
    pub const OUTCOME: &str = "setgate.outcome";
    /// Number of deliveries created for an event.
    pub const DELIVERIES: &str = "setgate.deliveries";
    /// The delivery.
    pub const DELIVERY: &str = "setgate.delivery";
    /// Its subscription.
    pub const SUBSCRIPTION: &str = "setgate.subscription";
    /// The number of the attempt, starting at 1.
    pub const ATTEMPT: &str = "setgate.attempt";
    /// The filter's name.
    pub const FILTER: &str = "setgate.filter";
    /// The digest of the version that ran.
    pub const DIGEST: &str = "setgate.filter.digest";
    /// Fuel used.
    pub const FUEL: &str = "setgate.filter.fuel";
    /// `pass`, `patch`, `replace` or `drop`. Absent if the call faulted.
    pub const VERDICT: &str = "setgate.filter.verdict";
    /// The signing scheme.
    pub const SCHEME: &str = "setgate.signing.scheme";
    /// The kind of a fault, the class of an error, or the status of an unsuccessful response.
    pub const ERROR: &str = "error.type";
    /// The status of the response.
    pub const STATUS: &str = "http.response.status_code";
    /// The host of the endpoint.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The port of the endpoint.
    pub const SERVER_PORT: &str = "server.port";
}

/// Creates spans if a collector is configured. Clones share the same recorder.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

/// Receives finished spans.
struct Recorder {
    queue: mpsc::Sender<otlp::Span>,
    clock: Clock,
    /// Sampling threshold: a trace is recorded if 63 bits of its id are below this value.
    sampled_below: u64,
    /// Spans dropped since the last log line about it.
    dropped: AtomicU64,
}

impl Traces {
    /// Starts the exporter and returns it with the recorder. If no endpoint is configured, both are inactive. `tls` is
    /// used for an https collector. Must be called within a runtime.
    ///
    /// # Errors
    /// If a header cannot be read or sent.
    pub fn start(settings: &Settings, clock: Clock, tls: ClientConfig) -> Result<(Self, Exporting), Error> {
        let Some(endpoint) = &settings.endpoint else { return Ok((Self::default(), Exporting::default())) };
        let collector = Collector::new(endpoint, settings, tls)?;
        let (recorder, queue) = Recorder::new(settings, QUEUE_SPANS_MAX, clock);
        let exporting = Exporting::start(Exporter::new(settings, collector, recorder.clone(), queue));
        Ok((Self(Some(recorder)), exporting))
    }

    /// Starts the span of a request that creates an event. Also returns the event's trace context: the new span, or the
    /// sender's context if this trace is not recorded. `None` if tracing is disabled and the sender has sent no
    /// context.
    pub fn enter(&self, name: &'static str, sender: Option<TraceContext>) -> (Span, Option<TraceContext>) {
        let Some(recorder) = &self.0 else { return (Span::default(), sender) };
        let (place, parent) = match &sender {
            Some(sender) if sender.is_sampled() => (sender.with_span(id()), Some(sender.span)),
            Some(_) => return (Span::default(), sender),
            None => {
                let trace = id();
                (TraceContext::new_root(trace, id(), recorder.samples(&trace)), None)
            }
        };
        if !place.is_sampled() {
            return (Span::default(), Some(place));
        }
        (Span::begin(recorder, name, Kind::Server, place.clone(), parent, parent.is_some()), Some(place))
    }

    /// Starts a child span of an event's context, if that is recorded.
    pub fn begin(&self, name: &'static str, kind: Kind, under: Option<&TraceContext>) -> Span {
        let Some(recorder) = &self.0 else { return Span::default() };
        match under {
            Some(parent) if parent.is_sampled() => {
                Span::begin(recorder, name, kind, parent.with_span(id()), Some(parent.span), false)
            }
            _ => Span::default(),
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Traces(on)" } else { "Traces(off)" })
    }
}

impl Recorder {
    fn new(settings: &Settings, queue_spans_max: usize, clock: Clock) -> (Arc<Self>, mpsc::Receiver<otlp::Span>) {
        let (queue, waiting) = mpsc::channel(queue_spans_max);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a share of 2^63, from 0 to 1, checked where it is read"
        )]
        let sampled_below = (settings.sample_ratio * (1_u64 << 63) as f64) as u64;
        (Arc::new(Self { queue, clock, sampled_below, dropped: AtomicU64::new(0) }), waiting)
    }

    /// The decision is the same for a trace on all hosts (OpenTelemetry, "TraceIdRatioBased").
    fn samples(&self, trace: &[u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = *trace;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.sampled_below
    }

    /// Queues a finished span without waiting.
    fn take(&self, span: otlp::Span) {
        if self.queue.try_send(span).is_err() {
            self.drop_some(1, "queue");
        }
    }

    fn drop_some(&self, count: u64, reason: &'static str) {
        persistent_counters::counter(metric::TRACE_SPANS_DROPPED, format!("reason=\"{reason}\"")).add(count);
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

/// A random id of a trace or a span, which must not be zero.
fn id<const N: usize>() -> [u8; N] {
    loop {
        let id = crypto::random_bytes();
        if id != [0; N] {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::time::Timestamp;

    const SENDER: TraceContext = TraceContext { trace: [7; 16], span: [8; 8], flags: 1, state: String::new() };

    fn on(settings: &Settings, queue_spans_max: usize) -> (Traces, mpsc::Receiver<otlp::Span>) {
        let (recorder, queue) = Recorder::new(settings, queue_spans_max, Clock::manual(Timestamp::from_millis(1_000)));
        (Traces(Some(recorder)), queue)
    }

    #[test]
    fn nothing_is_made_where_tracing_is_off() {
        let traces = Traces::default();
        let (mut span, place) = traces.enter("accept", Some(SENDER));
        assert_eq!(place, Some(SENDER), "what the sender said goes on as it came");
        struct Unsaid;
        impl fmt::Display for Unsaid {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("nothing is formatted")
            }
        }
        span.say("key", Unsaid);
        span.failed(Unsaid);
        assert!(!span.is_recorded() && span.place().is_none());
        assert!(!traces.begin("attempt", Kind::Client, Some(&SENDER)).is_recorded());
        assert_eq!(traces.enter("accept", None).1, None);
        assert_eq!(size_of::<Span>(), size_of::<usize>(), "no more than a null pointer");
    }

    #[test]
    fn a_sampled_sender_is_followed() {
        let (traces, mut queue) = on(&Settings { sample_ratio: 0.0, ..Settings::default() }, 10);
        let sender = TraceContext { state: "rojo=1".into(), ..SENDER };
        let (mut span, place) = traces.enter("accept", Some(sender.clone()));
        span.say(attribute::TENANT, "acme");
        let place = place.unwrap();
        assert_eq!(span.place(), Some(&place));
        assert!(place.trace == sender.trace && place.span != sender.span && place.is_sampled());
        drop(span);
        let mut attempt = traces.begin("attempt", Kind::Client, Some(&place));
        attempt.count(attribute::ATTEMPT, u64::MAX);
        attempt.failed("timeout");
        drop(attempt);
        let (accept, attempt) = (queue.try_recv().unwrap(), queue.try_recv().unwrap());
        assert_eq!((accept.parent_span_id, accept.kind, accept.flags), (sender.span.to_vec(), 2, 0x301));
        assert_eq!((accept.trace_state.as_str(), accept.status), ("rojo=1", None));
        assert_eq!(accept.start_time_unix_nano, 1_000_000_000);
        assert!(accept.end_time_unix_nano >= accept.start_time_unix_nano);
        assert_eq!((attempt.parent_span_id, attempt.kind, attempt.flags), (accept.span_id, 3, 0x101));
        assert_eq!((attempt.trace_id, attempt.status.unwrap().code), (accept.trace_id, otlp::ERROR));
        let number = Some(otlp::AnyValue { value: Some(otlp::Value::Number(i64::MAX)) });
        assert_eq!(attempt.attributes[0].value, number);
    }

    #[test]
    fn a_sender_that_does_not_record_is_passed_on() {
        let (traces, mut queue) = on(&Settings::default(), 10);
        let sender = TraceContext { flags: 0, ..SENDER };
        let (span, place) = traces.enter("accept", Some(sender.clone()));
        assert!(!span.is_recorded());
        assert_eq!(place, Some(sender));
        drop((span, traces.begin("attempt", Kind::Client, place.as_ref())));
        assert!(queue.try_recv().is_err());
    }

    #[test]
    fn a_share_of_the_traces_begun_here_is_recorded() {
        for (sample_ratio, least, most) in [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1_000, 1_000)] {
            let settings = Settings { sample_ratio, ..Settings::default() };
            let (traces, _queue) = on(&settings, 1_000);
            let recorded = (0..1_000).filter(|_| {
                let (span, place) = traces.enter("accept", None);
                assert_eq!(place.unwrap().is_sampled(), span.is_recorded(), "a trace is begun in any case");
                span.is_recorded()
            });
            let recorded = recorded.count();
            assert!((least..=most).contains(&recorded), "{sample_ratio}: {recorded} of 1000");
        }
    }

    #[test]
    fn spans_beyond_the_queue_are_dropped_and_counted() {
        let (traces, mut queue) = on(&Settings::default(), 3);
        for _ in 0..5 {
            drop(traces.enter("accept", None));
        }
        let recorder = traces.0.as_ref().unwrap();
        assert_eq!(recorder.dropped.load(Ordering::Relaxed), 2);
        assert_eq!((0..5).filter(|_| queue.try_recv().is_ok()).count(), 3);
    }
}
