//! One call of one filter: a fresh instance, the event in, the verdict out, everything dropped.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store};

use crate::domain::id::{Digest, EventId};
use crate::domain::redact::Redactor;
use crate::domain::tenant::Quota;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Fault, FilterRun, Verdict};

use super::limits::Limits;
use super::log::Log;
use super::state::{Config, Meter, State};
use super::ticks::{TICKS_PER_TURN, Ticks};
use super::wasi::random::Random;
use super::wit_v0_1::{Event, Failure, FilterIndices, FilterPre};
use super::{Call, MemoryTables, Ran, Rejected, fault};

/// Handles of resources one call may hold. A std guest holds fewer than ten.
const HANDLES_MAX: usize = 1_000;
/// What may come over in one value beside the verdict's text: the bytes around it.
const OUTPUT_SLACK_BYTES: u64 = 64 << 10;

/// What a call needs of its host.
pub(super) struct Host {
    pub(super) engine: Engine,
    /// Ends turns by time.
    pub(super) ticks: Ticks,
    /// Fuel between two turns given to others.
    pub(super) fuel_slice: u64,
    /// The pool's own limit of a linear memory, in bytes.
    pub(super) memory_bytes_max: u64,
    /// The pool's own limit of a table.
    pub(super) table_elements_max: u64,
}

/// Runs `call`. `asked_at` is when its caller asked for a slot.
pub(super) async fn run(host: &Host, pre: &FilterPre<State>, call: Call, asked_at: Instant) -> Ran {
    let _ticking = host.ticks.begin();
    let Call { digest, filter, event, config, secrets, tables, quota, grants: _ } = call;
    // Everything the guest says passes by this on its way into the record.
    let redactor = Arc::new(Redactor::new(&secrets));
    let state = State {
        limits: limits(host, &quota),
        meter: meter(host, &quota),
        log: Log::new(quota.log_bytes_max, redactor.clone()),
        accepted_at: event.accepted_at,
        random: Random::new(event.id, digest),
        config: Config::new(config, secrets),
        tables,
    };
    let mut store = match store(host, state, &quota) {
        Ok(store) => store,
        Err(error) => {
            let fault = Fault::Unavailable { detail: fault::bounded(&error.to_string()) };
            return Ran::without_call(filter, digest, fault, asked_at);
        }
    };
    let event = Event::from(event);
    // Around the whole: start functions and `realloc` are the guest's code as well.
    let called = within(&quota, async {
        let instance = pre.instantiate_async(&mut store).await?;
        instance.setgate_filter_transform().call_process(&mut store, &event).await
    })
    .await;
    let verdict = match called {
        Some(Ok(Ok(verdict))) => within_output(verdict.into(), &quota, &redactor),
        Some(Ok(Err(Failure::Transient(reason)))) => Err(Fault::Transient { reason: fault::said(&reason, &redactor) }),
        Some(Ok(Err(Failure::Permanent(reason)))) => Err(Fault::Permanent { reason: fault::said(&reason, &redactor) }),
        Some(Err(error)) => Err(fault::from_engine(&error, &store.data().limits, &quota, &redactor)),
        None => Err(Fault::Wall { limit_ms: quota.wall_ms_max }),
    };
    let fuel = fuel(&store, &quota);
    let state = store.data_mut();
    let run = FilterRun {
        filter,
        digest,
        verdict: verdict.as_ref().ok().map(Verdict::kind),
        reason: match &verdict {
            Ok(Verdict::Drop(reason)) => Some(reason.clone()),
            _ => None,
        },
        fault: verdict.as_ref().err().cloned(),
        fuel,
        memory_bytes: state.limits.memory_bytes_peak(),
        elapsed_us: u64::try_from(asked_at.elapsed().as_micros()).unwrap_or(u64::MAX),
        log: state.log.finish(),
        engine: None,
    };
    Ran { verdict, run, redactor }
}

