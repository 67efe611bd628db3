//! Matching a tenant's patterns and topics against text from its senders. The host does the work, and other tenants
//! must not be delayed by it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::arena::{Arena, Attacker};
use super::trial::Observed;
use super::{Class, How, Stage, limit, rule};
use crate::source::{Seed, Source};
use crate::{event, until};

/// Time limit for another tenant's event during the attack. It took 14 s before the work was bounded; on a busy machine
/// it takes a fraction of a second.
const CALM_MAX: Duration = Duration::from_secs(5);

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "slow-patterns",
        stage: Stage::Match,
        tried: "64 patterns made for going back, against events of 16 types of a kilobyte each",
        answer: rule("accepted"),
        how: How::Other(|arena, attacker| Box::pin(slow_patterns(arena, attacker))),
    },
    Class {
        name: "many-patterns",
        stage: Stage::Match,
        tried: "subscriptions of 64 patterns each, as many as are taken, and an event against all of them",
        answer: limit("conflict", "patterns_bytes_max"),
        how: How::Other(|arena, attacker| Box::pin(many_patterns(arena, attacker))),
    },
    Class {
        name: "slow-replay",
        stage: Stage::Match,
        tried: "a replay of such events with such patterns",
        answer: rule("done"),
        how: How::Other(|arena, attacker| Box::pin(slow_replay(arena, attacker))),
    },
    Class {
        name: "slow-topics",
        stage: Stage::Match,
        tried: "100 WebSub topics made for going back, against a topic of 6,000 characters that anybody may ask for",
        answer: rule("unexpected_verification"),
        how: How::Other(|arena, attacker| Box::pin(slow_topics(arena, attacker))),
    },
];

/// An event with the maximum number of types, each of maximum length and with many possible starts of a match.
fn long_types(jti: &str) -> String {
    let types = (0..16).map(|number| format!("\"urn:{}{}{number:02}\":{{}}", "a:".repeat(31), "a".repeat(940)));
    let types: Vec<String> = types.collect();
    let head = r#"{"iss":"https://idp.example.com/","iat":1615305159,"jti":""#;
    format!("{head}{jti}\",\"events\":{{{}}}}}", types.join(","))
}

/// Patterns for which a backtracking matcher has to try every position of a type.
fn patterns(from: usize) -> Vec<String> {
    (from..from + 64).map(|number| format!("a*{}{number:05}b", "a".repeat(240))).collect()
}

