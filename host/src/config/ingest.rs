//! `[ingest]`.

use serde::{Deserialize, Serialize};

/// Limits of event ingest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Maximum size (bytes) of an event's body.
    pub body_bytes_max: usize,
    /// Events that are appended to the ledger concurrently, half of them of one tenant. More are queued, and tenants
    /// take turns; twice as many of one tenant may be queued, and further ones are answered 429.
    pub appends_max: usize,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { body_bytes_max: 1 << 20, appends_max: 512 }
    }
}

impl Ingest {
    /// The share of `appends_max` that one tenant may use.
    pub fn appends_per_tenant_max(&self) -> usize {
        (self.appends_max / 2).max(1)
    }

    /// Events of one tenant that may be queued for an append.
    pub fn appends_queued_per_tenant_max(&self) -> usize {
        self.appends_max.saturating_mul(2)
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let not_zero = [("body_bytes_max", self.body_bytes_max), ("appends_max", self.appends_max)];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        zeros.map(|(key, _)| format!("`ingest.{key}` is 0; it has to be at least 1")).collect()
    }
}
