//! `[sandbox]`: resources and limits of filters.

use serde::{Deserialize, Serialize};

/// `[sandbox]`: resources and limits of filters.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// Maximum number of concurrent filter calls; further ones are queued.
    pub instances_max: u32,
    /// The share of `instances_max` that one tenant may use.
    pub instances_per_tenant_max: u32,
    /// Filter calls that compute at the same time; tenants take turns. 0: one per core.
    pub turns_max: usize,
    /// Threads dedicated to guest code. 0: four per turn. Those in excess of `turns_max` take over if a single step of
    /// a guest runs far longer than its turn.
    pub guest_threads: usize,
    /// Fuel after which a call yields to others; about 0.1 ms of computation.
    pub fuel_slice: u64,
    /// Linear memory (bytes) that a tenant's quota can grant at most: the size of a slot in the instance pool.
    pub memory_bytes_max: u64,
    /// Stack (bytes) for the WebAssembly frames of one call. A deeper recursion traps.
    pub stack_bytes_max: usize,
    /// Table elements that a tenant's quota can grant at most.
    pub table_elements_max: u64,
    /// Bytes of a slot that stay resident in memory between two calls, if the machine has no swap.
    pub keep_resident_bytes: usize,
    /// Bytes of parsed look-up tables cached in memory.
    pub tables_bytes_max: u64,
    /// Bytes of look-up tables that the running filter chains of one tenant may use; further chains are queued.
    pub tables_in_use_bytes_max: u64,
    /// Bytes of compiled filters in memory, including all their data: about 360 KiB for a small filter in Rust. Beyond
    /// it, the least recently used ones are evicted; loading one from disk again takes 1 to 2 ms.
    pub loaded_bytes_max: u64,
    /// Bytes of compiled filters stored on disk.
    pub cache_bytes_max: u64,
    /// Maximum number of concurrent compilations. If it is more than one, a single tenant cannot use all of them.
    pub compiles_max: usize,
    /// Uploads of one tenant that may be queued for compilation; further ones are answered 429.
    pub compiles_waiting_per_tenant_max: usize,
    /// Time limit (ms) of one compilation.
    pub compile_wall_ms_max: u64,
    /// CPU time limit (seconds) of one compilation, over all its threads.
    pub compile_cpu_seconds_max: u64,
    /// Memory limit (bytes) of one compilation.
    pub compile_memory_bytes_max: u64,
    /// Upper bound of a binding's `reuse`, the number of events that one instance may process. 0 and 1: every event
    /// gets a fresh instance, and no binding can ask for more. A lower value also applies to existing bindings.
    pub reuse_events_max: u32,
    /// Maximum number of idle instances retained for the next events of their bindings. 0: none. They occupy slots of
    /// `instances_max` and are evicted if a call needs the slot.
    pub reuse_instances_max: usize,
    /// The share of `reuse_instances_max` that one tenant may use. 0: none.
    pub reuse_instances_per_tenant_max: usize,
    /// Linear memory (bytes) of all idle instances together.
    pub reuse_memory_bytes_max: u64,
    /// How long (ms) an idle instance is retained.
    pub reuse_idle_ms_max: u64,
    /// Core modules and components nested in the upload, plus components that an alias or export refers to again.
    pub filter_modules_max: u64,
    /// Instances of modules and components that result from instantiating the upload.
    pub filter_instances_max: u64,
    /// The share of `filter_instances_max` that instances of core modules may use.
    pub filter_core_instances_max: u64,
    /// Functions of all core modules. The same limit applies to lifted, lowered and built-in functions, counted per
    /// instance.
    pub filter_functions_max: u64,
    /// Bytes of one function's body.
    pub filter_function_bytes_max: u64,
    /// Locals of one function, excluding its parameters.
    pub filter_locals_max: u64,
    /// Nesting depth of blocks in one function.
    pub filter_blocks_max: u64,
    /// Types of all modules and components, including the declarations in instance and component types.
    pub filter_types_max: u64,
    /// Nesting depth of components, and of types. At most 100.
    pub filter_nesting_max: u64,
    /// Imports of all modules and components.
    pub filter_imports_max: u64,
    /// Exports of all modules and components.
    pub filter_exports_max: u64,
    /// Aliases, exports, arguments and canonical functions, counted per instance.
    pub filter_links_max: u64,
    /// Globals of all modules.
    pub filter_globals_max: u64,
    /// Linear memories of all modules. The same limit applies to the memories of all instances, each of which reserves
    /// 4 GiB of address space (not memory) in each of the `instances_max` slots.
    pub filter_memories_max: u64,
    /// Tables of all modules. The same limit applies to the tables of all instances.
    pub filter_tables_max: u64,
    /// Element and data segments of all modules.
    pub filter_segments_max: u64,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            instances_max: 64,
            instances_per_tenant_max: 32,
            turns_max: 0,
            guest_threads: 0,
            fuel_slice: 200_000,
            memory_bytes_max: 128 << 20,
            stack_bytes_max: 512 << 10,
            table_elements_max: 20_000,
            keep_resident_bytes: 512 << 10,
            tables_bytes_max: 64 << 20,
            tables_in_use_bytes_max: 64 << 20,
            loaded_bytes_max: 256 << 20,
            cache_bytes_max: 2 << 30,
            compiles_max: 2,
            compiles_waiting_per_tenant_max: 4,
            compile_wall_ms_max: 60_000,
            compile_cpu_seconds_max: 60,
            compile_memory_bytes_max: 1 << 30,
            reuse_events_max: 1_000,
            reuse_instances_max: 16,
            reuse_instances_per_tenant_max: 4,
            reuse_memory_bytes_max: 256 << 20,
            reuse_idle_ms_max: 60_000,
            filter_modules_max: 500,
            filter_instances_max: 1_000,
            filter_core_instances_max: 64,
            filter_functions_max: 200_000,
            filter_function_bytes_max: 4 << 20,
            filter_locals_max: 20_000,
            filter_blocks_max: 5_000,
            filter_types_max: 50_000,
            filter_nesting_max: 20,
            filter_imports_max: 100_000,
            filter_exports_max: 100_000,
            filter_links_max: 1_000_000,
            filter_globals_max: 100_000,
            filter_memories_max: 8,
            filter_tables_max: 8,
            filter_segments_max: 100_000,
        }
    }
}
