//! Runs tenants' filters. The only module that uses the WebAssembly engine.
//!
//! A filter is an untrusted WebAssembly component. It is uploaded once ([`Sandbox::compile`]) and then called once for
//! each delivery ([`Sandbox::run`]), in a fresh instance each time unless its binding reuses instances. The threats and
//! their defences:
//!
//! | threat | defence | file |
//! |---|---|---|
//! | an upload with a huge structure | limits on its structure, before any compile | `upload_limits` |
//! | an upload that is not a filter | checks of its bytes, imports and exports, before any compile | `validate`, `imports` |
//! | a compile that never ends | a child process with memory, CPU and wall-clock limits | `compile` |
//! | a flood of compiles | a bounded queue for each tenant, scheduled fairly | `filters`, `fair` |
//! | forged machine code | a MAC over the bytes that are loaded | `artefact`, `cache` |
//! | infinite loops | fuel, for instructions and for host calls alike | `state`, `call` |
//! | work that costs no fuel | preemption by epoch as well as by fuel | `epoch_ticker` |
//! | memory | one limit over all memories of a call | `limits` |
//! | a busy tenant | fuel per second; then instance slots and slices of a tenth of a millisecond, scheduled fairly between tenants | `fuel_budget`, `fair`, `scheduler` |
//! | guests starving the host | separate threads at a lower priority, for everything but the first slice of a short call | here, `placement` |
//! | state left by an earlier event | a fresh instance; a pooled instance is never reused for another binding | `idle_pool`, `instance` |
//! | access to the environment | grants; an empty WASI whose clock stands still | `linker`, `host/`, `wasi/` |
//!
//! The same event through the same filter gives the same verdict and the same fuel on every host with the same engine
//! version and target: nothing that a filter can observe differs between two runs. A reused instance can observe state
//! left by earlier events of its binding; the run record shows this.
//!
//! A call waits, in this order, for its filter to be loaded, for its tenant's fuel budget, for an instance slot, and
//! between slices for its turn. Waiting is never a fault, and does not count towards `wall_ms_max`.

mod abort_message;
mod artefact;
mod cache;
mod call;
mod compile;
mod engine;
mod epoch_ticker;
mod fault;
mod filters;
mod frames;
mod fuel_budget;
mod host;
mod idle_pool;
mod imports;
mod instance;
mod limits;
mod linker;
mod log;
mod metrics;
mod options;
mod placement;
mod random;
mod scheduler;
mod settings;
mod state;
mod upload_error;
mod upload_limits;
mod validate;
mod wasi;
mod wit_v0_1;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use setgate_base::crypto::sha256;
use setgate_base::fair::{AcquireError, AcquireOutcome, FairLimits, FairSemaphore, Permit};
use setgate_domain::filter::{Grant, missing_grants};
use setgate_domain::id::{DeliveryId, Digest, EventId, FilterName, SourceName, SubscriptionId, TenantId};
use setgate_domain::limits::CallLimits;
use setgate_domain::redact::Redactor;
use setgate_domain::secret::Secret;
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::{Fault, FilterRun, Verdict};
use tokio::runtime::{Handle, Runtime};

pub use compile::{COMPILER_ARGUMENT, compiler_main};
pub use engine::engine_config;
pub use idle_pool::{BindingKey, UsedInstance};
pub use metrics::{BUCKETS, METRICS};
pub use options::{ComponentSource, Error, IdlePoolLimits, Options, TABLE_ELEMENTS_MAX};
pub use settings::Settings;
pub use upload_error::UploadError;
pub use upload_limits::StructureLimits;

use filters::{Filters, Loaded};
use fuel_budget::{Charges, FuelBucket, FuelBudgets, QueueHead};
use idle_pool::IdlePool;
use instance::EngineLimits;
use metrics::{Metrics, UPLOADS, WaitTimes};
use placement::CallLength;
use scheduler::Scheduler;

/// Niceness of guest threads. At 5, a host thread gets three times the CPU time of a guest thread that competes with
/// it. Ingest and delivery cost little CPU, and waiting behind guests would delay every tenant. Lower than the
/// compiler's niceness, so that compiles do not slow down calls.
const GUEST_NICENESS: i32 = 5;

/// An uploaded filter that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledFilter {
    /// SHA-256 of the wasm.
    pub digest: Digest,
    /// The host interfaces that it imports. Each binding has to grant them.
    pub needs: BTreeSet<Grant>,
    /// Size of the wasm, in bytes.
    pub size_bytes: u64,
    /// Compile time in milliseconds, including the time in the compile queue.
    pub compile_ms: u64,
}

