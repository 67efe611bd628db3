//! Configuration of a sandbox.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use setgate_domain::id::{Digest, TenantId};

use super::limits::STACK_BYTES_MAX;
use super::{Settings, StructureLimits};

/// Loads the wasm of a filter by its digest, if neither memory nor the disk cache has its machine code.
pub type ComponentSource = Arc<dyn Fn(&TenantId, Digest) -> BoxFuture<'static, Option<Bytes>> + Send + Sync>;

/// Configuration of a [`Sandbox`](super::Sandbox).
#[derive(Clone)]
pub struct Options {
    /// Directory of compiled filters. Created with mode 0700.
    pub cache_dir: PathBuf,
    /// Key of the MAC over compiled filters. A holder of this key can run machine code in this process.
    pub cache_key: [u8; 32],
    /// Loads stored wasm.
    pub component_source: ComponentSource,
    /// Path of the program to run with [`COMPILER_ARGUMENT`](super::COMPILER_ARGUMENT), normally the host's own. If
    /// `None`, filters are compiled in this process without limits: for tests, and for authors who run their own filter
    /// on their own machine.
    pub compiler: Option<PathBuf>,
    /// Maximum concurrent calls. Each takes a pool slot: address space, and up to [`Self::keep_resident_bytes`] of
    /// memory.
    pub instances_max: u32,
    /// Maximum concurrent calls of one tenant.
    pub instances_per_tenant_max: u32,
    /// Maximum calls that compute at the same time. Should be the number of cores: with more, the operating system
    /// schedules guests instead of the host.
    pub concurrent_slices_max: usize,
    /// Threads reserved for guests. Those in excess of [`Self::concurrent_slices_max`] are used while a slice is
    /// overdue.
    pub guest_threads: usize,
    /// Fuel of one slice, after which a call yields. About a tenth of a millisecond.
    pub fuel_slice: u64,
    /// Size of a pool slot for a linear memory, in bytes: an upper bound of every tenant's quota.
    pub memory_bytes_max: u64,
    /// Stack for the WebAssembly frames of one call, in bytes. A guest traps if it recurses deeper.
    pub stack_bytes_max: usize,
    /// Size of a pool slot for a table, in elements: an upper bound of every tenant's quota.
    pub table_elements_max: u64,
    /// Bytes of a slot that stay resident between two calls. Only used if the machine has no swap, see `engine`.
    pub keep_resident_bytes: usize,
    /// Memory limit for loaded filters, in bytes: machine code and the engine's metadata.
    pub loaded_bytes_max: u64,
    /// Size limit of the on-disk cache, in bytes.
    pub cache_bytes_max: u64,
    /// Maximum concurrent compiles. If above one, a single tenant never occupies all of them.
    pub compiles_max: usize,
    /// Maximum uploads of one tenant that wait for a compile. Each holds its bytes in memory.
    pub compiles_queued_per_tenant_max: usize,
    /// Wall-clock limit of one compile, in milliseconds.
    pub compile_wall_ms_max: u64,
    /// CPU time limit of one compile over all its threads, in seconds.
    pub compile_cpu_s_max: u64,
    /// Memory limit of one compile, in bytes. SpiderMonkey needs 440 MB.
    pub compile_memory_bytes_max: u64,
    /// Structure limits of an upload.
    pub structure: StructureLimits,
    /// Limits of the idle pool.
    pub idle_pool: IdlePoolLimits,
}

/// Limits of the idle pool. Idle instances occupy pool slots and are evicted when a call needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdlePoolLimits {
    /// Maximum events per instance, whatever its binding allows. Instances are not reused if it is 0 or 1.
    pub events_max: u32,
    /// Maximum idle instances; 0 disables reuse.
    pub instances_max: usize,
    /// Maximum idle instances of one tenant; 0 disables reuse.
    pub instances_per_tenant_max: usize,
    /// Maximum linear memory of all idle instances, in bytes.
    pub memory_bytes_max: u64,
    /// How long an instance may be idle, in milliseconds.
    pub idle_ms_max: u64,
}

