//! A filter that fails on every event, under each fault policy: the policy is applied, and nothing is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::arena::{Arena, Attacker};
use super::guest::Guest;
use super::trial::{self, Observed, Trial};
use super::{Class, How, Stage, rule};

const fn class(name: &'static str, tried: &'static str, attack: super::Attack) -> Class {
    Class { name, stage: Stage::Share, tried, answer: rule("trap"), how: How::Other(attack) }
}

pub(super) const CLASSES: &[Class] = &[
    class("crash-loop-hold", "a trap on every event, on_fault hold: each event is held", |arena, attacker| {
        Box::pin(crash_loop(arena, attacker, "hold", "held"))
    }),
    class("crash-loop-open", "a trap on every event, on_fault open: each event goes through", |arena, attacker| {
        Box::pin(crash_loop(arena, attacker, "open", "delivered"))
    }),
    class("crash-loop-drop", "a trap on every event, on_fault drop: each event is dropped", |arena, attacker| {
        Box::pin(crash_loop(arena, attacker, "drop", "dropped"))
    }),
];

async fn crash_loop(arena: Arc<Arena>, attacker: Attacker, policy: &'static str, state: &'static str) -> Observed {
    let trial = Trial::of(&Guest::new("unreachable")).binding(json!({"on_fault": policy}));
    let uploaded = trial::upload(&attacker, &trial).await;
    if uploaded.by != "taken" {
        return uploaded.wrong(["the guest was to pass the upload".to_owned()]);
    }
    let subscription = trial::subscribe(&arena, &attacker, "hostile", &trial.binding).await;
    let events = if arena.short { 10 } else { 100 };
    let met = match trial::meet(&attacker, &subscription, events).await {
        Ok(met) => met,
        Err(why) => return Observed::nothing().wrong([why]),
    };
    let mut seen = met.first().map(|met| Observed::of_delivery(&met.delivery)).unwrap_or_default();
    let mut ended = BTreeMap::new();
    let mut suspended = 0;
    for met in &met {
        // A version that fails too often is suspended: its later events are held for manual action, unless the policy
        // is open.
        let was_suspended = met.delivery["runs"][0]["fault"]["kind"] == "suspended";
        suspended += usize::from(was_suspended);
        let expected = if was_suspended && policy == "drop" { "held" } else { state };
        if met.delivery["state"] != expected {
            seen.wrong
                .push(format!("an event is {}, not {expected}: {}", met.delivery["state"], met.delivery["reason"]));
        }
        *ended.entry(expected).or_insert(0) += 1;
        seen.wrong.extend(trial::changed(&arena, met));
    }
    // As many as there were events, each exactly once, in the tenant's own list.
    for (state, count) in &ended {
        let listed = attacker.tenant.deliveries(&format!("subscription={}&state={state}", subscription.id)).await.len();
        if listed != *count {
            seen.wrong.push(format!("{listed} events are listed as {state}, not {count}"));
        }
    }
    let counts: Vec<_> = ended.iter().map(|(state, count)| format!("{count} of {events} {state}")).collect();
    seen.told = format!("{}, {suspended} while suspended; {}", counts.join(", "), seen.told);
    seen
}