/// The event as a filter sees it. The fields match `record event` in `wit/world.wit`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are the WIT's own and explained there")]
pub struct EventView {
    pub id: EventId,
    pub issuer: String,
    pub issued_at: i64,
    pub accepted_at: Timestamp,
    pub types: Vec<String>,
    pub subject: Option<String>,
    pub tenant: TenantId,
    pub source: SourceName,
    pub subscription: SubscriptionId,
    pub delivery: DeliveryId,
    pub claims: String,
}

/// The tables available to `lookup`: those of the delivery's plan, in memory.
pub trait Tables: Send + Sync {
    /// The row under `key` as JSON text. `None` if there is no such table, `Some(None)` if the table has no such row.
    ///
    /// Called within a guest's slice, on a guest thread or on the caller's thread, so it must not block.
    fn get(&self, table: &str, key: &str) -> Option<Option<Arc<str>>>;
}

/// In-memory tables: for tests, for the CLI, and for deliveries without tables.
#[derive(Debug, Clone, Default)]
pub struct MemoryTables(pub BTreeMap<String, HashMap<String, Arc<str>>>);

impl Tables for MemoryTables {
    fn get(&self, table: &str, key: &str) -> Option<Option<Arc<str>>> {
        self.0.get(table).map(|rows| rows.get(key).cloned())
    }
}

/// One call of one filter.
pub struct Call {
    /// The digest of the filter version.
    pub digest: Digest,
    /// The filter's name, for the run record.
    pub filter: FilterName,
    /// The event passed to the filter.
    pub event: EventView,
    /// The binding's `config` object, as JSON text.
    pub config: Arc<str>,
    /// The binding's secrets, decrypted.
    pub secrets: BTreeMap<String, Secret>,
    /// The host interfaces that the binding grants.
    pub grants: BTreeSet<Grant>,
    /// The tables available to `lookup`.
    pub tables: Arc<dyn Tables>,
    /// The tenant's quota, which sets the limits of the call.
    pub quota: Quota,
    /// Set if the binding reuses instances. If `None`, the call gets a fresh instance, which is dropped afterwards.
    pub reuse: Option<ReuseSettings>,
}

/// Together with the call's tenant, subscription and filter version, identifies the binding that an instance belongs
/// to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReuseSettings {
    /// The delivery's plan. Instances are not reused across plans.
    pub plan: Digest,
    /// Index of the filter's step in the plan, from 0.
    pub step: usize,
    /// How many events one instance may process.
    pub events_max: u32,
}

/// Result of a [`Call`].
#[derive(Debug)]
pub struct CallResult {
    /// The verdict or the fault. The text of a patch or a replacement is within `output_bytes_max`; it is not otherwise
    /// validated here.
    pub verdict: Result<Verdict, Fault>,
    /// The cost of the call, for the record of the delivery.
    pub run: FilterRun,
    /// Knows the call's secrets. Use it before the verdict's text is logged or stored.
    pub redactor: Arc<Redactor>,
    /// The instance, if it may process further events. The caller returns it to the idle pool once the verdict is known
    /// to produce a valid SET.
    pub used: Option<UsedInstance>,
}

impl CallResult {
    /// The result if the guest never started.
    fn without_call(filter: FilterName, digest: Digest, fault: Fault, asked_at: Instant) -> Self {
        let elapsed_us = u64::try_from(asked_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let run = FilterRun { fault: Some(fault.clone()), elapsed_us, ..FilterRun::not_called(filter, digest) };
        Self { verdict: Err(fault), run, redactor: Arc::default(), used: None }
    }
}

/// Compiles and runs filters. Clones share all state.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    engine_id: String,
    host: Arc<call::Host>,
    filters: Filters,
    structure: StructureLimits,
    reuse_events_max: u32,
    budgets: FuelBudgets,
    /// The pooling allocator returns an error when it is full. This gate makes calls wait instead.
    slots: FairSemaphore,
    turns: Arc<Scheduler>,
    metrics: Metrics,
    guests: Handle,
    /// The runtime behind `guests`. `None` after shutdown.
    runtime: Mutex<Option<Runtime>>,
}

