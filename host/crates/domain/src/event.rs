//! Events: accepted from a source, stored with the original bytes and as a SET.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::builtin_event;
use super::id::{EventId, SourceName, TenantId};
use super::set::SetToken;
use super::time::Timestamp;
use super::trace::TraceContext;

/// Position in the journal: 1 for the first event of a ledger, then increasing, with gaps after retention removed
/// events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct EventSeq(pub i64);

/// An event to be appended to the journal: authenticated and normalized, but not durable yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Created on acceptance; time-ordered.
    pub id: EventId,
    /// The tenant.
    pub tenant: TenantId,
    /// The source.
    pub source: SourceName,
    /// The SET. A `pass` delivers exactly these bytes.
    pub set: SetToken,
    /// The subject: the user ID, or else a fallback name. `None` if the event has neither.
    pub subject: Option<String>,
    /// The original request body.
    pub original: Bytes,
    /// Media type of the request body, without parameters.
    pub content_type: String,
    /// Time of acceptance.
    pub accepted_at: Timestamp,
    /// Identifies duplicates of the event.
    pub dedupe: Dedupe,
    /// Position in a distributed trace: the span of the acceptance, or that of the sender. `None` if it is not traced.
    pub trace: Option<TraceContext>,
}

/// Identifies duplicates of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    /// SHA-256 over tenant, source and `jti`, each length-prefixed.
    pub key: [u8; 32],
    /// SHA-256 of the original bytes. Another body with the same key is a conflict and not a duplicate.
    pub body: [u8; 32],
    /// How long after the first event another one counts as a duplicate, in milliseconds. `None`: as long as the first
    /// one is in the journal.
    pub window_ms: Option<i64>,
}

/// An event in the journal.
#[derive(Debug, Clone)]
pub struct Event {
    /// Position in the journal.
    pub seq: EventSeq,
    /// See [`NewEvent::id`].
    pub id: EventId,
    /// The tenant.
    pub tenant: TenantId,
    /// The source.
    pub source: SourceName,
    /// The normalized SET.
    pub set: SetToken,
    /// The subject.
    pub subject: Option<String>,
    /// The original request body.
    pub original: Bytes,
    /// Media type of the request body, without parameters.
    pub content_type: String,
    /// Time of acceptance.
    pub accepted_at: Timestamp,
    /// See [`NewEvent::trace`].
    pub trace: Option<TraceContext>,
}

impl Event {
    /// Whether this is a requested test event.
    pub fn is_test(&self) -> bool {
        builtin_event::is_test(&self.source, &self.set.types)
    }
}

/// An event as shown in the history, without its contents.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EventRecord {
    /// Position in the journal.
    #[serde(skip)]
    pub seq: EventSeq,
    /// ID of the event.
    pub id: EventId,
    /// The tenant.
    pub tenant: TenantId,
    /// The source.
    pub source: SourceName,
    /// Event types.
    pub types: Vec<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The event's `jti`.
    pub jti: String,
    /// Media type of the request body, without parameters.
    pub content_type: String,
    /// Time of acceptance.
    pub accepted_at: Timestamp,
}
