//! The invariants that are checked at the end of a simulation.

use std::collections::{BTreeMap, HashMap, HashSet};

use setgate_domain::attempt::Outcome;
use setgate_domain::builtin_event;
use setgate_domain::delivery::{DeliveryRecord, State};
use setgate_domain::retry::RetrySchedule;
use setgate_ledger::DeliveryQuery;
use standardwebhooks::Webhook;

use super::receivers::{Arrival, Trouble};
use super::world::{IMPATIENT, KeyTime, NOTICES, ORDERED, PACED, PAUSE_AFTER_S, PER_SECOND, World};
use super::*;

pub(super) async fn all_went_well(seed: u64, world: &World, seen: &mut Seen) {
    let mut records = Vec::new();
    let mut cursor = None;
    loop {
        let page = world.ledger.history.deliveries(&world.tenant, DeliveryQuery::default(), cursor, 200).await.unwrap();
        records.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut disabled = 0;
    for number in 0..=NOTICES {
        let id = world.subscriptions[number];
        let arrivals = world.receivers[number].arrivals();
        let records: Vec<&DeliveryRecord> = records.iter().filter(|record| record.id.subscription == id).collect();
        let at = format!("seed {seed}, subscription {number}");
        if number == NOTICES {
            disabled = records.len();
            for arrival in &arrivals {
                let body: serde_json::Value = serde_json::from_slice(&arrival.body).unwrap();
                let about = &body["events"][builtin_event::SUBSCRIPTION_DISABLED];
                assert_eq!(about["subscription"], world.subscriptions[IMPATIENT].to_string(), "{at}");
                assert_eq!(about["cause"], "failing", "{at}");
            }
            assert_eq!(arrivals.len(), disabled, "{at}: each notice arrives once");
        } else {
            nothing_is_lost(&at, world, &records, &arrivals);
        }
        attempts_are_what_arrived(&at, world, &records, &arrivals).await;
        let is = |state| records.iter().filter(|record| record.state == state).count();
        seen.delivered += is(State::Delivered);
        seen.given_up += is(State::Dead);
        seen.retries += arrivals.len() - arrivals.iter().map(Arrival::delivery).collect::<HashSet<_>>().len();
        seen.throttled += arrivals.iter().filter(|one| matches!(one.trouble, Some(Trouble::Throttle { .. }))).count();
        signatures_are_good(&at, world, number, &arrivals);
        wishes_are_followed(&at, world, &arrivals);
        outages_are_not_hammered(&at, world, number, &arrivals);
    }
    seen.disabled += disabled;
    seen.blocked += in_order(seed, world, &records);
    at_the_rate(seed, world);
    let long = world.receivers[IMPATIENT].outages.iter().any(|(from, to, trouble)| {
        to.since(*from) > i64::from(PAUSE_AFTER_S) * 1_500 && !matches!(trouble, Trouble::Throttle { .. })
    });
    // The seed decides whether deliveries were due during an outage. A pause without any outage is an error.
    assert!(disabled == 0 || long || world.receivers[IMPATIENT].outages.len() > 1, "seed {seed}: paused for no reason");
}

/// Every event has ended once and arrived once, unless it was given up with a reason.
fn nothing_is_lost(at: &str, world: &World, records: &[&DeliveryRecord], arrivals: &[Arrival]) {
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.trouble.is_none()) {
        *arrived.entry(arrival.jti()).or_default() += 1;
    }
    let by_jti: HashMap<&str, &&DeliveryRecord> = records.iter().map(|record| (record.jti.as_str(), record)).collect();
    assert_eq!(by_jti.len(), world.accepted.len(), "{at}: a delivery for each event");
    for (jti, _) in &world.accepted {
        let record = by_jti[jti.as_str()];
        let times = arrived.get(jti).copied().unwrap_or(0);
        match record.state {
            State::Delivered => assert_eq!(times, 1, "{at}: {jti} was delivered"),
            State::Dead => {
                assert_eq!(times, 0, "{at}: {jti} was given up");
                assert!(record.reason.as_deref().is_some_and(|why| why.contains("given up after")), "{at}: {jti}");
            }
            state => panic!("{at}: {jti} is {state:?} when all is over"),
        }
    }
}

/// The attempts in the history match the received requests, and follow the retry schedule.
async fn attempts_are_what_arrived(at: &str, world: &World, records: &[&DeliveryRecord], arrivals: &[Arrival]) {
    let waits: Vec<u32> = RetrySchedule::default().into();
    let mut by_delivery: BTreeMap<String, Vec<&Arrival>> = BTreeMap::new();
    for arrival in arrivals {
        by_delivery.entry(arrival.delivery()).or_default().push(arrival);
    }
    for record in records {
        let attempts = world.ledger.history.attempts(&record.tenant, record.seq).await.unwrap();
        let arrived = by_delivery.remove(&record.id.to_string()).unwrap_or_default();
        assert_eq!(attempts.len(), arrived.len(), "{at}: {}", record.id);
        assert!(attempts.len() <= waits.len() + 1, "{at}: {}", record.id);
        for (index, (attempt, arrival)) in attempts.iter().zip(&arrived).enumerate() {
            assert_eq!(attempt.at, arrival.at, "{at}: {}", record.id);
            if let (Outcome::Answered { status, .. }, Some(Trouble::Status(said))) = (&attempt.outcome, arrival.trouble)
            {
                assert_eq!(*status, said, "{at}");
            }
            if index > 0 {
                let waited = attempt.at.since(attempts[index - 1].at);
                let least = i64::from(waits[index - 1]) * 800;
                assert!(waited >= least, "{at}: {} was tried again after {waited} ms, not {least}", record.id);
            }
        }
    }
    assert!(by_delivery.is_empty(), "{at}: requests that the history does not know: {:?}", by_delivery.keys());
}

