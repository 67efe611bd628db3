//! The dispatcher's memory: which deliveries are ready, in which order. Pure: `now` is an argument, nothing waits.
//!
//! One lane per subscription holds the deliveries that are due first, up to `window_max`; the rest waits on disk and
//! is asked for when the lane runs low. Turns go round the tenants, and within a tenant round its lanes, so that
//! neither a tenant's flood nor one slow endpoint takes the turns of others.
//!
//! A place is held for as long as a receiver takes, and turns alone do not help once receivers that hang hold all of them. So
//! a tenant takes one more place only while it holds fewer than it leaves free: the more a few tenants hold, the less they
//! add, and the last places are for tenants with nothing in flight.
//!
//! A lane stands in exactly one [`Place`], and only lanes that can be served stand in a round: the cost of a turn does
//! not grow with the number of subscriptions.

mod endpoints;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::domain::breaker::{BreakerBounds, Heard, Turn};
use crate::domain::delivery::{DeliverySeq, DueDelivery};
use crate::domain::endpoint::Origin;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::time::Timestamp;

pub(super) use endpoints::{EndpointKey, Route};

use endpoints::{Admission, Endpoints};

/// Bounds on what is in flight at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) in_flight_max: usize,
    pub(super) per_tenant_max: usize,
    pub(super) per_endpoint_max: usize,
    pub(super) window_max: usize,
    pub(super) breaker: BreakerBounds,
}

/// All lanes of a host.
pub(super) struct Lanes {
    bounds: Bounds,
    lanes: HashMap<LaneKey, Lane>,
    tenants: HashMap<TenantId, Turns>,
    /// Tenants with a lane that is ready, in the order of their turns.
    round: VecDeque<TenantId>,
    /// Lanes whose first delivery is due later, or whose endpoint is to be left alone until then.
    timers: BTreeSet<(Timestamp, LaneKey)>,
    /// Lanes that wait for their endpoint to have room.
    parked: HashMap<EndpointKey, Vec<LaneKey>>,
    /// Lanes that ought to ask the ledger for more.
    low: HashSet<LaneKey>,
    /// Tenants that hold as much as is free, and so wait for anything to end.
    held_back: Vec<TenantId>,
    in_flight: HashMap<DeliverySeq, Flight>,
    endpoints: Endpoints,
    /// Rows that were made due while in flight.
    told: HashMap<DeliverySeq, DueDelivery>,
}

/// Before everything that can be due.
const LONG_AGO: Timestamp = Timestamp::from_millis(i64::MIN);

type LaneKey = (TenantId, SubscriptionId);

/// A delivery that is worked on.
struct Flight {
    lane: LaneKey,
    /// Where it goes, and whether what comes of it decides if its endpoint's breaker closes; none: it was there.
    bound: Option<(EndpointKey, bool)>,
}

#[derive(Default)]
struct Turns {
    /// Lanes that are ready, in the order of their turns.
    round: VecDeque<SubscriptionId>,
    in_round: bool,
    in_flight: usize,
}

/// Where a lane waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// For something to come, or to be resumed.
    #[default]
    Idle,
    /// For the time of its first delivery, or of its endpoint.
    Timer(Timestamp),
    /// For its turn.
    Ready,
    /// For its endpoint.
    Parked,
}

/// One subscription's deliveries.
#[derive(Default)]
struct Lane {
    place: Place,
    /// Ordered by when they are due, then by age.
    waiting: BTreeMap<(Timestamp, DeliverySeq), DueDelivery>,
    /// Where they go; none: paused, or not known yet.
    route: Option<Route>,
    in_flight: HashSet<DeliverySeq>,
    /// When each waiting delivery is due: a delivery waits once, at its latest word.
    due: HashMap<DeliverySeq, Timestamp>,
    /// From when on the ledger may hold due deliveries that are not in memory; none: it holds no others.
    on_disk: Option<Timestamp>,
    /// While the ledger is being asked: what ended or changed since, of which its answer may tell an older state.
    asking: Option<Asking>,
}

/// What happens to a lane while the ledger is being asked.
#[derive(Default)]
struct Asking {
    /// Deliveries that ended or changed since.
    changed: HashSet<DeliverySeq>,
    /// As [`Lane::on_disk`]: what came to be there since, which the answer may not know of.
    on_disk: Option<Timestamp>,
}

