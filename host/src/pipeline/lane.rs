//! The dispatcher's memory: which deliveries are ready, in which order. Pure: `now` is an argument, nothing waits.
//!
//! One lane per subscription holds the deliveries that are due first, up to `window_max`; the rest waits on disk and
//! is asked for when the lane runs low. Turns go round the tenants, and within a tenant round its lanes, so that
//! neither a tenant's flood nor one slow endpoint takes the turns of others.
//!
//! A lane stands in exactly one [`Place`], and only lanes that can be served stand in a round: the cost of a turn does
//! not grow with the number of subscriptions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::domain::delivery::{DeliverySeq, DueDelivery};
use crate::domain::endpoint::Origin;
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::time::Timestamp;

/// Bounds on what is in flight at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) in_flight_max: usize,
    pub(super) per_tenant_max: usize,
    pub(super) per_endpoint_max: usize,
    pub(super) window_max: usize,
}

/// All lanes of a host.
pub(super) struct Lanes {
    bounds: Bounds,
    lanes: HashMap<LaneKey, Lane>,
    tenants: HashMap<TenantId, Turns>,
    /// Tenants with a lane that is ready, in the order of their turns.
    round: VecDeque<TenantId>,
    /// Lanes whose first delivery is due later.
    timers: BTreeSet<(Timestamp, LaneKey)>,
    /// Lanes that wait for their endpoint to have room.
    parked: HashMap<EndpointKey, Vec<LaneKey>>,
    /// Lanes that ought to ask the ledger for more.
    low: HashSet<LaneKey>,
    in_flight: HashMap<DeliverySeq, (LaneKey, EndpointKey)>,
    per_endpoint: HashMap<EndpointKey, usize>,
    /// Rows that were made due while in flight.
    told: HashMap<DeliverySeq, DueDelivery>,
}

/// Before everything that can be due.
const LONG_AGO: Timestamp = Timestamp::from_millis(i64::MIN);

