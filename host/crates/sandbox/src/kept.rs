//! The idle pool: instances between two calls, for bindings that request it (`reuse`).
//!
//! Invariants:
//!
//! 1. An instance belongs to one [`Bound`]: one step of one plan of one subscription of one tenant. A plan fixes the
//!    filter's version, settings, secrets, grants, limits and tables. If any of them changes, the plan changes, and no
//!    idle instance matches it.
//! 2. An instance runs one call at a time: [`Kept::take`] removes it from the pool.
//! 3. It returns only after a call without a fault, and is reused only once the call's verdict is known to produce a
//!    valid SET ([`Used::keep`]).
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
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::instance::Instance;
use super::series::{INSTANCES_KEPT, INSTANCES_KEPT_ENDED};
use super::{Call, KeptLimits};

/// Identifies the binding that an instance belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
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

/// Permission to use one instance slot of the pooling allocator, until dropped.
pub(super) struct Slot(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// An instance that completed a call without a fault. Dropping this ends the instance, unless [`Used::keep`] was
/// called.
#[must_use = "dropped, it ends the instance"]
pub struct Used {
    kept: Arc<Kept>,
    /// `None` once `keep` was called.
    id: Option<u64>,
}

/// The pool of idle instances.
pub(super) struct Kept {
    limits: KeptLimits,
    slots: Arc<Semaphore>,
    resting: Mutex<Resting>,
    added: Notify,
    gauge: Gauge,
    /// The runtime on which instances are dropped: releasing their memory takes too long for the caller's thread.
    guests: Handle,
}

#[derive(Default)]
struct Resting {
    /// Least recently used first.
    instances: Vec<Idle>,
    /// Number of calls that wait for a slot because there is no idle instance to evict.
    waiting: usize,
    last_id: u64,
    closed: bool,
}

struct Idle {
    id: u64,
    bound: Bound,
    instance: Instance,
    since: Instant,
    /// Whether the verdict of its last call was accepted.
    judged: bool,
}

/// Why an instance was ended: a label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
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

impl Ended {
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

impl Kept {
    /// An empty pool for an engine with `slots` instance slots.
    pub(super) fn new(limits: KeptLimits, slots: usize, guests: Handle) -> Arc<Self> {
        Arc::new(Self {
            limits,
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            resting: Mutex::default(),
            added: Notify::new(),
            gauge: gauge!(INSTANCES_KEPT),
            guests,
        })
    }

    /// The binding key of a call's instance, and how many events the instance may process. `None` if the instance is
    /// not reused.
    pub(super) fn bound(&self, call: &Call) -> Option<(Bound, u32)> {
        let keep = call.keep.as_ref()?;
        let KeptLimits { events_max, instances_max, instances_per_tenant_max, .. } = self.limits;
        let events_max = keep.events_max.min(events_max);
        if events_max < REUSE_EVENTS_MIN || instances_max == 0 || instances_per_tenant_max == 0 {
            return None;
        }
        let bound = Bound {
            tenant: call.event.tenant.clone(),
            subscription: call.event.subscription,
            plan: keep.plan,
            step: keep.step,
            digest: call.digest,
        };
        Some((bound, events_max))
    }

    /// Removes an idle instance of this binding from the pool: the most recently used one. `None` if there is none.
    pub(super) fn take(&self, bound: &Bound) -> Option<Instance> {
        let mut resting = self.lock();
        let at = resting.instances.iter().rposition(|idle| idle.judged && idle.bound == *bound)?;
        let idle = resting.instances.remove(at);
        self.show(&resting);
        Some(idle.instance)
    }

    /// Acquires a slot for a new instance. If none is free, evicts the least recently used idle instance. The caller
    /// must hold a place of the gate.
    pub(super) async fn slot(&self) -> Slot {
        loop {
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                return Slot(permit);
            }
            let mut resting = self.lock();
            if resting.instances.is_empty() {
                // While this is above zero, `put` ends instances instead of pooling them, which frees their slots.
                resting.waiting += 1;
                break;
            }
            let longest = resting.instances.remove(0);
            self.show(&resting);
            drop(resting);
            count(Ended::Slot);
            drop(longest);
        }
        let _waiting = Waiting(self);
        Slot(self.slots.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Adds an instance to the pool after a call without a fault. Calls cannot take it until [`Used::keep`] is called.
    pub(super) fn put(self: &Arc<Self>, bound: Bound, mut instance: Instance) -> Option<Used> {
        instance.rest();
        if instance.memory_bytes() > self.limits.memory_bytes_max {
            count(Ended::Memory);
            return None;
        }
        let mut ended = Vec::new();
        let mut resting = self.lock();
        if resting.closed || resting.waiting > 0 {
            drop(resting);
            count(Ended::Slot);
            return None;
        }
        resting.last_id += 1;
        let (id, tenant) = (resting.last_id, bound.tenant.clone());
        resting.instances.push(Idle { id, bound, instance, since: Instant::now(), judged: false });
        while let Some((at, why)) = resting.over(&tenant, &self.limits) {
            ended.push((resting.instances.remove(at), why));
        }
        self.show(&resting);
        drop(resting);
        self.added.notify_one();
        ended.iter().for_each(|(_, why)| count(*why));
        Some(Used { kept: self.clone(), id: Some(id) })
    }

    /// Ends the idle instances of all bindings for which `is_current` returns false.
    pub(super) fn keep_only(&self, mut is_current: impl FnMut(&Bound) -> bool) {
        // Call `is_current` without the lock: it may take a while.
        let bounds: Vec<_> = self.lock().instances.iter().map(|idle| idle.bound.clone()).collect();
        let gone: Vec<_> = bounds.into_iter().filter(|bound| !is_current(bound)).collect();
        if !gone.is_empty() {
            self.end(Ended::Changed, |idle| gone.contains(&idle.bound));
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
                    self.end(Ended::Idle, |idle| now.saturating_duration_since(idle.since) >= idle_max);
                } else {
                    tokio::time::sleep(left).await;
                }
            }
        }
    }

    /// Ends all idle instances. Later calls of `put` end theirs.
    pub(super) fn close(&self) {
        let mut resting = self.lock();
        resting.closed = true;
        let ended = std::mem::take(&mut resting.instances);
        self.show(&resting);
        drop(resting);
        drop(ended);
    }

    /// Number of idle instances.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().instances.len()
    }

    /// When the least recently used instance became idle.
    fn oldest(&self) -> Option<Instant> {
        self.lock().instances.first().map(|idle| idle.since)
    }

    fn end(&self, why: Ended, which: impl Fn(&Idle) -> bool) {
        let mut resting = self.lock();
        let ended: Vec<_> = resting.instances.extract_if(.., |idle| which(idle)).collect();
        self.show(&resting);
        drop(resting);
        ended.iter().for_each(|_| count(why));
        if !ended.is_empty() {
            self.guests.spawn(async move { drop(ended) });
        }
    }

    fn show(&self, resting: &Resting) {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        self.gauge.set(resting.instances.len() as f64);
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting {
    /// Which instance to evict so that no limit is exceeded, and which limit that is. `tenant` has just added an
    /// instance at the end, which is never the one to evict.
    fn over(&self, tenant: &TenantId, limits: &KeptLimits) -> Option<(usize, Ended)> {
        let of_tenant = |idle: &Idle| idle.bound.tenant == *tenant;
        if self.instances.iter().filter(|idle| of_tenant(idle)).count() > limits.instances_per_tenant_max {
            return Some((self.instances.iter().position(of_tenant)?, Ended::PerTenant));
        }
        if self.instances.len() > limits.instances_max {
            return Some((0, Ended::Instances));
        }
        let bytes: u64 = self.instances.iter().map(|idle| idle.instance.memory_bytes()).sum();
        (bytes > limits.memory_bytes_max).then_some((0, Ended::Memory))
    }
}

impl Used {
    /// Makes the instance available to further events of its binding. Call this once its verdict is known to produce a
    /// valid SET.
    pub fn keep(mut self) {
        let Some(id) = self.id.take() else { return };
        let mut resting = self.kept.lock();
        // It may have been evicted meanwhile, if a call needed its slot.
        if let Some(idle) = resting.instances.iter_mut().find(|idle| idle.id == id) {
            idle.judged = true;
        }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.kept.end(Ended::Fault, |idle| idle.id == id);
        }
    }
}

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Used").field(&self.id).finish()
    }
}

/// Counted in `waiting` until dropped.
struct Waiting<'a>(&'a Kept);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// Counts an instance that was ended.
pub(super) fn count(why: Ended) {
    metrics::counter!(INSTANCES_KEPT_ENDED, "why" => why.as_str()).increment(1);
}
