//! Fair scheduling of a limited number of slots between tenants.
//!
//! It is used for appends to the ledger, instance slots, CPU time and compilations: there are some slots, with a limit
//! per tenant, and each tenant has its own queue. A free slot goes to the tenant with the lowest usage, so that a
//! tenant with a thousand requests and a tenant with a single one are served alternately.
//!
//! Usage is accounted for as in start-time fair queueing. Each grant adds a cost to its tenant's account. If the cost
//! is known only afterwards (time), an estimate is added and corrected when the slot is released. A tenant that returns
//! after being idle starts at the level of the least served active tenant: it can neither save up capacity, nor is it
//! charged for slots that nobody else wanted. A tenant above this level keeps its debt while it is idle, so that
//! leaving and returning gains nothing. With equal costs this is round robin, with unequal costs a deficit round robin
//! without rounds.
//!
//! [`Scheduler`] makes the decisions and is single-threaded. [`FairSemaphore`] lets futures wait for its decisions.

mod byte_rate;
mod tenant_semaphores;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use setgate_domain::id::TenantId;

pub use byte_rate::ByteRateLimiter;
pub use tenant_semaphores::TenantSemaphores;

/// Idle tenants whose accounts are retained. Above this number, accounts without debt are dropped.
const IDLE_TENANTS_MAX: usize = 64;
/// How far an account may fall behind the others, in costs of a grant. The account of a tenant with little demand falls
/// behind, and without this limit the tenant would, once its demand rises, block all others until it has caught up.
const BEHIND_COSTS_MAX: u64 = 256;

/// The limits of a [`Scheduler`].
#[derive(Debug, Clone, Copy)]
pub struct FairLimits {
    /// Number of slots.
    pub permits: usize,
    /// Limit for the slots of one tenant.
    pub per_tenant_max: usize,
    /// If set, a tenant gets another slot only while it holds fewer slots than are free. For slots that are held for a
    /// long time: a tenant without any then finds a free one, regardless of the number of other tenants that hold
    /// slots.
    pub reserve_for_idle_tenants: bool,
    /// Limit for one tenant's queue. It applies only to requests with `bounded` set.
    pub queued_per_tenant_max: usize,
    /// Estimated cost of a grant until its actual cost is known.
    pub estimated_cost: u64,
}

impl FairLimits {
    /// Whether a tenant with `tenant_held` slots may get another one while `held` slots are in use in total.
    fn allows(&self, tenant_held: usize, held: usize) -> bool {
        let free = self.permits.saturating_sub(held);
        free > 0 && tenant_held < self.per_tenant_max && !(self.reserve_for_idle_tenants && tenant_held >= free)
    }
}

/// The scheduler: slots in use, queues, and the next grant. Pure.
pub struct Scheduler {
    limits: FairLimits,
    held: usize,
    tenants: HashMap<TenantId, Account>,
    /// The largest account value at which a slot was granted.
    virtual_time: u64,
    /// Number of grants so far.
    grants: u64,
    tickets: u64,
}

/// Identifies a queued request.
pub type Ticket = u64;

#[derive(Default)]
struct Account {
    used: u64,
    held: usize,
    queue: VecDeque<Ticket>,
}

/// The result of [`Scheduler::request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Granted,
    Queued(Ticket),
    /// The tenant's queue is full.
    QueueFull,
}

impl Scheduler {
    pub fn new(limits: FairLimits) -> Self {
        Self { limits, held: 0, tenants: HashMap::new(), virtual_time: 0, grants: 0, tickets: 0 }
    }

    /// Requests a slot. If `bounded` is set and the tenant's queue has reached `queued_per_tenant_max`, the request is
    /// refused.
    pub fn request(&mut self, tenant: &TenantId, bounded: bool) -> Decision {
        if !self.tenants.contains_key(tenant) {
            self.evict_idle();
            self.tenants.insert(tenant.clone(), Account::default());
        }
        let others_level = self.level(|other| other != tenant);
        let Some(account) = self.tenants.get_mut(tenant) else { return Decision::QueueFull };
        if account.queue.is_empty() {
            account.used = account.used.max(others_level);
        }
        // While a slot is free, no request that could use it is queued, because released slots are granted immediately.
        if self.limits.allows(account.held, self.held) {
            self.virtual_time = self.virtual_time.max(account.used);
            account.grant(self.limits.estimated_cost);
            self.held += 1;
            self.grants += 1;
            return Decision::Granted;
        }
        if bounded && account.queue.len() >= self.limits.queued_per_tenant_max {
            return Decision::QueueFull;
        }
        self.tickets += 1;
        account.queue.push_back(self.tickets);
        Decision::Queued(self.tickets)
    }

