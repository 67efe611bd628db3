use std::num::{NonZeroU16, NonZeroU32};

use setgate_domain::delivery::NewDelivery;
use setgate_domain::event::EventSeq;
use setgate_domain::id::{DeliveryId, Digest, EventId};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const BREAKER: BreakerSettings =
    BreakerSettings { failures_max: 3, open_ms: 1_000, open_ms_max: 8_000, throttle_ms_max: 60_000 };
const BOUNDS: Bounds = Bounds {
    in_flight_max: 8,
    per_tenant_max: 6,
    per_endpoint_max: 3,
    bytes_max: 1_000,
    bytes_per_tenant_max: 400,
    window_max: 4,
    breaker: BREAKER,
};

fn subscription(number: u128) -> SubscriptionId {
    SubscriptionId::new(NOW, number)
}

fn delivery(tenant: &str, sub: u128, seq: i64, due_at: Timestamp) -> DueDelivery {
    let id =
        DeliveryId { event: EventId::new(NOW, seq.unsigned_abs().into()), subscription: subscription(sub), run: 0 };
    let tenant = tenant.parse().unwrap();
    NewDelivery { id, event: EventSeq(seq), tenant, plan: Digest([0; 32]), due_at, order_key: None, bytes: 1 }
        .due(DeliverySeq(seq))
}

