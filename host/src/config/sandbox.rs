//! `[sandbox]`: what filters may use.

use serde::{Deserialize, Serialize};

/// `[sandbox]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// Filter calls at once; more wait their turn.
    pub instances_max: u32,
    /// Of them, one tenant's.
    pub instances_per_tenant_max: u32,
    /// Filter calls that compute at once, in turns between tenants; 0: one per core.
    pub turns_max: usize,
    /// Threads that run guests and nothing else; 0: four per turn. Those above `turns_max` take over where one step of a guest
    /// takes far longer than its turn.
    pub guest_threads: usize,
    /// Fuel after which a call lets others go on; about a tenth of a millisecond's.
    pub fuel_slice: u64,
    /// Bytes of linear memory that any tenant's quota can give: the size of a slot of the pool.
    pub memory_bytes_max: u64,
    /// Bytes of stack for the WebAssembly frames of one call: what a guest's recursion may use before it traps.
    pub stack_bytes_max: usize,
    /// Table elements that any tenant's quota can give.
    pub table_elements_max: u64,
    /// Bytes of a slot kept in memory between two calls, where the machine has no swap.
    pub keep_resident_bytes: usize,
    /// Bytes of look-up tables kept parsed in memory.
    pub tables_bytes_max: u64,
    /// Bytes of look-up tables that the chains of one tenant hold at once; further chains of it wait.
    pub tables_in_use_bytes_max: u64,
    /// Bytes that compiled filters in memory hold, all that belongs to them: some 360 KiB for a small one in Rust. Beyond, the
    /// least used ones go, and come back from disk in a millisecond or two.
    pub loaded_bytes_max: u64,
    /// Bytes of compiled filters kept on disk.
    pub cache_bytes_max: u64,
    /// Compiles at once. Where it is more than one, no tenant has all of them.
    pub compiles_max: usize,
    /// Uploads of one tenant that wait for a compile; one more is answered 429.
    pub compiles_waiting_per_tenant_max: usize,
    /// Milliseconds one compile may take.
    pub compile_wall_ms_max: u64,
    /// CPU seconds one compile may take, over all its threads.
    pub compile_cpu_seconds_max: u64,
    /// Bytes of memory one compile may take.
    pub compile_memory_bytes_max: u64,
    /// Events that a binding may let one instance see (`reuse`); 0 and 1: every event has a fresh instance, and no binding can
    /// ask for more. Lowered, it also holds for bindings that asked for more before.
    pub reuse_events_max: u32,
    /// Instances kept for the next events of their bindings; 0: none. They stand in slots of `instances_max`, and a call that
    /// needs one takes it.
    pub reuse_instances_max: usize,
    /// Of them, one tenant's; 0: none.
    pub reuse_instances_per_tenant_max: usize,
    /// Bytes of linear memory of all instances that are kept.
    pub reuse_memory_bytes_max: u64,
    /// Milliseconds for which an instance is kept without an event.
    pub reuse_idle_ms_max: u64,
    /// Core modules and components nested in the upload, and components that are named again by an alias or export.
    pub filter_modules_max: u64,
    /// Instances, of modules and components, that instantiating the upload comes to.
    pub filter_instances_max: u64,
    /// Of them, instances of core modules.
    pub filter_core_instances_max: u64,
    /// Functions of all core modules; and likewise functions that are lifted, lowered or built in, for each instance.
    pub filter_functions_max: u64,
    /// Bytes of one function's body.
    pub filter_function_bytes_max: u64,
    /// Locals of one function, without its parameters.
    pub filter_locals_max: u64,
    /// Levels of blocks in one function.
    pub filter_blocks_max: u64,
    /// Types of all modules and components, with what instance and component types declare.
    pub filter_types_max: u64,
    /// Levels of components in components, and of types in types. Never more than 100.
    pub filter_nesting_max: u64,
    /// Imports of all modules and components.
    pub filter_imports_max: u64,
    /// Exports of all modules and components.
    pub filter_exports_max: u64,
    /// Aliases, exports, arguments and canonical functions, for each instance.
    pub filter_links_max: u64,
    /// Globals of all modules.
    pub filter_globals_max: u64,
    /// Linear memories of all modules; and likewise of all instances. Each reserves 4 GiB of addresses, and no memory, in each
    /// of `instances_max` slots.
    pub filter_memories_max: u64,
    /// Tables of all modules; and likewise of all instances.
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
