//! Scheduling between tenants: first the decisions, then the futures.

use super::*;

const ONE_EACH: FairLimits = FairLimits {
    permits: 1,
    per_tenant_max: 1,
    reserve_for_idle_tenants: false,
    queued_per_tenant_max: 2,
    estimated_cost: 1,
};

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// A line that remembers its requests by name.
struct Story {
    scheduler: Scheduler,
    asked: HashMap<Ticket, &'static str>,
}

impl Story {
    fn new(limits: FairLimits) -> Self {
        Self { scheduler: Scheduler::new(limits), asked: HashMap::new() }
    }

    fn asks(&mut self, name: &'static str) -> Decision {
        let asked = self.scheduler.request(&tenant(name), false);
        if let Decision::Queued(ticket) = asked {
            self.asked.insert(ticket, name);
        }
        asked
    }

    /// Releases a slot, and returns the names of the next grants.
    fn ends(&mut self, name: &'static str, cost: u64) -> Vec<&'static str> {
        self.scheduler.release(&tenant(name), Some(cost));
        std::iter::from_fn(|| self.scheduler.next_ticket()).map(|ticket| self.asked[&ticket]).collect()
    }

    /// The order of service at equal costs, until the queues are empty.
    fn order(&mut self, first: &'static str) -> String {
        let mut order = String::new();
        let mut served = first;
        while let [next] = self.ends(served, 1)[..] {
            order.push_str(next);
            served = next;
        }
        order
    }
}

#[test]
fn tenants_alternate_regardless_of_queue_length() {
    let mut story = Story::new(ONE_EACH);
    assert_eq!(story.asks("a"), Decision::Granted);
    for name in ["a", "a", "a", "a", "b", "b", "c"] {
        assert!(matches!(story.asks(name), Decision::Queued(_)));
    }
    assert_eq!(story.order("a"), "bcabaaa".to_owned());
}

#[test]
fn new_tenant_waits_one_grant_per_active_tenant() {
    let mut story = Story::new(ONE_EACH);
    story.asks("a");
    for _ in 0..100 {
        story.asks("a");
        story.asks("b");
    }
    let mut served = "a";
    for _ in 0..50 {
        served = story.ends(served, 1)[0];
    }
    story.asks("new");
    let waited: Vec<_> = std::iter::from_fn(|| {
        served = story.ends(served, 1)[0];
        (served != "new").then_some(served)
    })
    .collect();
    assert!(waited.len() <= 2, "{waited:?}");
}

#[test]
fn grants_are_charged_by_actual_cost() {
    let mut story = Story::new(FairLimits { estimated_cost: 10, ..ONE_EACH });
    story.asks("long");
    for _ in 0..40 {
        story.asks("long");
        story.asks("short");
    }
    let mut served = "long";
    let mut turns = HashMap::<_, u32>::new();
    for _ in 0..33 {
        served = story.ends(served, if served == "long" { 100 } else { 10 })[0];
        *turns.entry(served).or_default() += 1;
    }
    assert_eq!(turns, HashMap::from([("long", 3), ("short", 30)]));
}

#[test]
fn debt_is_retained_while_tenant_is_idle() {
    let mut story = Story::new(ONE_EACH);
    story.asks("a");
    story.asks("b");
    story.asks("b");
    story.asks("b");
    // A hundred units in one grant, and then idle.
    assert_eq!(story.ends("a", 100), ["b"]);
    story.asks("a");
    assert_eq!(story.ends("b", 1), ["b"]);
    assert_eq!(story.ends("b", 1), ["b"]);
    assert_eq!(story.ends("b", 1), ["a"], "no other tenant is active");
}

#[test]
fn idle_tenant_saves_no_credit_and_owes_nothing() {
    let mut story = Story::new(ONE_EACH);
    story.asks("a");
    for _ in 0..1_000 {
        story.asks("a");
        assert_eq!(story.ends("a", 1), ["a"]);
    }
    for name in ["a", "a", "a", "b", "b", "b"] {
        story.asks(name);
    }
    assert_eq!(story.order("a"), "bababa");
}

#[test]
fn new_tenant_does_not_wait_for_catch_up() {
    let mut story = Story::new(FairLimits { permits: 2, per_tenant_max: 2, estimated_cost: 10, ..ONE_EACH });
    // `a` had a very long grant, and its next one starts far ahead of `b`.
    story.asks("a");
    story.asks("b");
    story.asks("a");
    assert_eq!(story.ends("a", 1_000), ["a"]);
    for _ in 0..10 {
        story.asks("b");
    }
    story.asks("new");
    let mut before_new = 0;
    while story.ends("b", 10) != ["new"] {
        before_new += 1;
        assert!(before_new <= 1, "`b` is at a hundredth of `a`, and `new` waits for it");
    }
}

#[test]
fn tenant_with_little_demand_cannot_block_others() {
    let mut story = Story::new(FairLimits { permits: 2, per_tenant_max: 2, estimated_cost: 10, ..ONE_EACH });
    // `a` takes all available slots. `b` always has one and uses little of it.
    story.asks("b");
    story.asks("a");
    for _ in 0..10_000 {
        story.asks("a");
        assert_eq!(story.ends("a", 10), ["a"]);
        let again = story.scheduler.release_and_queue(&tenant("b"), 1);
        assert_eq!(story.scheduler.next_ticket(), Some(again));
    }
    // The demand of `b` rises while it is queued. If it were idle in between, it would start at the level of the
    // others.
    story.scheduler.set_permits(1);
    let again = story.scheduler.release_and_queue(&tenant("b"), 1);
    for _ in 0..1_000 {
        story.asks("b");
        story.asks("a");
    }
    story.scheduler.set_permits(2);
    assert_eq!(story.scheduler.next_ticket(), Some(again));
    let mut before_a = 0;
    while story.ends("b", 10) != ["a"] {
        before_a += 1;
        assert!(before_a <= BEHIND_COSTS_MAX, "`a` is starved");
    }
}

#[test]
fn tenant_at_its_limit_waits_while_others_proceed() {
    let mut story = Story::new(FairLimits { permits: 3, per_tenant_max: 2, ..ONE_EACH });
    assert_eq!(story.asks("busy"), Decision::Granted);
    assert_eq!(story.asks("busy"), Decision::Granted);
    assert!(matches!(story.asks("busy"), Decision::Queued(_)));
    assert_eq!(story.asks("other"), Decision::Granted);
    assert_eq!(story.ends("other", 1), [""; 0], "the busy tenant does not get the free permit");
    assert_eq!(story.ends("busy", 1), ["busy"]);
}

#[test]
fn tenant_without_permits_gets_one_although_others_hold_theirs() {
    let limits = FairLimits { permits: 8, per_tenant_max: 8, reserve_for_idle_tenants: true, ..ONE_EACH };
    let mut scheduler = Scheduler::new(limits);
    let mut held = 0;
    for _ in 0..8 {
        held +=
            ["a", "b", "c"].iter().filter(|name| scheduler.request(&tenant(name), false) == Decision::Granted).count();
    }
    assert_eq!(held, 6, "each holds two, and two are free");
    assert_eq!(scheduler.request(&tenant("new"), false), Decision::Granted);
    assert!(matches!(scheduler.request(&tenant("new"), false), Decision::Queued(_)), "one is still free");
    assert_eq!(
        scheduler.request(&tenant("newer"), false),
        Decision::Granted,
        "the last one is reserved for a tenant without permits"
    );
    scheduler.release(&tenant("newer"), None);
    assert_eq!(scheduler.next_ticket(), None, "no tenant that holds one gets it");
    scheduler.release(&tenant("a"), None);
    assert!(scheduler.next_ticket().is_some(), "now it is granted");
}

#[test]
fn queue_limit_applies_per_tenant() {
    let mut scheduler = Scheduler::new(ONE_EACH);
    let (a, b) = (tenant("a"), tenant("b"));
    assert_eq!(scheduler.request(&a, true), Decision::Granted);
    assert!(matches!(scheduler.request(&a, true), Decision::Queued(_)));
    let Decision::Queued(second) = scheduler.request(&a, true) else { panic!("two may wait") };
    assert_eq!(scheduler.request(&a, true), Decision::QueueFull);
    assert!(matches!(scheduler.request(&b, true), Decision::Queued(_)), "another tenant has its own queue");
    assert!(matches!(scheduler.request(&a, false), Decision::Queued(_)), "an unbounded request is queued");
    scheduler.cancel(&a, second);
    assert_eq!(scheduler.request(&a, true), Decision::QueueFull, "one of three is in use");
}

#[test]
fn release_and_queue_yields_and_keeps_usage() {
    let mut story = Story::new(ONE_EACH);
    story.asks("a");
    story.asks("b");
    let again = story.scheduler.release_and_queue(&tenant("a"), 1);
    story.asked.insert(again, "a");
    assert_eq!(story.scheduler.next_ticket().map(|ticket| story.asked[&ticket]), Some("b"));
    assert_eq!(story.scheduler.next_ticket(), None);
    assert_eq!(story.ends("b", 1), ["a"]);
}

#[test]
fn changed_permit_count_takes_effect() {
    let mut story = Story::new(FairLimits { per_tenant_max: 9, ..ONE_EACH });
    story.asks("a");
    story.asks("b");
    story.asks("b");
    story.scheduler.set_permits(2);
    assert_eq!(story.scheduler.next_ticket().map(|ticket| story.asked[&ticket]), Some("b"));
    assert_eq!(story.scheduler.next_ticket(), None);
    story.scheduler.set_permits(1);
    assert_eq!(story.ends("b", 1), [""; 0], "two were in use");
    assert_eq!(story.ends("a", 1), ["b"]);
}

#[test]
fn idle_tenants_are_evicted() {
    let mut scheduler = Scheduler::new(ONE_EACH);
    for n in 0..10_000 {
        let tenant = tenant(&format!("t-{n}"));
        assert_eq!(scheduler.request(&tenant, false), Decision::Granted);
        scheduler.release(&tenant, None);
    }
    assert!(scheduler.tenants.len() <= IDLE_TENANTS_MAX, "{}", scheduler.tenants.len());
}

fn waiting(semaphore: &FairSemaphore, name: &str) -> Acquire {
    match semaphore.request(&tenant(name), false) {
        Ok(AcquireOutcome::Queued(wait)) => wait,
        _ => panic!("expected a queued request"),
    }
}

#[tokio::test]
async fn permit_wakes_the_next_waiter() {
    let semaphore = FairSemaphore::new(ONE_EACH);
    let first = semaphore.acquire(&tenant("a")).await.unwrap();
    let (mut again, mut other) = (waiting(&semaphore, "a"), waiting(&semaphore, "b"));
    assert!(futures_util::poll!(&mut again).is_pending());
    drop(first);
    assert!(futures_util::poll!(&mut again).is_pending());
    let permit = (&mut other).await.unwrap();
    permit.release(1);
    assert!(again.await.is_ok());
}

#[tokio::test]
async fn dropped_waiter_leaves_the_queue() {
    let semaphore = FairSemaphore::new(ONE_EACH);
    let first = semaphore.acquire(&tenant("a")).await.unwrap();
    let (left, granted, last) = (waiting(&semaphore, "b"), waiting(&semaphore, "c"), waiting(&semaphore, "d"));
    drop(left);
    drop(first);
    // `c` was granted the slot and never polled.
    drop(granted);
    drop(last.await.unwrap());
    assert!(matches!(semaphore.request(&tenant("e"), false), Ok(AcquireOutcome::Granted(_))));
    assert!(semaphore.lock().queue.is_empty() && !semaphore.has_waiters());
}

#[tokio::test]
async fn close_ends_all_waits() {
    let semaphore = FairSemaphore::new(ONE_EACH);
    let held = semaphore.acquire(&tenant("a")).await.unwrap();
    let waits = tokio::spawn(waiting(&semaphore, "b"));
    tokio::task::yield_now().await;
    semaphore.close();
    assert_eq!(waits.await.unwrap().err(), Some(AcquireError::Closed));
    assert_eq!(semaphore.acquire(&tenant("b")).await.err(), Some(AcquireError::Closed));
    drop(held);
}
