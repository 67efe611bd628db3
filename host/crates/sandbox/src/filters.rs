//! Loaded filters: from the disk cache if it has their machine code, otherwise from the compiler.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache as MemoryCache;
use setgate_base::crypto::sha256;
use setgate_base::fair::{AcquireError, FairLimits, FairSemaphore};
use setgate_domain::filter::Grant;
use setgate_domain::id::{Digest, TenantId};
use setgate_domain::verdict::Fault;
use wasmtime::Engine;

use super::artefact::Artefact;
use super::cache::Cache;
use super::compile::Compiler;
use super::metrics::{GaugeGuard, LOADS};
use super::placement::ShortCallHistory;
use super::state::State;
use super::wit_v0_1::FilterPre;
use super::{ComponentSource, Error, Options, UploadError, engine, fault, linker, validate};

/// Maximum concurrent reads from disk. Each holds several copies of its machine code while it is authenticated and
/// mapped.
const LOADS_MAX: usize = 4;
/// Maximum concurrent reads from disk for one tenant.
const LOADS_PER_TENANT_MAX: usize = 2;

/// The in-memory cache of loaded filters, with the disk cache and the compiler behind it.
pub(super) struct Filters {
    engine: Engine,
    components: ComponentSource,
    compiler: Compiler,
    /// Concurrent compiles, scheduled fairly between tenants.
    pub(super) compiles: FairSemaphore,
    queued_per_tenant_max: usize,
    /// Concurrent reads from disk, scheduled fairly between tenants.
    loads: FairSemaphore,
    disk: Arc<Cache>,
    loaded: MemoryCache<Digest, Arc<Loaded>>,
}

/// A loaded filter, ready to be instantiated.
pub(super) struct Loaded {
    pub(super) pre: FilterPre<State>,
    pub(super) needs: BTreeSet<Grant>,
    /// History of its recent calls.
    pub(super) history: ShortCallHistory,
    /// See [`loaded_bytes`].
    bytes: u32,
}

/// Memory that a loaded filter takes in addition to its machine code and a sixteenth of that: the engine's types,
/// functions and imports. Measured with filters of 100 to 160 KB (decision 0022).
const BESIDE_BYTES: usize = 16 << 10;
const PAGE_BYTES: usize = 4 << 10;

/// Estimates the memory that a loaded filter takes, given the size of its machine code. Accurate to about a tenth.
fn loaded_bytes(code_bytes: usize) -> u32 {
    let held = code_bytes.next_multiple_of(PAGE_BYTES) + code_bytes / 16 + BESIDE_BYTES;
    u32::try_from(held).unwrap_or(u32::MAX)
}

impl Filters {
    /// Opens the disk cache. No filter is loaded yet.
    pub(super) fn new(engine: Engine, options: &Options) -> Result<Self, Error> {
        let dir = options.cache_dir.clone();
        let compatibility = engine::compatibility(&engine);
        let disk = Cache::open(dir.clone(), options.cache_key, compatibility, options.cache_bytes_max)
            .map_err(|source| Error::CacheDir { path: dir, source })?;
        Ok(Self {
            engine,
            components: options.component_source.clone(),
            compiler: Compiler::new(options),
            compiles: FairSemaphore::new(FairLimits {
                permits: options.compiles_max.max(1),
                // If there are several, leave one for other tenants: a compile may take a minute.
                per_tenant_max: options.compiles_max.saturating_sub(1).max(1),
                reserve_for_idle_tenants: false,
                queued_per_tenant_max: options.compiles_queued_per_tenant_max,
                estimated_cost: 1,
            }),
            queued_per_tenant_max: options.compiles_queued_per_tenant_max,
            loads: FairSemaphore::new(FairLimits {
                permits: LOADS_MAX,
                per_tenant_max: LOADS_PER_TENANT_MAX,
                reserve_for_idle_tenants: false,
                // The dispatcher already bounds its calls in flight.
                queued_per_tenant_max: usize::MAX,
                estimated_cost: 1,
            }),
            disk: Arc::new(disk),
            loaded: MemoryCache::builder()
                .weigher(|_, loaded: &Arc<Loaded>| loaded.bytes)
                .max_capacity(options.loaded_bytes_max)
                .build(),
        })
    }

    /// Returns the filter from memory, from disk or from the compiler. Concurrent callers share one load. A compile
    /// waits in the queue of `tenant` without a limit on its length, so that an event is delivered late but not
    /// rejected.
    pub(super) async fn get(&self, tenant: &TenantId, digest: Digest) -> Result<Arc<Loaded>, Fault> {
        match self.loaded.get(&digest).await {
            Some(loaded) => Ok(loaded),
            // Boxed, because this future is large and rarely needed, and would otherwise be part of every call's
            // future.
            None => Box::pin(self.load_or_compile(tenant, digest)).await,
        }
    }

