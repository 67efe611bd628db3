//! The dispatcher's memory: which deliveries are ready, in which order. Pure: `now` is an argument, nothing waits.
//!
//! One lane per subscription holds the deliveries that are due first, up to `window`; the rest waits on disk and is
//! asked for when the lane runs low (`short`). Turns go round the tenants, and within a tenant round its lanes, so
//! that neither a tenant's flood nor one slow endpoint takes the turns of others.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

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
    tenants: HashMap<TenantId, TenantTurns>,
    /// Tenants in the order of their turns.
    round: VecDeque<TenantId>,
    in_flight: HashMap<DeliverySeq, InFlight>,
    per_endpoint: HashMap<(TenantId, Origin), usize>,
}

#[derive(Default)]
struct TenantTurns {
    lanes: HashMap<SubscriptionId, Lane>,
    /// Lanes in the order of their turns.
    round: VecDeque<SubscriptionId>,
    in_flight: usize,
}

/// One subscription's deliveries.
#[derive(Default)]
struct Lane {
    /// Ordered by when they are due, then by age.
    waiting: BTreeMap<(Timestamp, DeliverySeq), DueDelivery>,
    /// Where they go; none: paused, or not known yet.
    origin: Option<Origin>,
    in_flight: HashSet<DeliverySeq>,
    /// Whether the ledger may hold due deliveries that are not in memory.
    more_on_disk: bool,
    /// Whether the ledger is being asked.
    asking: bool,
}

struct InFlight {
    tenant: TenantId,
    subscription: SubscriptionId,
    origin: Origin,
}

impl Lanes {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tenants: HashMap::new(),
            round: VecDeque::new(),
            in_flight: HashMap::new(),
            per_endpoint: HashMap::new(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Tells where a subscription's deliveries go; none while it is paused.
    pub(super) fn open(&mut self, tenant: &TenantId, subscription: SubscriptionId, origin: Option<Origin>) {
        self.lane(tenant, subscription).origin = origin;
    }

    /// Every lane there is.
    pub(super) fn all(&self) -> Vec<(TenantId, SubscriptionId)> {
        self.tenants.iter().flat_map(|(t, turns)| turns.lanes.keys().map(|s| (t.clone(), *s))).collect()
    }

    /// Marks a lane as having deliveries on disk.
    pub(super) fn on_disk(&mut self, tenant: &TenantId, subscription: SubscriptionId) {
        self.lane(tenant, subscription).more_on_disk = true;
    }

    /// Takes in a delivery that is due now or later. What does not fit into the window stays on disk.
    pub(super) fn add(&mut self, delivery: DueDelivery) {
        let window = self.bounds.window_max;
        let lane = self.lane(&delivery.tenant.clone(), delivery.id.subscription);
        if lane.in_flight.contains(&delivery.seq) {
            return;
        }
        lane.waiting.insert((delivery.due_at, delivery.seq), delivery);
        if lane.waiting.len() > window {
            // The one due last goes back to disk, so that retries far ahead never keep out what is due now.
            lane.waiting.pop_last();
            lane.more_on_disk = true;
        }
    }

    /// Lanes that ought to ask the ledger for more, each told once until [`Self::answered`].
    pub(super) fn short(&mut self) -> Vec<(TenantId, SubscriptionId, usize)> {
        let window = self.bounds.window_max;
        let mut short = Vec::new();
        for (tenant, turns) in &mut self.tenants {
            for (subscription, lane) in &mut turns.lanes {
                if lane.more_on_disk && !lane.asking && lane.waiting.len() <= window / 4 {
                    lane.asking = true;
                    // Rows in flight are still due on disk and come back in the answer.
                    short.push((tenant.clone(), *subscription, window + lane.in_flight.len()));
                }
            }
        }
        short
    }

    /// What the ledger answered: the earliest due rows of a lane, at most `asked` of them.
    pub(super) fn answered(
        &mut self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        asked: usize,
        rows: Option<Vec<DueDelivery>>,
    ) {
        let lane = self.lane(tenant, subscription);
        lane.asking = false;
        let Some(rows) = rows else { return };
        // Rows beyond the window are put back on disk by `add`, which sets the mark again.
        lane.more_on_disk = rows.len() >= asked;
        for row in rows {
            self.add(row);
        }
    }

    /// The next delivery to work on, taken into flight; none where nothing is ready or all bounds are reached.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<DueDelivery> {
        if self.in_flight.len() >= self.bounds.in_flight_max {
            return None;
        }
        for _ in 0..self.round.len() {
            let tenant = self.round.pop_front()?;
            self.round.push_back(tenant.clone());
            let turns = self.tenants.get_mut(&tenant)?;
            if turns.in_flight >= self.bounds.per_tenant_max {
                continue;
            }
            for _ in 0..turns.round.len() {
                let subscription = turns.round.pop_front()?;
                turns.round.push_back(subscription);
                let lane = turns.lanes.get_mut(&subscription)?;
                let Some(origin) = &lane.origin else { continue };
                let Some(first) = lane.waiting.first_entry().filter(|entry| entry.key().0 <= now) else { continue };
                let busy = self.per_endpoint.entry((tenant.clone(), origin.clone())).or_default();
                if *busy >= self.bounds.per_endpoint_max {
                    continue;
                }
                *busy += 1;
                let delivery = first.remove();
                turns.in_flight += 1;
                lane.in_flight.insert(delivery.seq);
                let origin = origin.clone();
                self.in_flight.insert(delivery.seq, InFlight { tenant, subscription, origin });
                return Some(delivery);
            }
        }
        None
    }

