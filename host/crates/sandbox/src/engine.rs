//! The engine: one per process, with every feature disabled that a filter does not need.
//!
//! Two configurations are defined here. [`compile_config`] determines the machine code and is the same in the compiler
//! process and in the host, otherwise the host could not load the artefacts. [`pooled`] adds the pooling allocator: its
//! slots are reserved once, so that a fresh instance per call costs microseconds.

use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use super::Options;

/// Stack of a call in bytes, in addition to its WebAssembly frames. Host functions run on it. An overflow aborts the
/// process, so it is far larger than they need.
const HOST_STACK_BYTES: usize = 1 << 20;
/// Initial memory contents up to this size are laid out as an image, even if mostly empty. Beyond it, at least half of
/// the image has to be data.
const DENSE_IMAGE_BYTES_MAX: u64 = 256 << 10;
/// Frames of a trap that are searched for the author's own code. A panic adds about ten frames, and library frames come
/// before those of their caller.
const BACKTRACE_FRAMES_MAX: usize = 64;

/// The settings that determine the machine code.
pub(super) fn compile_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .consume_fuel(true)
        .operator_cost(operator_cost())
        // Some work costs no fuel: see `epoch_ticker`.
        .epoch_interruption(true)
        // Determinism: one bit pattern for every NaN, and no instruction with a machine-dependent result.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        // Attack surface that no filter needs.
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        .shared_memory(false)
        // Otherwise an upload of a few bytes with widely spaced data segments would become an image of up to 16 MiB.
        .memory_guaranteed_dense_image_size(DENSE_IMAGE_BYTES_MAX)
        .cranelift_opt_level(OptLevel::Speed)
        // Traps name functions. Offsets, line tables and debuggers' unwind tables would double the size of the
        // artefact.
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false)
        .native_unwind_info(false);
    config
}

/// Fuel costs of instructions: one each, plus one for each byte or element of a bulk instruction. Growing a memory or a
/// table calls into the engine and takes a hundred times as long as an addition, even if it is refused. At a price of
/// one, a guest that grows in a loop would get a hundred times the CPU time that its fuel stands for.
fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    cost.MemoryGrow = u8::MAX;
    cost.TableGrow = u8::MAX;
    cost
}

pub(super) fn compile_only() -> wasmtime::Result<Engine> {
    Engine::new(&compile_config())
}

pub(super) fn pooled(options: &Options) -> wasmtime::Result<Engine> {
    Engine::new(&engine_config(options))
}

/// The configuration of the sandbox's engine without the sandbox: the only limits in force are the pool's sizes. For
/// benchmarks of the sandbox's overhead. To run untrusted filters, use a [`Sandbox`](super::Sandbox).
pub fn engine_config(options: &Options) -> Config {
    let slots = options.instances_max;
    // A slot has room for everything that the structure limits allow, so that an upload is refused by those limits and
    // never by the pool. The number of warm memory and table slots is bounded by the number of concurrent calls,
    // independent of how many a component may have.
    let per_component = |cap: u64| u32::try_from(cap.max(1)).unwrap_or(u32::MAX);
    let core_instances = per_component(options.structure.core_instances_max);
    let memories = per_component(options.structure.memories_max);
    let tables = per_component(options.structure.tables_max);
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
        // With pagemap scans, a slot is reset by writing back only its dirty pages. With swap on, a dirty page that was
        // swapped out would be missed and leak to the next guest in the slot. In that case slots are decommitted as a
        // whole.
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(options.keep_resident_bytes)
            .table_keep_resident(options.keep_resident_bytes.min(64 << 10))
            .async_stack_keep_resident(options.keep_resident_bytes.min(64 << 10));
    }
    let mut config = compile_config();
    // These do not affect the machine code: an artefact loads with any stack size.
    config
        .max_wasm_stack(options.stack_bytes_max)
        .async_stack_size(options.stack_bytes_max.saturating_add(HOST_STACK_BYTES))
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Whether this machine has no swap. Returns false if that cannot be determined.
fn swap_is_off() -> bool {
    // The first line is a heading; each further line is a swap device or file.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().skip(1).all(|line| line.trim().is_empty()))
}

/// SHA-256 over everything that decides whether an artefact of this engine can be loaded by another one.
pub(super) fn compatibility(engine: &Engine) -> [u8; 32] {
    let mut parts = HashedBytes::default();
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut parts);
    setgate_base::crypto::sha256(&parts.0)
}

/// The engine's version. A test compares it with `Cargo.lock`.
const VERSION: &str = "48.0.8";

/// Short identifier of the engine. Engines with the same identifier generate the same machine code for a filter.
pub(super) fn id(engine: &Engine) -> String {
    format!("wasmtime {VERSION} {}", hex::encode(&compatibility(engine)[..4]))
}

/// Collects the bytes to hash. The hash of `std` has only 64 bits and may differ between two builds.
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
    fn engine_version_matches_lock_file() {
        let lock = include_str!("../../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{VERSION}\"")), "{VERSION} is another one");
    }

    #[test]
    fn pool_options_do_not_affect_compatibility() {
        let components: super::super::ComponentSource = std::sync::Arc::new(|_, _| Box::pin(std::future::ready(None)));
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
