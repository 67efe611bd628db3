//! One span: what is known of it while it goes on, and nothing at all where it is not recorded.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::Recorder;
use super::otlp::{self, KeyValue, Value};
use crate::domain::trace::TraceContext;

/// Who waits for what a span is about (OpenTelemetry, "SpanKind"); numbers as OTLP has them.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Nobody outside.
    Internal = 1,
    /// Whoever sent a request.
    Server = 2,
    /// The host, for somebody's answer.
    Client = 3,
}

/// A span until it is dropped, which ends it. Where it is not recorded it is a null pointer: what is said of it is neither
/// formatted nor kept.
#[derive(Default)]
pub struct Span(Option<Box<Recording>>);

struct Recording {
    span: otlp::Span,
    began: Instant,
    place: TraceContext,
    recorder: Arc<Recorder>,
    /// Whether it is to be recorded when it ends.
    was: bool,
}

impl Span {
    /// Under `parent`; none: it begins the trace of `place`. A `remote` parent is another program's.
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

    /// Says something of it: a name or an id of the host's own, or a word for an outcome. Never what a sender, a filter or a
    /// receiver said.
    pub fn say(&mut self, key: &'static str, value: impl fmt::Display) {
        if let Some(recording) = &mut self.0 {
            recording.span.attributes.push(KeyValue::new(key, Value::Text(value.to_string())));
        }
    }

    /// Says a figure of it.
    pub fn count(&mut self, key: &'static str, value: u64) {
        if let Some(recording) = &mut self.0 {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            recording.span.attributes.push(KeyValue::new(key, Value::Number(value)));
        }
    }

    /// It went wrong; `class` is a stable word (OpenTelemetry, `error.type`).
    pub fn failed(&mut self, class: impl fmt::Display) {
        if let Some(recording) = &mut self.0 {
            let class = class.to_string();
            recording.span.attributes.push(KeyValue::new(super::attribute::ERROR, Value::Text(class)));
            recording.span.status = Some(otlp::Status { message: String::new(), code: otlp::ERROR });
        }
    }

    /// What it is about was not done after all: it is not recorded.
    pub fn never_was(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.was = false;
        }
    }

    /// Whether it is recorded.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Its place in the trace, for who goes on from here; none where it is not recorded.
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
        // By the monotonic clock: a span is no longer for a clock that was set meanwhile.
        let lasted = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        span.end_time_unix_nano = span.start_time_unix_nano.saturating_add(lasted);
        self.recorder.take(span);
    }
}
