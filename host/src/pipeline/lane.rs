//! The scheduler of the dispatcher: which deliveries are ready, and in which order. Pure: `now` is an argument, and
//! nothing blocks.
//!
//! Each subscription has one lane, which holds its earliest due deliveries, up to `window_max`. The rest stays on disk
//! and is queried when the lane runs low. Scheduling is round robin between tenants, and between the lanes of a tenant,
//! so that neither a tenant's burst nor a slow endpoint delays the others.
//!
//! A slot is occupied until the receiver has responded, so round robin alone does not help once unresponsive receivers
//! occupy all slots. A tenant therefore gets another slot only while it holds fewer slots than are free: the more slots
//! a few tenants hold, the fewer they can add, and the last ones are reserved for tenants with nothing in flight.
//!
//! Bytes are shared like slots, by the memory that a delivery needs, which is known before it is loaded. A tenant that
//! holds no bytes can always start one delivery, regardless of its size and of the bytes that others hold. If the next
//! delivery in a tenant's round robin does not fit, it stays first and smaller ones do not overtake it, so it starts
//! once enough of the tenant's deliveries have ended.
//!
//! A lane is in exactly one [`LaneState`], and only lanes that can be served are in the round robin, so the cost of a
//! decision does not grow with the number of subscriptions.

mod endpoints;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use setgate_domain::breaker::{BreakerSettings, Signal, Transition};
use setgate_domain::delivery::{DeliverySeq, DueDelivery};
use setgate_domain::endpoint::Origin;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;

pub(super) use endpoints::{EndpointKey, Route};

use endpoints::{EndpointBounds, Endpoints, Slot};

/// Limits for the deliveries in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) in_flight_max: usize,
    pub(super) per_tenant_max: usize,
    pub(super) per_endpoint_max: usize,
    /// Limit for all deliveries in flight, in bytes.
    pub(super) bytes_max: u64,
    /// Limit for one tenant's deliveries in flight, in bytes. An endpoint may use half of it.
    pub(super) bytes_per_tenant_max: u64,
    pub(super) window_max: usize,
    pub(super) breaker: BreakerSettings,
}

/// All lanes of a host.
pub(super) struct Lanes {
    bounds: Bounds,
    lanes: HashMap<LaneKey, Lane>,
    tenants: HashMap<TenantId, Turns>,
    /// Tenants with a ready lane, in round-robin order.
    round: VecDeque<TenantId>,
    /// Lanes whose first delivery is due later, or whose endpoint admits nothing before this time.
    timers: BTreeSet<(Timestamp, LaneKey)>,
    /// Lanes that wait for a free slot of their endpoint.
    parked: HashMap<EndpointKey, Vec<LaneKey>>,
    /// Lanes that should query the ledger.
    low: HashSet<LaneKey>,
    /// Tenants that hold as many slots or bytes as are free. They wait until any delivery ends.
    waiting_tenants: Vec<TenantId>,
    in_flight: HashMap<DeliverySeq, Flight>,
    /// Bytes of all deliveries in flight.
    bytes: u64,
    endpoints: Endpoints,
    /// Rows that became due again while they were in flight.
    newer: HashMap<DeliverySeq, DueDelivery>,
}

/// Earlier than any due time.
const LONG_AGO: Timestamp = Timestamp::from_millis(i64::MIN);

type LaneKey = (TenantId, SubscriptionId);

/// A delivery in flight.
struct Flight {
    lane: LaneKey,
    /// `None` after the attempt has ended: the delivery then holds neither a slot of its endpoint nor bytes.
    bound: Option<Bound>,
}

/// The resources that a delivery holds until its attempt ends.
struct Bound {
    endpoint: EndpointKey,
    /// Whether this is the probe of the endpoint's breaker.
    probe: bool,
    bytes: u64,
}

#[derive(Default)]
struct Turns {
    /// Ready lanes, in round-robin order.
    round: VecDeque<SubscriptionId>,
    in_round: bool,
    in_flight: usize,
    /// Bytes of its deliveries in flight.
    bytes: u64,
}

/// The state of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LaneState {
    /// Empty, or paused.
    #[default]
    Idle,
    /// Waits for the due time of its first delivery, or until its endpoint admits one.
    Timer(Timestamp),
    /// In the round robin.
    Ready,
    /// Waits for a free slot of its endpoint.
    Parked,
}