/// The longest time in which another tenant's event was accepted during `under_way`.
async fn beside<T>(arena: &Arena, name: &str, under_way: impl Future<Output = T>) -> (T, Duration) {
    let calm = arena.host.tenant(name).await;
    let source = calm.source("calm", Seed::Open).await;
    let mut longest = Duration::ZERO;
    let mut number = 0;
    tokio::pin!(under_way);
    loop {
        let one = async {
            let (began, jti) = (Instant::now(), format!("calm-{number}"));
            source.accept(event::set(&jti)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            began.elapsed()
        };
        // Also waits for the request in progress, because that is the delayed one.
        let (ended, took) = tokio::select! {
            biased;
            ended = &mut under_way => (Some(ended), Duration::ZERO),
            took = one => (None, took),
        };
        longest = longest.max(took);
        number += 1;
        if let Some(ended) = ended {
            return (ended, longest);
        }
    }
}

fn too_slow(longest: Duration) -> Option<String> {
    (longest > CALM_MAX).then(|| format!("beside it, another tenant's event took {:.1} s", longest.as_secs_f64()))
}

/// Sends such events concurrently, each again while the tenant has too many queued (429), as senders do. Returns the
/// number of accepted ones.
async fn send(source: &Source, name: &str, count: usize) -> usize {
    let sending: Vec<_> = (0..count)
        .map(|number| {
            let (source, body) = (source.clone(), long_types(&format!("{name}-{number}")));
            tokio::spawn(async move {
                loop {
                    let status = source.send(body.clone()).await.status;
                    if status != 429 {
                        return status;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    let mut accepted = 0;
    for sent in sending {
        accepted += usize::from(sent.await.is_ok_and(|status| status == 202));
    }
    accepted
}

async fn slow_patterns(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    attacker.tenant.subscribe(&arena.receiver).with("events", json!(patterns(0))).create().await;
    let count = if arena.short { 4 } else { 40 };
    let (accepted, longest) = beside(&arena, "calm-patterns", send(&attacker.source, "slow", count)).await;
    let told =
        format!("{accepted} of {count} events; another tenant's took {:.2} s at the most", longest.as_secs_f64());
    if accepted < count {
        return Observed::of("not accepted", told);
    }
    Observed::of("accepted", told).wrong(too_slow(longest))
}

async fn many_patterns(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    let mut made = Vec::new();
    let refused = loop {
        let asked = attacker.tenant.subscribe(&arena.receiver).with("events", json!(patterns(made.len() * 64)));
        let answer = asked.ask().await;
        if answer.status != 201 {
            break answer;
        }
        made.push(answer.json()["id"].as_str().unwrap_or_default().to_owned());
        if made.len() > 200 {
            return Observed::nothing().wrong(["200 subscriptions of 64 long patterns each were taken".to_owned()]);
        }
    };
    let (accepted, longest) = beside(&arena, "calm-many", send(&attacker.source, "many", 4)).await;
    let seen = Observed::of_upload(&refused);
    let told = format!("after {}: {}", made.len(), seen.told);
    for id in made {
        attacker.tenant.client.delete(&attacker.tenant.path(&format!("/subscriptions/{id}"))).await.expect(204);
    }
    let lost = (accepted < 4).then(|| format!("{accepted} of 4 events were accepted"));
    Observed { told, ..seen }.wrong(too_slow(longest)).wrong(lost)
}

async fn slow_replay(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    let count = if arena.short { 4 } else { 40 };
    let subscription = attacker.tenant.subscribe(&arena.receiver).with("events", json!(["nothing"])).create().await;
    send(&attacker.source, "replayed", count).await;
    let asked = json!({
        "subscription": subscription.id, "since": "2020-01-01T00:00:00Z", "events": patterns(0), "per_second": 1000,
    });
    let replay = attacker.tenant.client.post(&attacker.tenant.path("/replays"), &asked).await;
    let id = replay.json()["id"].as_str().unwrap_or_default().to_owned();
    let ends = until("the replay ends", async || {
        let shown = attacker.tenant.get(&format!("/replays/{id}")).await;
        (shown["state"] != "running").then(|| shown["state"].as_str().unwrap_or_default().to_owned())
    });
    let (state, longest) = beside(&arena, "calm-replay", ends).await;
    Observed::of(&state, format!("another tenant's event took {:.2} s at the most", longest.as_secs_f64()))
        .wrong(too_slow(longest))
}

async fn slow_topics(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    let topics: Vec<String> = (0..100).map(|number| format!("a*{}{number:02}b", "a".repeat(900))).collect();
    let source = attacker.tenant.source_with("topics", Seed::Open, &json!({"websub_topics": topics})).await;
    let path = format!("{}?hub.mode=subscribe&hub.challenge=c&hub.topic={}", source.path, "a".repeat(6_000));
    let stranger = arena.host.stranger();
    let asked = async {
        let mut last = stranger.get(&path).await;
        for _ in 0..if arena.short { 2 } else { 50 } {
            last = stranger.get(&path).await;
        }
        last
    };
    let (answer, longest) = beside(&arena, "calm-topics", asked).await;
    let seen = Observed::of_upload(&answer);
    Observed { limit: None, ..seen }.wrong(too_slow(longest))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_events_are_as_long_as_they_may_be() {
        let event: Value = serde_json::from_str(&long_types("one")).unwrap();
        let types = event["events"].as_object().unwrap();
        assert_eq!(types.len(), 16);
        assert!(types.keys().all(|uri| uri.len() <= 1_024) && long_types("one").len() > 16_000);
        assert!(patterns(0).iter().all(|pattern| pattern.len() <= 256));
    }
}
