//! The idle pool: instances between two calls, for bindings that request it (`reuse`).
//!
//! Invariants:
//!
//! 1. An instance belongs to one [`BindingKey`]: one step of one plan of one subscription of one tenant. A plan fixes
//!    the filter's version, settings, secrets, grants, limits and tables. If any of them changes, the plan changes, and
//!    no idle instance matches it.
//! 2. An instance runs one call at a time: [`IdlePool::take`] removes it from the pool.
//! 3. It returns only after a call without a fault, and is reused only once the call's verdict is known to produce a
//!    valid SET ([`UsedInstance::release`]).
//! 4. Every instance, idle or running, holds a [`Slot`]; there are as many as the pooling allocator has. If none is
//!    free, a call evicts the least recently used idle instance. Calls also hold a place of the sandbox's gate, which
//!    has as many places as there are slots. So if there is neither a free slot nor an idle instance, a slot is about
//!    to be released, and the call waits for it.
//!
//! The number of idle instances is limited for the host and for each tenant, and so are their total memory and their
//! idle time. Reaching a limit evicts the least recently used instances; a call never waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use setgate_domain::filter::REUSE_EVENTS_MIN;
use setgate_domain::id::{Digest, SubscriptionId, TenantId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use super::instance::{Instance, Slot};
use super::metrics::{INSTANCES_EVICTED, INSTANCES_IDLE};
use super::{Call, IdlePoolLimits};

/// Identifies the binding that an instance belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The subscription that the chain belongs to.
    pub subscription: SubscriptionId,
    /// Digest of the pinned chain.
    pub plan: Digest,
    /// Index of the step in the plan, from 0.
    pub step: usize,
    /// Digest of the filter version at that step.
    pub digest: Digest,
}

/// An instance that completed a call without a fault. Dropping this ends the instance, unless [`UsedInstance::release`]
/// was called.
#[must_use = "dropped, it ends the instance"]
pub struct UsedInstance {
    pool: Arc<IdlePool>,
    /// `None` once `release` was called.
    id: Option<u64>,
}

/// The pool of idle instances.
pub(super) struct IdlePool {
    limits: IdlePoolLimits,
    slots: Arc<Semaphore>,
    idle: Mutex<IdleInstances>,
    added: Notify,
    gauge: Gauge,
    /// The runtime on which instances are dropped: releasing their memory takes too long for the caller's thread.
    guests: Handle,
}

#[derive(Default)]
struct IdleInstances {
    /// Least recently used first.
    instances: Vec<IdleEntry>,
    /// Number of calls that wait for a slot because there is no idle instance to evict.
    waiting: usize,
    last_id: u64,
    closed: bool,
}

struct IdleEntry {
    id: u64,
    key: BindingKey,
    instance: Instance,
    since: Instant,
    /// Whether the verdict of its last call was accepted.
    accepted: bool,
}

/// Why an instance was ended: a label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EvictionReason {
    /// It processed as many events as its binding allows.
    Events,
    /// A call faulted, or its verdict was rejected.
    Fault,
    /// It was idle for too long.
    Idle,
    /// A call needed its slot.
    Slot,
    /// The tenant reached its limit of idle instances.
    PerTenant,
    /// The host reached its limit of idle instances.
    Instances,
    /// The idle instances reached their memory limit.
    Memory,
    /// Its binding was changed.
    Changed,
}

impl EvictionReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Fault => "fault",
            Self::Idle => "idle",
            Self::Slot => "slot",
            Self::PerTenant => "per_tenant",
            Self::Instances => "instances",
            Self::Memory => "memory",
            Self::Changed => "changed",
        }
    }
}

impl IdlePool {
    /// An empty pool for an engine with `slots` instance slots.
    pub(super) fn new(limits: IdlePoolLimits, slots: usize, guests: Handle) -> Arc<Self> {
        Arc::new(Self {
            limits,
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            idle: Mutex::default(),
            added: Notify::new(),
            gauge: gauge!(INSTANCES_IDLE),
            guests,
        })
    }

    /// The binding key of a call's instance, and how many events the instance may process. `None` if the instance is
    /// not reused.
    pub(super) fn binding_key(&self, call: &Call) -> Option<(BindingKey, u32)> {
        let reuse = call.reuse.as_ref()?;
        let IdlePoolLimits { events_max, instances_max, instances_per_tenant_max, .. } = self.limits;
        let events_max = reuse.events_max.min(events_max);
        if events_max < REUSE_EVENTS_MIN || instances_max == 0 || instances_per_tenant_max == 0 {
            return None;
        }
        let key = BindingKey {
            tenant: call.event.tenant.clone(),
            subscription: call.event.subscription,
            plan: reuse.plan,
            step: reuse.step,
            digest: call.digest,
        };
        Some((key, events_max))
    }

    /// Removes an idle instance of this binding from the pool: the most recently used one. `None` if there is none.
    pub(super) fn take(&self, key: &BindingKey) -> Option<Instance> {
        let mut idle = self.lock();
        let at = idle.instances.iter().rposition(|entry| entry.accepted && entry.key == *key)?;
        let entry = idle.instances.remove(at);
        self.update_gauge(&idle);
        Some(entry.instance)
    }

