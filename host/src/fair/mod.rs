//! A bounded number of places, shared between tenants.
//!
//! Appends to the ledger, instance slots, turns at the processor and compiles are all this: some places, of them at most some for one tenant, and
//! a line of its own for each tenant that waits. A place that becomes free goes to the tenant that has had the least, so
//! that a tenant with a thousand waiting and one with a single one take turns.
//!
//! What a tenant has had is counted like in start-time fair queueing. Each grant adds a cost to its tenant's account; where
//! the cost is known afterwards only (time), an estimate is added and corrected when the place is given back. A tenant that
//! comes back from being idle starts from where the least served of the others is: it neither saves up a right to flood, nor
//! pays for having used places that nobody else wanted. A tenant that has had more than the others keeps its debt while it is
//! idle, so that leaving and coming back gains nothing. With equal costs this is round robin; with unequal ones, a deficit
//! round robin without rounds.
//!
//! [`Line`] decides and knows no threads; [`Gate`] lets futures wait for it.

mod byte_rate;
mod shares;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::domain::id::TenantId;

pub(crate) use byte_rate::ByteRate;
pub(crate) use shares::Shares;

/// Tenants whose account is kept although they neither hold nor wait; beyond, those without debt are forgotten.
const IDLE_TENANTS_MAX: usize = 64;
/// How far an account may fall behind the others, in costs of a grant. One whose tenant never asks for all it could have does,
/// and would, once the tenant wants more, stop everybody else until it has caught up.
const BEHIND_COSTS_MAX: u64 = 256;

/// How many places there are, and for whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Places.
    pub(crate) places: usize,
    /// Of them, one tenant's at the most.
    pub(crate) per_tenant_max: usize,
    /// Whether a tenant takes one more only while it holds fewer than it leaves free: for places that are held for long, so
    /// that a tenant that holds none finds one, however many others hold on to theirs.
    pub(crate) leaves_free: bool,
    /// Waiting of one tenant at the most, where the asker wants to be refused beyond.
    pub(crate) waiting_per_tenant_max: usize,
    /// What a grant costs until its true cost is known.
    pub(crate) cost: u64,
}

impl Bounds {
    /// Whether a tenant that holds so many may have one more, while so many are held by all.
    fn allows(&self, holds: usize, held: usize) -> bool {
        let free = self.places.saturating_sub(held);
        free > 0 && holds < self.per_tenant_max && !(self.leaves_free && holds >= free)
    }
}

/// Who holds, who waits and who is next. Pure.
pub(crate) struct Line {
    bounds: Bounds,
    held: usize,
    tenants: HashMap<TenantId, Account>,
    /// Where the tenants being served are: the largest account at which anything was granted.
    served_at: u64,
    /// Places granted so far.
    grants: u64,
    tickets: u64,
}

/// One who waits.
pub(crate) type Ticket = u64;

#[derive(Default)]
struct Account {
    used: u64,
    holds: usize,
    waiting: VecDeque<Ticket>,
}

/// The answer to [`Line::ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Granted,
    Waits(Ticket),
    /// As many of the tenant's wait as may.
    Full,
}

