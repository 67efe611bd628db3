//! Replays: past events made into new runs of deliveries, for one subscription, at a rate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::EventSeq;
use super::id::{ReplayId, SourceName, SubscriptionId, TenantId};
use super::subscription::Pattern;
use super::time::Timestamp;

/// What is to be replayed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// Its id.
    pub id: ReplayId,
    /// Whose.
    pub tenant: TenantId,
    /// The subscription that gets the events, as far as it wants them as it is then.
    pub subscription: SubscriptionId,
    /// Events accepted at or after.
    pub since: Timestamp,
    /// Events accepted before.
    pub until: Timestamp,
    /// Of them, those with a type that matches one of these; empty: all.
    #[serde(default)]
    pub events: Vec<Pattern>,
    /// Of them, those of this source.
    #[serde(default)]
    pub source: Option<SourceName>,
    /// Of them, those about exactly this subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// Deliveries that it makes in a second at the most.
    pub per_second: u32,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// It goes on, also after a restart.
    Running,
    /// It has looked at every event.
    Done,
    /// It was ended before; what it had made stays.
    Cancelled,
}

impl ReplayState {
    /// Every state, in the order of their stored numbers.
    pub const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Cancelled];
}

/// A place among a tenant's events: in the order of their acceptance, and within one instant of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayPlace {
    /// When the last event looked at was accepted.
    pub at: Timestamp,
    /// Its place in the journal.
    pub event: EventSeq,
}

/// A replay with how far it has come.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReplayRecord {
    /// What was asked for.
    #[serde(flatten)]
    pub replay: Replay,
    /// How it stands.
    pub state: ReplayState,
    /// Deliveries it has made.
    pub made: u64,
    /// Events it has passed over, because the request or the subscription does not want them.
    pub passed_over: u64,
    /// How far it has come: when the last event that it looked at was accepted; at first, `since`.
    #[serde(serialize_with = "instant")]
    #[schemars(with = "Timestamp")]
    pub position: ReplayPlace,
    /// The last event that it looks at: that of the journal when it was asked for.
    #[serde(skip)]
    pub last: EventSeq,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it was cancelled.
    pub reason: Option<String>,
}

fn instant<S: serde::Serializer>(place: &ReplayPlace, serializer: S) -> Result<S::Ok, S::Error> {
    place.at.serialize(serializer)
}
