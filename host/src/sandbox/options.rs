//! How a sandbox is set up.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::domain::id::Digest;

use super::Caps;

/// Where the wasm of a filter is found again, by digest, when neither memory nor disk has its machine code.
pub type Components = Arc<dyn Fn(Digest) -> BoxFuture<'static, Option<Bytes>> + Send + Sync>;

/// How a [`Sandbox`](super::Sandbox) is set up.
#[derive(Clone)]
pub struct Options {
    /// Folder of compiled filters; made with mode 0700.
    pub cache_dir: PathBuf,
    /// Key of the MAC over compiled filters. Whoever has it can run machine code in this process.
    pub cache_key: [u8; 32],
    /// Where wasm is found again.
    pub components: Components,
    /// The program that compiles when called with [`COMPILER_ARGUMENT`](super::COMPILER_ARGUMENT): the host's own. None:
    /// compile in this process, without limits, for tests and for the author's own filter on the author's own machine.
    pub compiler: Option<PathBuf>,
    /// Calls at once. Each takes a slot of the pool: address space, and up to [`Self::keep_resident_bytes`] of memory.
    pub instances_max: u32,
    /// Calls at once of one tenant.
    pub instances_per_tenant_max: u32,
    /// Calls that compute at once. As many as cores: with more, the operating system decides who goes first and not the host.
    pub turns_max: usize,
    /// Threads that run guests, and nothing else. Those above [`Self::turns_max`] are for when a slice takes far too long.
    pub guest_threads: usize,
    /// Fuel after which a call lets others go on; about a tenth of a millisecond's.
    pub fuel_slice: u64,
    /// Size of a slot for linear memory, in bytes: the most that any tenant's quota can give.
    pub memory_bytes_max: u64,
    /// Bytes of stack for the WebAssembly frames of one call: what a guest's recursion may use before it traps.
    pub stack_bytes_max: usize,
    /// Size of a slot for a table, in elements: the most that any tenant's quota can give.
    pub table_elements_max: u64,
    /// Bytes of a slot that stay in memory between two calls. Only used where the machine has no swap, see `engine`.
    pub keep_resident_bytes: usize,
    /// Bytes that filters kept in memory hold: machine code, and what the engine keeps beside it.
    pub loaded_bytes_max: u64,
    /// Machine code kept on disk, in bytes.
    pub cache_bytes_max: u64,
    /// Compiles at once. Of several, one is never the tenant's that has all others.
    pub compiles_max: usize,
    /// Uploads of one tenant that wait for a compile, each with its bytes in memory.
    pub compiles_waiting_per_tenant_max: usize,
    /// Milliseconds one compile may take.
    pub compile_wall_ms_max: u64,
    /// CPU seconds one compile may take, over all its threads.
    pub compile_cpu_seconds_max: u64,
    /// Bytes of memory one compile may take. SpiderMonkey takes 440 MB.
    pub compile_memory_bytes_max: u64,
    /// How large an upload may be in structure.
    pub caps: Caps,
    /// Instances between two calls.
    pub kept: KeptLimits,
}

/// What instances may be kept for the next events of their bindings. They stand in slots of the pool, and give them up when
/// a call needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLimits {
    /// Events that one instance sees at the most, whatever its binding allows; 0 and 1: none are kept.
    pub events_max: u32,
    /// Instances that are kept; 0: none.
    pub instances_max: usize,
    /// Of them, one tenant's; 0: none.
    pub instances_per_tenant_max: usize,
    /// Bytes of linear memory of all that are kept.
    pub memory_bytes_max: u64,
    /// Milliseconds for which one is kept without an event.
    pub idle_ms_max: u64,
}

impl Default for KeptLimits {
    fn default() -> Self {
        Self {
            events_max: 1_000,
            instances_max: 16,
            instances_per_tenant_max: 4,
            memory_bytes_max: 256 << 20,
            idle_ms_max: 60_000,
        }
    }
}

/// Guest threads for each turn, where nothing else is configured. Threads without a turn sleep; each tenant whose guests take
/// far longer than their slices can block as many as there are turns, so this is for three of them and one more.
pub const GUEST_THREADS_PER_TURN: usize = 4;

impl Options {
    /// The defaults, for a node of a few cores.
    pub fn new(cache_dir: PathBuf, cache_key: [u8; 32], components: Components) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
        Self {
            cache_dir,
            cache_key,
            components,
            compiler: None,
            instances_max: 64,
            instances_per_tenant_max: 32,
            turns_max: cores,
            guest_threads: GUEST_THREADS_PER_TURN * cores,
            fuel_slice: 200_000,
            memory_bytes_max: 128 << 20,
            stack_bytes_max: 512 << 10,
            table_elements_max: 20_000,
            keep_resident_bytes: 512 << 10,
            loaded_bytes_max: 256 << 20,
            cache_bytes_max: 2 << 30,
            compiles_max: 2,
            compiles_waiting_per_tenant_max: 4,
            compile_wall_ms_max: 60_000,
            compile_cpu_seconds_max: 60,
            compile_memory_bytes_max: 1 << 30,
            caps: Caps::default(),
            kept: KeptLimits::default(),
        }
    }
}

/// Why a [`Sandbox`](super::Sandbox) could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine refused its configuration, or the machine the pool's address space.
    #[error("the filter engine cannot be set up: {0}")]
    Engine(String),
    /// The folder of compiled filters cannot be used.
    #[error("the folder of compiled filters `{path}` cannot be used")]
    CacheDir {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The threads for guests could not be started.
    #[error("the threads for filters cannot be started")]
    Threads(#[source] std::io::Error),
}