impl Lane {
    /// From `at` on the ledger holds deliveries that are not in memory.
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
            told: HashMap::new(),
            held_back: Vec::new(),
            in_flight: HashMap::new(),
            endpoints: Endpoints::new(bounds.per_endpoint_max, bounds.breaker),
        }
    }

    /// Other bounds, from now on. What is in flight beyond them ends as it would have, and a breaker that is open stays so for
    /// as long as it was opened for.
    pub(super) fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.endpoints.bound(bounds.per_endpoint_max, bounds.breaker);
        // Who waited for a place looks again.
        for parked in std::mem::take(&mut self.parked).into_values().flatten() {
            self.unpark(&parked);
        }
        self.held_back.clear();
        for tenant in self.tenants.keys().cloned().collect::<Vec<_>>() {
            self.back_in_round(&tenant);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Tells where a subscription's deliveries go; none while it is paused.
    pub(super) fn open(&mut self, tenant: &TenantId, subscription: SubscriptionId, route: Option<Route>) {
        let key = (tenant.clone(), subscription);
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.route != route {
            lane.route = route;
            // It waits for the endpoint it went to no longer.
            if matches!(lane.place, Place::Parked) {
                lane.place = Place::Idle;
            }
            self.place(&key);
        }
    }

    /// Endpoints that are left alone because they fail.
    pub(super) fn breakers_open(&self) -> usize {
        self.endpoints.open()
    }

    /// Every lane there is.
    pub(super) fn all(&self) -> Vec<(TenantId, SubscriptionId)> {
        self.lanes.keys().cloned().collect()
    }

    /// Marks a lane as having deliveries on disk.
    pub(super) fn on_disk(&mut self, tenant: &TenantId, subscription: SubscriptionId) {
        let key = (tenant.clone(), subscription);
        self.lanes.entry(key.clone()).or_default().left_on_disk(LONG_AGO);
        self.place(&key);
    }

    /// Takes in a delivery that somebody made due; where its lease is not back yet, after that.
    pub(super) fn told(&mut self, delivery: DueDelivery) {
        if self.in_flight.contains_key(&delivery.seq) {
            self.told.insert(delivery.seq, delivery);
        } else {
            self.add(delivery);
        }
    }

    /// Takes in a delivery that is due now or later. What does not fit into the window stays on disk.
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
            // The one due last goes back to disk, so that retries far ahead never keep out what is due now.
            lane.due.remove(&seq);
            lane.left_on_disk(at);
        }
        self.place(&key);
    }

    /// Lanes that ought to ask the ledger, and for how many rows; each told once until [`Self::answered`].
    pub(super) fn short(&mut self) -> Vec<(TenantId, SubscriptionId, usize)> {
        let mut short = Vec::new();
        for key in self.low.drain() {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            lane.asking = Some(Asking::default());
            // Rows in flight are still due on disk and come back in the answer.
            short.push((key.0, key.1, self.bounds.window_max + lane.in_flight.len()));
        }
        short
    }

    /// What the ledger answered: the earliest due rows of a lane, at most `asked` of them; none where it failed.
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
            // Behind the last row of a full answer there may be more. Rows beyond the window are put back by `add`.
            lane.on_disk = earlier(since_asked, rows.last().filter(|_| rows.len() >= asked).map(|row| row.due_at));
            for row in rows {
                // Read before it ended or changed: what is known here is newer.
                if !changed.contains(&row.seq) {
                    self.add(row);
                }
            }
        }
        self.place(&key);
    }

    /// The next delivery to work on, taken into flight; none where nothing is ready or all bounds are reached.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<DueDelivery> {
        while let Some((_, key)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.to(&key, Place::Ready);
        }
        let free = self.bounds.in_flight_max.saturating_sub(self.in_flight.len());
        if free == 0 {
            return None;
        }
        // Nothing is left free for others where there are none.
        let is_alone = self.tenants.len() <= 1;
        while let Some(tenant) = self.round.pop_front() {
            let Some(turns) = self.tenants.get_mut(&tenant) else { continue };
            turns.in_round = false;
            if turns.in_flight >= self.bounds.per_tenant_max {
                // Back in the round when one of its deliveries ends.
                continue;
            }
            if !is_alone && turns.in_flight >= free {
                self.held_back.push(tenant);
                continue;
            }
            let Some(subscription) = turns.round.pop_front() else { continue };
            let key = (tenant.clone(), subscription);
            let taken = self.take_from(&key, now);
            self.back_in_round(&tenant);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// The first delivery of a lane that has just left its tenant's round.
    fn take_from(&mut self, key: &LaneKey, now: Timestamp) -> Option<DueDelivery> {
        let lane = self.lanes.get_mut(key)?;
        if lane.place != Place::Ready {
            return None;
        }
        lane.place = Place::Idle;
        let (first, route) = (lane.waiting.first_entry()?, lane.route.clone()?);
        if first.key().0 > now {
            self.place(key);
            return None;
        }
        let endpoint = (key.0.clone(), route.origin.clone());
        let probe = match self.endpoints.enter(&endpoint, &route, now) {
            Admission::Goes { probe } => probe,
            Admission::At(at) => {
                self.to(key, Place::Timer(at));
                return None;
            }
            Admission::Full => {
                self.to(key, Place::Parked);
                return None;
            }
        };
        let delivery = first.remove();
        lane.due.remove(&delivery.seq);
        lane.in_flight.insert(delivery.seq);
        self.tenants.entry(key.0.clone()).or_default().in_flight += 1;
        self.in_flight.insert(delivery.seq, Flight { lane: key.clone(), bound: Some((endpoint, probe)) });
        let next_is_due = lane.waiting.first_key_value().is_some_and(|((at, _), _)| *at <= now);
        self.place(key);
        if next_is_due {
            self.to(key, Place::Ready);
        }
        Some(delivery)
    }

    /// A delivery's attempt is over, and its endpoint has room for another while what came of it is written. `heard`:
    /// what it told about its endpoint, if anything. Gives what that changed.
    pub(super) fn left(
        &mut self,
        seq: DeliverySeq,
        heard: Option<Heard>,
        now: Timestamp,
    ) -> Option<(EndpointKey, Turn)> {
        let (endpoint, probe) = self.in_flight.get_mut(&seq)?.bound.take()?;
        let turn = self.endpoints.leave(&endpoint, probe, heard, now);
        for parked in self.parked.remove(&endpoint).unwrap_or_default() {
            self.unpark(&parked);
        }
        if matches!(turn, Some(Turn::Closed)) {
            self.hurry(&endpoint);
        }
        turn.map(|turn| (endpoint, turn))
    }

    /// A delivery is no longer worked on. Where it is due again, its row comes with it. Gives what that changed at its
    /// endpoint, where it never got to an attempt.
    pub(super) fn done(
        &mut self,
        seq: DeliverySeq,
        again: Option<DueDelivery>,
        now: Timestamp,
    ) -> Option<(EndpointKey, Turn)> {
        let turned = self.left(seq, None, now);
        let Flight { lane: key, .. } = self.in_flight.remove(&seq)?;
        // What was told meanwhile is the newer word: the row came to rest and was made due again since this lease read it.
        let again = self.told.remove(&seq).or(again);
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
        for tenant in std::mem::take(&mut self.held_back) {
            self.back_in_round(&tenant);
        }
        match again {
            Some(delivery) => self.add(delivery),
            None => self.place(&key),
        }
        turned
    }

    fn unpark(&mut self, key: &LaneKey) {
        if self.lanes.get(key).is_some_and(|lane| lane.place == Place::Parked) {
            self.to(key, Place::Ready);
        }
    }

    /// Lanes that waited for an endpoint's time need not wait any longer.
    fn hurry(&mut self, endpoint: &EndpointKey) {
        let (timers, lanes) = (&self.timers, &self.lanes);
        let goes_there = |key: &LaneKey| {
            let route = lanes.get(key).and_then(|lane| lane.route.as_ref());
            key.0 == endpoint.0 && route.is_some_and(|route| route.origin == endpoint.1)
        };
        let waiting: Vec<LaneKey> = timers.iter().map(|(_, key)| key).filter(|key| goes_there(key)).cloned().collect();
        for key in waiting {
            self.place(&key);
        }
    }

    /// When something that waits in memory is next due, of what is not due already.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Forgets lanes that `exists` does not know and that have nothing left.
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

    /// Puts a lane where it belongs by what it holds. What waits for its turn or its endpoint stays there.
    fn place(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        // Low: little is left, or what is on disk may be due before what waits here.
        let next = lane.waiting.first_key_value().map(|((at, _), _)| *at);
        let low = lane.on_disk.is_some_and(|from| {
            lane.waiting.len() <= self.bounds.window_max / 4 || next.is_some_and(|next| from < next)
        });
        if low && lane.asking.is_none() {
            self.low.insert(key.clone());
        }
        let place = match (lane.waiting.first_key_value(), &lane.route) {
            (Some(((at, _), _)), Some(_)) => Place::Timer(*at),
            _ => Place::Idle,
        };
        let stays = matches!((lane.place, place), (Place::Ready | Place::Parked, Place::Timer(_)));
        if !stays && lane.place != place {
            self.to(key, place);
        }
    }

    fn to(&mut self, key: &LaneKey, place: Place) {
        let Some(lane) = self.lanes.get_mut(key) else {
            self.timers.retain(|(_, timer)| timer != key);
            return;
        };
        if let Place::Timer(at) = lane.place {
            self.timers.remove(&(at, key.clone()));
        }
        lane.place = place;
        match place {
            // Left behind in a round or in `parked`, it is passed over there.
            Place::Idle => {}
            Place::Timer(at) => drop(self.timers.insert((at, key.clone()))),
            Place::Parked => {
                if let Some(route) = &lane.route {
                    self.parked.entry((key.0.clone(), route.origin.clone())).or_default().push(key.clone());
                }
            }
            Place::Ready => {
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
