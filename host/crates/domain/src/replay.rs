//! Replays: create new deliveries of past events for one subscription, at a limited rate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::EventSeq;
use super::id::{ReplayId, SourceName, SubscriptionId, TenantId};
use super::subscription::Pattern;
use super::time::Timestamp;

/// A replay request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// ID of the replay.
    pub id: ReplayId,
    /// The tenant.
    pub tenant: TenantId,
    /// The subscription that gets the events. Events are matched against its settings at the time of the replay.
    pub subscription: SubscriptionId,
    /// Only events accepted at or after this time.
    pub since: Timestamp,
    /// Only events accepted before this time.
    pub until: Timestamp,
    /// Only events with a type that matches one of these patterns. All types if empty.
    #[serde(default)]
    pub events: Vec<Pattern>,
    /// Only events of this source.
    #[serde(default)]
    pub source: Option<SourceName>,
    /// Only events with exactly this subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// Maximum rate at which deliveries are created, per second.
    pub per_second: u32,
    /// Time of the request.
    pub created_at: Timestamp,
}

/// State of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// In progress. Continues after a restart.
    Running,
    /// All events were processed.
    Done,
    /// Cancelled. Deliveries that were already created remain.
    Cancelled,
}

impl ReplayState {
    /// All states, in the order of their stored numbers.
    pub const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Cancelled];
}

/// A position in a tenant's events, which are ordered by time of acceptance and then by position in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayPosition {
    /// When the last processed event was accepted.
    pub at: Timestamp,
    /// Position of that event in the journal.
    pub event: EventSeq,
}

/// A replay and its progress.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReplayRecord {
    /// The request.
    #[serde(flatten)]
    pub replay: Replay,
    /// State of the replay.
    pub state: ReplayState,
    /// Number of deliveries created.
    pub made: u64,
    /// Number of events skipped, because the request or the subscription does not match them.
    pub passed_over: u64,
    /// Progress: when the last processed event was accepted. Initially `since`.
    #[serde(serialize_with = "instant")]
    #[schemars(with = "Timestamp")]
    pub position: ReplayPosition,
    /// The last event to process: the last one in the journal at the time of the request.
    #[serde(skip)]
    pub last: EventSeq,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it was cancelled.
    pub reason: Option<String>,
}

fn instant<S: serde::Serializer>(place: &ReplayPosition, serializer: S) -> Result<S::Ok, S::Error> {
    place.at.serialize(serializer)
}
