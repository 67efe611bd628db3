//! A filter that fails on every event, under each fault policy: the policy decides, and nothing is lost.

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
    for met in &met {
        if met.delivery["state"] != state {
            seen.wrong.push(format!("an event is {}, not {state}: {}", met.delivery["state"], met.delivery["reason"]));
        }
        seen.wrong.extend(trial::changed(&arena, met));
    }
    // As many as there were events, each once, as the tenant's own list has them.
    let listed = attacker.tenant.deliveries(&format!("subscription={}&state={state}", subscription.id)).await.len();
    if listed != events {
        seen.wrong.push(format!("{listed} of {events} events are listed as {state}"));
    }
    seen.told = format!("{events} of {events} {state}; {}", seen.told);
    seen
}
