//! Deliveries: one event on its way to one subscription.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempt::Attempt;
use super::event::EventSeq;
use super::id::{DeliveryId, Digest, EventId, SourceName, SubscriptionId, TenantId};
use super::time::Timestamp;
use super::verdict::FilterRun;

/// A delivery's row in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliverySeq(pub i64);

/// Where a delivery stands. `filtering` and `sending` are phases of a lease, which lives in memory: on disk such a
/// delivery is due, so that a crash voids the lease and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeliveryState")]
pub enum State {
    /// Waiting for its time.
    Due,
    /// A receiver answered 2xx.
    Delivered,
    /// A filter (or a fault policy) ended it.
    Dropped,
    /// Kept back by a fault until a person decides.
    Held,
    /// Given up; kept until redriven, discarded or past retention.
    Dead,
}

impl State {
    /// Every state, in the order of their stored numbers.
    pub const ALL: [State; 5] = [Self::Due, Self::Delivered, Self::Dropped, Self::Held, Self::Dead];

    /// The word in JSON and metrics.
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

/// A delivery to be made: with its event, by `fan_out`, or by a replay.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The event's place in the journal.
    pub event: EventSeq,
    /// Whose.
    pub tenant: TenantId,
    /// The chain it will run, pinned now; stored before by `intern_plan`.
    pub plan: Digest,
    /// When it is first due.
    pub due_at: Timestamp,
    /// What it shares with those that it must not overtake; none: it may overtake any.
    pub order_key: Option<i64>,
}

impl NewDelivery {
    /// As it is due for the first time, once it is the row `seq`.
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
        }
    }
}

/// A delivery that is due, with what the pipeline needs to go on with it.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    /// Its row.
    pub seq: DeliverySeq,
    /// Its id.
    pub id: DeliveryId,
    /// The event's place in the journal.
    pub event: EventSeq,
    /// Whose.
    pub tenant: TenantId,
    /// The chain it runs.
    pub plan: Digest,
    /// Since when it is due.
    pub due_at: Timestamp,
    /// Attempts made so far.
    pub attempts: u32,
    /// Of them, those before the last redrive: the retry schedule starts anew after one.
    pub attempts_before: u32,
    /// How often a filter asked for another try.
    pub filter_tries: u32,
    /// Whether the chain has run and its bytes are stored.
    pub filtered: bool,
}

/// How a delivery goes on: the one way its row changes, by `settle`. Applying the same settlement twice is the same
/// as once.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which delivery.
    pub delivery: DeliverySeq,
    /// When this was decided.
    pub at: Timestamp,
    /// What was decided.
    pub step: Step,
    /// What each filter did in a chain that left the claims as they were, where that was not settled before the attempt.
    pub passed: Vec<FilterRun>,
}

impl Settlement {
    /// A settlement of a delivery whose chain, if any, is settled by its step or was before.
    pub fn new(delivery: DeliverySeq, at: Timestamp, step: Step) -> Self {
        Self { delivery, at, step, passed: Vec::new() }
    }
}

/// What was decided about a delivery.
#[derive(Debug, Clone)]
pub enum Step {
    /// The chain ran: its bytes are kept before the first send. Stays due.
    Filtered {
        /// The claims after the chain; none: the SET as normalized.
        claims: Option<String>,
        /// What each filter did.
        runs: Vec<FilterRun>,
    },
    /// A filter asked for another try.
    FilterAgain {
        /// What each filter did.
        runs: Vec<FilterRun>,
        /// When to try again.
        due_at: Timestamp,
    },
    /// Ended by a filter or a fault policy.
    Dropped {
        /// What each filter did.
        runs: Vec<FilterRun>,
        /// In words.
        reason: String,
    },
    /// Kept back by a fault.
    Held {
        /// What each filter did.
        runs: Vec<FilterRun>,
        /// In words.
        reason: String,
    },
    /// The receiver took it.
    Delivered {
        /// The attempt.
        attempt: Attempt,
    },
    /// The attempt failed and another will follow.
    Retry {
        /// The attempt.
        attempt: Attempt,
        /// When to try again.
        due_at: Timestamp,
    },
    /// Given up.
    Dead {
        /// The attempt, where one was made.
        attempt: Option<Attempt>,
        /// In words.
        reason: String,
    },
}

impl Step {
    /// The attempt that it is about; none where it is about none.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Delivered { attempt } | Self::Retry { attempt, .. } => Some(attempt),
            Self::Dead { attempt, .. } => attempt.as_ref(),
            Self::Filtered { .. } | Self::FilterAgain { .. } | Self::Dropped { .. } | Self::Held { .. } => None,
        }
    }
}

/// What a person may do with a delivery that is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RedriveAction")]
pub enum Redrive {
    /// Send the kept bytes again under the same id (dead); where there are none yet, run the chain as it is now (held).
    Again,
    /// A held delivery: go on with the bytes as they were before the chain. Its filters are not applied.
    Release,
    /// End it as dropped.
    Discard,
}

/// A delivery as its history shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DeliveryRecord {
    /// Its row.
    #[serde(skip)]
    pub seq: DeliverySeq,
    /// Its id.
    pub id: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// Its subscription.
    pub subscription: SubscriptionId,
    /// Whose.
    pub tenant: TenantId,
    /// The source of its event.
    pub source: SourceName,
    /// The event's types.
    pub types: Vec<String>,
    /// Whom the event is about.
    pub subject: Option<String>,
    /// The event's `jti`.
    pub jti: String,
    /// Whether it is a test that was asked for.
    pub test: bool,
    /// Where it stands.
    pub state: State,
    /// When it is next due, while it is.
    pub due_at: Option<Timestamp>,
    /// Why it was dropped, held or given up.
    pub reason: Option<String>,
    /// The chain it runs.
    pub plan: Digest,
    /// What each filter did.
    pub runs: Vec<FilterRun>,
    /// Whether a person let it go on without its filters ([`Redrive::Release`]).
    pub released: bool,
    /// Attempts made.
    pub attempts: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