    /// Acquires a slot for a new instance. If none is free, evicts the least recently used idle instance. The caller
    /// must hold a place of the gate.
    pub(super) async fn slot(&self) -> Slot {
        loop {
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                return permit.into();
            }
            let mut idle = self.lock();
            if idle.instances.is_empty() {
                // While this is above zero, `put` ends instances instead of pooling them, which frees their slots.
                idle.waiting += 1;
                break;
            }
            let longest = idle.instances.remove(0);
            self.update_gauge(&idle);
            drop(idle);
            count_eviction(EvictionReason::Slot);
            drop(longest);
        }
        let _waiting = Waiting(self);
        self.slots.clone().acquire_owned().await.expect("the semaphore is never closed").into()
    }

    /// Adds an instance to the pool after a call without a fault. Calls cannot take it until [`UsedInstance::release`]
    /// is called.
    pub(super) fn put(self: &Arc<Self>, key: BindingKey, mut instance: Instance) -> Option<UsedInstance> {
        instance.clear_call_state();
        if instance.memory_bytes() > self.limits.memory_bytes_max {
            count_eviction(EvictionReason::Memory);
            return None;
        }
        let mut ended = Vec::new();
        let mut idle = self.lock();
        if idle.closed || idle.waiting > 0 {
            drop(idle);
            count_eviction(EvictionReason::Slot);
            return None;
        }
        idle.last_id += 1;
        let (id, tenant) = (idle.last_id, key.tenant.clone());
        idle.instances.push(IdleEntry { id, key, instance, since: Instant::now(), accepted: false });
        while let Some((at, why)) = idle.over_limit(&tenant, &self.limits) {
            ended.push((idle.instances.remove(at), why));
        }
        self.update_gauge(&idle);
        drop(idle);
        self.added.notify_one();
        ended.iter().for_each(|(_, why)| count_eviction(*why));
        Some(UsedInstance { pool: self.clone(), id: Some(id) })
    }

    /// Ends the idle instances of all bindings for which `is_current` returns false.
    pub(super) fn retain_bindings(&self, mut is_current: impl FnMut(&BindingKey) -> bool) {
        // Call `is_current` without the lock: it may take a while.
        let keys: Vec<_> = self.lock().instances.iter().map(|entry| entry.key.clone()).collect();
        let gone: Vec<_> = keys.into_iter().filter(|key| !is_current(key)).collect();
        if !gone.is_empty() {
            self.end(EvictionReason::Changed, |entry| gone.contains(&entry.key));
        }
    }

    /// Ends instances that were idle for `idle_ms_max`. Runs as a task on the guest threads.
    pub(super) async fn sweep(self: Arc<Self>) {
        let idle_max = Duration::from_millis(self.limits.idle_ms_max);
        loop {
            self.added.notified().await;
            while let Some(oldest) = self.oldest() {
                let now = Instant::now();
                let left = idle_max.saturating_sub(now.saturating_duration_since(oldest));
                if left.is_zero() {
                    self.end(EvictionReason::Idle, |entry| now.saturating_duration_since(entry.since) >= idle_max);
                } else {
                    tokio::time::sleep(left).await;
                }
            }
        }
    }

    /// Ends all idle instances. Later calls of `put` end theirs.
    pub(super) fn close(&self) {
        let mut idle = self.lock();
        idle.closed = true;
        let ended = std::mem::take(&mut idle.instances);
        self.update_gauge(&idle);
        drop(idle);
        drop(ended);
    }

    /// Number of idle instances.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().instances.len()
    }

    /// When the least recently used instance became idle.
    fn oldest(&self) -> Option<Instant> {
        self.lock().instances.first().map(|entry| entry.since)
    }

    fn end(&self, why: EvictionReason, which: impl Fn(&IdleEntry) -> bool) {
        let mut idle = self.lock();
        let ended: Vec<_> = idle.instances.extract_if(.., |entry| which(entry)).collect();
        self.update_gauge(&idle);
        drop(idle);
        ended.iter().for_each(|_| count_eviction(why));
        if !ended.is_empty() {
            self.guests.spawn(async move { drop(ended) });
        }
    }

    fn update_gauge(&self, idle: &IdleInstances) {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        self.gauge.set(idle.instances.len() as f64);
    }

    fn lock(&self) -> MutexGuard<'_, IdleInstances> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleInstances {
    /// Which instance to evict so that no limit is exceeded, and which limit that is. `tenant` has just added an
    /// instance at the end, which is never the one to evict.
    fn over_limit(&self, tenant: &TenantId, limits: &IdlePoolLimits) -> Option<(usize, EvictionReason)> {
        let of_tenant = |entry: &IdleEntry| entry.key.tenant == *tenant;
        if self.instances.iter().filter(|entry| of_tenant(entry)).count() > limits.instances_per_tenant_max {
            return Some((self.instances.iter().position(of_tenant)?, EvictionReason::PerTenant));
        }
        if self.instances.len() > limits.instances_max {
            return Some((0, EvictionReason::Instances));
        }
        let bytes: u64 = self.instances.iter().map(|entry| entry.instance.memory_bytes()).sum();
        (bytes > limits.memory_bytes_max).then_some((0, EvictionReason::Memory))
    }
}

impl UsedInstance {
    /// Makes the instance available to further events of its binding. Call this once its verdict is known to produce a
    /// valid SET.
    pub fn release(mut self) {
        let Some(id) = self.id.take() else { return };
        let mut idle = self.pool.lock();
        // It may have been evicted meanwhile, if a call needed its slot.
        if let Some(entry) = idle.instances.iter_mut().find(|entry| entry.id == id) {
            entry.accepted = true;
        }
    }
}

impl Drop for UsedInstance {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.pool.end(EvictionReason::Fault, |entry| entry.id == id);
        }
    }
}

impl std::fmt::Debug for UsedInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UsedInstance").field(&self.id).finish()
    }
}

/// Counted in `waiting` until dropped.
struct Waiting<'a>(&'a IdlePool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// Counts an instance that was ended.
pub(super) fn count_eviction(why: EvictionReason) {
    metrics::counter!(INSTANCES_EVICTED, "why" => why.as_str()).increment(1);
}
