//! Runs tenants' filters. The only place with the engine in it.
//!
//! A filter is a WebAssembly component that strangers wrote. It is taken in once ([`Sandbox::compile`]) and then called
//! once for each delivery ([`Sandbox::run`]), each time in a fresh instance. What stands between it and the rest:
//!
//! | against | stands | file |
//! |---|---|---|
//! | an upload that is no filter | a look at its bytes, imports and exports | `validate`, `imports` |
//! | an upload of a million parts | caps on its structure, before any compile | `structure` |
//! | a compile without end | a child process with memory, CPU and wall limits | `compile` |
//! | machine code of somebody else | a MAC over the bytes that are loaded | `artefact`, `cache` |
//! | loops | fuel, for instructions and for host calls alike | `state`, `call` |
//! | steps that cost no fuel | turns that end by time as well | `ticks` |
//! | memory | one limit over all memories of a call | `limits` |
//! | a busy tenant | slots per tenant, threads of their own, turns of about a millisecond | `slots`, here |
//! | looking around | grants; an empty WASI whose clock stands still | `linker`, `host/`, `wasi/` |
//!
//! The same event through the same filter gives the same verdict and the same fuel, on any host of the same engine
//! version and target: nothing that a filter can see changes between two runs.

mod artefact;
mod cache;
mod call;
mod compile;
mod engine;
mod fault;
mod filters;
mod host;
mod imports;
mod limits;
mod linker;
mod log;
mod options;
mod rejected;
mod slots;
mod state;
mod structure;
mod ticks;
mod validate;
mod wasi;
mod wit_v0_1;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::{Handle, Runtime};

use crate::crypto::sha256;
use crate::domain::filter::Grant;
use crate::domain::id::{DeliveryId, Digest, EventId, FilterName, SourceName, SubscriptionId, TenantId};
use crate::domain::secret::Secret;
use crate::domain::tenant::Quota;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Fault, FilterRun, Verdict};

pub use compile::{COMPILER_ARGUMENT, compiler_main};
pub use options::{Components, Error, Options};
pub use rejected::Rejected;
pub use structure::Caps;

use filters::{Filters, Loaded};

/// Every metric of this module, with its kind and what it says.
pub const METRICS: &[(&str, &str, &str)] = &[
    (
        CALLS,
        "counter",
        "calls of filters, by `verdict` (pass, patch, replace, drop, fault) and `fault` (its kind, or none)",
    ),
    (FUEL, "counter", "fuel used by all calls"),
    (SECONDS, "histogram", "seconds from asking for an instance slot to the verdict"),
    (MEMORY, "histogram", "most linear memory of a call, in bytes"),
    (RUNNING, "gauge", "calls that hold an instance slot"),
    (LOADS, "counter", "filters brought into memory, by `from` (disk, compiler)"),
    (UPLOADS, "counter", "uploads, by `result` (taken, or why not)"),
];
const CALLS: &str = "setgate_filter_calls_total";
const FUEL: &str = "setgate_filter_fuel_total";
const SECONDS: &str = "setgate_filter_seconds";
const MEMORY: &str = "setgate_filter_memory_bytes";
const RUNNING: &str = "setgate_filter_calls_running";
const LOADS: &str = "setgate_filter_loads_total";
const UPLOADS: &str = "setgate_filter_uploads_total";

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
    /// Called on a guest's thread: may not wait.
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
}

/// What came of a [`Call`].
#[derive(Debug)]
pub struct Ran {
    /// The decision, or what went wrong. The text of a patch or a replacement is within `output_bytes_max`, and nothing
    /// more is known of it.
    pub verdict: Result<Verdict, Fault>,
    /// What it cost, for the delivery's record.
    pub run: FilterRun,
}

impl Ran {
    /// A fault before the guest's first instruction.
    fn without_call(filter: FilterName, digest: Digest, fault: Fault, asked_at: Instant) -> Self {
        let run = FilterRun {
            filter,
            digest,
            verdict: None,
            reason: None,
            fault: Some(fault.clone()),
            fuel: 0,
            memory_bytes: 0,
            elapsed_us: u64::try_from(asked_at.elapsed().as_micros()).unwrap_or(u64::MAX),
            log: Vec::new(),
        };
        Self { verdict: Err(fault), run }
    }
}

