//! A single span. If it is not recorded, it holds no data.

use std::sync::Arc;
use std::time::Instant;
use std::{fmt, mem};

use setgate_domain::trace::TraceContext;

use super::Recorder;
use super::otlp::{self, KeyValue, Value};

/// The role of a span (OpenTelemetry, "SpanKind"), with the numbers of OTLP.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// An internal operation.
    Internal = 1,
    /// Handling of an incoming request.
    Server = 2,
    /// An outgoing request.
    Client = 3,
}

/// A span, which ends on drop. If it is not recorded, it is a null pointer, and attributes are neither formatted nor
/// stored.
#[derive(Default)]
pub struct Span(Option<Box<Recording>>);

struct Recording {
    span: otlp::Span,
    began: Instant,
    place: TraceContext,
    recorder: Arc<Recorder>,
    /// Whether to record the span when it ends.
    was: bool,
}

impl Span {
    /// Starts a span below `parent`. If that is `None`, it is the root span of the trace in `place`. A `remote` parent
    /// belongs to another program.
    pub(super) fn begin(
        recorder: &Arc<Recorder>,
        name: &'static str,
        kind: Kind,
        place: TraceContext,
        parent: Option<[u8; 8]>,
        remote: bool,
    ) -> Self {
        let from = if remote { otlp::REMOTE } else { 0 };
        let span = otlp::Span {
            trace_id: place.trace.to_vec(),
            span_id: place.span.to_vec(),
            trace_state: place.state.clone(),
            parent_span_id: parent.map(|id| id.to_vec()).unwrap_or_default(),
            name: name.to_owned(),
            kind: kind as i32,
            start_time_unix_nano: recorder.clock.unix_nanos(),
            flags: u32::from(place.flags) | otlp::KNOWS_WHETHER_REMOTE | from,
            ..otlp::Span::default()
        };
        Self(Some(Box::new(Recording { span, began: Instant::now(), place, recorder: recorder.clone(), was: true })))
    }

    /// Adds an attribute: a name or an id of the host, or an outcome code. The value must never contain data from a
    /// sender, a filter or a receiver.
    pub fn say(&mut self, key: &'static str, value: impl fmt::Display) {
        if let Some(recording) = &mut self.0 {
            recording.span.attributes.push(KeyValue::new(key, Value::Text(value.to_string())));
        }
    }

    /// Adds a numeric attribute.
    pub fn count(&mut self, key: &'static str, value: u64) {
        if let Some(recording) = &mut self.0 {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            recording.span.attributes.push(KeyValue::new(key, Value::Number(value)));
        }
    }

    /// Marks the span as failed. `class` is a stable code (OpenTelemetry, `error.type`).
    pub fn failed(&mut self, class: impl fmt::Display) {
        if let Some(recording) = &mut self.0 {
            let class = class.to_string();
            recording.span.attributes.push(KeyValue::new(super::attribute::ERROR, Value::Text(class)));
            recording.span.status = Some(otlp::Status { message: String::new(), code: otlp::ERROR });
        }
    }

    /// Discards the span, because its operation did not take place.
    pub fn never_was(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.was = false;
        }
    }

    /// Whether the span is recorded.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// The trace context for children of this span. `None` if the span is not recorded.
    pub fn place(&self) -> Option<&TraceContext> {
        self.0.as_ref().map(|recording| &recording.place)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.was {
            return;
        }
        let mut span = mem::take(&mut self.span);
        // Measured by the monotonic clock, so that clock changes do not affect the duration.
        let lasted = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        span.end_time_unix_nano = span.start_time_unix_nano.saturating_add(lasted);
        self.recorder.take(span);
    }
}
