//! Deliveries: an event to be sent to a subscription.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempt::Attempt;
use super::event::{Event, EventSeq};
use super::id::{DeliveryId, Digest, EventId, SourceName, SubscriptionId, TenantId};
use super::time::Timestamp;
use super::verdict::FilterRun;

/// Row number of a delivery in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliverySeq(pub i64);

/// State of a delivery. `filtering` and `sending` are phases of a lease, which is held in memory only: on disk such a
/// delivery is due, so that a crash revokes the lease and has no other effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeliveryState")]
pub enum State {
    /// Queued for its next attempt.
    Due,
    /// The receiver responded with 2xx.
    Delivered,
    /// Ended by a filter or a fault policy.
    Dropped,
    /// Held after a fault until an operator decides.
    Held,
    /// Given up. Retained until it is redriven, discarded or past retention.
    Dead,
}

impl State {
    /// All states, in the order of their stored numbers.
    pub const ALL: [State; 5] = [Self::Due, Self::Delivered, Self::Dropped, Self::Held, Self::Dead];

    /// Name in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::Held => "held",
            Self::Dead => "dead",
        }
    }
}

/// A delivery to be created: with its event, by `fan_out`, or by a replay.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// ID of the delivery.
    pub id: DeliveryId,
    /// Position of the event in the journal.
    pub event: EventSeq,
    /// The tenant.
    pub tenant: TenantId,
    /// Digest of the pinned chain, which `intern_plan` has already stored.
    pub plan: Digest,
    /// When it is first due.
    pub due_at: Timestamp,
    /// Deliveries with the same key must not overtake each other. `None` if there is no such restriction.
    pub order_key: Option<i64>,
    /// See [`DueDelivery::bytes`]. 0 for a further run: the ledger copies the value of another delivery of the event.
    pub bytes: u64,
}

impl NewDelivery {
    /// The delivery as first due, after it was stored as row `seq`.
    pub fn due(&self, seq: DeliverySeq) -> DueDelivery {
        DueDelivery {
            seq,
            id: self.id,
            event: self.event,
            tenant: self.tenant.clone(),
            plan: self.plan,
            due_at: self.due_at,
            attempts: 0,
            attempts_before: 0,
            filter_tries: 0,
            filtered: false,
            bytes: stored_or_assumed_bytes(self.bytes),
        }
    }
}

/// Assumed memory of a delivery whose row does not store it, until the delivery is loaded: an earlier version created it.
const ASSUMED_BYTES: u64 = 1 << 20;

/// [`DueDelivery::bytes`] of a stored value; 0 means that none is stored.
pub fn stored_or_assumed_bytes(stored: u64) -> u64 {
    if stored == 0 { ASSUMED_BYTES } else { stored }
}

/// Memory of a delivery in flight whose filters changed nothing, in bytes: the SET, the accepted bytes, and the body made of
/// the SET.
pub fn bytes_in_flight(set_bytes: usize, original_bytes: usize) -> u64 {
    2 * set_bytes as u64 + original_bytes as u64
}

/// A due delivery, with the data that the pipeline needs to continue it.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    /// Row number.
    pub seq: DeliverySeq,
    /// ID of the delivery.
    pub id: DeliveryId,
    /// Position of the event in the journal.
    pub event: EventSeq,
    /// The tenant.
    pub tenant: TenantId,
    /// Digest of its pinned chain.
    pub plan: Digest,
    /// When it is due.
    pub due_at: Timestamp,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Number of these attempts before the last redrive, which restarts the retry schedule.
    pub attempts_before: u32,
    /// How often a filter requested a retry.
    pub filter_tries: u32,
    /// Whether the chain ran and its result is stored.
    pub filtered: bool,
    /// Memory that it needs while it is in flight, in bytes, known before anything is loaded: [`bytes_in_flight`], plus the
    /// claims after the chain if the chain changed them.
    pub bytes: u64,
}

impl DueDelivery {
    /// Sets the memory to that of the loaded event and claims.
    pub fn with_loaded_bytes(self, event: &Event, claims: Option<&str>) -> Self {
        let bytes = bytes_in_flight(event.set.text.len(), event.original.len()) + claims.map_or(0, str::len) as u64;
        Self { bytes, ..self }
    }
}