/// Compiles and runs filters. Clones share everything.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    host: Arc<call::Host>,
    filters: Filters,
    caps: Caps,
    slots: slots::Slots,
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
        let filters = Filters::new(engine.clone(), &options)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.guest_threads.max(1))
            .thread_name("setgate-guest")
            // New calls are looked for between any two slices, and so are timers: with the defaults a short call could wait
            // for dozens of slices of others.
            .global_queue_interval(2)
            .event_interval(2)
            .enable_time()
            .build()
            .map_err(Error::Threads)?;
        Ok(Self(Arc::new(Shared {
            host: Arc::new(call::Host {
                ticks: ticks::Ticks::new(engine.clone()).map_err(Error::Threads)?,
                engine,
                fuel_slice: options.fuel_slice,
                memory_bytes_max: options.memory_bytes_max,
                table_elements_max: options.table_elements_max,
            }),
            filters,
            caps: options.caps,
            slots: slots::Slots::new(
                usize::try_from(options.instances_max).unwrap_or(usize::MAX),
                usize::try_from(options.instances_per_tenant_max).unwrap_or(usize::MAX),
            ),
            guests: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })))
    }

    /// Takes in an upload: looks at it, compiles it, keeps the machine code, and starts it once within `quota`.
    ///
    /// Called for every upload, also of bytes that are known already: those are not compiled again, but looked at by the
    /// quota of this tenant. May take as long as a compile may.
    ///
    /// # Errors
    /// See [`Rejected`]; the words are for the filter's author.
    pub async fn compile(&self, wasm: Bytes, quota: &Quota) -> Result<Compiled, Rejected> {
        let result = self.0.take_in(wasm, quota).await;
        metrics::counter!(UPLOADS, "result" => result.as_ref().map_or_else(Rejected::kind, |_| "taken")).increment(1);
        result
    }

    /// Calls a filter once. Never fails: what went wrong is a [`Fault`].
    ///
    /// Waits for a free slot as long as it takes; `wall_ms_max` begins with the slot, so that a busy host makes a call
    /// late, not faulty. Where the returned future is dropped, the call is ended at its next turn.
    pub async fn run(&self, call: Call) -> Ran {
        let ran = self.0.run(call).await;
        let run = &ran.run;
        let verdict = run.verdict.map_or("fault", |verdict| verdict.as_str());
        let fault = run.fault.as_ref().map_or("none", Fault::kind);
        metrics::counter!(CALLS, "verdict" => verdict, "fault" => fault).increment(1);
        metrics::counter!(FUEL).increment(run.fuel);
        metrics::histogram!(SECONDS).record(Duration::from_micros(run.elapsed_us));
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
        metrics::histogram!(MEMORY).record(run.memory_bytes as f64);
        ran
    }

    /// Ends all calls and the guests' threads. Calls that were running, and later ones, give [`Fault::Unavailable`].
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl Shared {
    async fn take_in(&self, wasm: Bytes, quota: &Quota) -> Result<Compiled, Rejected> {
        validate::bytes(&wasm, quota.filter_bytes_max)?;
        let began = Instant::now();
        self.look_at_structure(wasm.clone(), quota).await?;
        let digest = Digest(sha256(&wasm));
        let size_bytes = wasm.len() as u64;
        let loaded = match self.filters.known(digest).await {
            Some(loaded) => loaded,
            None => self.filters.compiled(digest, wasm).await?,
        };
        let compile_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start(&loaded, quota).await?;
        Ok(Compiled { digest, needs: loaded.needs.clone(), size_bytes, compile_ms })
    }

    /// On a thread that may block, since it reads every byte.
    async fn look_at_structure(&self, wasm: Bytes, quota: &Quota) -> Result<(), Rejected> {
        let caps = self.caps;
        let room = structure::Room {
            memory_bytes_max: quota.memory_bytes_max.min(self.host.memory_bytes_max),
            table_elements_max: quota.table_elements_max.min(self.host.table_elements_max),
        };
        let looking = tokio::task::spawn_blocking(move || structure::check(&wasm, &caps, room));
        looking.await.unwrap_or_else(|error| Err(Rejected::Host { detail: error.to_string() }))
    }

    /// Instantiates once and throws away.
    async fn start(&self, loaded: &Arc<Loaded>, quota: &Quota) -> Result<(), Rejected> {
        let stopping = || Rejected::Start(stopping());
        let _slot = self.slots.take(None).await.map_err(|_| stopping())?;
        let (host, loaded, quota) = (self.host.clone(), loaded.clone(), quota.clone());
        let started = self.guests.spawn(async move { call::start(&host, &loaded.pre, &quota).await });
        AbortOnDrop(started).await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn run(&self, call: Call) -> Ran {
        let asked_at = Instant::now();
        let (filter, digest) = (call.filter.clone(), call.digest);
        let faulted = |fault| Ran::without_call(filter, digest, fault, asked_at);
        let loaded = match self.filters.get(digest).await {
            Ok(loaded) => loaded,
            Err(fault) => return faulted(fault),
        };
        if let Some(missing) = loaded.needs.difference(&call.grants).next() {
            let detail = format!("it imports `{}`, which its binding does not grant", missing.as_str());
            return faulted(Fault::Unavailable { detail });
        }
        let Ok(slot) = self.slots.take(Some(&call.event.tenant)).await else {
            return faulted(stopping());
        };
        let running = Running::begin();
        let host = self.host.clone();
        let ran = self.guests.spawn(async move {
            let ran = call::run(&host, &loaded.pre, call, asked_at).await;
            // Given back here and not by the caller, who may be gone while the instance still is in its slot.
            drop((slot, running));
            ran
        });
        match AbortOnDrop(ran).await {
            Ok(ran) => ran,
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "a filter's call made the host panic");
                faulted(Fault::Unavailable { detail: "the host failed while it ran the filter".into() })
            }
            Err(_) => faulted(stopping()),
        }
    }

    fn shutdown(&self) {
        self.slots.close();
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

/// Counts a call that holds a slot.
struct Running;

impl Running {
    fn begin() -> Self {
        metrics::gauge!(RUNNING).increment(1.0);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        metrics::gauge!(RUNNING).decrement(1.0);
    }
}

/// A spawned future that ends when nobody waits for it any more.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