impl Line {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, held: 0, tenants: HashMap::new(), served_at: 0, grants: 0, tickets: 0 }
    }

    /// Asks for a place. `bounded`: rather refused than one more than `waiting_per_tenant_max` in line.
    pub(crate) fn ask(&mut self, tenant: &TenantId, bounded: bool) -> Asked {
        if !self.tenants.contains_key(tenant) {
            self.forget_idle();
            self.tenants.insert(tenant.clone(), Account::default());
        }
        let others_are_at = self.level(|other| other != tenant);
        let Some(account) = self.tenants.get_mut(tenant) else { return Asked::Full };
        if account.waiting.is_empty() {
            account.used = account.used.max(others_are_at);
        }
        // Nobody who could be served waits while a place is free: each place is handed on as it is given back.
        if self.bounds.allows(account.holds, self.held) {
            self.served_at = self.served_at.max(account.used);
            account.grant(self.bounds.cost);
            self.held += 1;
            self.grants += 1;
            return Asked::Granted;
        }
        if bounded && account.waiting.len() >= self.bounds.waiting_per_tenant_max {
            return Asked::Full;
        }
        self.tickets += 1;
        account.waiting.push_back(self.tickets);
        Asked::Waits(self.tickets)
    }

    /// Takes a place back; none: its use came to what a grant costs. To be followed by [`Self::next`] until there is none.
    pub(crate) fn give_back(&mut self, tenant: &TenantId, cost: Option<u64>) {
        self.held = self.held.saturating_sub(1);
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.holds = account.holds.saturating_sub(1);
            account.used =
                account.used.saturating_sub(self.bounds.cost).saturating_add(cost.unwrap_or(self.bounds.cost));
        }
    }

    /// Takes a place back from one who goes to the end of its tenant's line for the next. In one step, so that its tenant
    /// is not taken for idle between the two. To be followed by [`Self::next`] until there is none.
    pub(crate) fn exchange(&mut self, tenant: &TenantId, cost: u64) -> Ticket {
        self.give_back(tenant, Some(cost));
        self.tickets += 1;
        let least = self.least();
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.used = account.used.max(least);
            account.waiting.push_back(self.tickets);
        }
        self.tickets
    }

    /// Takes somebody out of the line.
    pub(crate) fn leave(&mut self, tenant: &TenantId, ticket: Ticket) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.waiting.retain(|waiting| *waiting != ticket);
        }
    }

    /// Grants a free place to the next in turn, if there is one of each.
    pub(crate) fn next(&mut self) -> Option<Ticket> {
        if self.held >= self.bounds.places {
            return None;
        }
        let (bounds, held) = (self.bounds, self.held);
        let account = self
            .tenants
            .values_mut()
            .filter(|account| !account.waiting.is_empty() && bounds.allows(account.holds, held))
            // Tickets are numbered as they come: of two tenants that have had the same, the one waiting longer.
            .min_by_key(|account| (account.used, account.waiting.front().copied()))?;
        let ticket = account.waiting.pop_front();
        self.served_at = self.served_at.max(account.used);
        account.grant(self.bounds.cost);
        self.held += 1;
        self.grants += 1;
        ticket
    }

    /// Sets how many places there are. Those held beyond are not taken away. To be followed by [`Self::next`].
    pub(crate) fn set_places(&mut self, places: usize) {
        self.bounds.places = places;
    }

    pub(crate) fn anybody_waits(&self) -> bool {
        self.tenants.values().any(|account| !account.waiting.is_empty())
    }

    fn forget_idle(&mut self) {
        if self.tenants.len() < IDLE_TENANTS_MAX {
            return;
        }
        // Where nobody is served, nobody is owed.
        let nobody = self.held == 0 && !self.anybody_waits();
        let level = self.level(|_| true);
        self.tenants.retain(|_, account| !nobody && (account.is_active() || account.used > level));
    }

    /// Where the least served of these tenants is, of those that hold or wait: where one starts that comes new.
    ///
    /// Not at [`Self::served_at`]: with several places that may be far ahead of a tenant that is still being served, and
    /// whoever came new would wait until that one has caught up.
    fn level(&self, of: impl Fn(&TenantId) -> bool) -> u64 {
        let cost = self.bounds.cost;
        let active = self.tenants.iter().filter(|(tenant, account)| account.is_active() && of(tenant));
        // Without the estimates for what is being used just now.
        let paid = active.map(|(_, account)| account.used.saturating_sub(cost.saturating_mul(account.holds as u64)));
        paid.min().unwrap_or(self.served_at).clamp(self.least(), self.served_at)
    }

    /// The least that anybody's account says.
    fn least(&self) -> u64 {
        self.served_at.saturating_sub(self.bounds.cost.saturating_mul(BEHIND_COSTS_MAX))
    }
}

impl Account {
    fn is_active(&self) -> bool {
        self.holds > 0 || !self.waiting.is_empty()
    }

    fn grant(&mut self, cost: u64) {
        self.used = self.used.saturating_add(cost);
        self.holds += 1;
    }
}

/// A [`Line`] that futures can wait in. Clones share it.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

struct State {
    line: Line,
    /// Everybody who waits, and whether the wait is over.
    seats: HashMap<Ticket, Seat>,
    closed: bool,
}

enum Seat {
    Waiting {
        waker: Option<Waker>,
        /// Grants there had been when it was taken.
        since: u64,
    },
    /// After so many grants to others.
    Granted { after: u64 },
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The host is stopping.
    Closed,
    /// As many of the tenant's wait as may.
    Full,
}

/// A place, until dropped.
pub(crate) struct Place {
    gate: Gate,
    tenant: TenantId,
    after: u64,
    /// Whether it was given back already.
    over: bool,
}

/// A place that is waited for. Dropping it leaves the line.
pub(crate) struct Wait {
    gate: Gate,
    tenant: TenantId,
    /// None: granted and given out.
    ticket: Option<Ticket>,
}

/// What [`Gate::ask`] says at once.
pub(crate) enum Answer {
    Granted(Place),
    Waits(Wait),
}

