//! The limits that can influence the result of a filter call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tenant::Quota;

/// Limits of one call: the part of a [`Quota`] that is pinned when a delivery is created, since a call that reaches a
/// limit ends differently from one that does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallLimits {
    /// See [`Quota::fuel_per_call`].
    pub fuel_per_call: u64,
    /// See [`Quota::fuel_per_event_byte`]. 0 for deliveries of older versions.
    #[serde(default)]
    pub fuel_per_event_byte: u64,
    /// See [`Quota::memory_bytes_max`].
    pub memory_bytes_max: u64,
    /// See [`Quota::table_elements_max`].
    pub table_elements_max: u64,
    /// See [`Quota::wall_ms_max`]. The only limit whose effect is not deterministic.
    pub wall_ms_max: u64,
    /// See [`Quota::output_bytes_max`].
    pub output_bytes_max: u64,
    /// See [`Quota::host_calls_max`].
    pub host_calls_max: u64,
    /// See [`Quota::log_bytes_max`].
    pub log_bytes_max: u64,
}

impl From<&Quota> for CallLimits {
    fn from(quota: &Quota) -> Self {
        Self {
            fuel_per_call: quota.fuel_per_call,
            fuel_per_event_byte: quota.fuel_per_event_byte,
            memory_bytes_max: quota.memory_bytes_max,
            table_elements_max: quota.table_elements_max,
            wall_ms_max: quota.wall_ms_max,
            output_bytes_max: quota.output_bytes_max,
            host_calls_max: quota.host_calls_max,
            log_bytes_max: quota.log_bytes_max,
        }
    }
}

impl Quota {
    /// This quota with pinned call limits.
    pub fn with_call_limits(self, limits: &CallLimits) -> Self {
        Self {
            fuel_per_call: limits.fuel_per_call,
            fuel_per_event_byte: limits.fuel_per_event_byte,
            memory_bytes_max: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max,
            wall_ms_max: limits.wall_ms_max,
            output_bytes_max: limits.output_bytes_max,
            host_calls_max: limits.host_calls_max,
            log_bytes_max: limits.log_bytes_max,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_limits_override_current_quota() {
        let then = Quota {
            fuel_per_call: 1,
            fuel_per_event_byte: 8,
            memory_bytes_max: 2,
            table_elements_max: 3,
            wall_ms_max: 4,
            output_bytes_max: 5,
            host_calls_max: 6,
            log_bytes_max: 7,
            ..Quota::default()
        };
        let today = Quota { sources_max: 9, ..Quota::default() };
        let limits = CallLimits::from(&then);
        assert_eq!(today.clone().with_call_limits(&limits), Quota { sources_max: 9, ..then });
        assert_eq!(today.clone().with_call_limits(&CallLimits::from(&today)), today);
    }
}
