//! State that two calls could share: memory, tables, globals, the pool's slots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arena::{Arena, Attacker, INSTANCES_PER_TENANT_MAX};
use super::guest::{EVENT, GIVEN, Guest, PASS, TEXT, drop_because, times};
use super::trial::{self, Observed, Trial};
use super::{Answer, Class, How, Stage, limit, rule};
use crate::tenant::Subscription;
use crate::{Host, event};

const fn class(name: &'static str, tried: &'static str, answer: Answer, how: How) -> Class {
    Class { name, stage: Stage::Share, tried, answer, how }
}

pub(super) const CLASSES: &[Class] = &[
    class(
        "state-between-calls",
        "a guest that looks for what its own last call left in memory and in a global",
        rule("pass"),
        How::Run(|| {
            let find = format!(
                "(if (i32.or (global.get $seen) (i32.load (i32.const {GIVEN}))) (then unreachable))
                 (global.set $seen (i32.const 1))
                 (i32.store (i32.const {GIVEN}) (i32.const 1)) {PASS}"
            );
            Trial::of(&Guest::new(find).core("(global $seen (mut i32) (i32.const 0))"))
        }),
    ),
    class(
        "leftovers",
        "a slot filled by one tenant, all of it searched by the next",
        rule("pass"),
        How::Other(|arena, _| Box::pin(leftovers(arena, PASS, Value::Null))),
    ),
    class(
        "reuse-after-trap",
        "a slot filled by a guest that then traps, all of it searched by the next",
        rule("pass"),
        How::Other(|arena, _| Box::pin(leftovers(arena, "unreachable", Value::Null))),
    ),
    class(
        "reuse-after-cancel",
        "a slot filled by a guest that is cut off in a loop, all of it searched by the next",
        rule("pass"),
        How::Other(|arena, _| Box::pin(leftovers(arena, "(loop $again (br $again)) unreachable", Value::Null))),
    ),
    class(
        "leftovers-kept",
        "the one slot held by an instance that is kept for its binding's next event, all of it searched by the next tenant",
        rule("pass"),
        How::Other(|arena, _| Box::pin(leftovers(arena, PASS, json!({"reuse": {"events_max": 1_000}})))),
    ),
    class(
        "pool-exhaustion",
        "more long calls at once than there are slots",
        limit("waits", "instances_per_tenant_max"),
        How::Other(|arena, _| Box::pin(pool_exhaustion(arena))),
    ),
    class(
        "fuel-budget",
        "eight calls at once, each with a second's fuel of the tenant",
        limit("waits", "fuel_per_second"),
        How::Other(|arena, _| Box::pin(fuel_budget(arena))),
    ),
];

/// Pages that the filler and the searcher grow to: 4 MiB.
const PAGES: u32 = 64;
const FOUND: &str = "found";

/// Fills all of its memory and its table, then does `end`.
fn filler(end: &str) -> Guest {
    let below = EVENT / 2;
    let fill = format!(
        "(drop (memory.grow (i32.const {})))
         (memory.fill (i32.const 2048) (i32.const 165) (i32.const {below}))
         (memory.fill (i32.const {GIVEN}) (i32.const 165) (i32.const {}))
         (table.fill $t (i32.const 0) (ref.func $f) (i32.const 5000))
         {end}",
        PAGES - 16,
        (PAGES << 16) - GIVEN
    );
    Guest::new(fill).core("(table $t 5000 funcref) (elem declare func $f) (func $f)")
}

/// Searches for any non-zero byte in memory that its own module has not written, and for any entry in its table.
/// `first` runs before the search.
fn searcher(first: &str) -> Guest {
    let found = drop_because(TEXT, u32::try_from(FOUND.len()).expect("five"));
    let search = |from: u32, to: u32| {
        format!(
            "(local.set $n (i32.const {from}))
             (loop $next
               (if (i64.ne (i64.load (local.get $n)) (i64.const 0)) (then (return {found})))
               (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 8))) (i32.const {to}))))"
        )
    };
    let process = format!(
        "{first}
         (drop (memory.grow (i32.const {})))
         {} {}
         (local.set $n (i32.const 0))
         (loop $next
           (if (i32.eqz (ref.is_null (table.get $t (local.get $n)))) (then (return {found})))
           (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 5000))))
         {PASS}",
        PAGES - 16,
        search(2048, EVENT),
        search(GIVEN, PAGES << 16)
    );
    Guest::new(process).core("(table $t 5000 funcref)").text(FOUND)
}