impl Gate {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Mutex::new(State { line: Line::new(bounds), seats: HashMap::new(), closed: false })))
    }

    /// Waits for a place, however long the tenant's line is.
    pub(crate) async fn enter(&self, tenant: &TenantId) -> Result<Place, Refused> {
        match self.ask(tenant, false)? {
            Answer::Granted(place) => Ok(place),
            Answer::Waits(wait) => wait.await,
        }
    }

    /// Waits for a place, unless as many of the tenant's wait as may.
    pub(crate) async fn enter_bounded(&self, tenant: &TenantId) -> Result<Place, Refused> {
        match self.ask(tenant, true)? {
            Answer::Granted(place) => Ok(place),
            Answer::Waits(wait) => wait.await,
        }
    }

    /// A place, or a place in line.
    pub(crate) fn ask(&self, tenant: &TenantId, bounded: bool) -> Result<Answer, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        match state.line.ask(tenant, bounded) {
            Asked::Granted => Ok(Answer::Granted(self.place(tenant, 0))),
            Asked::Waits(ticket) => {
                let since = state.line.grants;
                state.seats.insert(ticket, Seat::Waiting { waker: None, since });
                Ok(Answer::Waits(Wait { gate: self.clone(), tenant: tenant.clone(), ticket: Some(ticket) }))
            }
            Asked::Full => Err(Refused::Full),
        }
    }

    pub(crate) fn set_places(&self, places: usize) {
        self.change(|state| state.line.set_places(places));
    }

    pub(crate) fn anybody_waits(&self) -> bool {
        self.lock().line.anybody_waits()
    }

    /// Ends all waiting, now and later.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let wakers: Vec<_> = state.seats.values_mut().filter_map(Seat::waker).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn place(&self, tenant: &TenantId, after: u64) -> Place {
        Place { gate: self.clone(), tenant: tenant.clone(), after, over: false }
    }

    /// Changes the line, then hands out what is free. Wakes without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        // Mostly none or one: nothing is allocated for that.
        while let Some(ticket) = state.line.next() {
            let grants = state.line.grants;
            let waker = state.seats.get_mut(&ticket).and_then(|seat| seat.grant(grants));
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

impl Seat {
    fn waker(&mut self) -> Option<Waker> {
        match self {
            Self::Waiting { waker, .. } => waker.take(),
            Self::Granted { .. } => None,
        }
    }

    /// Ends the wait with the grant of this number, and tells whom to wake.
    fn grant(&mut self, grants: u64) -> Option<Waker> {
        let Self::Waiting { waker, since } = self else { return None };
        let (waker, after) = (waker.take(), grants.saturating_sub(*since + 1));
        *self = Self::Granted { after };
        waker
    }
}

impl Place {
    /// How many grants others were given while it was waited for.
    pub(crate) fn after(&self) -> u64 {
        self.after
    }

    /// Gives the place back and says what its use came to.
    pub(crate) fn give_back(mut self, cost: u64) {
        self.over = true;
        self.gate.change(|state| state.line.give_back(&self.tenant, Some(cost)));
    }

    /// Gives the place back, says what its use came to, and waits for the next.
    pub(crate) fn exchange(mut self, cost: u64) -> Wait {
        self.over = true;
        let (gate, tenant) = (self.gate.clone(), self.tenant.clone());
        let ticket = gate.change(|state| {
            let ticket = state.line.exchange(&tenant, cost);
            let since = state.line.grants;
            state.seats.insert(ticket, Seat::Waiting { waker: None, since });
            ticket
        });
        Wait { gate, tenant, ticket: Some(ticket) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.over {
            self.gate.change(|state| state.line.give_back(&self.tenant, None));
        }
    }
}

impl Future for Wait {
    type Output = Result<Place, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Err(Refused::Closed)) };
        let mut state = self.gate.lock();
        if state.closed {
            return Poll::Ready(Err(Refused::Closed)); // the ticket is given back by drop
        }
        match state.seats.get_mut(&ticket) {
            Some(Seat::Waiting { waker, .. }) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Some(Seat::Granted { after }) => {
                let after = *after;
                state.seats.remove(&ticket);
                drop(state);
                self.ticket = None;
                Poll::Ready(Ok(self.gate.place(&self.tenant, after)))
            }
            None => Poll::Ready(Err(Refused::Closed)), // polled again after its end
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let tenant = &self.tenant;
        self.gate.change(|state| {
            // A place that was granted and never used costs nothing and goes on to the next.
            if matches!(state.seats.remove(&ticket), Some(Seat::Granted { .. })) {
                state.line.give_back(tenant, Some(0));
            } else {
                state.line.leave(tenant, ticket);
            }
        });
    }
}

#[cfg(test)]
mod tests;
