//! More events than the ledger can append at once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::arena::{Arena, Attacker};
use super::guest::{Guest, PASS};
use super::trial::{self, Observed};
use super::{Class, How, Stage, limit};
use crate::{event, until};

/// Concurrent requests.
const AT_ONCE: usize = 60;
/// Rounds after which a flood that triggered no limit is abandoned.
const ROUNDS_MAX: usize = 200;
/// The arena's limit of concurrent appends: 4 of a tenant, and 16 of a tenant in the queue.
pub(super) const SETTINGS: &str = "[ingest]\nappends_max = 8\n";

pub(super) const CLASSES: &[Class] = &[Class {
    name: "event-flood",
    stage: Stage::Share,
    tried: "sixty events at once, over and over",
    answer: limit("busy", "appends_max"),
    how: How::Other(|arena, _| Box::pin(event_flood(arena))),
}];

async fn event_flood(arena: Arc<Arena>) -> Observed {
    let quota = json!({"fuel_per_second": 1_000_000_000_000_u64});
    let attacker = Attacker::new(&arena.host, "flood", &arena.quota(&quota)).await;
    attacker.tenant.upload("hostile", Guest::new(PASS).wasm()).await.expect(201);
    trial::subscribe(&arena, &attacker, "hostile", &Value::Null).await;
    let rounds_min = if arena.short { 2 } else { 100 };
    let (mut accepted, mut refused) = (0_u32, None);
    for round in 0..ROUNDS_MAX {
        let flood: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let (source, body) = (attacker.source.clone(), event::set(&format!("flood-{round}-{number}")));
                tokio::spawn(async move { source.send(body).await })
            })
            .collect();
        for sent in flood {
            match sent.await {
                Ok(answer) if answer.status == 202 => accepted += 1,
                Ok(answer) => refused = Some(answer),
                Err(error) => return Observed::nothing().wrong([format!("an event was not answered: {error}")]),
            }
        }
        if round >= rounds_min && refused.is_some() {
            break;
        }
    }
    // Every accepted event is delivered, and no other.
    let labels = ["tenant=\"flood\"", "state=\"delivered\""];
    let delivered = until("the flood is delivered", async || {
        let delivered = arena.host.metric("setgate_deliveries_total", &labels).await;
        (delivered >= f64::from(accepted)).then_some(delivered)
    })
    .await;
    let seen = match &refused {
        Some(answer) => Observed::of_upload(answer),
        None => Observed::nothing(),
    };
    let more = delivered > f64::from(accepted);
    let told = format!("{accepted} accepted and delivered, others refused: {}", seen.told);
    Observed { told, ..seen }.wrong(more.then(|| format!("{delivered} deliveries of {accepted} accepted events")))
}
