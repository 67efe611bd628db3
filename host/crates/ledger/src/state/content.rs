//! The content of a delivery, read from its rows or from memory.

use std::sync::Arc;

use setgate_domain::delivery::State;
use setgate_domain::event::Event;
use setgate_domain::id::Digest;
use setgate_domain::time::Timestamp;

/// Everything needed to run a delivery's chain, or to send it.
#[derive(Debug, Clone)]
pub struct Content {
    /// The event.
    pub event: Arc<Event>,
    /// Claims after the chain, if it ran and changed them. If `filtered` is set and this is `None`, the normalized SET
    /// is sent.
    pub claims: Option<String>,
    /// Whether the chain has run.
    pub filtered: bool,
    /// State as of the read: a delivery that was due when it was listed may have come to rest since.
    pub state: State,
    /// Number of attempts recorded, as of the read.
    pub attempts: u32,
    /// Due time as of the read; meaningful only if the delivery is due.
    pub due_at: Timestamp,
    /// Failed runs of the chain that will be retried, as of the read.
    pub filter_tries: u32,
    /// Plan of its filter chain, as of the read.
    pub plan: Digest,
    /// See [`DueDelivery::attempts_before`](setgate_domain::delivery::DueDelivery::attempts_before); as of the read.
    pub attempts_before: u32,
    /// Whether an earlier delivery with the same order key must end first, as of the read.
    pub blocked: bool,
}
