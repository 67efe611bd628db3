//! The engine: one per process, with everything off that a filter does not need.
//!
//! Two things are decided here. [`compile_config`] is what decides the machine code, and is the same in the compiler's
//! process and in the one that runs filters, else an artefact of the one would not load in the other. [`pooled`] adds
//! where instances live: a pool of slots reserved once, so that a fresh instance per call costs microseconds.

use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use super::Options;

/// Stack of one call beside that of its WebAssembly frames, in bytes: all that host functions have. Overflowing it aborts
/// the process, so it is far more than they need.
const HOST_STACK_BYTES: usize = 1 << 20;
/// Bytes up to which a memory's first content is laid out as an image, however much of it is empty; beyond, at least half
/// has to be data.
const DENSE_IMAGE_BYTES_MAX: u64 = 256 << 10;
/// Frames of a trap that are looked through for the author's own: a panic's own are about ten, and a library's come before
/// those of its caller.
const BACKTRACE_FRAMES_MAX: usize = 64;

/// What decides the machine code.
pub(super) fn compile_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .consume_fuel(true)
        .operator_cost(operator_cost())
        // Not all work costs fuel: see `ticks`.
        .epoch_interruption(true)
        // Determinism: one bit pattern for every NaN, and no instruction whose result is the machine's choice.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        // Each of these is code that a hostile guest could reach and that no filter needs.
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        .shared_memory(false)
        // A memory whose data lies far apart would else become an image of up to 16 MiB, out of an upload of some bytes.
        .memory_guaranteed_dense_image_size(DENSE_IMAGE_BYTES_MAX)
        .cranelift_opt_level(OptLevel::Speed)
        // Traps name functions; offsets, line tables and unwind tables for debuggers would double the artefact.
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false)
        .native_unwind_info(false);
    config
}

/// What instructions cost in fuel: one each, and one for each byte or element that a bulk instruction works on. Asking for
/// memory or table elements is a call into the engine, a hundred times as long as an addition, also where it is refused:
/// at the price of one, a guest that asks in a loop would get a hundred times the time that its fuel stands for.
fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    cost.MemoryGrow = u8::MAX;
    cost.TableGrow = u8::MAX;
    cost
}

/// The engine that compiles only.
pub(super) fn compile_only() -> wasmtime::Result<Engine> {
    Engine::new(&compile_config())
}

/// The engine that runs filters, with its pool.
pub(super) fn pooled(options: &Options) -> wasmtime::Result<Engine> {
    Engine::new(&bare_config(options))
}

/// The configuration of a sandbox's engine, and nothing of what the sandbox adds: no limit is in force but the pool's own
/// sizes. For measuring what the sandbox adds; whoever runs strangers' filters needs a [`Sandbox`](super::Sandbox).
pub fn bare_config(options: &Options) -> Config {
    let slots = options.instances_max;
    // What an upload may have, a slot has room for: the caps are what refuses it, and not the pool. Only as many slots of
    // memories and tables stay warm as there are calls at once, however many a component may have.
    let per_component = |cap: u64| u32::try_from(cap.max(1)).unwrap_or(u32::MAX);
    let core_instances = per_component(options.caps.core_instances_max);
    let memories = per_component(options.caps.memories_max);
    let tables = per_component(options.caps.tables_max);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(core_instances))
        .total_memories(slots.saturating_mul(memories))
        .total_tables(slots.saturating_mul(tables))
        .total_stacks(slots)
        .max_core_instances_per_component(core_instances)
        .max_memories_per_component(memories)
        .max_tables_per_component(tables)
        .max_tables_per_module(tables)
        .max_memories_per_module(memories)
        .table_elements(usize::try_from(options.table_elements_max).unwrap_or(usize::MAX))
        .max_memory_size(usize::try_from(options.memory_bytes_max).unwrap_or(usize::MAX))
        .max_unused_warm_slots(slots);
    if swap_is_off() && PoolingAllocationConfig::is_pagemap_scan_available() {
        // A slot is reset by writing back only the pages that were touched. With swap on, a touched page that was
        // swapped out would be missed, and the next guest of the slot would see it: then slots are decommitted whole.
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(options.keep_resident_bytes)
            .table_keep_resident(options.keep_resident_bytes.min(64 << 10))
            .async_stack_keep_resident(options.keep_resident_bytes.min(64 << 10));
    }
    let mut config = compile_config();
    // Not what decides the machine code: an artefact loads whatever the stack.
    config
        .max_wasm_stack(options.stack_bytes_max)
        .async_stack_size(options.stack_bytes_max.saturating_add(HOST_STACK_BYTES))
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Whether this machine has no swap at all. Unknown counts as swap.
fn swap_is_off() -> bool {
    // The first line is the heading; each further line is a swap device or file.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().skip(1).all(|line| line.trim().is_empty()))
}

/// SHA-256 over everything that decides whether an artefact of this engine loads in another one.
pub(super) fn compatibility(engine: &Engine) -> [u8; 32] {
    let mut parts = HashedBytes::default();
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut parts);
    crate::crypto::sha256(&parts.0)
}

/// The engine's version, as a test finds it in `Cargo.lock`.
const VERSION: &str = "48.0.8";

/// The engine in a few characters: two that are the same make the same machine code of a filter.
pub(super) fn id(engine: &Engine) -> String {
    format!("wasmtime {VERSION} {}", hex::encode(&compatibility(engine)[..4]))
}

/// Keeps what is hashed, since `std`'s hash would be 64 bits and could differ between two builds.
#[derive(Default)]
struct HashedBytes(Vec<u8>);

impl std::hash::Hasher for HashedBytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{VERSION}\"")), "{VERSION} is another one");
    }

    #[test]
    fn the_pool_does_not_decide_the_machine_code() {
        let components: super::super::Components = std::sync::Arc::new(|_| Box::pin(std::future::ready(None)));
        let options = |memory_bytes_max| Options {
            memory_bytes_max,
            instances_max: 1,
            ..Options::new("nowhere".into(), [0; 32], components.clone())
        };
        let small = pooled(&options(16 << 20)).unwrap();
        assert_eq!(id(&small), id(&pooled(&options(64 << 20)).unwrap()));
        assert_eq!(id(&small), id(&compile_only().unwrap()));
    }
}
