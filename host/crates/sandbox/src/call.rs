//! One call of one filter: instantiate, pass the event, return the verdict. The instance is fresh and dropped
//! afterwards, unless the call's binding reuses instances: see `idle_pool`.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use setgate_domain::redact::Redactor;
use setgate_domain::tenant::Quota;
use setgate_domain::verdict::{Fault, FilterRun, Verdict};

use super::epoch_ticker::EpochTicker;
use super::idle_pool::{self, BindingKey, EvictionReason, IdlePool};
use super::instance::{EngineLimits, Instance, limits, meter};
use super::log::Log;
use super::random::Random;
use super::state::{Config, State};
use super::wit_v0_1::{Event, Failure, FilterIndices, FilterPre};
use super::{Call, CallResult, UploadError, fault};

/// The parts of the sandbox that a call uses.
pub(super) struct Host {
    pub(super) engine: EngineLimits,
    /// Ends turns by time.
    pub(super) epoch_ticker: EpochTicker,
    /// The idle pool, which also assigns engine slots.
    pub(super) idle_pool: Arc<IdlePool>,
}

/// Runs `call`. `asked_at` is the time at which its caller requested a slot.
pub(super) async fn run(host: &Host, pre: &FilterPre<State>, call: Call, asked_at: Instant) -> CallResult {
    let _ticking = host.epoch_ticker.register_guest();
    let key = host.idle_pool.binding_key(&call);
    let Call { digest, filter, event, config, secrets, tables, quota, grants: _, reuse: _ } = call;
    let quota = quota.for_event(event.claims.len());
    // Redacts the text that the guest produces before it is recorded.
    let redactor = Arc::new(Redactor::new(&secrets));
    let state = State {
        limits: limits(&host.engine, &quota),
        meter: meter(&host.engine, &quota),
        log: Log::new(quota.log_bytes_max, redactor.clone()),
        accepted_at: event.accepted_at,
        random: Random::new(event.id, digest),
        config: Config::new(config, secrets),
        tables,
    };
    let mut instance = match instance(host, key.as_ref().map(|(key, _)| key), state, &quota).await {
        Ok(instance) => instance,
        Err(error) => {
            let fault = Fault::Unavailable { detail: fault::bounded(&error.to_string()) };
            return CallResult::without_call(filter, digest, fault, asked_at);
        }
    };
    let event = Event::from(event);
    // The limit covers everything: start functions and `realloc` are guest code as well.
    let called = within(&quota, instance.call(pre, &event)).await;
    let verdict = match called {
        Some(Ok(Ok(verdict))) => within_output(verdict.into(), &quota, &redactor),
        Some(Ok(Err(Failure::Transient(reason)))) => {
            Err(Fault::Transient { reason: fault::guest_message(&reason, &redactor) })
        }
        Some(Ok(Err(Failure::Permanent(reason)))) => {
            Err(Fault::Permanent { reason: fault::guest_message(&reason, &redactor) })
        }
        Some(Err(error)) => Err(fault::from_engine(&error, instance.state(), &quota, &redactor)),
        None => Err(Fault::Wall { limit_ms: quota.wall_ms_max }),
    };
    let fuel = instance.fuel(&quota);
    let state = instance.state();
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
        instance_events: key.is_some().then(|| instance.events()),
    };
    let used = match key {
        None => None,
        Some(_) if verdict.is_err() => {
            idle_pool::count_eviction(EvictionReason::Fault);
            None
        }
        Some((_, events_max)) if instance.events() >= events_max => {
            idle_pool::count_eviction(EvictionReason::Events);
            None
        }
        Some((key, _)) => host.idle_pool.put(key, instance),
    };
    CallResult { verdict, run, redactor, used }
}

/// The instance for a call: an idle one of this binding, otherwise a fresh one.
async fn instance(host: &Host, key: Option<&BindingKey>, state: State, quota: &Quota) -> wasmtime::Result<Instance> {
    match key.and_then(|key| host.idle_pool.take(key)) {
        Some(mut instance) => {
            instance.renew(&host.engine, state, quota)?;
            Ok(instance)
        }
        None => Instance::new(&host.engine, host.idle_pool.slot().await, state, quota),
    }
}

/// Instantiates a filter once without calling it, to validate an upload. Also returns the fuel used.
pub(super) async fn start(host: &Host, pre: &FilterPre<State>, quota: &Quota) -> (Result<(), UploadError>, u64) {
    let _ticking = host.epoch_ticker.register_guest();
    let words = |error: wasmtime::Error| fault::bounded(&format!("{error:#}"));
    let state = State { meter: meter(&host.engine, quota), ..State::idle(limits(&host.engine, quota)) };
    let mut starting = match Instance::new(&host.engine, host.idle_pool.slot().await, state, quota) {
        Ok(starting) => starting,
        Err(error) => return (Err(UploadError::Host { detail: words(error) }), 0),
    };
    let started = match within(quota, pre.instance_pre().instantiate_async(starting.store())).await {
        Some(Ok(instance)) => FilterIndices::new(pre.instance_pre())
            .and_then(|indices| indices.load(starting.store(), &instance))
            .map(drop)
            .map_err(|error| UploadError::WrongTypes { detail: words(error) }),
        Some(Err(error)) => {
            let fault = fault::from_engine(&error, starting.state(), quota, &Redactor::default());
            Err(UploadError::Start(fault))
        }
        None => Err(UploadError::Start(Fault::Wall { limit_ms: quota.wall_ms_max })),
    };
    (started, starting.fuel(quota))
}

/// Runs `call` until it ends or has computed for `wall_ms_max`. Returns `None` if the limit is reached.
///
/// Time between slices is not counted, because other calls compute in it: load from other tenants would otherwise make
/// this filter fault. Host calls do not block today. A host call that does must bring a limit of its own.
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
        Verdict::Drop(reason) => Ok(Verdict::Drop(fault::guest_message(&reason, redactor))),
        verdict => Ok(verdict),
    }
}