fn origin(host: &str) -> Option<Route> {
    Some(Route::to(Origin { https: true, host: host.into(), port: 443 }))
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
fn other_bounds_hold_from_the_next_turn_on() {
    let mut lanes = Lanes::new(Bounds { per_endpoint_max: 1, ..BOUNDS });
    for seq in 0..4 {
        lanes.add(delivery("a", 1, seq, NOW));
    }
    lanes.open(&"a".parse().unwrap(), subscription(1), origin("x"));
    assert_eq!(taken(&mut lanes), [0]);
    lanes.bound(Bounds { per_endpoint_max: 2, per_tenant_max: 2, ..BOUNDS });
    assert_eq!(taken(&mut lanes), [1], "who waited for a place at the endpoint looks again");
    lanes.bound(Bounds { per_endpoint_max: 3, per_tenant_max: 3, ..BOUNDS });
    assert_eq!(taken(&mut lanes), [2], "and so does a tenant that had all of its own");
    lanes.bound(Bounds { in_flight_max: 1, ..BOUNDS });
    for seq in 0..2 {
        lanes.done(DeliverySeq(seq), None, NOW);
        assert!(taken(&mut lanes).is_empty(), "what is under way beyond the bound ends first");
    }
    lanes.done(DeliverySeq(2), None, NOW);
    assert_eq!(taken(&mut lanes), [3]);
    lanes.bound(Bounds { breaker: BreakerSettings { failures_max: 1, ..BREAKER }, ..BOUNDS });
    let turn = over(&mut lanes, DeliverySeq(3), None, Some(Signal::Failing), NOW);
    assert!(turn.is_some(), "one failure opens the breaker now");
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
    lanes.done(DeliverySeq(10), None, NOW);
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
    lanes.done(DeliverySeq(9), None, NOW);
    // Three later retries are in memory and the rest is on disk. The ledger is queried once the window is nearly empty.
    assert!(lanes.short().is_empty());
    let later = NOW.plus_millis(5000);
    assert_eq!(lanes.take(later).unwrap().seq.0, 0);
    assert_eq!(lanes.take(later).unwrap().seq.0, 1);
    assert_eq!(lanes.short(), [("a".parse().unwrap(), subscription(1), 4 + 2)]);
    assert!(lanes.short().is_empty(), "asked once");
    // The answer includes the rows in flight, which must not be taken twice.
    let rows = (0..6).map(|seq| delivery("a", 1, seq, NOW.plus_millis(1000 + seq))).collect();
    lanes.answered(&"a".parse().unwrap(), subscription(1), 6, Some(rows));
    assert_eq!(lanes.take(later).unwrap().seq.0, 2);
    lanes.done(DeliverySeq(0), None, NOW);
    lanes.done(DeliverySeq(1), None, NOW);
    lanes.done(DeliverySeq(2), None, NOW);
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
    // Both end during the query: one is finished, the other is due again later.
    let later = NOW.plus_millis(300_000);
    lanes.done(DeliverySeq(1), None, NOW);
    lanes.done(DeliverySeq(2), Some(delivery("a", 1, 2, later)), NOW);
    let read_before = (1..4).map(|seq| delivery("a", 1, seq, NOW)).collect();
    lanes.answered(&tenant, subscription(1), 6, Some(read_before));
    assert_eq!(taken(&mut lanes), [3]);
    assert_eq!(lanes.take(later).unwrap().seq.0, 2);
    assert!(lanes.take(later).is_none(), "it waits once");
}

#[test]
fn what_comes_to_be_on_disk_after_the_question_is_asked_for_again() {
    let tenant = "a".parse().unwrap();
    for overflows in [false, true] {
        let mut lanes = Lanes::new(BOUNDS);
        lanes.on_disk(&tenant, subscription(1));
        lanes.open(&tenant, subscription(1), origin("x"));
        let [(_, _, asked)] = lanes.short().try_into().unwrap();
        if overflows {
            // More deliveries than fit into the window: the one that is due last stays on disk.
            (0..5).for_each(|seq| lanes.add_when_free(delivery("a", 1, seq, NOW)));
        } else {
            lanes.on_disk(&tenant, subscription(1));
        }
        assert!(lanes.short().is_empty(), "one question at a time");
        // Read before those were added.
        lanes.answered(&tenant, subscription(1), asked, Some(Vec::new()));
        let mut seen = taken(&mut lanes);
        seen.iter().for_each(|seq| drop(lanes.done(DeliverySeq(*seq), None, NOW)));
        seen.extend(taken(&mut lanes));
        assert_eq!(lanes.short().len(), 1, "there is something that only the ledger knows of: {seen:?}");
    }
}

#[test]
fn what_is_due_on_disk_does_not_wait_behind_retries_in_memory() {
    let tenant: TenantId = "a".parse().unwrap();
    let mut lanes = Lanes::new(BOUNDS);
    lanes.open(&tenant, subscription(1), origin("x"));
    for seq in 0..6 {
        lanes.add(delivery("a", 1, seq, NOW.plus_millis(seq)));
    }
    // 4 and 5 are on disk. Those in memory fail and are postponed for an hour.
    let now = NOW.plus_millis(10);
    for _ in 0..4 {
        let failed = lanes.take(now).unwrap();
        lanes.done(failed.seq, Some(DueDelivery { due_at: NOW.plus_millis(3_600_000), ..failed }), NOW);
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
    lanes.add_when_free(row.clone());
    assert!(lanes.take(NOW).is_none(), "it is in flight");
    lanes.done(row.seq, None, NOW);
    assert_eq!(lanes.take(NOW).map(|taken| taken.seq), Some(row.seq));
}

/// Tenants with unresponsive receivers occupy the slots that they get and never release them.
#[test]
fn tenants_whose_receivers_hang_leave_places_for_those_with_nothing_in_flight() {
    let bounds = Bounds { in_flight_max: 256, per_tenant_max: 64, per_endpoint_max: 16, window_max: 512, ..BOUNDS };
    for hanging in [5_usize, 20, 100] {
        let mut lanes = Lanes::new(bounds);
        let mut seq = 0;
        let mut flood = |lanes: &mut Lanes, tenant: &str, sub: u128, host: &str| {
            for _ in 0..32 {
                seq += 1;
                lanes.add(delivery(tenant, sub, seq, NOW));
            }
            open_route(lanes, tenant, sub, origin(host));
        };
        for number in 0..hanging {
            for endpoint in 0..5_u128 {
                let sub = number as u128 * 8 + endpoint;
                flood(&mut lanes, &format!("hang-{number}"), sub, &format!("hang-{sub}"));
            }
        }
        let held = taken(&mut lanes).len();
        assert!(held < bounds.in_flight_max, "{held} of {hanging} tenants are in flight for ever");
        // Each of these deliveries ends at once, as with a responsive receiver.
        flood(&mut lanes, "healthy", 100_000, "live");
        let mut delivered = 0;
        while let Some(row) = lanes.take(NOW) {
            assert_eq!(row.tenant.as_str(), "healthy", "what hangs takes no more");
            lanes.done(row.seq, None, NOW);
            delivered += 1;
        }
        assert_eq!(delivered, 32, "beside {hanging} tenants that hang");
        assert_eq!(lanes.in_flight(), held);
    }
}

#[test]
fn a_tenant_that_is_held_back_goes_on_when_others_end() {
    let mut lanes = Lanes::new(Bounds { in_flight_max: 4, per_tenant_max: 4, per_endpoint_max: 4, ..BOUNDS });
    for seq in 0..4 {
        lanes.add(delivery("a", 1, seq, NOW));
        lanes.add(delivery("b", 2, 10 + seq, NOW));
    }
    open_route(&mut lanes, "a", 1, origin("x"));
    open_route(&mut lanes, "b", 2, origin("x"));
    assert_eq!(taken(&mut lanes), [0, 10, 1], "the last place is for a tenant with nothing in flight");
    lanes.done(DeliverySeq(10), None, NOW);
    assert_eq!(taken(&mut lanes), [11], "which is `b` now");
    lanes.done(DeliverySeq(0), None, NOW);
    lanes.done(DeliverySeq(1), None, NOW);
    assert_eq!(taken(&mut lanes), [2, 12]);
}

#[test]
fn a_tenant_alone_has_all_places() {
    let mut lanes = Lanes::new(Bounds { in_flight_max: 4, per_tenant_max: 4, per_endpoint_max: 4, ..BOUNDS });
    for seq in 0..4 {
        lanes.add(delivery("a", 1, seq, NOW));
    }
    open_route(&mut lanes, "a", 1, origin("x"));
    assert_eq!(taken(&mut lanes), [0, 1, 2, 3]);
}

/// As many bytes as in [`BOUNDS`], and more slots than any of these tests uses.
const BY_BYTES: Bounds =
    Bounds { in_flight_max: 256, per_tenant_max: 64, per_endpoint_max: 16, window_max: 512, ..BOUNDS };

fn heavy(tenant: &str, sub: u128, seq: i64, bytes: u64) -> DueDelivery {
    DueDelivery { bytes, ..delivery(tenant, sub, seq, NOW) }
}

#[test]
fn large_deliveries_of_a_tenant_that_hang_leave_bytes_for_others() {
    let mut lanes = Lanes::new(BY_BYTES);
    for seq in 0..10 {
        lanes.add(heavy("large", 1, seq, 90));
        lanes.add(heavy("large", 2, 10 + seq, 90));
        lanes.add(heavy("large", 3, 20 + seq, 90));
        lanes.add(heavy("small", 4, 30 + seq, 10));
    }
    for (sub, host) in [(1, "x"), (2, "y"), (3, "z")] {
        open_route(&mut lanes, "large", sub, origin(host));
    }
    assert_eq!(taken(&mut lanes), [0, 10, 20, 1], "a fifth one is more than the 400 bytes of a tenant");
    open_route(&mut lanes, "small", 4, origin("live"));
    assert_eq!(taken(&mut lanes), (30..40).collect::<Vec<_>>(), "which are not those of another tenant");
    // A delivery to the endpoint that has used up its half waits for it, and the tenant's next one goes to another
    // endpoint.
    lanes.left(DeliverySeq(20), Some(Signal::Alive), NOW);
    assert_eq!(taken(&mut lanes), [11], "bytes are free again when the attempt is over");
    assert_eq!(lanes.in_flight(), 15, "and the place when that is written");
    lanes.left(DeliverySeq(11), Some(Signal::Alive), NOW);
    lanes.left(DeliverySeq(10), Some(Signal::Alive), NOW);
    assert_eq!(taken(&mut lanes), [21, 12]);
}

#[test]
fn an_endpoint_holds_half_of_its_tenants_bytes() {
    let mut lanes = Lanes::new(BY_BYTES);
    for seq in 0..10 {
        lanes.add(heavy("a", 1, seq, 70));
        lanes.add(heavy("a", 2, 10 + seq, 70));
    }
    open_route(&mut lanes, "a", 1, origin("hangs"));
    assert_eq!(taken(&mut lanes), [0, 1]);
    open_route(&mut lanes, "a", 2, origin("live"));
    for seq in 10..20 {
        assert_eq!(lanes.take(NOW).map(|row| row.seq.0), Some(seq), "the other half is for other endpoints");
        lanes.done(DeliverySeq(seq), None, NOW);
    }
    lanes.done(DeliverySeq(0), None, NOW);
    assert_eq!(taken(&mut lanes), [2]);
}

#[test]
fn a_tenant_that_holds_nothing_has_room_for_one_delivery_of_any_size() {
    let mut lanes = Lanes::new(BY_BYTES);
    // Larger than the share of a tenant and of an endpoint, and than the limit of the host.
    lanes.add(heavy("a", 1, 0, 5_000));
    lanes.add(heavy("a", 1, 1, 1));
    open_route(&mut lanes, "a", 1, origin("x"));
    lanes.add(heavy("b", 2, 10, 5_000));
    lanes.add(heavy("b", 2, 11, 5_000));
    open_route(&mut lanes, "b", 2, origin("x"));
    assert_eq!(taken(&mut lanes), [0, 10], "and nothing else of theirs meanwhile");
    lanes.done(DeliverySeq(10), None, NOW);
    assert_eq!(taken(&mut lanes), [11]);
    lanes.done(DeliverySeq(0), None, NOW);
    assert_eq!(taken(&mut lanes), [1]);
}

#[test]
fn small_deliveries_of_a_tenant_do_not_pass_its_large_one_for_ever() {
    let mut lanes = Lanes::new(BY_BYTES);
    for seq in 0..9 {
        lanes.add(heavy("a", 1, seq, 100));
    }
    lanes.add(heavy("a", 2, 10, 350));
    open_route(&mut lanes, "a", 1, origin("x"));
    assert_eq!(taken(&mut lanes), [0, 1]);
    open_route(&mut lanes, "a", 2, origin("y"));
    assert!(taken(&mut lanes).is_empty(), "it is more than is left of the tenant's share");
    lanes.done(DeliverySeq(0), None, NOW);
    assert!(taken(&mut lanes).is_empty(), "and it is its turn");
    lanes.done(DeliverySeq(1), None, NOW);
    assert_eq!(taken(&mut lanes), [10]);
}

#[test]
fn what_filters_make_larger_waits_if_there_is_no_room_for_it() {
    let mut lanes = Lanes::new(BY_BYTES);
    for seq in 0..3 {
        lanes.add(heavy("a", 1, seq, 10));
    }
    open_route(&mut lanes, "a", 1, origin("x"));
    open_route(&mut lanes, "b", 2, origin("x"));
    assert_eq!(taken(&mut lanes), [0, 1, 2]);
    assert!(lanes.grow(DeliverySeq(0), 150));
    assert!(lanes.grow(DeliverySeq(1), 30));
    assert!(!lanes.grow(DeliverySeq(2), 30), "the endpoint has its half");
    let row = heavy("a", 1, 2, 30);
    lanes.done(row.seq, Some(row), NOW);
    assert!(taken(&mut lanes).is_empty());
    lanes.left(DeliverySeq(1), Some(Signal::Alive), NOW);
    assert_eq!(taken(&mut lanes), [2]);
    assert!(lanes.grow(DeliverySeq(2), 40), "up to the bound");
    assert!(lanes.grow(DeliverySeq(1), 40), "whose attempt is over holds nothing");
    lanes.left(DeliverySeq(2), Some(Signal::Alive), NOW);
    assert!(lanes.grow(DeliverySeq(0), 9_000), "one alone goes, however large");
}

#[test]
fn other_bounds_in_bytes_hold_from_the_next_turn_on() {
    let mut lanes = Lanes::new(Bounds { bytes_per_tenant_max: 100, ..BY_BYTES });
    for seq in 0..3 {
        lanes.add(heavy("a", 1, seq, 50));
    }
    open_route(&mut lanes, "a", 1, origin("x"));
    assert_eq!(taken(&mut lanes), [0]);
    lanes.bound(Bounds { bytes_per_tenant_max: 200, ..BY_BYTES });
    assert_eq!(taken(&mut lanes), [1]);
    lanes.bound(Bounds { bytes_max: 100, ..BY_BYTES });
    assert!(taken(&mut lanes).is_empty());
}

/// In any order of operations: each delivery is taken once, none is lost, and no limit is exceeded.
#[test]
fn nothing_is_taken_twice_or_forgotten() {
    use proptest::prelude::*;
    proptest!(|(steps in prop::collection::vec((0u8..5, 0u128..4, 0i64..3), 1..200))| {
        let mut lanes = Lanes::new(BOUNDS);
        let tenants = ["a", "b"];
        // The outbox: due deliveries on disk, by subscription.
        let mut disk: BTreeMap<(u128, i64), DueDelivery> = BTreeMap::new();
        let mut flying: Vec<DueDelivery> = Vec::new();
        let mut settled = HashSet::new();
        let mut next = 0;
        for (step, sub, number) in steps {
            let tenant = tenants[usize::from(sub % 2 == 1)];
            match step {
                0 | 1 => {
                    let row = delivery(tenant, sub, next, NOW.plus_millis(number - 1));
                    let row = DueDelivery { bytes: 1 + 120 * (next.unsigned_abs() % 5), ..row };
                    next += 1;
                    disk.insert((sub, row.seq.0), row.clone());
                    lanes.add(row);
                }
                2 => lanes.open(&tenant.parse().unwrap(), subscription(sub), (number > 0).then(|| {
                    Route::to(Origin { https: true, host: number.to_string(), port: 1 })
                })),
                3 => {
                    if let Some(row) = lanes.take(NOW) {
                        prop_assert!(row.due_at <= NOW && !settled.contains(&row.seq), "{row:?}");
                        prop_assert!(flying.iter().all(|other| other.seq != row.seq), "taken twice");
                        flying.push(row);
                        prop_assert!(flying.len() <= BOUNDS.in_flight_max);
                        for tenant in tenants {
                            let of = flying.iter().filter(|row| row.tenant.as_str() == tenant);
                            let (count, bytes) = of.fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.bytes));
                            prop_assert!(count <= 1 || bytes <= BOUNDS.bytes_per_tenant_max, "{count}, {bytes} bytes");
                        }
                    }
                }
                _ => if let Some(row) = flying.pop() {
                    disk.retain(|_, other| other.seq != row.seq);
                    settled.insert(row.seq);
                    lanes.done(row.seq, None, NOW);
                },
            }
        }
        // All lanes are opened and worked off until nothing is left.
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
                lanes.done(row.seq, None, NOW);
            }
        }
        prop_assert_eq!(settled.len(), usize::try_from(next).unwrap());
        prop_assert_eq!(lanes.in_flight(), 0);
    });
}

