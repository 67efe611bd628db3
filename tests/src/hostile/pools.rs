//! Resources shared by all tenants outside the sandbox: memory for documents, the disk, ingest, slots for deliveries.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::arena::{Arena, Attacker};
use super::trial::Observed;
use super::{Class, How, Stage, limit, rule};
use crate::client::Answer;
use crate::receiver::Receiver;
use crate::rude::{Manner, Rude};
use crate::source::Seed;
use crate::{Host, event, until};

const fn class(name: &'static str, tried: &'static str, answer: super::Answer, how: How) -> Class {
    Class { name, stage: Stage::Shares, tried, answer, how }
}

pub(super) const CLASSES: &[Class] = &[
    class(
        "heavy-documents",
        "subscriptions of 16 KiB each, as many as are taken",
        limit("conflict", "documents_bytes_max"),
        How::Other(|arena, _| Box::pin(heavy_documents(arena))),
    ),
    class(
        "disk-flood",
        "events of 60 kB each, as many as are taken",
        limit("storage_full", "stored_bytes_max"),
        How::Other(|arena, _| Box::pin(flood(arena, json!({"stored_bytes_max": 2_000_000})))),
    ),
    class(
        "byte-flood",
        "events of 60 kB each, as fast as they go",
        limit("too_many_bytes", "ingest_bytes_per_second"),
        How::Other(|arena, _| Box::pin(flood(arena, json!({"ingest_bytes_per_second": 100_000})))),
    ),
    class(
        "hanging-receivers",
        "five tenants whose receivers take every delivery and never answer",
        rule("delivered"),
        How::Other(|_, _| Box::pin(hanging_receivers())),
    ),
];

async fn heavy_documents(arena: Arc<Arena>) -> Observed {
    let attacker = Attacker::new(&arena.host, "heavy", &arena.quota(&json!({"documents_bytes_max": 500_000}))).await;
    let metadata: Map<String, Value> = (0..32).map(|n| (format!("note-{n}"), Value::from("x".repeat(500)))).collect();
    for made in 0..200 {
        let asked = attacker.tenant.subscribe(&arena.receiver).with("metadata", Value::Object(metadata.clone()));
        let answer = asked.ask().await;
        if answer.status != 201 {
            let seen = Observed::of_upload(&answer);
            return Observed { told: format!("after {made}: {}", seen.told), ..seen };
        }
    }
    Observed::nothing().wrong(["200 subscriptions of 16 KiB each were taken".to_owned()])
}

async fn flood(arena: Arc<Arena>, quota: Value) -> Observed {
    let name = if quota.get("stored_bytes_max").is_some() { "fills" } else { "hurries" };
    let attacker = Attacker::new(&arena.host, name, &arena.quota(&quota)).await;
    let mut accepted = 0;
    let mut refused: Option<Answer> = None;
    for number in 0..200 {
        let answer = attacker.source.send(bulky(&format!("{name}-{number}"))).await;
        match answer.status {
            202 => accepted += 1,
            _ => {
                refused = Some(answer);
                break;
            }
        }
    }
    let Some(refused) = refused else {
        return Observed::nothing().wrong([format!("{accepted} events of 60 kB each were taken")]);
    };
    let seen = Observed::of_upload(&refused);
    Observed { told: format!("after {accepted}: {}", seen.told), ..seen }
}

/// A SET of about 60 kB that does not compress.
fn bulky(jti: &str) -> String {
    let mut set: Value = serde_json::from_str(&event::set(jti)).expect("a SET is JSON");
    let mut state = jti.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| state.rotate_left(8) ^ u64::from(byte));
    let letters = std::iter::repeat_with(|| {
        // Xorshift (Marsaglia 2003): letters without repetition.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 40) as u8 % 43)
    });
    set["padding"] = letters.filter(|letter| letter.is_ascii_alphanumeric()).take(60_000).collect::<String>().into();
    set.to_string()
}

/// On a separate host whose receiver timeouts do not expire during the check.
async fn hanging_receivers() -> Observed {
    let config = "[delivery]\nin_flight_max = 24\nin_flight_per_tenant_max = 8\nbreaker_failures_max = 0\n\
        [egress]\nhead_ms_max = 600000\nresponse_ms_max = 600000\n";
    let host = Host::with().config(config).start().await;
    let mut hanging = Vec::new();
    for number in 0..5 {
        let tenant = host.tenant(&format!("hang-{number}")).await;
        let source = tenant.source("open", Seed::Open).await;
        let receiver = Rude::start(std::iter::repeat_n(Manner::Hang, 100)).await;
        tenant.subscribe_url(&receiver.url()).create().await;
        for event in 0..12 {
            source.accept(event::set(&format!("e{event}"))).await;
        }
        hanging.push(receiver);
    }
    until("the receivers hold their requests", async || {
        (host.metric("setgate_deliveries_in_flight", &[]).await >= 18.0).then_some(())
    })
    .await;
    let healthy = host.tenant("healthy").await;
    let source = healthy.source("open", Seed::Open).await;
    let receiver = Receiver::start().await;
    let subscription = healthy.subscribe(&receiver).create().await;
    for number in 0..20 {
        let accepted = source.accept(event::set(&format!("calm-{number}"))).await;
        healthy.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    }
    Observed::of("delivered", "20 events of another tenant were delivered while no delivery of the others had ended")
}