/// Instantiates once, without a call: what an upload must stand before it is taken. Tells the fuel it took as well.
pub(super) async fn start(host: &Host, pre: &FilterPre<State>, quota: &Quota) -> (Result<(), Rejected>, u64) {
    let _ticking = host.ticks.begin();
    let state = State {
        limits: limits(host, quota),
        meter: meter(host, quota),
        log: Log::new(0, Arc::default()),
        accepted_at: Timestamp::from_millis(0),
        random: Random::new(EventId::from_bytes([0; 16]), Digest([0; 32])),
        config: Config::new("{}".into(), BTreeMap::new()),
        tables: Arc::new(MemoryTables::default()),
    };
    let words = |error: wasmtime::Error| fault::bounded(&format!("{error:#}"));
    let mut store = match store(host, state, quota) {
        Ok(store) => store,
        Err(error) => return (Err(Rejected::Host { detail: words(error) }), 0),
    };
    let started = match within(quota, pre.instance_pre().instantiate_async(&mut store)).await {
        Some(Ok(instance)) => FilterIndices::new(pre.instance_pre())
            .and_then(|indices| indices.load(&mut store, &instance))
            .map(drop)
            .map_err(|error| Rejected::WrongTypes { detail: words(error) }),
        Some(Err(error)) => {
            let fault = fault::from_engine(&error, &store.data().limits, quota, &Redactor::default());
            Err(Rejected::Start(fault))
        }
        None => Err(Rejected::Start(Fault::Wall { limit_ms: quota.wall_ms_max })),
    };
    (started, fuel(&store, quota))
}

fn fuel(store: &Store<State>, quota: &Quota) -> u64 {
    quota.fuel_per_call.saturating_sub(store.get_fuel().unwrap_or(0))
}

fn store(host: &Host, state: State, quota: &Quota) -> wasmtime::Result<Store<State>> {
    let mut store = Store::try_new(&host.engine, state)?;
    store.limiter(|state| &mut state.limits);
    store.set_fuel(quota.fuel_per_call)?;
    store.fuel_async_yield_interval(Some(host.fuel_slice.max(1)))?;
    store.set_epoch_deadline(TICKS_PER_TURN);
    store.epoch_deadline_async_yield_and_update(TICKS_PER_TURN);
    let lifted = quota.output_bytes_max.saturating_add(OUTPUT_SLACK_BYTES);
    store.set_hostcall_fuel(usize::try_from(lifted).unwrap_or(usize::MAX));
    store.set_max_component_handles(HANDLES_MAX);
    Ok(store)
}

fn limits(host: &Host, quota: &Quota) -> Limits {
    Limits::new(
        quota.memory_bytes_max.min(host.memory_bytes_max),
        quota.table_elements_max.min(host.table_elements_max),
    )
}

fn meter(host: &Host, quota: &Quota) -> Meter {
    Meter::new(quota.host_calls_max, quota.memory_bytes_max, host.fuel_slice.max(1), quota.fuel_per_call)
}

/// Runs `call` until it ends or has computed for `wall_ms_max`.
///
/// The time between its slices is not the call's doing: others compute in it. Counted, it would make other tenants' load a
/// fault of this one's filter. Host calls wait for nothing today; one that does has to bring a limit of its own.
async fn within<T>(quota: &Quota, call: impl Future<Output = T>) -> Option<T> {
    let limit = Duration::from_millis(quota.wall_ms_max);
    let mut computed = Duration::ZERO;
    let mut call = pin!(call);
    std::future::poll_fn(|cx| {
        let began_at = Instant::now();
        let polled = call.as_mut().poll(cx);
        computed += began_at.elapsed();
        match polled {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if computed >= limit => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn within_output(verdict: Verdict, quota: &Quota, redactor: &Redactor) -> Result<Verdict, Fault> {
    match verdict {
        Verdict::Patch(text) | Verdict::Replace(text) if text.len() as u64 > quota.output_bytes_max => {
            Err(Fault::Output { bytes: text.len() as u64, limit: quota.output_bytes_max })
        }
        Verdict::Drop(reason) => Ok(Verdict::Drop(fault::said(&reason, redactor))),
        verdict => Ok(verdict),
    }
}