    /// Releases a slot. `cost` is `None` if the estimate was correct. The caller must then call [`Self::next_ticket`] until it
    /// returns `None`.
    pub fn release(&mut self, tenant: &TenantId, cost: Option<u64>) {
        self.held = self.held.saturating_sub(1);
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.held = account.held.saturating_sub(1);
            account.used = account
                .used
                .saturating_sub(self.limits.estimated_cost)
                .saturating_add(cost.unwrap_or(self.limits.estimated_cost));
        }
    }

    /// Releases a slot and queues another request of the same tenant, in one step, so that the tenant does not count as
    /// idle in between. The caller must then call [`Self::next_ticket`] until it returns `None`.
    pub fn release_and_queue(&mut self, tenant: &TenantId, cost: u64) -> Ticket {
        self.release(tenant, Some(cost));
        self.tickets += 1;
        let min_level = self.min_level();
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.used = account.used.max(min_level);
            account.queue.push_back(self.tickets);
        }
        self.tickets
    }

    /// Removes a request from the queue.
    pub fn cancel(&mut self, tenant: &TenantId, ticket: Ticket) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.queue.retain(|waiting| *waiting != ticket);
        }
    }

    /// Grants a free slot to the next request, if there are both.
    pub fn next_ticket(&mut self) -> Option<Ticket> {
        if self.held >= self.limits.permits {
            return None;
        }
        let (limits, held) = (self.limits, self.held);
        let account = self
            .tenants
            .values_mut()
            .filter(|account| !account.queue.is_empty() && limits.allows(account.held, held))
            // Tickets increase, so of two tenants with equal usage the one that has waited longer is served.
            .min_by_key(|account| (account.used, account.queue.front().copied()))?;
        let ticket = account.queue.pop_front();
        self.virtual_time = self.virtual_time.max(account.used);
        account.grant(self.limits.estimated_cost);
        self.held += 1;
        self.grants += 1;
        ticket
    }

    /// Changes the number of slots. Slots in use beyond it are not revoked. The caller must then call [`Self::next_ticket`].
    pub fn set_permits(&mut self, permits: usize) {
        self.limits.permits = permits;
    }

    pub fn has_waiters(&self) -> bool {
        self.tenants.values().any(|account| !account.queue.is_empty())
    }

    fn evict_idle(&mut self) {
        if self.tenants.len() < IDLE_TENANTS_MAX {
            return;
        }
        // If no slots are in use and no requests are queued, debts have no meaning.
        let is_unused = self.held == 0 && !self.has_waiters();
        let level = self.level(|_| true);
        self.tenants.retain(|_, account| !is_unused && (account.is_active() || account.used > level));
    }

    /// The usage level of the least served active tenant among those that `of` accepts. A new tenant starts there.
    ///
    /// It does not start at [`Self::virtual_time`]: with several slots, this may be far ahead of a tenant that is still
    /// being served, and a new tenant would have to wait until that one has caught up.
    fn level(&self, of: impl Fn(&TenantId) -> bool) -> u64 {
        let cost = self.limits.estimated_cost;
        let active = self.tenants.iter().filter(|(tenant, account)| account.is_active() && of(tenant));
        // Without the estimated costs of the slots in use.
        let paid = active.map(|(_, account)| account.used.saturating_sub(cost.saturating_mul(account.held as u64)));
        paid.min().unwrap_or(self.virtual_time).clamp(self.min_level(), self.virtual_time)
    }

    /// The lowest allowed account value.
    fn min_level(&self) -> u64 {
        self.virtual_time.saturating_sub(self.limits.estimated_cost.saturating_mul(BEHIND_COSTS_MAX))
    }
}

impl Account {
    fn is_active(&self) -> bool {
        self.held > 0 || !self.queue.is_empty()
    }

    fn grant(&mut self, cost: u64) {
        self.used = self.used.saturating_add(cost);
        self.held += 1;
    }
}

/// A [`Scheduler`] for futures. Clones share it.
#[derive(Clone)]
pub struct FairSemaphore(Arc<Mutex<State>>);

struct State {
    scheduler: Scheduler,
    /// All queued requests, and whether a slot was granted.
    queue: HashMap<Ticket, QueueEntry>,
    closed: bool,
}

enum QueueEntry {
    Waiting {
        waker: Option<Waker>,
        /// Number of grants when the request was queued.
        since: u64,
    },
    /// Granted after this many grants to others.
    Granted { after: u64 },
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcquireError {
    /// The host is shutting down.
    Closed,
    /// The tenant's queue is full.
    QueueFull,
}

/// A slot, released on drop.
pub struct Permit {
    semaphore: FairSemaphore,
    tenant: TenantId,
    after: u64,
    /// Whether the slot has been released already.
    released: bool,
}

/// A queued request. Dropping it removes it from the queue.
pub struct Acquire {
    semaphore: FairSemaphore,
    tenant: TenantId,
    /// `None` after the slot was returned to the caller.
    ticket: Option<Ticket>,
}

/// The result of [`FairSemaphore::request`].
pub enum AcquireOutcome {
    Granted(Permit),
    Queued(Acquire),
}

impl FairSemaphore {
    pub fn new(limits: FairLimits) -> Self {
        Self(Arc::new(Mutex::new(State { scheduler: Scheduler::new(limits), queue: HashMap::new(), closed: false })))
    }

