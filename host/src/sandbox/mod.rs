//! Runs tenants' filters. The only place with the engine in it.
//!
//! A filter is a WebAssembly component that strangers wrote. It is taken in once ([`Sandbox::compile`]) and then called
//! once for each delivery ([`Sandbox::run`]), each time in a fresh instance, unless its binding reuses them. What stands between it and the rest:
//!
//! | against | stands | file |
//! |---|---|---|
//! | an upload of a million parts | caps on its structure, before any compile | `structure` |
//! | an upload that is no filter | a look at its bytes, imports and exports, before any compile | `validate`, `imports` |
//! | a compile without end | a child process with memory, CPU and wall limits | `compile` |
//! | a flood of compiles | a bounded line for each tenant, served in turns | `filters`, `fair` |
//! | machine code of somebody else | a MAC over the bytes that are loaded | `artefact`, `cache` |
//! | loops | fuel, for instructions and for host calls alike | `state`, `call` |
//! | steps that cost no fuel | turns that end by time as well | `ticks` |
//! | memory | one limit over all memories of a call | `limits` |
//! | a busy tenant | fuel per second; then slots and slices of a tenth of a millisecond, in turns between tenants | `budget`, `fair`, `turns` |
//! | guests before the host | threads of their own, less urgent than the host's, for all but a short call's first slice | here, `begin` |
//! | what an earlier event left | a fresh instance; where one is kept, no other binding's call ever gets it | `kept`, `instance` |
//! | looking around | grants; an empty WASI whose clock stands still | `linker`, `host/`, `wasi/` |
//!
//! The same event through the same filter gives the same verdict and the same fuel, on any host of the same engine
//! version and target: nothing that a filter can see changes between two runs. In an instance that is reused it sees what
//! earlier events of its binding left there, and the record of the run says so.
//!
//! A call waits in this order: for its filter to be in memory, for its tenant's budget, for a slot, and then between any two
//! slices for its turn. No wait is a fault, and none counts towards `wall_ms_max`.

mod artefact;
mod begin;
mod budget;
mod cache;
mod call;
mod compile;
mod engine;
mod fault;
mod filters;
mod frames;
mod host;
mod imports;
mod instance;
mod kept;
mod last_words;
mod limits;
mod linker;
mod log;
mod options;
mod rejected;
mod series;
mod state;
mod structure;
mod ticks;
mod turns;
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
use tokio::runtime::{Handle, Runtime};

use crate::crypto::sha256;
use crate::domain::filter::{Grant, missing_grants};
use crate::domain::id::{DeliveryId, Digest, EventId, FilterName, SourceName, SubscriptionId, TenantId};
use crate::domain::limits::CallLimits;
use crate::domain::redact::Redactor;
use crate::domain::secret::Secret;
use crate::domain::tenant::Quota;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Fault, FilterRun, Verdict};
use crate::fair::{Answer, Bounds, Gate, Place, Refused};

pub use compile::{COMPILER_ARGUMENT, compiler_main};
pub use engine::bare_config;
pub use kept::{Bound, Used};
pub use options::{Components, Error, GUEST_THREADS_PER_TURN, KeptLimits, Options};
pub use rejected::Rejected;
pub use series::{BUCKETS, METRICS};
pub use structure::Caps;

use begin::Went;
use budget::{Bucket, Budgets, Charges, First};
use filters::{Filters, Loaded};
use kept::Kept;
use series::{Series, UPLOADS, Waited};
use turns::Turns;

/// How much guests let the host's own threads go first, as `nice` has it: at 5 a thread of the host gets three times the time
/// of a guest's that competes with it. Taking events in and delivering them costs little, and waiting behind guests would
/// delay every tenant. Less than a compiler's, so that compiles do not slow down calls.
const GUEST_NICENESS: i32 = 5;

/// A filter that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// SHA-256 of its wasm.
    pub digest: Digest,
    /// What it imports, and so needs from each binding.
    pub needs: BTreeSet<Grant>,
    /// Bytes of its wasm.
    pub size_bytes: u64,
    /// How long it took to compile, in milliseconds; waiting for a compiler included.
    pub compile_ms: u64,
}

/// The event as a filter sees it. Every field is one of `record event` in `wit/world.wit`.
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

/// The tables that `lookup` sees: those of the delivery's plan, in memory.
pub trait Tables: Send + Sync {
    /// The row under `key` as JSON text; none where the table is not there, some none where the row is not.
    ///
    /// Called in a guest's slice, on a guest's thread or its caller's: may not wait.
    fn get(&self, table: &str, key: &str) -> Option<Option<Arc<str>>>;
}

/// Tables as maps: for tests, for the CLI, and for deliveries without any.
#[derive(Debug, Clone, Default)]
pub struct MemoryTables(pub BTreeMap<String, HashMap<String, Arc<str>>>);