    /// A delivery is no longer worked on. Where it is due again, its row comes with it.
    pub(super) fn done(&mut self, seq: DeliverySeq, again: Option<DueDelivery>) {
        let Some(InFlight { tenant, subscription, origin }) = self.in_flight.remove(&seq) else { return };
        let key = (tenant, origin);
        if let Some(busy) = self.per_endpoint.get_mut(&key) {
            *busy -= 1;
            if *busy == 0 {
                self.per_endpoint.remove(&key);
            }
        }
        if let Some(turns) = self.tenants.get_mut(&key.0) {
            turns.in_flight -= 1;
            if let Some(lane) = turns.lanes.get_mut(&subscription) {
                lane.in_flight.remove(&seq);
            }
        }
        if let Some(delivery) = again {
            self.add(delivery);
        }
    }

    /// When something that waits in memory is next due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.tenants
            .values()
            .flat_map(|turns| turns.lanes.values())
            .filter(|lane| lane.origin.is_some())
            .filter_map(|lane| lane.waiting.first_key_value().map(|((at, _), _)| *at))
            .min()
    }

    /// Forgets lanes that `exists` does not know and that have nothing left.
    pub(super) fn keep(&mut self, exists: impl Fn(&TenantId, &SubscriptionId) -> bool) {
        for (tenant, turns) in &mut self.tenants {
            turns.lanes.retain(|subscription, lane| {
                exists(tenant, subscription)
                    || !lane.waiting.is_empty()
                    || !lane.in_flight.is_empty()
                    || lane.more_on_disk
            });
            turns.round.retain(|subscription| turns.lanes.contains_key(subscription));
        }
        self.tenants.retain(|_, turns| !turns.lanes.is_empty());
        self.round.retain(|tenant| self.tenants.contains_key(tenant));
    }

    fn lane(&mut self, tenant: &TenantId, subscription: SubscriptionId) -> &mut Lane {
        let turns = self.tenants.entry(tenant.clone()).or_insert_with(|| {
            self.round.push_back(tenant.clone());
            TenantTurns::default()
        });
        turns.lanes.entry(subscription).or_insert_with(|| {
            turns.round.push_back(subscription);
            Lane::default()
        })
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
        while lanes.take(NOW.plus_millis(5000)).is_some_and(|d| d.seq.0 < 1) {}
        let taken = lanes.in_flight();
        let asked = lanes.short();
        assert_eq!(asked, [("a".parse().unwrap(), subscription(1), 4 + taken)]);
        assert!(lanes.short().is_empty(), "asked once");
    }
}
