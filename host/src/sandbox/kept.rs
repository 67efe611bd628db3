//! Instances between two calls, for bindings that ask for it (`reuse`).
//!
//! What holds at any time:
//!
//! 1. An instance is for one [`Bound`]: one step of one plan of one subscription of one tenant. A plan names the filter's
//!    version, settings, secrets, grants, limits and tables, so a change of any of them is another plan, and finds nothing.
//! 2. It runs one call at a time: [`Kept::take`] takes it out.
//! 3. It comes back only after a call without any fault, and is given out again only when the verdict is known to make a
//!    valid SET ([`Used::keep`]).
//! 4. Every instance, kept or not, has a [`Slot`]; there are as many as the pool has. A call that finds none takes that of
//!    the instance that nobody has used for the longest. Calls hold a place of the sandbox's gate, of which there are as
//!    many as slots, so a call that finds no slot and nothing to end waits for one that is just being given back.
//!
//! What is kept is bounded in number, for the host and for each tenant, in bytes of memory and in time. A bound that is met
//! ends what was unused for the longest: a call never waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::domain::filter::REUSE_EVENTS_MIN;
use crate::domain::id::{Digest, SubscriptionId, TenantId};

use super::instance::Instance;
use super::series::{INSTANCES_KEPT, INSTANCES_KEPT_ENDED};
use super::{Call, KeptLimits};

/// What an instance is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Whose.
    pub tenant: TenantId,
    /// Which subscription's chain.
    pub subscription: SubscriptionId,
    /// The chain as it was pinned.
    pub plan: Digest,
    /// The step's place in it, from 0.
    pub step: usize,
    /// The version that runs there.
    pub digest: Digest,
}

/// Room for one instance in the pool, until dropped.
pub(super) struct Slot(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// An instance that has run a call without a fault. It is ended when this is dropped, unless [`Used::keep`] was called.
#[must_use = "dropped, it ends the instance"]
pub struct Used {
    kept: Arc<Kept>,
    /// None: it is to be kept.
    id: Option<u64>,
}

/// Every instance that waits for another event.
pub(super) struct Kept {
    limits: KeptLimits,
    slots: Arc<Semaphore>,
    resting: Mutex<Resting>,
    added: Notify,
    gauge: Gauge,
    /// Where instances are dropped: giving their memory back takes longer than others should wait.
    guests: Handle,
}

#[derive(Default)]
struct Resting {
    /// Those unused for the longest first.
    instances: Vec<Idle>,
    /// Calls that found neither a slot nor an instance to end.
    waiting: usize,
    last_id: u64,
    closed: bool,
}

struct Idle {
    id: u64,
    bound: Bound,
    instance: Instance,
    since: Instant,
    /// Whether the verdict of its last call was found good.
    judged: bool,
}

/// Why an instance is kept no longer: the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It has seen as many events as it may.
    Events,
    /// A call in it, or its verdict, was a fault.
    Fault,
    /// Nobody used it for too long.
    Idle,
    /// A call needed its slot.
    Slot,
    /// As many of the tenant's are kept as may be.
    PerTenant,
    /// As many are kept as may be.
    Instances,
    /// Those that are kept have as much memory as they may.
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
    /// None yet, over a pool of `slots`.
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

    /// What the instance of a call is for, and how many events it may see; none: only this one.
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

    /// An instance for the next event of this binding, where one waits: the one that was used last.
    pub(super) fn take(&self, bound: &Bound) -> Option<Instance> {
        let mut resting = self.lock();
        let at = resting.instances.iter().rposition(|idle| idle.judged && idle.bound == *bound)?;
        let idle = resting.instances.remove(at);
        self.show(&resting);
        Some(idle.instance)
    }

    /// Room for a new instance; where there is none, the room of one that waits. For callers with a place of the gate.
    pub(super) async fn slot(&self) -> Slot {
        loop {
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                return Slot(permit);
            }
            let mut resting = self.lock();
            if resting.instances.is_empty() {
                // Seen by whoever would keep an instance from now on.
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

    /// Takes an instance after a call without a fault. It waits, but not for calls yet: see [`Used::keep`].
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

    /// Ends those whose binding `is_current` does not know.
    pub(super) fn keep_only(&self, mut is_current: impl FnMut(&Bound) -> bool) {
        // Not asked under the lock: it may take its time.
        let bounds: Vec<_> = self.lock().instances.iter().map(|idle| idle.bound.clone()).collect();
        let gone: Vec<_> = bounds.into_iter().filter(|bound| !is_current(bound)).collect();
        if !gone.is_empty() {
            self.end(Ended::Changed, |idle| gone.contains(&idle.bound));
        }
    }

    /// Ends those that nobody uses, as they come to their time. Runs beside the guests, on their threads.
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

    /// Ends all, and keeps none from now on.
    pub(super) fn close(&self) {
        let mut resting = self.lock();
        resting.closed = true;
        let ended = std::mem::take(&mut resting.instances);
        self.show(&resting);
        drop(resting);
        drop(ended);
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().instances.len()
    }

    /// Since when the one waits that has waited longest.
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
    /// Which one has to go so that no bound is passed, and which bound that is. `tenant` has got one more, at the end, which
    /// is never the one to go.
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
    /// Gives the instance to further events of its binding: its verdict makes a valid SET.
    pub fn keep(mut self) {
        let Some(id) = self.id.take() else { return };
        let mut resting = self.kept.lock();
        // Gone where a call needed its slot meanwhile.
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

/// Counted among those that wait for a slot, until dropped.
struct Waiting<'a>(&'a Kept);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// Counts an instance that is kept no longer.
pub(super) fn count(why: Ended) {
    metrics::counter!(INSTANCES_KEPT_ENDED, "why" => why.as_str()).increment(1);
}