fn open_route(lanes: &mut Lanes, tenant: &str, sub: u128, route: Option<Route>) {
    lanes.open(&tenant.parse().unwrap(), subscription(sub), route);
}

/// The end of an attempt and of its delivery's work.
fn over(
    lanes: &mut Lanes,
    seq: DeliverySeq,
    again: Option<DueDelivery>,
    signal: Option<Signal>,
    now: Timestamp,
) -> Option<(EndpointKey, Transition)> {
    let turned = lanes.left(seq, signal, now);
    assert_eq!(lanes.done(seq, again, now), None, "it turned before");
    turned
}

#[test]
fn an_endpoint_has_room_again_while_what_came_of_an_attempt_is_written() {
    let mut lanes = Lanes::new(Bounds { per_endpoint_max: 1, ..BOUNDS });
    lanes.open(&"a".parse().unwrap(), subscription(1), origin("x"));
    lanes.add(delivery("a", 1, 1, NOW));
    lanes.add(delivery("a", 1, 2, NOW));
    assert_eq!(lanes.take(NOW).unwrap().seq.0, 1);
    assert!(lanes.take(NOW).is_none());
    lanes.left(DeliverySeq(1), Some(Signal::Alive), NOW);
    assert_eq!(lanes.take(NOW).unwrap().seq.0, 2);
    assert_eq!(lanes.in_flight(), 2, "the tenant's places are held until it is written");
    lanes.done(DeliverySeq(1), None, NOW);
    assert_eq!(lanes.in_flight(), 1);
}