impl Tables for MemoryTables {
    fn get(&self, table: &str, key: &str) -> Option<Option<Arc<str>>> {
        self.0.get(table).map(|rows| rows.get(key).cloned())
    }
}

/// One call of one filter.
pub struct Call {
    /// The filter's version.
    pub digest: Digest,
    /// The filter's name, for the record.
    pub filter: FilterName,
    /// The event.
    pub event: EventView,
    /// The binding's `config` object, as JSON text.
    pub config: Arc<str>,
    /// The binding's secrets, opened.
    pub secrets: BTreeMap<String, Secret>,
    /// What the binding grants.
    pub grants: BTreeSet<Grant>,
    /// What `lookup` sees.
    pub tables: Arc<dyn Tables>,
    /// The tenant's quota.
    pub quota: Quota,
    /// For a binding that reuses instances; none: a fresh instance, dropped after the call.
    pub keep: Option<Keep>,
}

/// What tells the instances of one binding from all others, beside the call's tenant, subscription and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The delivery's plan: another one is another binding, for an instance.
    pub plan: Digest,
    /// The step's place in it, from 0.
    pub step: usize,
    /// Events that one instance sees at the most.
    pub events_max: u32,
}

/// What came of a [`Call`].
#[derive(Debug)]
pub struct Ran {
    /// The decision, or what went wrong. The text of a patch or a replacement is within `output_bytes_max`, and nothing
    /// more is known of it.
    pub verdict: Result<Verdict, Fault>,
    /// What it cost, for the delivery's record.
    pub run: FilterRun,
    /// Knows the call's secrets: for whoever quotes the verdict.
    pub redactor: Arc<Redactor>,
    /// The instance it ran in, where that may see further events: to be kept once the verdict is known to make a valid SET.
    pub used: Option<Used>,
}

impl Ran {
    /// A fault before the guest's first instruction.
    fn without_call(filter: FilterName, digest: Digest, fault: Fault, asked_at: Instant) -> Self {
        let elapsed_us = u64::try_from(asked_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let run = FilterRun { fault: Some(fault.clone()), elapsed_us, ..FilterRun::not_called(filter, digest) };
        Self { verdict: Err(fault), run, redactor: Arc::default(), used: None }
    }
}

/// Compiles and runs filters. Clones share everything.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    engine_id: String,
    host: Arc<call::Host>,
    filters: Filters,
    caps: Caps,
    reuse_events_max: u32,
    budgets: Budgets,
    /// The pool answers an error where it is full; here a call waits instead.
    slots: Gate,
    turns: Arc<Turns>,
    series: Series,
    guests: Handle,
    /// The runtime behind `guests`; taken when it is shut down.
    runtime: Mutex<Option<Runtime>>,
}