/// A transition of a delivery. `settle` is the only way to change a delivery's row. Idempotent: applying a settlement
/// twice has the same effect as once.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The delivery's row.
    pub delivery: DeliverySeq,
    /// Time of the decision.
    pub at: Timestamp,
    /// The transition.
    pub step: Step,
    /// Filter runs of a chain that left the claims unchanged, unless they were already stored before the attempt.
    pub passed: Vec<FilterRun>,
}

impl Settlement {
    /// A settlement without such filter runs: they are part of `step`, were stored before, or there are none.
    pub fn new(delivery: DeliverySeq, at: Timestamp, step: Step) -> Self {
        Self { delivery, at, step, passed: Vec::new() }
    }
}

/// A transition of a delivery.
#[derive(Debug, Clone)]
pub enum Step {
    /// The chain ran. Its result is stored before the first attempt. The delivery stays due.
    Filtered {
        /// The claims after the chain. `None` if the normalized SET is unchanged.
        claims: Option<String>,
        /// The filter runs.
        runs: Vec<FilterRun>,
    },
    /// A filter requested a retry.
    FilterRetry {
        /// The filter runs.
        runs: Vec<FilterRun>,
        /// Time of the retry.
        due_at: Timestamp,
    },
    /// Ended by a filter or a fault policy.
    Dropped {
        /// The filter runs.
        runs: Vec<FilterRun>,
        /// Description of the reason.
        reason: String,
    },
    /// Held after a fault.
    Held {
        /// The filter runs.
        runs: Vec<FilterRun>,
        /// Description of the reason.
        reason: String,
    },
    /// The receiver accepted it.
    Delivered {
        /// The attempt.
        attempt: Attempt,
    },
    /// The attempt failed and will be retried.
    Retry {
        /// The attempt.
        attempt: Attempt,
        /// Time of the retry.
        due_at: Timestamp,
    },
    /// Given up.
    Dead {
        /// The last attempt, if any was made.
        attempt: Option<Attempt>,
        /// Description of the reason.
        reason: String,
    },
}

impl Step {
    /// The attempt that led to this transition, if any.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Delivered { attempt } | Self::Retry { attempt, .. } => Some(attempt),
            Self::Dead { attempt, .. } => attempt.as_ref(),
            Self::Filtered { .. } | Self::FilterRetry { .. } | Self::Dropped { .. } | Self::Held { .. } => None,
        }
    }
}

/// Manual action on a delivery that is dead or held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RedriveAction")]
pub enum Redrive {
    /// Requeue it under the same ID. A delivery with stored bytes sends those again (dead); otherwise the current chain
    /// runs (held).
    Again,
    /// Continue a held delivery with the claims from before the chain. Its filters are not applied.
    Release,
    /// End it as dropped.
    Discard,
}

/// A delivery as shown in the history.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DeliveryRecord {
    /// Row number.
    #[serde(skip)]
    pub seq: DeliverySeq,
    /// ID of the delivery.
    pub id: DeliveryId,
    /// ID of its event.
    pub event: EventId,
    /// ID of its subscription.
    pub subscription: SubscriptionId,
    /// The tenant.
    pub tenant: TenantId,
    /// Source of its event.
    pub source: SourceName,
    /// Types of its event.
    pub types: Vec<String>,
    /// Subject of its event.
    pub subject: Option<String>,
    /// `jti` of its event.
    pub jti: String,
    /// Whether the event is a requested test event.
    pub test: bool,
    /// State of the delivery.
    pub state: State,
    /// When it is next due. Absent if it is not due.
    pub due_at: Option<Timestamp>,
    /// Why it was dropped, held or given up.
    pub reason: Option<String>,
    /// Digest of its pinned chain.
    pub plan: Digest,
    /// The filter runs.
    pub runs: Vec<FilterRun>,
    /// Whether an operator released it without its filters ([`Redrive::Release`]).
    pub released: bool,
    pub attempt_count: u32,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}
