//! `[sandbox]`: the settings of filters. Limits that no operator has a reason to change are constants in `options`.

use serde::{Deserialize, Serialize};

/// Filter execution: instances, memory, compilation and reuse of instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Maximum number of concurrent filter calls; further ones are queued.
    pub instances_max: u32,
    /// The share of `instances_max` that one tenant may use.
    pub instances_per_tenant_max: u32,
    /// Linear memory (bytes) that a tenant's quota can grant at most: the size of a slot in the instance pool.
    pub memory_bytes_max: u64,
    /// Bytes of compiled filters in memory, including all their data: about 360 KiB for a small filter in Rust. Beyond
    /// it, the least recently used ones are evicted; loading one from disk again takes 1 to 2 ms.
    pub loaded_bytes_max: u64,
    /// Bytes of compiled filters stored on disk.
    pub cache_bytes_max: u64,
    /// Time limit (ms) of one compilation.
    pub compile_wall_ms_max: u64,
    /// CPU time limit (seconds) of one compilation, over all its threads.
    pub compile_cpu_s_max: u64,
    /// Memory limit (bytes) of one compilation.
    pub compile_memory_bytes_max: u64,
    /// Upper bound of a binding's `reuse`, the number of events that one instance may process. 0 and 1: every event
    /// gets a fresh instance, and no binding can ask for more. A lower value also applies to existing bindings.
    pub reuse_events_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instances_max: 64,
            instances_per_tenant_max: 32,
            memory_bytes_max: 128 << 20,
            loaded_bytes_max: 256 << 20,
            cache_bytes_max: 2 << 30,
            compile_wall_ms_max: 60_000,
            compile_cpu_s_max: 60,
            compile_memory_bytes_max: 1 << 30,
            reuse_events_max: 1_000,
        }
    }
}

impl Settings {
    /// One message for each value that is not usable.
    pub fn faults(&self) -> Vec<String> {
        let not_zero =
            [("instances_max", self.instances_max), ("instances_per_tenant_max", self.instances_per_tenant_max)];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        zeros.map(|(key, _)| format!("`sandbox.{key}` is 0; it has to be at least 1")).collect()
    }
}