fn fails(lanes: &mut Lanes, seq: i64, now: Timestamp) -> Option<Transition> {
    let again = delivery("a", 1, seq, now.plus_millis(300_000));
    over(lanes, DeliverySeq(seq), Some(again), Some(Signal::Failing), now).map(|(_, turn)| turn)
}

#[test]
fn an_endpoint_that_fails_is_left_alone_and_then_asked_with_one() {
    let mut lanes = Lanes::new(BOUNDS);
    for seq in 0..4 {
        lanes.add(delivery("a", 1, seq, NOW));
        lanes.add(delivery("a", 2, 10 + seq, NOW));
    }
    lanes.add(delivery("a", 3, 20, NOW));
    open_route(&mut lanes, "a", 1, origin("down"));
    open_route(&mut lanes, "a", 2, origin("down"));
    open_route(&mut lanes, "a", 3, origin("up"));
    assert_eq!(taken(&mut lanes), [0, 10, 20, 1]);
    assert_eq!(fails(&mut lanes, 0, NOW), None);
    over(&mut lanes, DeliverySeq(10), None, Some(Signal::Failing), NOW);
    let until = NOW.plus_millis(1_000);
    assert_eq!(fails(&mut lanes, 1, NOW), Some(Transition::Opened(until)));
    assert_eq!(lanes.breakers_open(), 1);
    // Both subscriptions wait for the breaker. The other endpoint is not affected.
    assert!(taken(&mut lanes).is_empty());
    over(&mut lanes, DeliverySeq(20), None, Some(Signal::Alive), NOW);
    lanes.add(delivery("a", 3, 21, NOW));
    assert_eq!(taken(&mut lanes), [21]);
    assert_eq!(lanes.next_due(), Some(until));

    let probes: Vec<_> = std::iter::from_fn(|| lanes.take(until)).map(|d| d.seq.0).collect();
    assert_eq!(probes.len(), 1, "one asks: {probes:?}");
    // A delivery that ends without a signal about the endpoint leaves the breaker open, so another probe is sent.
    lanes.done(DeliverySeq(probes[0]), None, until);
    let probes: Vec<_> = std::iter::from_fn(|| lanes.take(until)).map(|d| d.seq.0).collect();
    assert_eq!(probes.len(), 1, "{probes:?}");
    let closed = over(&mut lanes, DeliverySeq(probes[0]), None, Some(Signal::Alive), until);
    assert!(matches!(closed, Some((_, Transition::Closed))));
    assert_eq!(lanes.breakers_open(), 0);
    let rest: Vec<_> = std::iter::from_fn(|| lanes.take(until)).map(|d| d.seq.0).collect();
    assert_eq!(rest.len(), 3, "and then all go, up to the places there are: {rest:?}");
}