impl Sandbox {
    /// Sets up the engine with its pool, the cache directory and the guest threads.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(options: Options) -> Result<Self, Error> {
        let engine = engine::pooled(&options).map_err(|error| Error::Engine(format!("{error:#}")))?;
        let engine_id = engine::id(&engine);
        let filters = Filters::new(engine.clone(), &options)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.guest_threads.max(1))
            .thread_name("setgate-guest")
            .on_thread_start(|| {
                // Applies to this thread only. If it is refused, guests compete with the host at equal priority, which
                // is slower but correct.
                let _ = rustix::process::nice(GUEST_NICENESS);
            })
            // Check for new calls and timers between any two slices. With tokio's defaults, a short call could wait for
            // dozens of slices of other calls.
            .global_queue_interval(2)
            .event_interval(2)
            .enable_time()
            .build()
            .map_err(Error::Threads)?;
        let turns = Scheduler::new(options.concurrent_slices_max, options.guest_threads);
        runtime.spawn(turns.clone().lend_overdue());
        let slots = usize::try_from(options.instances_max).unwrap_or(usize::MAX);
        let instances_per_tenant_max = usize::try_from(options.instances_per_tenant_max).unwrap_or(usize::MAX);
        let idle_pool = IdlePool::new(options.idle_pool, slots, runtime.handle().clone());
        runtime.spawn(idle_pool.clone().sweep());
        Ok(Self(Arc::new(Shared {
            engine_id,
            host: Arc::new(call::Host {
                epoch_ticker: epoch_ticker::EpochTicker::new(engine.clone()).map_err(Error::Threads)?,
                engine: EngineLimits {
                    engine,
                    fuel_slice: options.fuel_slice,
                    memory_bytes_max: options.memory_bytes_max,
                    table_elements_max: options.table_elements_max,
                },
                idle_pool,
            }),
            filters,
            structure: options.structure,
            reuse_events_max: options.idle_pool.events_max,
            budgets: FuelBudgets::new(),
            slots: FairSemaphore::new(FairLimits {
                permits: slots,
                per_tenant_max: instances_per_tenant_max,
                // A call holds its slot while it computes and while it waits for its turns. Reserve free slots for
                // other tenants unless the configuration allows one tenant to use all of them.
                reserve_for_idle_tenants: instances_per_tenant_max < slots,
                // The dispatcher already bounds its calls in flight.
                queued_per_tenant_max: usize::MAX,
                estimated_cost: 1,
            }),
            turns,
            metrics: Metrics::new(),
            guests: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })))
    }

    /// Accepts an upload: validates it, compiles it, caches the machine code, and instantiates it once within `quota`.
    ///
    /// Called for every upload, including bytes that were uploaded before: those are not compiled again, but are
    /// validated against this tenant's quota. Takes up to one compile timeout, plus the compiles ahead of it in the
    /// tenant's queue, which is bounded by [`Options::compiles_queued_per_tenant_max`].
    ///
    /// # Errors
    /// See [`UploadError`]; its messages are written for the filter's author.
    pub async fn compile(&self, tenant: &TenantId, wasm: Bytes, quota: &Quota) -> Result<CompiledFilter, UploadError> {
        let result = self.0.accept_upload(tenant, wasm, quota).await;
        ::metrics::counter!(UPLOADS, "result" => result.as_ref().map_or_else(UploadError::kind, |_| "taken"))
            .increment(1);
        result
    }

    /// Calls a filter once. Infallible: failures are reported as a [`Fault`].
    ///
    /// Waits for fuel and for a free slot without a time limit. `wall_ms_max` counts computing time only, so a busy
    /// host delays a call but does not make it fault. If the returned future is dropped, the call ends after its
    /// current slice.
    pub async fn run(&self, call: Call) -> CallResult {
        let tenant = call.event.tenant.clone();
        let (mut ran, waited) = self.0.run(call).await;
        ran.run.engine = Some(self.0.engine_id.clone());
        self.0.metrics.record(&tenant, &ran.run, &waited);
        ran
    }

    /// Short identifier of the engine for the run record: its version and a hash of the settings that determine machine
    /// code.
    pub fn engine_id(&self) -> &str {
        &self.0.engine_id
    }

    /// The memory (bytes) of a pool slot, which caps the memory of every call.
    pub fn memory_bytes_max(&self) -> u64 {
        self.0.host.engine.memory_bytes_max
    }

    /// Caps `limits` at the sizes of a pool slot, which may be smaller than a tenant's quota.
    pub fn clamp_to_pool(&self, limits: CallLimits) -> CallLimits {
        CallLimits {
            memory_bytes_max: limits.memory_bytes_max.min(self.0.host.engine.memory_bytes_max),
            table_elements_max: limits.table_elements_max.min(self.0.host.engine.table_elements_max),
            ..limits
        }
    }

    /// Time until the tenant's next call may start. `None` if its fuel budget for this second is not exhausted. Lets
    /// callers postpone work instead of holding resources while it waits for fuel.
    pub fn fuel_wait(&self, tenant: &TenantId, quota: &Quota) -> Option<std::time::Duration> {
        self.0.budgets.of(tenant, quota.fuel_per_second).fuel_wait()
    }

    /// The highest number of events per instance that a binding may configure on this host. Instances are not reused if
    /// it is 0 or 1.
    pub fn reuse_events_max(&self) -> u32 {
        self.0.reuse_events_max
    }

    /// Drops the idle instances of all bindings for which `is_current` returns false.
    pub fn retain_bindings(&self, is_current: impl FnMut(&BindingKey) -> bool) {
        self.0.host.idle_pool.retain_bindings(is_current);
    }

    /// Aborts all calls and stops the guest threads. Running and later calls return [`Fault::Unavailable`].
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl Shared {
    async fn accept_upload(
        &self,
        tenant: &TenantId,
        wasm: Bytes,
        quota: &Quota,
    ) -> Result<CompiledFilter, UploadError> {
        validate::bytes(&wasm, quota.filter_bytes_max)?;
        let began = Instant::now();
        self.check_structure(wasm.clone(), quota).await?;
        let digest = Digest(sha256(&wasm));
        let size_bytes = wasm.len() as u64;
        let loaded = match self.filters.load_cached(tenant, digest).await {
            Some(loaded) => loaded,
            None => self.filters.compiled(tenant, digest, wasm).await?,
        };
        let compile_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start(tenant, &loaded, quota).await?;
        Ok(CompiledFilter { digest, needs: loaded.needs.clone(), size_bytes, compile_ms })
    }

    /// Runs on a blocking thread, because it reads every byte of the upload.
    async fn check_structure(&self, wasm: Bytes, quota: &Quota) -> Result<(), UploadError> {
        let limits = self.structure;
        let call_limits = upload_limits::CallMemoryLimits {
            memory_bytes_max: quota.memory_bytes_max.min(self.host.engine.memory_bytes_max),
            table_elements_max: quota.table_elements_max.min(self.host.engine.table_elements_max),
        };
        let checking = tokio::task::spawn_blocking(move || {
            validate::names(&upload_limits::check(&wasm, &limits, call_limits)?)?;
            Ok(())
        });
        checking.await.unwrap_or_else(|error| Err(UploadError::Host { detail: error.to_string() }))
    }

    /// Instantiates the filter once and drops the instance.
    async fn start(&self, tenant: &TenantId, loaded: &Arc<Loaded>, quota: &Quota) -> Result<(), UploadError> {
        let stopping = || UploadError::Start(stopping());
        let Admitted { place, mut charges } =
            self.admit(tenant, quota, &mut WaitTimes::default()).await.map_err(|_| stopping())?;
        let (host, turns) = (self.host.clone(), self.turns.clone());
        let (tenant, loaded, quota) = (tenant.clone(), loaded.clone(), quota.clone());
        let starting = Box::pin(async move {
            let slice = host.engine.fuel_slice;
            let starting = pin!(call::start(&host, &loaded.pre, &quota));
            let (started, _) = turns.run_in_slices(&tenant, starting, || charges.charge(slice)).await;
            drop(place);
            let (started, fuel) = started.map_err(|_| stopping())?;
            charges.settle(fuel);
            started
        });
        placement::run(&self.guests, None, starting).await.map_or_else(|_| Err(stopping()), |(started, _)| started)
    }

    async fn run(&self, call: Call) -> (CallResult, WaitTimes) {
        let asked_at = Instant::now();
        let mut waited = WaitTimes::default();
        let (filter, digest, tenant) = (call.filter.clone(), call.digest, call.event.tenant.clone());
        let faulted = |fault| CallResult::without_call(filter.clone(), digest, fault, asked_at);
        let loaded = match self.filters.get(&tenant, digest).await {
            Ok(loaded) => loaded,
            Err(fault) => return (faulted(fault), waited),
        };
        if let Some(missing) = missing_grants(&loaded.needs, &call.grants) {
            return (faulted(Fault::Unavailable { detail: format!("it {missing}") }), waited);
        }
        let Ok(Admitted { place, mut charges }) = self.admit(&tenant, &call.quota, &mut waited).await else {
            return (faulted(stopping()), waited);
        };
        let running = self.metrics.running();
        let (host, turns, filter_loaded) = (self.host.clone(), self.turns.clone(), loaded.clone());
        let sliced = Arc::new(AtomicBool::new(false));
        let inline = placement::InlineSlot { history: &loaded.history, sliced: &sliced.clone() };
        let calling = Box::pin(async move {
            let slice = host.engine.fuel_slice;
            let calling = pin!(call::run(&host, &filter_loaded.pre, call, asked_at));
            let ended = || {
                sliced.store(true, Ordering::Relaxed);
                charges.charge(slice);
            };
            let (ran, stats) = turns.run_in_slices(&tenant, calling, ended).await;
            if let Ok(ran) = &ran {
                charges.settle(ran.run.fuel);
            }
            // Released here and not by the caller: the caller may be cancelled while the instance still occupies its
            // slot.
            drop((place, running));
            (ran, stats)
        });
        let ran = match placement::run(&self.guests, Some(inline), calling).await {
            Ok(((ran, stats), started_on)) => {
                if let Ok(ran) = &ran {
                    loaded
                        .history
                        .count(CallLength::of(ran.run.fuel, self.host.engine.fuel_slice, stats.slices), started_on);
                }
                waited.turns = stats;
                ran.unwrap_or_else(|_| faulted(stopping()))
            }
            Err(placement::CallError::Panicked(words)) => {
                tracing::error!(%words, "host panicked during a filter call");
                faulted(Fault::Unavailable { detail: "the host failed while it ran the filter".into() })
            }
            Err(placement::CallError::Stopping) => faulted(stopping()),
        };
        (ran, waited)
    }

    /// Waits until a call of `tenant` may start: first for its fuel budget, then for a slot.
    async fn admit(&self, tenant: &TenantId, quota: &Quota, waited: &mut WaitTimes) -> Result<Admitted, AcquireError> {
        let bucket = self.budgets.of(tenant, quota.fuel_per_second);
        // Fast path: usually there is no wait, and then nothing to measure or to report.
        let first = match bucket.try_queue_head() {
            Some(first) => first,
            None => Box::pin(self.first(&bucket, waited)).await?,
        };
        let place = match self.slots.request(tenant, false)? {
            AcquireOutcome::Granted(place) => place,
            AcquireOutcome::Queued(wait) => {
                let asked_at = Instant::now();
                let waiting = self.metrics.waiting_for_slot();
                let place = wait.await?;
                drop(waiting);
                waited.slot += asked_at.elapsed();
                place
            }
        };
        drop(first);
        Ok(Admitted { place, charges: Charges::new(bucket) })
    }

    /// Waits until the call is first in its tenant's queue.
    async fn first(&self, bucket: &FuelBucket, waited: &mut WaitTimes) -> Result<QueueHead, AcquireError> {
        let asked_at = Instant::now();
        // If the budget is not exhausted, the queue is blocked by a call that waits for a slot, so this wait counts as
        // a slot wait.
        let is_exhausted = bucket.is_exhausted();
        let waiting = if is_exhausted { self.metrics.waiting_for_budget() } else { self.metrics.waiting_for_slot() };
        let first = self.budgets.wait(bucket).await?;
        drop(waiting);
        *(if is_exhausted { &mut waited.budget } else { &mut waited.slot }) += asked_at.elapsed();
        Ok(first)
    }

    fn shutdown(&self) {
        self.filters.close();
        self.budgets.close();
        self.slots.close();
        self.turns.close();
        self.host.idle_pool.close();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            // Do not wait: a guest may be in the middle of its slice, and the caller may be on a runtime thread.
            runtime.shutdown_background();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn stopping() -> Fault {
    Fault::Unavailable { detail: "the host is stopping".into() }
}

/// The checks of an upload before it is compiled, for fuzz targets.
#[doc(hidden)]
pub fn check_before_compile(wasm: &[u8], limits: &StructureLimits, quota: &Quota) -> Result<(), UploadError> {
    validate::bytes(wasm, quota.filter_bytes_max)?;
    let Quota { memory_bytes_max, table_elements_max, .. } = *quota;
    upload_limits::check(wasm, limits, upload_limits::CallMemoryLimits { memory_bytes_max, table_elements_max })
        .map(drop)
}

/// Resources that a call holds while it runs.
struct Admitted {
    place: Permit,
    charges: Charges,
}
