//! Filters in memory: from disk where their machine code is there, else from the compiler.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache as MemoryCache;
use wasmtime::Engine;

use crate::crypto::sha256;
use crate::domain::filter::Grant;
use crate::domain::id::{Digest, TenantId};
use crate::domain::verdict::Fault;

use super::artefact::Artefact;
use super::begin::Streak;
use super::cache::Cache;
use super::compile::Compiler;
use super::series::{Counted, LOADS};
use super::state::State;
use super::wit_v0_1::FilterPre;
use super::{Components, Error, Options, Rejected, engine, fault, linker, validate};
use crate::fair::{Bounds, Gate, Refused};

/// Filters read from disk at once: each takes its machine code several times over while it is authenticated and mapped.
const LOADS_MAX: usize = 4;
/// Of them, one tenant's.
const LOADS_PER_TENANT_MAX: usize = 2;

/// Every filter that was asked for and still has a place.
pub(super) struct Filters {
    engine: Engine,
    components: Components,
    compiler: Compiler,
    /// Compiles at once, in turns between tenants.
    pub(super) compiles: Gate,
    waiting_per_tenant_max: usize,
    /// Turns at reading from disk.
    loads: Gate,
    disk: Arc<Cache>,
    loaded: MemoryCache<Digest, Arc<Loaded>>,
}

/// A filter in memory, ready to be instantiated.
pub(super) struct Loaded {
    pub(super) pre: FilterPre<State>,
    pub(super) needs: BTreeSet<Grant>,
    /// How its last calls went.
    pub(super) streak: Streak,
    /// See [`held_bytes`].
    bytes: u32,
}

/// What a loaded filter holds beside its machine code, however small it is, and a sixteenth of the code: types, functions and
/// imports as the engine keeps them. Measured with filters of 100 to 160 KB (decision 0022).
const BESIDE_BYTES: usize = 16 << 10;
const PAGE_BYTES: usize = 4 << 10;

/// Bytes of memory that a loaded filter of so much machine code holds, to a tenth or so.
fn held_bytes(code_bytes: usize) -> u32 {
    let held = code_bytes.next_multiple_of(PAGE_BYTES) + code_bytes / 16 + BESIDE_BYTES;
    u32::try_from(held).unwrap_or(u32::MAX)
}

impl Filters {
    /// No filters yet, over the folder of compiled ones.
    pub(super) fn new(engine: Engine, options: &Options) -> Result<Self, Error> {
        let dir = options.cache_dir.clone();
        let compatibility = engine::compatibility(&engine);
        let disk = Cache::open(dir.clone(), options.cache_key, compatibility, options.cache_bytes_max)
            .map_err(|source| Error::CacheDir { path: dir, source })?;
        Ok(Self {
            engine,
            components: options.components.clone(),
            compiler: Compiler::new(options),
            compiles: Gate::new(Bounds {
                places: options.compiles_max.max(1),
                // Where there are several, one is left for the others: a compile may take a minute.
                per_tenant_max: options.compiles_max.saturating_sub(1).max(1),
                leaves_free: false,
                waiting_per_tenant_max: options.compiles_waiting_per_tenant_max,
                cost: 1,
            }),
            waiting_per_tenant_max: options.compiles_waiting_per_tenant_max,
            loads: Gate::new(Bounds {
                places: LOADS_MAX,
                per_tenant_max: LOADS_PER_TENANT_MAX,
                leaves_free: false,
                // Who delivers bounds what it has in flight.
                waiting_per_tenant_max: usize::MAX,
                cost: 1,
            }),
            disk: Arc::new(disk),
            loaded: MemoryCache::builder()
                .weigher(|_, loaded: &Arc<Loaded>| loaded.bytes)
                .max_capacity(options.loaded_bytes_max)
                .build(),
        })
    }

    /// The filter, from memory, disk or the compiler, whichever has it first. Callers of one filter wait for one load; where
    /// it has to be compiled, that is in `tenant`'s line, however long it is: an event is delivered late and not refused.
    pub(super) async fn get(&self, tenant: &TenantId, digest: Digest) -> Result<Arc<Loaded>, Fault> {
        match self.loaded.get(&digest).await {
            Some(loaded) => Ok(loaded),
            // Large, and seldom needed: without the box every call would carry it.
            None => Box::pin(self.bring(tenant, digest)).await,
        }
    }

