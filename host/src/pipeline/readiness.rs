//! Whether the host can accept events.

use setgate_ledger::{Upkeep, Usage};

/// Checks whether the host can accept events.
pub struct Readiness {
    usage: Usage,
    upkeep: Upkeep,
}

impl Readiness {
    pub(super) fn new(usage: Usage, upkeep: Upkeep) -> Self {
        Self { usage, upkeep }
    }

    /// The reason why no event can be accepted at present. `None` if the ledger can be read, has space, and its last
    /// commit succeeded.
    pub async fn why_not_ready(&self) -> Option<String> {
        let stats = self.usage.stats();
        if !stats.open {
            return Some("the ledger is closed: see the host's log".to_owned());
        }
        if let Some(cause) = stats.failing {
            return Some(format!("the ledger cannot write, {}: see the host's log", cause.as_str()));
        }
        if let Some(shortage) = self.usage.shortage() {
            return Some(format!("{}: {shortage}", shortage.code()));
        }
        let reads = self.upkeep.meta_get("ready").await;
        reads.err().map(|_| "the ledger cannot be read: see the host's log".to_owned())
    }
}