/// The deliveries of one subscription.
#[derive(Default)]
struct Lane {
    state: LaneState,
    /// Ordered by due time, then by age.
    waiting: BTreeMap<(Timestamp, DeliverySeq), DueDelivery>,
    /// The endpoint. `None` if the subscription is paused or not known yet.
    route: Option<Route>,
    in_flight: HashSet<DeliverySeq>,
    /// The due time of each delivery in `waiting`, which holds each delivery once, at its latest due time.
    due: HashMap<DeliverySeq, Timestamp>,
    /// The ledger may hold due deliveries from this time on that are not in memory. `None` if it holds no others.
    on_disk: Option<Timestamp>,
    /// Set while a query of the ledger is running. Its answer may be outdated for deliveries that ended or changed
    /// since.
    asking: Option<Asking>,
}

/// Changes of a lane while a query of the ledger is running.
#[derive(Default)]
struct Asking {
    /// Deliveries that ended or changed since the query began.
    changed: HashSet<DeliverySeq>,
    /// Like [`Lane::on_disk`], for deliveries that the answer may not contain yet.
    on_disk: Option<Timestamp>,
}

impl Lane {
    /// Records that the ledger holds deliveries from `at` on that are not in memory.
    fn left_on_disk(&mut self, at: Timestamp) {
        self.on_disk = earlier(self.on_disk, Some(at));
        if let Some(asking) = &mut self.asking {
            asking.on_disk = earlier(asking.on_disk, Some(at));
        }
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

impl Bounds {
    /// Whether a tenant that holds `of_tenant` bytes may take `bytes` more while all tenants hold `of_all`. As with
    /// slots, it may take more only while at least as many bytes are free as it would then hold.
    fn fit(&self, bytes: u64, of_tenant: u64, of_all: u64, is_alone: bool) -> bool {
        if of_tenant == 0 {
            return true;
        }
        let (holds, free) = (of_tenant.saturating_add(bytes), self.bytes_max.saturating_sub(of_all));
        holds <= self.bytes_per_tenant_max && free >= if is_alone { bytes } else { holds }
    }

    fn of_endpoint(&self) -> EndpointBounds {
        EndpointBounds { in_flight_max: self.per_endpoint_max, bytes_max: self.bytes_per_tenant_max / 2 }
    }
}

impl Lanes {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lanes: HashMap::new(),
            tenants: HashMap::new(),
            round: VecDeque::new(),
            timers: BTreeSet::new(),
            parked: HashMap::new(),
            low: HashSet::new(),
            newer: HashMap::new(),
            waiting_tenants: Vec::new(),
            in_flight: HashMap::new(),
            bytes: 0,
            endpoints: Endpoints::new(bounds.of_endpoint(), bounds.breaker),
        }
    }