    async fn bring(&self, tenant: &TenantId, digest: Digest) -> Result<Arc<Loaded>, Fault> {
        let unavailable = |detail: String| Fault::Unavailable { detail };
        if let Some(loaded) = self.known(tenant, digest).await {
            return Ok(loaded);
        }
        // Each in its own tenant's line, as uploads are: where two tenants have the same filter, neither waits in the
        // other's.
        let waits = Counted::waiting_for_compile();
        let _place = self.compiles.enter(tenant).await.map_err(|_| super::stopping())?;
        drop(waits);
        if let Some(loaded) = self.known(tenant, digest).await {
            return Ok(loaded);
        }
        let loading = async {
            let Some(wasm) = (self.components)(digest).await else {
                return Err(unavailable(format!("its version {digest} is not stored here")));
            };
            if Digest(sha256(&wasm)) != digest {
                return Err(unavailable(format!("what is stored as {digest} has another digest")));
            }
            self.compile(digest, wasm).await.map(Arc::new).map_err(|why| unavailable(why.to_string()))
        };
        self.loaded.try_get_with(digest, loading).await.map_err(|fault: Arc<Fault>| fault.as_ref().clone())
    }

    /// The filter, where its machine code is known already: in memory, or on disk. Reading it costs time and memory that no
    /// fuel pays for, so a few are read at once, and tenants take turns at that.
    pub(super) async fn known(&self, tenant: &TenantId, digest: Digest) -> Option<Arc<Loaded>> {
        if let Some(loaded) = self.loaded.get(&digest).await {
            return Some(loaded);
        }
        let _place = self.loads.enter(tenant).await.ok()?;
        let loading = async { self.read(digest).await.map(Arc::new) };
        self.loaded.optionally_get_with(digest, loading).await
    }

    /// The filter, compiled from `wasm`, in `tenant`'s line.
    ///
    /// Each caller waits in its own tenant's line, also where others upload the same bytes, and only then looks whether there
    /// is anything left to do: so a line that is full refuses nobody else's upload.
    ///
    /// # Errors
    /// [`Rejected::CompileQueue`] where the line is full; else what the compiler says.
    pub(super) async fn compiled(
        &self,
        tenant: &TenantId,
        digest: Digest,
        wasm: Bytes,
    ) -> Result<Arc<Loaded>, Rejected> {
        let waits = Counted::waiting_for_compile();
        let _place = self.compiles.enter_bounded(tenant).await.map_err(|refused| match refused {
            Refused::Full => Rejected::CompileQueue { limit: self.waiting_per_tenant_max },
            Refused::Closed => Rejected::Start(super::stopping()),
        })?;
        drop(waits);
        if let Some(loaded) = self.known(tenant, digest).await {
            return Ok(loaded);
        }
        // Whoever is waited for here has a place as well, so this cannot wait for itself.
        let compiling = async { self.compile(digest, wasm).await.map(Arc::new) };
        self.loaded.try_get_with(digest, compiling).await.map_err(|why: Arc<Rejected>| why.as_ref().clone())
    }

    /// Filters in memory, and the bytes that they hold.
    #[cfg(test)]
    pub(super) async fn held(&self) -> (u64, u64) {
        self.loaded.run_pending_tasks().await;
        (self.loaded.entry_count(), self.loaded.weighted_size())
    }

    /// Ends all waiting for compiles, now and later.
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

    async fn compile(&self, digest: Digest, wasm: Bytes) -> Result<Loaded, Rejected> {
        let artefact = self.compiler.compile(wasm).await?;
        let (disk, engine) = (self.disk.clone(), self.engine.clone());
        let loading = tokio::task::spawn_blocking(move || {
            let loaded = Loaded::new(&engine, &artefact)?;
            if let Err(error) = disk.store(&digest, &artefact) {
                tracing::warn!(%digest, %error, "compiled filter is not kept on disk: it will be compiled again");
            }
            Ok(loaded)
        });
        let loaded = loading.await.map_err(|error| Rejected::Host { detail: error.to_string() })??;
        metrics::counter!(LOADS, "from" => "compiler").increment(1);
        Ok(loaded)
    }
}

impl Loaded {
    /// Loads, looks at and links machine code. Blocks for as long as copying it takes.
    fn new(engine: &Engine, artefact: &Artefact) -> Result<Self, Rejected> {
        let words = |error: wasmtime::Error| fault::bounded(&format!("{error:#}"));
        // What the pool has no room for is refused here, such as core instances that are too large together.
        let component = artefact.load(engine).map_err(|error| Rejected::Invalid { detail: words(error) })?;
        let needs = validate::component(engine, &component)?;
        let pre = linker::link(engine, &component).map_err(|error| Rejected::WrongTypes { detail: words(error) })?;
        // Else the first call pays for it.
        component.initialize_copy_on_write_image().map_err(|error| Rejected::Host { detail: words(error) })?;
        Ok(Self { pre, needs, streak: Streak::new(), bytes: held_bytes(artefact.code().len()) })
    }
}