impl Sandbox {
    /// Sets up the engine, its pool, the cache folder and the guests' threads.
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
                // Acts on this thread alone. Where it is refused, guests compete as equals: slower, not wrong.
                let _ = rustix::process::nice(GUEST_NICENESS);
            })
            // New calls are looked for between any two slices, and so are timers: with the defaults a short call could wait
            // for dozens of slices of others.
            .global_queue_interval(2)
            .event_interval(2)
            .enable_time()
            .build()
            .map_err(Error::Threads)?;
        let turns = Turns::new(options.turns_max, options.guest_threads);
        runtime.spawn(turns.clone().lend());
        let slots = usize::try_from(options.instances_max).unwrap_or(usize::MAX);
        let instances_per_tenant_max = usize::try_from(options.instances_per_tenant_max).unwrap_or(usize::MAX);
        let kept = Kept::new(options.kept, slots, runtime.handle().clone());
        runtime.spawn(kept.clone().sweep());
        Ok(Self(Arc::new(Shared {
            engine_id,
            host: Arc::new(call::Host {
                ticks: ticks::Ticks::new(engine.clone()).map_err(Error::Threads)?,
                engine,
                kept,
                fuel_slice: options.fuel_slice,
                memory_bytes_max: options.memory_bytes_max,
                table_elements_max: options.table_elements_max,
            }),
            filters,
            caps: options.caps,
            reuse_events_max: options.kept.events_max,
            budgets: Budgets::new(),
            slots: Gate::new(Bounds {
                places: slots,
                per_tenant_max: instances_per_tenant_max,
                // A call holds its slot for as long as it computes and waits for its turns. Who gives one tenant all of
                // them wants nothing left free.
                leaves_free: instances_per_tenant_max < slots,
                // Who delivers bounds what it has in flight.
                waiting_per_tenant_max: usize::MAX,
                cost: 1,
            }),
            turns,
            series: Series::new(),
            guests: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })))
    }

    /// Takes in an upload: looks at it, compiles it, keeps the machine code, and starts it once within `quota`.
    ///
    /// Called for every upload, also of bytes that are known already: those are not compiled again, but looked at by the
    /// quota of this tenant. May take as long as a compile may, and the compiles before it in the tenant's line, which is
    /// bounded by [`Options::compiles_waiting_per_tenant_max`].
    ///
    /// # Errors
    /// See [`Rejected`]; the words are for the filter's author.
    pub async fn compile(&self, tenant: &TenantId, wasm: Bytes, quota: &Quota) -> Result<Compiled, Rejected> {
        let result = self.0.take_in(tenant, wasm, quota).await;
        metrics::counter!(UPLOADS, "result" => result.as_ref().map_or_else(Rejected::kind, |_| "taken")).increment(1);
        result
    }

    /// Calls a filter once. Never fails: what went wrong is a [`Fault`].
    ///
    /// Waits for fuel and for a free slot as long as it takes; `wall_ms_max` counts what is computed, so that a busy host
    /// makes a call late, not faulty. Where the returned future is dropped, the call is ended after its slice.
    pub async fn run(&self, call: Call) -> Ran {
        let tenant = call.event.tenant.clone();
        let (mut ran, waited) = self.0.run(call).await;
        ran.run.engine = Some(self.0.engine_id.clone());
        self.0.series.record(&tenant, &ran.run, &waited);
        ran
    }

    /// The engine in a few characters, for the record of a run: its version, and what decides its machine code.
    pub fn engine_id(&self) -> &str {
        &self.0.engine_id
    }

    /// `limits` as a call at this host would meet them: a slot of the pool may be smaller than a quota.
    pub fn within_pool(&self, limits: CallLimits) -> CallLimits {
        CallLimits {
            memory_bytes_max: limits.memory_bytes_max.min(self.0.host.memory_bytes_max),
            table_elements_max: limits.table_elements_max.min(self.0.host.table_elements_max),
            ..limits
        }
    }

    /// How long until a call of the tenant may begin, where its fuel of this second is spent: what would have to wait for it
    /// need not hold a place meanwhile.
    pub fn spent(&self, tenant: &TenantId, quota: &Quota) -> Option<std::time::Duration> {
        self.0.budgets.of(tenant, quota.fuel_per_second).spent()
    }

    /// The most events that a binding may let one instance see at this host; 0 and 1: none are kept here.
    pub fn reuse_events_max(&self) -> u32 {
        self.0.reuse_events_max
    }

    /// Ends the instances that are kept for bindings that `is_current` does not know.
    pub fn keep_only(&self, is_current: impl FnMut(&Bound) -> bool) {
        self.0.host.kept.keep_only(is_current);
    }

    /// Ends all calls and the guests' threads. Calls that were running, and later ones, give [`Fault::Unavailable`].
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl Shared {
    async fn take_in(&self, tenant: &TenantId, wasm: Bytes, quota: &Quota) -> Result<Compiled, Rejected> {
        validate::bytes(&wasm, quota.filter_bytes_max)?;
        let began = Instant::now();
        self.look_at_structure(wasm.clone(), quota).await?;
        let digest = Digest(sha256(&wasm));
        let size_bytes = wasm.len() as u64;
        let loaded = match self.filters.known(tenant, digest).await {
            Some(loaded) => loaded,
            None => self.filters.compiled(tenant, digest, wasm).await?,
        };
        let compile_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start(tenant, &loaded, quota).await?;
        Ok(Compiled { digest, needs: loaded.needs.clone(), size_bytes, compile_ms })
    }

    /// On a thread that may block, since it reads every byte.
    async fn look_at_structure(&self, wasm: Bytes, quota: &Quota) -> Result<(), Rejected> {
        let caps = self.caps;
        let room = structure::Room {
            memory_bytes_max: quota.memory_bytes_max.min(self.host.memory_bytes_max),
            table_elements_max: quota.table_elements_max.min(self.host.table_elements_max),
        };
        let looking = tokio::task::spawn_blocking(move || {
            validate::names(&structure::check(&wasm, &caps, room)?)?;
            Ok(())
        });
        looking.await.unwrap_or_else(|error| Err(Rejected::Host { detail: error.to_string() }))
    }

    /// Instantiates once and throws away.
    async fn start(&self, tenant: &TenantId, loaded: &Arc<Loaded>, quota: &Quota) -> Result<(), Rejected> {
        let stopping = || Rejected::Start(stopping());
        let Admitted { place, mut charges } =
            self.admit(tenant, quota, &mut Waited::default()).await.map_err(|_| stopping())?;
        let (host, turns) = (self.host.clone(), self.turns.clone());
        let (tenant, loaded, quota) = (tenant.clone(), loaded.clone(), quota.clone());
        let starting = Box::pin(async move {
            let slice = host.fuel_slice;
            let starting = pin!(call::start(&host, &loaded.pre, &quota));
            let (started, _) = turns.taking(&tenant, starting, || charges.burnt(slice)).await;
            drop(place);
            let (started, fuel) = started.map_err(|_| stopping())?;
            charges.settle(fuel);
            started
        });
        begin::run(&self.guests, None, starting).await.map_or_else(|_| Err(stopping()), |(started, _)| started)
    }

    async fn run(&self, call: Call) -> (Ran, Waited) {
        let asked_at = Instant::now();
        let mut waited = Waited::default();
        let (filter, digest, tenant) = (call.filter.clone(), call.digest, call.event.tenant.clone());
        let faulted = |fault| Ran::without_call(filter.clone(), digest, fault, asked_at);
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
        let running = self.series.running();
        let (host, turns, filter_loaded) = (self.host.clone(), self.turns.clone(), loaded.clone());
        let sliced = Arc::new(AtomicBool::new(false));
        let here = begin::Here { streak: &loaded.streak, sliced: &sliced.clone() };
        let calling = Box::pin(async move {
            let slice = host.fuel_slice;
            let calling = pin!(call::run(&host, &filter_loaded.pre, call, asked_at));
            let ended = || {
                sliced.store(true, Ordering::Relaxed);
                charges.burnt(slice);
            };
            let (ran, taken) = turns.taking(&tenant, calling, ended).await;
            if let Ok(ran) = &ran {
                charges.settle(ran.run.fuel);
            }
            // Given back here and not by the caller, who may be gone while the instance still is in its slot.
            drop((place, running));
            (ran, taken)
        });
        let ran = match begin::run(&self.guests, Some(here), calling).await {
            Ok(((ran, taken), began)) => {
                if let Ok(ran) = &ran {
                    loaded.streak.count(Went::of(ran.run.fuel, self.host.fuel_slice, taken.slices), began);
                }
                waited.turns = taken;
                ran.unwrap_or_else(|_| faulted(stopping()))
            }
            Err(begin::Lost::Panicked(words)) => {
                tracing::error!(%words, "a filter's call made the host panic");
                faulted(Fault::Unavailable { detail: "the host failed while it ran the filter".into() })
            }
            Err(begin::Lost::Stopping) => faulted(stopping()),
        };
        (ran, waited)
    }

    /// Waits until a call of `tenant` may begin: for its budget, then for a slot.
    async fn admit(&self, tenant: &TenantId, quota: &Quota, waited: &mut Waited) -> Result<Admitted, Refused> {
        let bucket = self.budgets.of(tenant, quota.fuel_per_second);
        // Mostly nothing is waited for, and then there is no wait to measure or to show.
        let first = match bucket.first_at_once() {
            Some(first) => first,
            None => Box::pin(self.first(&bucket, waited)).await?,
        };
        let place = match self.slots.ask(tenant, false)? {
            Answer::Granted(place) => place,
            Answer::Waits(wait) => {
                let asked_at = Instant::now();
                let waiting = self.series.waiting_for_slot();
                let place = wait.await?;
                drop(waiting);
                waited.slot += asked_at.elapsed();
                place
            }
        };
        drop(first);
        Ok(Admitted { place, charges: Charges::to(bucket) })
    }

    /// Waits for the first place in a tenant's line.
    async fn first(&self, bucket: &Bucket, waited: &mut Waited) -> Result<First, Refused> {
        let asked_at = Instant::now();
        // Behind calls of the tenant that wait for a slot, it is a slot that this one waits for.
        let spent = bucket.is_spent();
        let waiting = if spent { self.series.waiting_for_budget() } else { self.series.waiting_for_slot() };
        let first = self.budgets.wait(bucket).await?;
        drop(waiting);
        *(if spent { &mut waited.budget } else { &mut waited.slot }) += asked_at.elapsed();
        Ok(first)
    }

    fn shutdown(&self) {
        self.filters.close();
        self.budgets.close();
        self.slots.close();
        self.turns.close();
        self.host.kept.close();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            // Not waited for: a guest may be in the middle of its slice, and the caller on a runtime's thread.
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

/// What an upload is looked at for before it is compiled: for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(crate) fn before_compile(wasm: &[u8], caps: &Caps, quota: &Quota) -> Result<(), Rejected> {
    validate::bytes(wasm, quota.filter_bytes_max)?;
    let Quota { memory_bytes_max, table_elements_max, .. } = *quota;
    structure::check(wasm, caps, structure::Room { memory_bytes_max, table_elements_max }).map(drop)
}

/// What a call needs to begin.
struct Admitted {
    place: Place,
    charges: Charges,
}