    /// Changes the limits. Deliveries in flight beyond them finish normally, and an open breaker stays open for its
    /// original time.
    pub(super) fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.endpoints.bound(bounds.of_endpoint(), bounds.breaker);
        // Reconsider the lanes and tenants that waited for a slot.
        for parked in std::mem::take(&mut self.parked).into_values().flatten() {
            self.unpark(&parked);
        }
        self.waiting_tenants.clear();
        for tenant in self.tenants.keys().cloned().collect::<Vec<_>>() {
            self.back_in_round(&tenant);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of the deliveries in flight.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the endpoint of a subscription's deliveries. `None` while it is paused.
    pub(super) fn open(&mut self, tenant: &TenantId, subscription: SubscriptionId, route: Option<Route>) {
        let key = (tenant.clone(), subscription);
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.route != route {
            lane.route = route;
            // The lane no longer waits for its old endpoint.
            if matches!(lane.state, LaneState::Parked) {
                lane.state = LaneState::Idle;
            }
            self.update(&key);
        }
    }

    /// Number of endpoints with an open breaker.
    pub(super) fn breakers_open(&self) -> usize {
        self.endpoints.open()
    }

    /// The keys of all lanes.
    pub(super) fn all(&self) -> Vec<(TenantId, SubscriptionId)> {
        self.lanes.keys().cloned().collect()
    }

    /// Marks a lane as having deliveries on disk.
    pub(super) fn on_disk(&mut self, tenant: &TenantId, subscription: SubscriptionId) {
        let key = (tenant.clone(), subscription);
        self.lanes.entry(key.clone()).or_default().left_on_disk(LONG_AGO);
        self.update(&key);
    }

    /// Adds a delivery that was made due by another part of the host. If it is still in flight, it is added when its
    /// lease ends.
    pub(super) fn add_when_free(&mut self, delivery: DueDelivery) {
        if self.in_flight.contains_key(&delivery.seq) {
            self.newer.insert(delivery.seq, delivery);
        } else {
            self.add(delivery);
        }
    }

    /// Adds a delivery that is due now or later. If the window is full, the delivery that is due last stays on disk.
    pub(super) fn add(&mut self, delivery: DueDelivery) {
        let key = (delivery.tenant.clone(), delivery.id.subscription);
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.in_flight.contains(&delivery.seq) {
            return;
        }
        if let Some(before) = lane.due.insert(delivery.seq, delivery.due_at) {
            lane.waiting.remove(&(before, delivery.seq));
        }
        lane.waiting.insert((delivery.due_at, delivery.seq), delivery);
        if lane.waiting.len() > self.bounds.window_max
            && let Some(((at, seq), _)) = lane.waiting.pop_last()
        {
            // Evict the delivery that is due last, so that distant retries never displace due deliveries.
            lane.due.remove(&seq);
            lane.left_on_disk(at);
        }
        self.update(&key);
    }

    /// Lanes that should query the ledger, with the number of rows. Each is returned once until [`Self::answered`] is
    /// called.
    pub(super) fn short(&mut self) -> Vec<(TenantId, SubscriptionId, usize)> {
        let mut short = Vec::new();
        for key in self.low.drain() {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            lane.asking = Some(Asking::default());
            // Rows in flight are still due on disk, so the answer contains them as well.
            short.push((key.0, key.1, self.bounds.window_max + lane.in_flight.len()));
        }
        short
    }

    /// Handles the answer of the ledger: the earliest due rows of a lane, at most `asked`. `None` if the query failed.
    pub(super) fn answered(
        &mut self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        asked: usize,
        rows: Option<Vec<DueDelivery>>,
    ) {
        let key = (tenant.clone(), subscription);
        let lane = self.lanes.entry(key.clone()).or_default();
        let Asking { changed, on_disk: since_asked } = lane.asking.take().unwrap_or_default();
        if let Some(rows) = rows {
            // If the answer is full, there may be further rows after it. Rows beyond the window are put back by `add`.
            lane.on_disk = earlier(since_asked, rows.last().filter(|_| rows.len() >= asked).map(|row| row.due_at));
            for row in rows {
                // The row was read before it ended or changed, so it is outdated.
                if !changed.contains(&row.seq) {
                    self.add(row);
                }
            }
        }
        self.update(&key);
    }

    /// Takes the next delivery into flight. `None` if no lane is ready or all limits are reached.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<DueDelivery> {
        while let Some((_, key)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.to(&key, LaneState::Ready);
        }
        let free = self.bounds.in_flight_max.saturating_sub(self.in_flight.len());
        if free == 0 {
            return None;
        }
        // A single tenant need not leave slots free for others.
        let is_alone = self.tenants.len() <= 1;
        while let Some(tenant) = self.round.pop_front() {
            let Some(turns) = self.tenants.get_mut(&tenant) else { continue };
            turns.in_round = false;
            if turns.in_flight >= self.bounds.per_tenant_max {
                // It returns to the round robin when one of its deliveries ends.
                continue;
            }
            if !is_alone && turns.in_flight >= free {
                self.waiting_tenants.push(tenant);
                continue;
            }
            let Some(subscription) = turns.round.pop_front() else { continue };
            let key = (tenant.clone(), subscription);
            let waiting_tenants = self.waiting_tenants.len();
            let taken = self.take_from(&key, now);
            if self.waiting_tenants.len() == waiting_tenants {
                self.back_in_round(&tenant);
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// Takes the first delivery of a lane that has just been removed from its tenant's round robin.
    fn take_from(&mut self, key: &LaneKey, now: Timestamp) -> Option<DueDelivery> {
        let lane = self.lanes.get_mut(key)?;
        if lane.state != LaneState::Ready {
            return None;
        }
        lane.state = LaneState::Idle;
        let (first, route) = (lane.waiting.first_entry()?, lane.route.clone()?);
        if first.key().0 > now {
            self.update(key);
            return None;
        }
        let bytes = first.get().bytes;
        let endpoint = (key.0.clone(), route.origin.clone());
        let is_alone = self.tenants.len() <= 1;
        let turns = self.tenants.entry(key.0.clone()).or_default();
        let fits = self.bounds.fit(bytes, turns.bytes, self.bytes, is_alone);
        let probe = match self.endpoints.enter(&endpoint, &route, (bytes, fits), now) {
            Slot::Taken { probe } => probe,
            Slot::NoBytes => {
                lane.state = LaneState::Ready;
                turns.round.push_front(key.1);
                self.waiting_tenants.push(key.0.clone());
                return None;
            }
            Slot::NotBefore(at) => {
                self.to(key, LaneState::Timer(at));
                return None;
            }
            Slot::NoneFree => {
                self.to(key, LaneState::Parked);
                return None;
            }
        };
        let delivery = first.remove();
        lane.due.remove(&delivery.seq);
        lane.in_flight.insert(delivery.seq);
        turns.in_flight += 1;
        turns.bytes += bytes;
        self.bytes += bytes;
        let bound = Some(Bound { endpoint, probe, bytes });
        self.in_flight.insert(delivery.seq, Flight { lane: key.clone(), bound });
        let next_is_due = lane.waiting.first_key_value().is_some_and(|((at, _), _)| *at <= now);
        self.update(key);
        if next_is_due {
            self.to(key, LaneState::Ready);
        }
        Some(delivery)
    }

    /// Called if the filters of a delivery in flight made it larger than estimated. Reserves the additional bytes. If
    /// they do not fit, returns false, and the caller must return the delivery to its lane with [`Self::done`], to wait
    /// for enough free bytes.
    pub(super) fn grow(&mut self, seq: DeliverySeq, bytes: u64) -> bool {
        let is_alone = self.tenants.len() <= 1;
        let Some(Flight { lane, bound: Some(bound) }) = self.in_flight.get_mut(&seq) else { return true };
        let Some(turns) = self.tenants.get_mut(&lane.0) else { return true };
        let of_others = (turns.bytes.saturating_sub(bound.bytes), self.bytes.saturating_sub(bound.bytes));
        if !self.bounds.fit(bytes, of_others.0, of_others.1, is_alone)
            || !self.endpoints.grow(&bound.endpoint, bound.bytes, bytes)
        {
            return false;
        }
        (turns.bytes, self.bytes) = (of_others.0 + bytes, of_others.1 + bytes);
        bound.bytes = bytes;
        true
    }

    /// Releases the endpoint's slot after an attempt, while its result is still being written. `signal` is the signal
    /// about the endpoint, if there is one. Returns the breaker's state change.
    pub(super) fn left(
        &mut self,
        seq: DeliverySeq,
        signal: Option<Signal>,
        now: Timestamp,
    ) -> Option<(EndpointKey, Transition)> {
        let Bound { endpoint, probe, bytes } = self.in_flight.get_mut(&seq)?.bound.take()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(turns) = self.tenants.get_mut(&endpoint.0) {
            turns.bytes = turns.bytes.saturating_sub(bytes);
        }
        for waiting in std::mem::take(&mut self.waiting_tenants) {
            self.back_in_round(&waiting);
        }
        let transition = self.endpoints.leave(&endpoint, bytes, (probe, signal), now);
        for parked in self.parked.remove(&endpoint).unwrap_or_default() {
            self.unpark(&parked);
        }
        if matches!(transition, Some(Transition::Closed)) {
            self.hurry(&endpoint);
        }
        transition.map(|transition| (endpoint, transition))
    }

    /// Ends the work on a delivery. `again` is its row if it is due again. Returns the breaker's state change if the
    /// delivery ended without an attempt.
    pub(super) fn done(
        &mut self,
        seq: DeliverySeq,
        again: Option<DueDelivery>,
        now: Timestamp,
    ) -> Option<(EndpointKey, Transition)> {
        let transition = self.left(seq, None, now);
        let Flight { lane: key, .. } = self.in_flight.remove(&seq)?;
        // A row in `newer` is newer: the delivery was settled and made due again after this lease had read it.
        let again = self.newer.remove(&seq).or(again);
        if let Some(turns) = self.tenants.get_mut(&key.0) {
            turns.in_flight -= 1;
        }
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.in_flight.remove(&seq);
            if let Some(Asking { changed, .. }) = &mut lane.asking {
                changed.insert(seq);
            }
        }
        self.back_in_round(&key.0);
        for tenant in std::mem::take(&mut self.waiting_tenants) {
            self.back_in_round(&tenant);
        }
        match again {
            Some(delivery) => self.add(delivery),
            None => self.update(&key),
        }
        transition
    }

    fn unpark(&mut self, key: &LaneKey) {
        if self.lanes.get(key).is_some_and(|lane| lane.state == LaneState::Parked) {
            self.to(key, LaneState::Ready);
        }
    }

    /// Wakes the lanes that wait for a time of this endpoint.
    fn hurry(&mut self, endpoint: &EndpointKey) {
        let (timers, lanes) = (&self.timers, &self.lanes);
        let goes_there = |key: &LaneKey| {
            let route = lanes.get(key).and_then(|lane| lane.route.as_ref());
            key.0 == endpoint.0 && route.is_some_and(|route| route.origin == endpoint.1)
        };
        let waiting: Vec<LaneKey> = timers.iter().map(|(_, key)| key).filter(|key| goes_there(key)).cloned().collect();
        for key in waiting {
            self.update(&key);
        }
    }

    /// The next time at which a waiting delivery becomes due. Deliveries that are due already are not considered.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Removes empty lanes whose subscription does not exist.
    pub(super) fn keep(&mut self, exists: impl Fn(&TenantId, &SubscriptionId) -> bool) {
        self.lanes.retain(|(tenant, subscription), lane| {
            exists(tenant, subscription)
                || !lane.waiting.is_empty()
                || !lane.in_flight.is_empty()
                || lane.on_disk.is_some()
                || lane.asking.is_some()
        });
        let routes: HashSet<(&TenantId, &Origin)> =
            self.lanes.iter().filter_map(|((tenant, _), lane)| Some((tenant, &lane.route.as_ref()?.origin))).collect();
        self.endpoints.keep(|(tenant, origin)| routes.contains(&(tenant, origin)));
        let tenants: HashSet<&TenantId> = self.lanes.keys().map(|(tenant, _)| tenant).collect();
        self.tenants.retain(|tenant, _| tenants.contains(tenant));
        self.round.retain(|tenant| self.tenants.contains_key(tenant));
    }

    /// Moves a lane to the state that matches its content. A ready or parked lane stays there.
    fn update(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        // The lane is low if few deliveries are left, or if deliveries on disk may be due before those in memory.
        let next = lane.waiting.first_key_value().map(|((at, _), _)| *at);
        let low = lane.on_disk.is_some_and(|from| {
            lane.waiting.len() <= self.bounds.window_max / 4 || next.is_some_and(|next| from < next)
        });
        if low && lane.asking.is_none() {
            self.low.insert(key.clone());
        }
        let state = match (lane.waiting.first_key_value(), &lane.route) {
            (Some(((at, _), _)), Some(_)) => LaneState::Timer(*at),
            _ => LaneState::Idle,
        };
        let stays = matches!((lane.state, state), (LaneState::Ready | LaneState::Parked, LaneState::Timer(_)));
        if !stays && lane.state != state {
            self.to(key, state);
        }
    }

    fn to(&mut self, key: &LaneKey, state: LaneState) {
        let Some(lane) = self.lanes.get_mut(key) else {
            self.timers.retain(|(_, timer)| timer != key);
            return;
        };
        if let LaneState::Timer(at) = lane.state {
            self.timers.remove(&(at, key.clone()));
        }
        lane.state = state;
        match state {
            // A stale entry in a round or in `parked` is skipped there.
            LaneState::Idle => {}
            LaneState::Timer(at) => drop(self.timers.insert((at, key.clone()))),
            LaneState::Parked => {
                if let Some(route) = &lane.route {
                    self.parked.entry((key.0.clone(), route.origin.clone())).or_default().push(key.clone());
                }
            }
            LaneState::Ready => {
                self.tenants.entry(key.0.clone()).or_default().round.push_back(key.1);
                self.back_in_round(&key.0);
            }
        }
    }

    fn back_in_round(&mut self, tenant: &TenantId) {
        if let Some(turns) = self.tenants.get_mut(tenant)
            && !turns.in_round
            && !turns.round.is_empty()
        {
            turns.in_round = true;
            self.round.push_back(tenant.clone());
        }
    }
}

#[cfg(test)]
mod tests;