type LaneKey = (TenantId, SubscriptionId);
type EndpointKey = (TenantId, Origin);

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
    /// For the time of its first delivery.
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
    origin: Option<Origin>,
    in_flight: HashSet<DeliverySeq>,
    /// When each waiting delivery is due: a delivery waits once, at its latest word.
    due: HashMap<DeliverySeq, Timestamp>,
    /// From when on the ledger may hold due deliveries that are not in memory; none: it holds no others.
    on_disk: Option<Timestamp>,
    /// While the ledger is being asked: what ended or changed since, of which its answer may tell an older state.
    asking: Option<HashSet<DeliverySeq>>,
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
            in_flight: HashMap::new(),
            per_endpoint: HashMap::new(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Tells where a subscription's deliveries go; none while it is paused.
    pub(super) fn open(&mut self, tenant: &TenantId, subscription: SubscriptionId, origin: Option<Origin>) {
        let key = (tenant.clone(), subscription);
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.origin != origin {
            lane.origin = origin;
            self.place(&key);
        }
    }

    /// Every lane there is.
    pub(super) fn all(&self) -> Vec<(TenantId, SubscriptionId)> {
        self.lanes.keys().cloned().collect()
    }

    /// Marks a lane as having deliveries on disk.
    pub(super) fn on_disk(&mut self, tenant: &TenantId, subscription: SubscriptionId) {
        let key = (tenant.clone(), subscription);
        self.lanes.entry(key.clone()).or_default().on_disk = Some(LONG_AGO);
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
            lane.on_disk = Some(lane.on_disk.map_or(at, |from| from.min(at)));
        }
        self.place(&key);
    }

    /// Lanes that ought to ask the ledger, and for how many rows; each told once until [`Self::answered`].
    pub(super) fn short(&mut self) -> Vec<(TenantId, SubscriptionId, usize)> {
        let mut short = Vec::new();
        for key in self.low.drain() {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            lane.asking = Some(HashSet::new());
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
        let changed = lane.asking.take().unwrap_or_default();
        if let Some(rows) = rows {
            // Behind the last row of a full answer there may be more. Rows beyond the window are put back by `add`.
            lane.on_disk = rows.last().filter(|_| rows.len() >= asked).map(|row| row.due_at);
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
        if self.in_flight.len() >= self.bounds.in_flight_max {
            return None;
        }
        while let Some(tenant) = self.round.pop_front() {
            let Some(turns) = self.tenants.get_mut(&tenant) else { continue };
            turns.in_round = false;
            if turns.in_flight >= self.bounds.per_tenant_max {
                // Back in the round when one of its deliveries ends.
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
        let (first, origin) = (lane.waiting.first_entry()?, lane.origin.clone()?);
        if first.key().0 > now {
            self.place(key);
            return None;
        }
        let endpoint = (key.0.clone(), origin);
        let busy = self.per_endpoint.entry(endpoint.clone()).or_default();
        if *busy >= self.bounds.per_endpoint_max {
            self.to(key, Place::Parked);
            return None;
        }
        *busy += 1;
        let delivery = first.remove();
        lane.due.remove(&delivery.seq);
        lane.in_flight.insert(delivery.seq);
        self.tenants.entry(key.0.clone()).or_default().in_flight += 1;
        self.in_flight.insert(delivery.seq, (key.clone(), endpoint));
        let next_is_due = lane.waiting.first_key_value().is_some_and(|((at, _), _)| *at <= now);
        self.place(key);
        if next_is_due {
            self.to(key, Place::Ready);
        }
        Some(delivery)
    }

    /// A delivery is no longer worked on. Where it is due again, its row comes with it.
    pub(super) fn done(&mut self, seq: DeliverySeq, again: Option<DueDelivery>) {
        let Some((key, endpoint)) = self.in_flight.remove(&seq) else { return };
        let again = again.or(self.told.remove(&seq));
        if let Some(busy) = self.per_endpoint.get_mut(&endpoint) {
            *busy -= 1;
            if *busy == 0 {
                self.per_endpoint.remove(&endpoint);
            }
        }
        if let Some(turns) = self.tenants.get_mut(&key.0) {
            turns.in_flight -= 1;
        }
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.in_flight.remove(&seq);
            if let Some(changed) = &mut lane.asking {
                changed.insert(seq);
            }
        }
        for parked in self.parked.remove(&endpoint).unwrap_or_default() {
            if self.lanes.get(&parked).is_some_and(|lane| lane.place == Place::Parked) {
                self.to(&parked, Place::Ready);
            }
        }
        self.back_in_round(&key.0);
        match again {
            Some(delivery) => self.add(delivery),
            None => self.place(&key),
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
        let place = match (lane.waiting.first_key_value(), &lane.origin) {
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
                if let Some(origin) = lane.origin.clone() {
                    self.parked.entry((key.0.clone(), origin)).or_default().push(key.clone());
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
mod tests {
    use super::*;
    use crate::domain::event::EventSeq;
    use crate::domain::id::{DeliveryId, Digest, EventId};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const BOUNDS: Bounds = Bounds { in_flight_max: 8, per_tenant_max: 6, per_endpoint_max: 3, window_max: 4 };

    fn subscription(number: u128) -> SubscriptionId {
        SubscriptionId::new(NOW, number)
    }

    fn delivery(tenant: &str, sub: u128, seq: i64, due_at: Timestamp) -> DueDelivery {
        let id =
            DeliveryId { event: EventId::new(NOW, seq.unsigned_abs().into()), subscription: subscription(sub), run: 0 };
        DueDelivery {
            seq: DeliverySeq(seq),
            id,
            event: EventSeq(seq),
            tenant: tenant.parse().unwrap(),
            plan: Digest([0; 32]),
            due_at,
            attempts: 0,
            attempts_before: 0,
            filter_tries: 0,
            filtered: false,
        }
    }

    fn origin(host: &str) -> Option<Origin> {
        Some(Origin { https: true, host: host.into(), port: 443 })
    }

    fn taken(lanes: &mut Lanes) -> Vec<i64> {
        std::iter::from_fn(|| lanes.take(NOW)).map(|d| d.seq.0).collect()
    }

    #[test]
    fn turns_go_round_tenants_then_lanes() {
        let mut lanes = Lanes::new(BOUNDS);
        for seq in 0..3 {
            lanes.add(delivery("a", 1, seq, NOW));
        }
        lanes.add(delivery("b", 2, 10, NOW));
        lanes.open(&"a".parse().unwrap(), subscription(1), origin("x"));
        lanes.open(&"b".parse().unwrap(), subscription(2), origin("x"));
        assert_eq!(taken(&mut lanes), [0, 10, 1, 2]);
    }

    #[test]
    fn one_endpoint_cannot_take_the_turns_of_another() {
        let mut lanes = Lanes::new(BOUNDS);
        for seq in 0..4 {
            lanes.add(delivery("a", 1, seq, NOW));
            lanes.add(delivery("a", 2, 10 + seq, NOW));
        }
        lanes.open(&"a".parse().unwrap(), subscription(1), origin("dead"));
        lanes.open(&"a".parse().unwrap(), subscription(2), origin("live"));
        assert_eq!(taken(&mut lanes), [0, 10, 1, 11, 2, 12]);
        lanes.done(DeliverySeq(10), None);
        assert_eq!(taken(&mut lanes), [13]);
    }

    #[test]
    fn a_paused_lane_waits_and_what_is_not_due_waits() {
        let mut lanes = Lanes::new(BOUNDS);
        let later = NOW.plus_millis(5);
        lanes.add(delivery("a", 1, 1, NOW));
        lanes.add(delivery("a", 2, 2, later));
        lanes.open(&"a".parse().unwrap(), subscription(2), origin("x"));
        assert!(lanes.take(NOW).is_none());
        assert_eq!(lanes.next_due(), Some(later));
        assert_eq!(lanes.take(later).unwrap().seq.0, 2);
    }

    #[test]
    fn what_is_due_now_is_never_kept_out_by_retries_far_ahead() {
        let mut lanes = Lanes::new(BOUNDS);
        for seq in 0..6 {
            lanes.add(delivery("a", 1, seq, NOW.plus_millis(1000 + seq)));
        }
        lanes.add(delivery("a", 1, 9, NOW));
        lanes.open(&"a".parse().unwrap(), subscription(1), origin("x"));
        assert_eq!(taken(&mut lanes), [9]);
        lanes.done(DeliverySeq(9), None);
        // Three far retries are in memory, the rest on disk: more is asked for once the window has run low.
        assert!(lanes.short().is_empty());
        let later = NOW.plus_millis(5000);
        assert_eq!(lanes.take(later).unwrap().seq.0, 0);
        assert_eq!(lanes.take(later).unwrap().seq.0, 1);
        assert_eq!(lanes.short(), [("a".parse().unwrap(), subscription(1), 4 + 2)]);
        assert!(lanes.short().is_empty(), "asked once");
        // The answer holds what is in flight too: it is not taken twice.
        let rows = (0..6).map(|seq| delivery("a", 1, seq, NOW.plus_millis(1000 + seq))).collect();
        lanes.answered(&"a".parse().unwrap(), subscription(1), 6, Some(rows));
        assert_eq!(lanes.take(later).unwrap().seq.0, 2);
        lanes.done(DeliverySeq(0), None);
        lanes.done(DeliverySeq(1), None);
        lanes.done(DeliverySeq(2), None);
        let mut rest: Vec<_> = std::iter::from_fn(|| lanes.take(later)).map(|d| d.seq.0).collect();
        rest.sort_unstable();
        assert_eq!(rest, [3, 4, 5]);
    }

    #[test]
    fn a_lane_that_moves_to_another_endpoint_is_served_there() {
        let mut lanes = Lanes::new(BOUNDS);
        for seq in 0..5 {
            lanes.add(delivery("a", 1, seq, NOW));
        }
        lanes.open(&"a".parse().unwrap(), subscription(1), origin("dead"));
        assert_eq!(taken(&mut lanes), [0, 1, 2]);
        lanes.open(&"a".parse().unwrap(), subscription(1), None);
        assert!(taken(&mut lanes).is_empty());
        lanes.open(&"a".parse().unwrap(), subscription(1), origin("live"));
        assert_eq!(taken(&mut lanes), [3]);
    }

    #[test]
    fn an_answer_that_is_older_than_an_end_is_not_believed() {
        let tenant: TenantId = "a".parse().unwrap();
        let mut lanes = Lanes::new(BOUNDS);
        lanes.open(&tenant, subscription(1), origin("x"));
        lanes.add(delivery("a", 1, 1, NOW));
        lanes.add(delivery("a", 1, 2, NOW));
        lanes.on_disk(&tenant, subscription(1));
        assert_eq!(taken(&mut lanes), [1, 2]);
        assert_eq!(lanes.short().len(), 1);
        // Both end while the ledger is being asked, one for good and one to be due again later.
        let later = NOW.plus_millis(300_000);
        lanes.done(DeliverySeq(1), None);
        lanes.done(DeliverySeq(2), Some(delivery("a", 1, 2, later)));
        let read_before = (1..4).map(|seq| delivery("a", 1, seq, NOW)).collect();
        lanes.answered(&tenant, subscription(1), 6, Some(read_before));
        assert_eq!(taken(&mut lanes), [3]);
        assert_eq!(lanes.take(later).unwrap().seq.0, 2);
        assert!(lanes.take(later).is_none(), "it waits once");
    }

    #[test]
    fn what_is_due_on_disk_does_not_wait_behind_retries_in_memory() {
        let tenant: TenantId = "a".parse().unwrap();
        let mut lanes = Lanes::new(BOUNDS);
        lanes.open(&tenant, subscription(1), origin("x"));
        for seq in 0..6 {
            lanes.add(delivery("a", 1, seq, NOW.plus_millis(seq)));
        }
        // 4 and 5 are on disk. Those in memory fail and are put off for an hour.
        let now = NOW.plus_millis(10);
        for _ in 0..4 {
            let failed = lanes.take(now).unwrap();
            lanes.done(failed.seq, Some(DueDelivery { due_at: NOW.plus_millis(3_600_000), ..failed }));
        }
        let [(_, _, asked)] = lanes.short()[..] else { panic!("the ledger is to be asked") };
        let rows = (4..6).map(|seq| delivery("a", 1, seq, NOW.plus_millis(seq))).collect();
        lanes.answered(&tenant, subscription(1), asked, Some(rows));
        assert_eq!(lanes.take(now).unwrap().seq.0, 4);
        assert_eq!(lanes.take(now).unwrap().seq.0, 5);
    }

    #[test]
    fn what_is_made_due_again_before_its_lease_is_back_is_not_forgotten() {
        let mut lanes = Lanes::new(BOUNDS);
        let row = delivery("a", 0, 1, NOW);
        lanes.add(row.clone());
        lanes.open(&row.tenant, row.id.subscription, origin("x"));
        assert!(lanes.take(NOW).is_some());
        lanes.told(row.clone());
        assert!(lanes.take(NOW).is_none(), "it is in flight");
        lanes.done(row.seq, None);
        assert_eq!(lanes.take(NOW).map(|taken| taken.seq), Some(row.seq));
    }

    /// Whatever happens in whatever order: each delivery is taken once, none is forgotten, no bound is passed.
    #[test]
    fn nothing_is_taken_twice_or_forgotten() {
        use proptest::prelude::*;
        proptest!(|(steps in prop::collection::vec((0u8..5, 0u128..4, 0i64..3), 1..200))| {
            let mut lanes = Lanes::new(BOUNDS);
            let tenants = ["a", "b"];
            // The outbox: what is due on disk, by subscription.
            let mut disk: BTreeMap<(u128, i64), DueDelivery> = BTreeMap::new();
            let mut flying: Vec<DueDelivery> = Vec::new();
            let mut settled = HashSet::new();
            let mut next = 0;
            for (step, sub, number) in steps {
                let tenant = tenants[usize::from(sub % 2 == 1)];
                match step {
                    0 | 1 => {
                        let row = delivery(tenant, sub, next, NOW.plus_millis(number - 1));
                        next += 1;
                        disk.insert((sub, row.seq.0), row.clone());
                        lanes.add(row);
                    }
                    2 => lanes.open(&tenant.parse().unwrap(), subscription(sub), (number > 0).then(|| {
                        Origin { https: true, host: number.to_string(), port: 1 }
                    })),
                    3 => {
                        if let Some(row) = lanes.take(NOW) {
                            prop_assert!(row.due_at <= NOW && !settled.contains(&row.seq), "{row:?}");
                            prop_assert!(flying.iter().all(|other| other.seq != row.seq), "taken twice");
                            flying.push(row);
                            prop_assert!(flying.len() <= BOUNDS.in_flight_max);
                        }
                    }
                    _ => if let Some(row) = flying.pop() {
                        disk.retain(|_, other| other.seq != row.seq);
                        settled.insert(row.seq);
                        lanes.done(row.seq, None);
                    },
                }
            }
            // Everything is opened, and worked off until nothing is left.
            for sub in 0..4 {
                let tenant = tenants[usize::from(sub % 2 == 1)].parse().unwrap();
                lanes.open(&tenant, subscription(sub), origin("x"));
            }
            for _ in 0..2000 {
                for (tenant, subscription, asked) in lanes.short() {
                    let mut rows: Vec<_> =
                        disk.values().filter(|row| row.id.subscription == subscription).cloned().collect();
                    rows.sort_by_key(|row| (row.due_at, row.seq));
                    rows.truncate(asked);
                    lanes.answered(&tenant, subscription, asked, Some(rows));
                }
                flying.extend(std::iter::from_fn(|| lanes.take(NOW.plus_millis(10))));
                for row in flying.drain(..) {
                    disk.retain(|_, other| other.seq != row.seq);
                    prop_assert!(settled.insert(row.seq), "{row:?} was taken twice");
                    lanes.done(row.seq, None);
                }
            }
            prop_assert_eq!(settled.len(), usize::try_from(next).unwrap());
            prop_assert_eq!(lanes.in_flight(), 0);
        });
    }
}