    async fn load_or_compile(&self, tenant: &TenantId, digest: Digest) -> Result<Arc<Loaded>, Fault> {
        let unavailable = |detail: String| Fault::Unavailable { detail };
        if let Some(loaded) = self.load_cached(tenant, digest).await {
            return Ok(loaded);
        }
        // Each caller waits in its own tenant's queue, as for uploads. If two tenants use the same filter, neither
        // waits in the queue of the other.
        let waiting = GaugeGuard::waiting_for_compile();
        let _permit = self.compiles.acquire(tenant).await.map_err(|_| super::stopping())?;
        drop(waiting);
        if let Some(loaded) = self.load_cached(tenant, digest).await {
            return Ok(loaded);
        }
        let loading = async {
            let Some(wasm) = (self.components)(tenant, digest).await else {
                return Err(unavailable(format!("its version {digest} is not stored here")));
            };
            if Digest(sha256(&wasm)) != digest {
                return Err(unavailable(format!("the stored bytes of {digest} have another digest")));
            }
            self.compile(digest, wasm).await.map(Arc::new).map_err(|why| unavailable(why.to_string()))
        };
        self.loaded.try_get_with(digest, loading).await.map_err(|fault: Arc<Fault>| fault.as_ref().clone())
    }

    /// Returns the filter if it is in memory or on disk. A read takes time and memory that no fuel pays for, so
    /// concurrent reads are limited and scheduled fairly between tenants.
    pub(super) async fn load_cached(&self, tenant: &TenantId, digest: Digest) -> Option<Arc<Loaded>> {
        if let Some(loaded) = self.loaded.get(&digest).await {
            return Some(loaded);
        }
        let _permit = self.loads.acquire(tenant).await.ok()?;
        let loading = async { self.read(digest).await.map(Arc::new) };
        self.loaded.optionally_get_with(digest, loading).await
    }

    /// Returns the filter, compiled from `wasm` in the queue of `tenant`.
    ///
    /// Each caller waits in its own tenant's queue, even if others upload the same bytes, and checks only then whether
    /// the filter was compiled meanwhile. So a full queue never causes another tenant's upload to be rejected.
    ///
    /// # Errors
    /// [`UploadError::CompileQueue`] if the queue is full, otherwise the compiler's error.
    pub(super) async fn compiled(
        &self,
        tenant: &TenantId,
        digest: Digest,
        wasm: Bytes,
    ) -> Result<Arc<Loaded>, UploadError> {
        let waiting = GaugeGuard::waiting_for_compile();
        let _permit = self.compiles.acquire_bounded(tenant).await.map_err(|refused| match refused {
            AcquireError::QueueFull => UploadError::CompileQueue { limit: self.queued_per_tenant_max },
            AcquireError::Closed => UploadError::Start(super::stopping()),
        })?;
        drop(waiting);
        if let Some(loaded) = self.load_cached(tenant, digest).await {
            return Ok(loaded);
        }
        // No deadlock: the caller that compiles already holds a place of the gate.
        let compiling = async { self.compile(digest, wasm).await.map(Arc::new) };
        self.loaded.try_get_with(digest, compiling).await.map_err(|why: Arc<UploadError>| why.as_ref().clone())
    }

    /// Number of loaded filters, and the memory that they take.
    #[cfg(test)]
    pub(super) async fn usage(&self) -> (u64, u64) {
        self.loaded.run_pending_tasks().await;
        (self.loaded.entry_count(), self.loaded.weighted_size())
    }

    /// Ends all current and future waits for compiles and reads.
    pub(super) fn close(&self) {
        self.compiles.close();
        self.loads.close();
    }

    async fn read(&self, digest: Digest) -> Option<Loaded> {
        let (disk, engine) = (self.disk.clone(), self.engine.clone());
        let reading = tokio::task::spawn_blocking(move || Loaded::new(&engine, &disk.load(&digest)?).ok());
        let loaded = reading.await.ok().flatten()?;
        metrics::counter!(LOADS, "from" => "disk").increment(1);
        Some(loaded)
    }

    async fn compile(&self, digest: Digest, wasm: Bytes) -> Result<Loaded, UploadError> {
        let artefact = self.compiler.compile(wasm).await?;
        let (disk, engine) = (self.disk.clone(), self.engine.clone());
        let loading = tokio::task::spawn_blocking(move || {
            let loaded = Loaded::new(&engine, &artefact)?;
            if let Err(error) = disk.store(&digest, &artefact) {
                tracing::warn!(%digest, %error, "cannot store compiled filter on disk: it will be compiled again after a restart");
            }
            Ok(loaded)
        });
        let loaded = loading.await.map_err(|error| UploadError::Host { detail: error.to_string() })??;
        metrics::counter!(LOADS, "from" => "compiler").increment(1);
        Ok(loaded)
    }
}

impl Loaded {
    /// Loads, validates and links machine code. Blocks while the code is copied.
    fn new(engine: &Engine, artefact: &Artefact) -> Result<Self, UploadError> {
        let words = |error: wasmtime::Error| fault::bounded(&format!("{error:#}"));
        // Fails if the pool has no room for it, for example if its core instances are too large together.
        let component = artefact.load(engine).map_err(|error| UploadError::Invalid { detail: words(error) })?;
        let needs = validate::component(engine, &component)?;
        let pre = linker::link(engine, &component).map_err(|error| UploadError::WrongTypes { detail: words(error) })?;
        // Otherwise the first call would pay for it.
        component.initialize_copy_on_write_image().map_err(|error| UploadError::Host { detail: words(error) })?;
        Ok(Self { pre, needs, history: ShortCallHistory::new(), bytes: loaded_bytes(artefact.code().len()) })
    }
}