/// One tenant fills, another searches, in turns, on a host with a single slot. `binding` is the filler's.
async fn leftovers(arena: Arc<Arena>, end: &'static str, binding: Value) -> Observed {
    let host = arena.another_host("instances_max = 1").await;
    let quota = arena.quota(&json!({"fuel_per_call": 30_000_000}));
    let (first, second) = (Attacker::new(&host, "first", &quota).await, Attacker::new(&host, "second", &quota).await);
    let bound = async |who: &Attacker, name: &str, guest: Guest, binding: &Value| {
        who.tenant.upload(name, guest.wasm()).await.expect(201);
        trial::subscribe(&arena, who, name, binding).await
    };
    let fills = bound(&first, "fill", filler(end), &binding).await;
    let searches = bound(&second, "search", searcher(""), &Value::Null).await;
    let mut seen = Observed::nothing();
    let rounds = if arena.short { 4 } else { 30 };
    for round in 0..rounds {
        let turns = [(&first, &fills, "fill"), (&second, &searches, "search")];
        for (who, subscription, what) in turns {
            match one(who, subscription, &format!("{what}-{round}")).await {
                Ok(delivery) if what == "search" => {
                    let one = Observed::of_delivery(&delivery);
                    if one.by != "pass" {
                        return one.wrong([format!("round {round}: data of the other tenant was found")]);
                    }
                    seen = one;
                }
                Ok(_) => {}
                Err(why) => return seen.wrong([why]),
            }
        }
    }
    // Control: the searcher finds a single byte at the end of the memory.
    let planted = format!("(i32.store8 (i32.const {}) (i32.const 1))", (16 << 16) - 1);
    let sees = bound(&second, "planted", searcher(&planted), &Value::Null).await;
    searches.pause().await;
    match one(&second, &sees, "planted").await {
        Ok(delivery) if delivery["state"] == "dropped" => {}
        Ok(delivery) => seen.wrong.push(format!("the search is blind: {delivery}")),
        Err(why) => seen.wrong.push(why),
    }
    let given_up = host.metric("setgate_filter_instances_kept_ended_total", &["why=\"slot\""]).await;
    if !binding.is_null() && given_up < f64::from(rounds) {
        seen.wrong.push(format!("of {rounds} instances that were to be kept in the way, {given_up} were"));
    }
    seen.told = format!("{rounds} searches found nothing");
    seen
}

async fn one(who: &Attacker, subscription: &Subscription, jti: &str) -> Result<Value, String> {
    let accepted = who.source.accept(event::set(jti)).await;
    trial::at_rest(&who.tenant, &subscription.delivery_of(&accepted)).await
}

/// Starts as many long calls as the tenant may have in flight, and observes how many of them run concurrently.
async fn pool_exhaustion(arena: Arc<Arena>) -> Observed {
    // Far longer than the observation takes; it succeeds.
    let guest = Guest::new(times(60_000_000, "") + PASS);
    let quota = json!({"fuel_per_call": 1_000_000_000, "fuel_per_second": 1_000_000_000_000_u64});
    let attacker = Attacker::new(&arena.host, "crowd", &arena.quota(&quota)).await;
    attacker.tenant.upload("hostile", guest.wasm()).await.expect(201);
    let subscription = trial::subscribe(&arena, &attacker, "hostile", &Value::Null).await;
    let events = if arena.short { 12 } else { 64 };
    let met = trial::meet(&attacker, &subscription, events);
    tokio::pin!(met);
    let mut most = 0.0_f64;
    let met = loop {
        tokio::select! {
            met = &mut met => break met,
            () = tokio::time::sleep(Duration::from_millis(10)) => most = most.max(running(&arena.host).await),
        }
    };
    let met = match met {
        Ok(met) => met,
        Err(why) => return Observed::nothing().wrong([why]),
    };
    let other = met.iter().map(|met| Observed::of_delivery(&met.delivery)).find(|one| one.by != "pass");
    let told = format!("{events} calls waited their turn, at most {most} ran at once");
    let seen =
        Observed::of("waits", told).wrong(other.map(|one| format!("a call was answered {}: {}", one.by, one.told)));
    // One or two of the concurrent calls belong to the neighbour at its rate; never as many as the attacker has.
    if most < f64::from(INSTANCES_PER_TENANT_MAX) {
        seen.wrong([format!("at most {most} calls ran at once: the attack did not come to its limit")])
    } else if most >= f64::from(2 * INSTANCES_PER_TENANT_MAX) {
        Observed { by: "more than its share".to_owned(), ..seen }
    } else {
        seen.limit("instances_per_tenant_max")
    }
}

/// Uses more fuel than the tenant has per second: the calls are delayed, but do not fault. A rate limit can only be
/// verified by the elapsed time.
async fn fuel_budget(arena: Arc<Arena>) -> Observed {
    const FUEL: u64 = 30_000_000;
    const CALLS: usize = 8;
    let quota = arena.quota(&json!({"fuel_per_call": FUEL, "fuel_per_second": FUEL}));
    let attacker = Attacker::new(&arena.host, "spender", &quota).await;
    attacker.tenant.upload("hostile", Guest::new("(loop $again (br $again)) unreachable").wasm()).await.expect(201);
    // The upload started it once, which uses hardly any fuel.
    let subscription = trial::subscribe(&arena, &attacker, "hostile", &Value::Null).await;
    let began = Instant::now();
    let met = match trial::meet(&attacker, &subscription, CALLS).await {
        Ok(met) => met,
        Err(why) => return Observed::nothing().wrong([why]),
    };
    let took = began.elapsed();
    let other = met.iter().map(|met| Observed::of_delivery(&met.delivery)).find(|one| one.by != "fuel");
    let told = format!(
        "{CALLS} calls of a second's fuel each took {:.1} s: {}",
        took.as_secs_f64(),
        met[0].delivery["reason"]
    );
    let wrong = other.map(|one| format!("a call was answered {}: {}", one.by, one.told));
    let seen = Observed::of("waits", told).wrong(wrong);
    // One call is covered by the saved budget, and concurrent ones may start before they are charged.
    let least = Duration::from_secs(CALLS as u64 - u64::from(INSTANCES_PER_TENANT_MAX) - 1);
    if took >= least.mul_f64(0.8) { seen.limit("fuel_per_second") } else { seen }
}

async fn running(host: &Host) -> f64 {
    host.metric("setgate_filter_calls_running", &[]).await
}
