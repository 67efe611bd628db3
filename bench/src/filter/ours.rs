//! A full call of the sandbox as made by the pipeline: limits, grants and metering, then applying the verdict to the
//! claims and validating the resulting SET.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use cpu_time::ProcessTime;
use setgate_domain::chain;
use setgate_domain::filter::Grant;
use setgate_domain::id::Digest;
use setgate_domain::tenant::Quota;
use setgate_sandbox::{Call, EventView, MemoryTables, Options, ReuseSettings, Sandbox, Tables};
use tokio::runtime::Runtime;

use super::FUEL;
use super::input::{Input, TENANT};
use crate::cores::Timed;

/// Generous, like the fuel: for an interpreter on a busy machine.
const WALL_MS_MAX: u64 = 60_000;
/// Number of events that a reused instance processes.
const KEEP_EVENTS_MAX: u32 = 1_000;

/// A sandbox, and the threads of a host that call it.
pub(super) struct Ours {
    sandbox: Sandbox,
    callers: Runtime,
    quota: Quota,
    tables: Arc<dyn Tables>,
    config: Arc<str>,
}

impl Ours {
    /// The threads inherit the pinning of the current thread; `callers` of them make calls.
    pub(super) fn new(options: Options, callers: usize) -> anyhow::Result<Self> {
        // Budgets are for guests that share a host.
        let quota = Quota {
            fuel_per_call: FUEL,
            fuel_per_second: i64::MAX.unsigned_abs(),
            wall_ms_max: WALL_MS_MAX,
            ..Quota::default()
        };
        let callers = tokio::runtime::Builder::new_multi_thread().worker_threads(callers).enable_all().build()?;
        let sandbox = Sandbox::new(options)?;
        let tables = Arc::new(MemoryTables::default());
        Ok(Self { sandbox, callers, quota, tables, config: "{}".into() })
    }

    /// Compiles a filter, or loads it from the cache of an earlier run.
    pub(super) fn take_in(&self, wasm: Bytes) -> anyhow::Result<Digest> {
        let taken = self.callers.block_on(self.sandbox.compile(&TENANT.parse()?, wasm, &self.quota));
        Ok(taken.context("the sandbox refuses the guest")?.digest)
    }

    async fn call(&self, digest: Digest, input: &Input, reuse: Option<ReuseSettings>) -> anyhow::Result<()> {
        let call = Call {
            digest,
            filter: "bench-guest".parse()?,
            event: EventView { claims: input.set.text.clone(), ..input.view.clone() },
            config: self.config.clone(),
            secrets: BTreeMap::new(),
            grants: Grant::ALL.into(),
            tables: self.tables.clone(),
            quota: self.quota.clone(),
            reuse,
        };
        let ran = self.sandbox.run(call).await;
        let verdict = ran.verdict.context("the guest faulted")?;
        chain::apply(&input.set, verdict, self.quota.output_bytes_max, &ran.redactor).context("its verdict is none")?;
        if let Some(used) = ran.used {
            used.release();
        }
        Ok(())
    }

    /// Calls a filter for the given time with the given concurrency. `keeping` reuses instances for several events,
    /// like a binding with `reuse`.
    pub(super) fn repeat(
        self: &Arc<Self>,
        digest: Digest,
        input: &Arc<Input>,
        at_once: usize,
        keeping: bool,
        lasts: Duration,
    ) -> anyhow::Result<Timed> {
        let reuse = keeping.then_some(ReuseSettings { plan: digest, step: 0, events_max: KEEP_EVENTS_MAX });
        let over = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(AtomicU64::new(0));
        self.callers.block_on(async {
            let (began_at, cpu) = (Instant::now(), ProcessTime::now());
            let mut calling = tokio::task::JoinSet::new();
            for _ in 0..at_once {
                let (ours, input, over, calls) = (self.clone(), input.clone(), over.clone(), calls.clone());
                calling.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        ours.call(digest, &input, reuse).await?;
                        if calls.fetch_add(1, Ordering::Relaxed) % 8 == 7 && began_at.elapsed() >= lasts {
                            over.store(true, Ordering::Relaxed);
                        }
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(ended) = calling.join_next().await {
                ended??;
            }
            let cpu = cpu.elapsed();
            Ok(Timed { calls: calls.load(Ordering::Relaxed), elapsed: began_at.elapsed(), cpu })
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.sandbox.shutdown();
    }
}

/// The same component with another digest: adds a custom section with that name, which has no effect (WebAssembly core
/// specification, "Custom Section").
pub(super) fn named(wasm: &Bytes, name: &str) -> Bytes {
    let name = name.as_bytes();
    let length = u8::try_from(name.len()).ok().filter(|length| *length < 127).expect("the bench's names are short");
    [wasm, [0, length + 1, length].as_slice(), name].concat().into()
}

/// A sandbox with the defaults of a host on this machine, with its cache in `folder`.
pub(super) fn options(folder: &Path) -> Options {
    Options::new(folder.to_owned(), [7; 32], Arc::new(|_, _| Box::pin(std::future::ready(None))))
}