/// Every request is signed with the newest key of its time, and with all keys whose overlap has not ended.
fn signatures_are_good(at: &str, world: &World, number: usize, arrivals: &[Arrival]) {
    for arrival in arrivals {
        let valid = |key: &&KeyTime| key.from <= arrival.at && key.until.is_none_or(|end| arrival.at < end);
        let keys: Vec<_> = world.keys[number].iter().filter(valid).collect();
        assert!(!keys.is_empty(), "{at}");
        // Each attempt is signed with its own time. The library's own check cannot be used, because it compares with
        // the system clock.
        let stamp: i64 = arrival.headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
        assert_eq!(stamp, arrival.at.as_seconds(), "{at}");
        let given: HashSet<&str> = arrival.headers["webhook-signature"].to_str().unwrap().split(' ').collect();
        let sign = |key: &KeyTime| Webhook::new(&key.secret).unwrap().sign(&arrival.delivery(), stamp, &arrival.body);
        let expected: Vec<String> = keys.into_iter().map(|key| sign(key).unwrap()).collect();
        assert_eq!(given, expected.iter().map(String::as_str).collect(), "{at}: a signature for each key");
    }
}

/// No receiver gets a request before the time of its `Retry-After`, unless the host was restarted in between.
fn wishes_are_followed(at: &str, world: &World, arrivals: &[Arrival]) {
    let mut not_before = Timestamp::from_millis(0);
    let mut asked_at = not_before;
    for arrival in arrivals {
        if world.restarts.iter().any(|restart| (asked_at..=arrival.at).contains(restart)) {
            not_before = arrival.at;
        }
        // Requests in flight at the same instant had already been sent.
        assert!(
            arrival.at >= not_before || arrival.at == asked_at,
            "{at}: asked at {}, {} ms too early",
            arrival.at,
            not_before.since(arrival.at)
        );
        if let Some(Trouble::Throttle { retry_after_s, .. }) = arrival.trouble {
            asked_at = arrival.at;
            not_before = not_before.max(arrival.at.plus_millis(retry_after_s.cast_signed() * 1_000));
        }
    }
}

/// An endpoint that is down gets the requests in flight, and then only occasional probes.
fn outages_are_not_hammered(at: &str, world: &World, number: usize, arrivals: &[Arrival]) {
    let delivery = Delivery::default();
    for (from, to, _) in &world.receivers[number].outages {
        let asked = arrivals.iter().filter(|arrival| (*from..*to).contains(&arrival.at)).count() as u64;
        let probes = to.since(*from).unsigned_abs() / delivery.breaker_open_ms_max + 8;
        let starts = 1 + world.restarts.iter().filter(|at| (*from..*to).contains(at)).count() as u64;
        let until_it_opens = u64::from(delivery.breaker_failures_max) + delivery.in_flight_per_endpoint_max as u64;
        let most = starts * until_it_opens + probes;
        assert!(asked <= most, "{at}: {asked} requests in an outage of {} ms", to.since(*from));
    }
}

/// Events about one subject arrive in the order of acceptance. Returns the number of deliveries that needed more than
/// one attempt, since those blocked later ones.
fn in_order(seed: u64, world: &World, records: &[DeliveryRecord]) -> usize {
    let place: HashMap<&str, usize> =
        world.accepted.iter().enumerate().map(|(place, (jti, _))| (jti.as_str(), place)).collect();
    let mut last: HashMap<&str, usize> = HashMap::new();
    for arrival in world.receivers[ORDERED].arrivals().iter().filter(|arrival| arrival.trouble.is_none()) {
        let this = place[arrival.jti().as_str()];
        let subject = world.accepted[this].1.as_str();
        if let Some(before) = last.insert(subject, this) {
            assert!(before < this, "seed {seed}: event {this} of {subject} came after {before}");
        }
    }
    // No delivery was lost because of the ordering.
    let id = world.subscriptions[ORDERED];
    let ended: HashSet<State> =
        records.iter().filter(|record| record.id.subscription == id).map(|record| record.state).collect();
    assert!(ended.iter().all(|state| matches!(state, State::Delivered | State::Dead)), "seed {seed}: {ended:?}");
    records.iter().filter(|record| record.id.subscription == id && record.attempt_count > 1).count()
}

/// No period of one second exceeds the rate, with a tolerance of one for a late timer.
fn at_the_rate(seed: u64, world: &World) {
    let arrivals = world.receivers[PACED].arrivals();
    for (index, arrival) in arrivals.iter().enumerate() {
        let end = arrival.at.plus_millis(1_000);
        let within = arrivals[index..].iter().take_while(|later| later.at < end).count();
        assert!(within <= PER_SECOND as usize + 1, "seed {seed}: {within} in the second from {}", arrival.at);
    }
}