    /// Waits for a slot, regardless of the length of the tenant's queue.
    pub async fn acquire(&self, tenant: &TenantId) -> Result<Permit, AcquireError> {
        match self.request(tenant, false)? {
            AcquireOutcome::Granted(permit) => Ok(permit),
            AcquireOutcome::Queued(wait) => wait.await,
        }
    }

    /// Waits for a slot, unless the tenant's queue is full.
    pub async fn acquire_bounded(&self, tenant: &TenantId) -> Result<Permit, AcquireError> {
        match self.request(tenant, true)? {
            AcquireOutcome::Granted(permit) => Ok(permit),
            AcquireOutcome::Queued(wait) => wait.await,
        }
    }

    /// Returns a slot, or a queued request.
    pub fn request(&self, tenant: &TenantId, bounded: bool) -> Result<AcquireOutcome, AcquireError> {
        let mut state = self.lock();
        if state.closed {
            return Err(AcquireError::Closed);
        }
        match state.scheduler.request(tenant, bounded) {
            Decision::Granted => Ok(AcquireOutcome::Granted(self.permit(tenant, 0))),
            Decision::Queued(ticket) => {
                let since = state.scheduler.grants;
                state.queue.insert(ticket, QueueEntry::Waiting { waker: None, since });
                Ok(AcquireOutcome::Queued(Acquire {
                    semaphore: self.clone(),
                    tenant: tenant.clone(),
                    ticket: Some(ticket),
                }))
            }
            Decision::QueueFull => Err(AcquireError::QueueFull),
        }
    }

    pub fn set_permits(&self, permits: usize) {
        self.change(|state| state.scheduler.set_permits(permits));
    }

    pub fn has_waiters(&self) -> bool {
        self.lock().scheduler.has_waiters()
    }

    /// Refuses all queued and all future requests.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let wakers: Vec<_> = state.queue.values_mut().filter_map(QueueEntry::waker).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn permit(&self, tenant: &TenantId, after: u64) -> Permit {
        Permit { semaphore: self.clone(), tenant: tenant.clone(), after, released: false }
    }

    /// Changes the line and grants free slots. Wakers run without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        // Usually there is at most one grant, so no collection is allocated.
        while let Some(ticket) = state.scheduler.next_ticket() {
            let grants = state.scheduler.grants;
            let waker = state.queue.get_mut(&ticket).and_then(|entry| entry.grant(grants));
            if let Some(waker) = waker {
                drop(state);
                waker.wake();
                state = self.lock();
            }
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueEntry {
    fn waker(&mut self) -> Option<Waker> {
        match self {
            Self::Waiting { waker, .. } => waker.take(),
            Self::Granted { .. } => None,
        }
    }

    /// Marks the request as granted, and returns its waker. `grants` is the number of the grant.
    fn grant(&mut self, grants: u64) -> Option<Waker> {
        let Self::Waiting { waker, since } = self else { return None };
        let (waker, after) = (waker.take(), grants.saturating_sub(*since + 1));
        *self = Self::Granted { after };
        waker
    }
}

impl Permit {
    /// Number of grants to others while this request was queued.
    pub fn grants_while_queued(&self) -> u64 {
        self.after
    }

    /// Releases the slot with its actual cost.
    pub fn release(mut self, cost: u64) {
        self.released = true;
        self.semaphore.change(|state| state.scheduler.release(&self.tenant, Some(cost)));
    }

    /// Releases the slot with its actual cost, and queues a request for the next one.
    pub fn release_and_queue(mut self, cost: u64) -> Acquire {
        self.released = true;
        let (semaphore, tenant) = (self.semaphore.clone(), self.tenant.clone());
        let ticket = semaphore.change(|state| {
            let ticket = state.scheduler.release_and_queue(&tenant, cost);
            let since = state.scheduler.grants;
            state.queue.insert(ticket, QueueEntry::Waiting { waker: None, since });
            ticket
        });
        Acquire { semaphore, tenant, ticket: Some(ticket) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.released {
            self.semaphore.change(|state| state.scheduler.release(&self.tenant, None));
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Err(AcquireError::Closed)) };
        let mut state = self.semaphore.lock();
        if state.closed {
            return Poll::Ready(Err(AcquireError::Closed)); // the ticket is given back by drop
        }
        match state.queue.get_mut(&ticket) {
            Some(QueueEntry::Waiting { waker, .. }) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Some(QueueEntry::Granted { after }) => {
                let after = *after;
                state.queue.remove(&ticket);
                drop(state);
                self.ticket = None;
                Poll::Ready(Ok(self.semaphore.permit(&self.tenant, after)))
            }
            None => Poll::Ready(Err(AcquireError::Closed)), // polled again after its end
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let tenant = &self.tenant;
        self.semaphore.change(|state| {
            // A granted slot that was never used is free of charge and goes to the next request.
            if matches!(state.queue.remove(&ticket), Some(QueueEntry::Granted { .. })) {
                state.scheduler.release(tenant, Some(0));
            } else {
                state.scheduler.cancel(tenant, ticket);
            }
        });
    }
}

#[cfg(test)]
mod tests;