#[test]
fn a_breaker_that_closes_early_lets_nobody_wait_for_its_time() {
    let mut lanes = Lanes::new(BOUNDS);
    for seq in 0..3 {
        lanes.add(delivery("a", 1, seq, NOW));
    }
    open_route(&mut lanes, "a", 1, origin("x"));
    assert_eq!(taken(&mut lanes), [0, 1, 2]);
    lanes.add(delivery("a", 1, 3, NOW));
    over(&mut lanes, DeliverySeq(0), None, Some(Signal::Throttled { retry_after_s: Some(30) }), NOW);
    assert!(taken(&mut lanes).is_empty());
    // A delivery that was already in flight succeeds.
    over(&mut lanes, DeliverySeq(1), None, Some(Signal::Alive), NOW);
    assert_eq!(taken(&mut lanes), [3]);
}

#[test]
fn a_subscription_takes_no_more_places_and_goes_no_faster_than_it_asks() {
    let mut lanes = Lanes::new(BOUNDS);
    for seq in 0..4 {
        lanes.add(delivery("a", 1, seq, NOW));
    }
    let route = Route { in_flight_max: NonZeroU16::new(2), ..origin("x").unwrap() };
    open_route(&mut lanes, "a", 1, Some(route));
    assert_eq!(taken(&mut lanes), [0, 1]);
    over(&mut lanes, DeliverySeq(0), None, Some(Signal::Alive), NOW);
    assert_eq!(taken(&mut lanes), [2]);

    let mut lanes = Lanes::new(Bounds { window_max: 1_000, ..BOUNDS });
    for seq in 0..500 {
        lanes.add(delivery("a", 1, seq, NOW));
    }
    let route = Route { per_second: NonZeroU32::new(100), ..origin("x").unwrap() };
    open_route(&mut lanes, "a", 1, Some(route));
    let (mut now, mut sent) = (NOW, 0);
    while now < NOW.plus_millis(2_000) {
        while let Some(delivery) = lanes.take(now) {
            over(&mut lanes, delivery.seq, None, Some(Signal::Alive), now);
            sent += 1;
        }
        now = lanes.next_due().map_or(now, |at| at.max(now)).max(now.plus_millis(1));
    }
    assert!((200..=204).contains(&sent), "{sent} in two seconds");
}
