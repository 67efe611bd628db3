//! Events: what a source sent and was accepted, once in the source's bytes and once as a SET.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::catalogue;
use super::id::{EventId, SourceName, TenantId};
use super::set::SetToken;
use super::time::Timestamp;
use super::trace::TraceContext;

/// Position in the journal: 1 for the first event a ledger ever took, then rising, with gaps where retention removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct EventSeq(pub i64);

/// An event ready to be appended to the journal: proven, normalized, not yet durable.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Made at acceptance; time-ordered.
    pub id: EventId,
    /// Whose event it is.
    pub tenant: TenantId,
    /// Who sent it.
    pub source: SourceName,
    /// The SET: the bytes that a `pass` delivers.
    pub set: SetToken,
    /// Whom the event is about: user id, else a named fallback, else none.
    pub subject: Option<String>,
    /// The accepted bytes as they came.
    pub original: Bytes,
    /// The media type they came with, without parameters.
    pub content_type: String,
    /// When the host took it in.
    pub accepted_at: Timestamp,
    /// What makes a second copy the same event.
    pub dedupe: Dedupe,
    /// Its place in a trace: below its acceptance, or where its sender was; none: it is in no trace.
    pub trace: Option<TraceContext>,
}

/// What makes a second copy the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    /// SHA-256 over tenant, source and `jti`, each length-prefixed.
    pub key: [u8; 32],
    /// SHA-256 of the original bytes: another body under the same key is a conflict, not a copy.
    pub body: [u8; 32],
    /// How long after the first copy a second one counts as the same, in milliseconds;
    /// none: as long as the first is in the journal.
    pub window_ms: Option<i64>,
}

/// An event in the journal.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its place in the journal.
    pub seq: EventSeq,
    /// See [`NewEvent::id`].
    pub id: EventId,
    /// Whose event it is.
    pub tenant: TenantId,
    /// Who sent it.
    pub source: SourceName,
    /// The SET as normalized.
    pub set: SetToken,
    /// Whom the event is about.
    pub subject: Option<String>,
    /// The accepted bytes as they came.
    pub original: Bytes,
    /// The media type they came with, without parameters.
    pub content_type: String,
    /// When the host took it in.
    pub accepted_at: Timestamp,
    /// See [`NewEvent::trace`].
    pub trace: Option<TraceContext>,
}

impl Event {
    /// Whether it is a test that somebody asked for.
    pub fn is_test(&self) -> bool {
        catalogue::is_test(&self.source, &self.set.types)
    }
}

/// An event as its history shows it: without its bytes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EventRecord {
    /// Its place in the journal.
    #[serde(skip)]
    pub seq: EventSeq,
    /// See [`NewEvent::id`].
    pub id: EventId,
    /// Whose event it is.
    pub tenant: TenantId,
    /// Who sent it.
    pub source: SourceName,
    /// The event's types.
    pub types: Vec<String>,
    /// Whom the event is about.
    pub subject: Option<String>,
    /// The event's `jti`.
    pub jti: String,
    /// The media type it came with, without parameters.
    pub content_type: String,
    /// When the host took it in.
    pub accepted_at: Timestamp,
}
