//! `[history]`.

use serde::{Deserialize, Serialize};

/// Replays of stored events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Maximum number of concurrent replays of one tenant.
    pub replays_per_tenant_max: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { replays_per_tenant_max: 4 }
    }
}