impl Default for IdlePoolLimits {
    fn default() -> Self {
        Self {
            events_max: Settings::default().reuse_events_max,
            instances_max: REUSE_INSTANCES_MAX,
            instances_per_tenant_max: REUSE_INSTANCES_PER_TENANT_MAX,
            memory_bytes_max: REUSE_MEMORY_BYTES_MAX,
            idle_ms_max: REUSE_IDLE_MS_MAX,
        }
    }
}

/// Fuel after which a call yields to others; about 0.1 ms of computation.
pub(crate) const FUEL_SLICE: u64 = 200_000;
/// Table elements that a tenant's quota can grant at most.
pub const TABLE_ELEMENTS_MAX: u64 = 20_000;
/// Bytes of a slot that stay resident in memory between two calls, if the machine has no swap.
pub(crate) const KEEP_RESIDENT_BYTES: usize = 512 << 10;
/// Concurrent compilations. Because it is more than one, a single tenant cannot use all of them.
pub(crate) const COMPILES_MAX: usize = 2;
/// Uploads of one tenant that may be queued for compilation; further ones are answered 429.
pub(crate) const COMPILES_QUEUED_PER_TENANT_MAX: usize = 4;
/// Idle instances retained for the next events of their bindings. They occupy slots of `sandbox.instances_max` and are
/// evicted if a call needs the slot.
pub(crate) const REUSE_INSTANCES_MAX: usize = 16;
/// The share of [`REUSE_INSTANCES_MAX`] that one tenant may use.
pub(crate) const REUSE_INSTANCES_PER_TENANT_MAX: usize = 4;
/// Linear memory of all idle instances together, in bytes.
pub(crate) const REUSE_MEMORY_BYTES_MAX: u64 = 256 << 20;
/// How long an idle instance is retained, in milliseconds.
pub(crate) const REUSE_IDLE_MS_MAX: u64 = 60_000;
/// Guest threads for each core. A tenant whose slices take far too long can block as many threads as there are cores, so
/// this suffices for three such tenants and one more.
pub(crate) const GUEST_THREADS_PER_CORE: usize = 4;

impl Options {
    /// The options that follow from the settings; limits that are not settings have their constants.
    pub fn of(settings: &Settings, cache_dir: PathBuf, cache_key: [u8; 32], components: ComponentSource) -> Self {
        // Respects the CPU affinity and the cgroup quota of the process.
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
        Self {
            cache_dir,
            cache_key,
            component_source: components,
            compiler: None,
            instances_max: settings.instances_max,
            instances_per_tenant_max: settings.instances_per_tenant_max,
            concurrent_slices_max: cores,
            guest_threads: GUEST_THREADS_PER_CORE * cores,
            fuel_slice: FUEL_SLICE,
            memory_bytes_max: settings.memory_bytes_max,
            stack_bytes_max: STACK_BYTES_MAX,
            table_elements_max: TABLE_ELEMENTS_MAX,
            keep_resident_bytes: KEEP_RESIDENT_BYTES,
            loaded_bytes_max: settings.loaded_bytes_max,
            cache_bytes_max: settings.cache_bytes_max,
            compiles_max: COMPILES_MAX,
            compiles_queued_per_tenant_max: COMPILES_QUEUED_PER_TENANT_MAX,
            compile_wall_ms_max: settings.compile_wall_ms_max,
            compile_cpu_s_max: settings.compile_cpu_s_max,
            compile_memory_bytes_max: settings.compile_memory_bytes_max,
            structure: StructureLimits::default(),
            idle_pool: IdlePoolLimits { events_max: settings.reuse_events_max, ..IdlePoolLimits::default() },
        }
    }

    /// The options with default settings.
    pub fn new(cache_dir: PathBuf, cache_key: [u8; 32], components: ComponentSource) -> Self {
        Self::of(&Settings::default(), cache_dir, cache_key, components)
    }
}

/// Why a [`Sandbox`](super::Sandbox) could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine rejected its configuration, or the system could not provide the pool's address space.
    #[error("the filter engine cannot be set up: {0}")]
    Engine(String),
    /// The directory of compiled filters cannot be used.
    #[error("the folder of compiled filters `{path}` cannot be used")]
    CacheDir {
        /// The directory.
        path: PathBuf,
        /// The underlying error.
        source: std::io::Error,
    },
    /// The guest threads could not be started.
    #[error("the threads for filters cannot be started")]
    Threads(#[source] std::io::Error),
}
