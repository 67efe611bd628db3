//! Attacks with connections, bodies and answers: announcing a body without sending it, requesting without reading,
//! staying idle.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::arena::{Arena, Attacker};
use super::trial::Observed;
use super::{Class, How, Stage, limit, rule};
use crate::h2::{Raw2, Seen, connect_from};
use crate::tail::Tail;
use crate::tenant::Tenant;
use crate::{event, until};

/// Source address of the attackers' connections, different from the neighbour's.
const FROM: &str = "127.0.0.2";
/// Requests of one connection.
const REQUESTS: usize = 100;
/// Number of events whose records exceed a page.
const EVENTS: usize = 120;
/// Limit of the host's memory growth during one of these attacks.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// Limit of connections of one client on the arena's host.
pub(super) const PER_PEER_MAX: usize = 256;
/// The same limit as configuration lines.
pub(super) const SETTINGS: &str = "[listen]\nconnections_per_peer_max = 256\n";
/// Time limit of each operation.
const DEADLINE: Duration = Duration::from_secs(90);

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "answers-untaken",
        stage: Stage::Responses,
        tried: "a hundred pages asked for on a connection of HTTP/2 whose window never opens, with a key that may read",
        answer: limit("busy", "RESPONSES_BYTES_PER_TENANT_MAX"),
        how: How::Other(|arena, attacker| Box::pin(answers_untaken(arena, attacker))),
    },
    Class {
        name: "bodies-unsent",
        stage: Stage::Responses,
        tried: "a hundred bodies announced without a key, and never sent",
        answer: rule("body_too_slow"),
        how: How::Other(|arena, attacker| Box::pin(bodies_unsent(arena, attacker))),
    },
    Class {
        name: "connections-idle",
        stage: Stage::Responses,
        tried: "more connections of one client than it may have, each answering pings and no more",
        answer: limit("closed", "connections_per_peer_max"),
        how: How::Other(|arena, _| Box::pin(connections_idle(arena))),
    },
    Class {
        name: "tail-after-key",
        stage: Stage::Responses,
        tried: "a tail that always has something to show, when its key is removed",
        answer: rule("ended"),
        how: How::Other(|arena, attacker| Box::pin(tail_after_key(arena, attacker))),
    },
];

async fn answers_untaken(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    let tenant = &attacker.tenant;
    tenant.subscribe(&arena.receiver).with("sources", json!(["hostile"])).create().await;
    for number in 0..EVENTS {
        let events: serde_json::Map<String, Value> =
            (0..16).map(|at| (format!("https://example.com/{at}/{}", "t".repeat(1_000)), json!({}))).collect();
        let body =
            json!({"iss": "https://i/", "jti": format!("large-{number}"), "iat": 1_615_305_159, "events": events});
        attacker.source.accept(body.to_string()).await;
    }
    tenant.get("/deliveries?limit=200").await;
    let before = arena.rss_bytes();
    let bearer = format!("Bearer {}", tenant.key);
    let Ok(mut connection) = Raw2::open(FROM, &arena.host.base(), 0).await else {
        return Observed::nothing().wrong(["no connection".to_owned()]);
    };
    for number in 0..REQUESTS {
        let list = if number % 2 == 0 { "/deliveries?limit=200" } else { "/events?limit=200" };
        let sent = connection.request("GET", &tenant.path(list), &[("authorization", &bearer)], true).await;
        if let Err(error) = sent {
            return Observed::nothing().wrong([format!("request {number}: {error}")]);
        }
    }
    let mut heads = 0;
    let reading = async {
        while heads < REQUESTS {
            match connection.next().await {
                Seen::Head(_) => heads += 1,
                Seen::End | Seen::GoAway => break,
                _ => {}
            }
        }
    };
    let answered = tokio::time::timeout(DEADLINE, reading).await.is_ok();
    let grown = arena.rss_bytes().saturating_sub(before);
    let seen = match tenant.client.try_send(http::Method::GET, &tenant.path("/deliveries?limit=200"), &[], "").await {
        Ok(answer) => Observed::of_upload(&answer),
        Err(why) => Observed::nothing().wrong([why]),
    };
    drop(connection);
    until("the share is free again", async || {
        (tenant.client.get(&tenant.path("/deliveries?limit=200")).await.status == 200).then_some(())
    })
    .await;
    let much = (grown > GROWTH_BYTES_MAX).then(|| format!("the host's memory grew by {} MiB", grown >> 20));
    let few = (!answered || heads < REQUESTS).then(|| format!("{heads} of {REQUESTS} requests were answered"));
    seen.wrong(much).wrong(few)
}

async fn bodies_unsent(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    let path = attacker.source.path.clone();
    let token = format!("Bearer {}", crate::Seed::Set.secret());
    let headers =
        [("content-type", "application/json"), ("content-length", "200000"), ("authorization", token.as_str())];
    let Ok(mut connection) = Raw2::open(FROM, &arena.host.base(), 65_535).await else {
        return Observed::nothing().wrong(["no connection".to_owned()]);
    };
    for _ in 0..REQUESTS {
        if connection.request("POST", &path, &headers, false).await.is_err() {
            return Observed::nothing().wrong(["the connection ended".to_owned()]);
        }
    }
    let mut wrong = Vec::new();
    for number in 0..10 {
        let answer = attacker.source.send(event::set(&format!("meanwhile-{number}"))).await;
        if answer.status != 202 {
            wrong.push(format!("meanwhile an event was answered {}: {}", answer.status, answer.text()));
        }
    }
    let answer = async {
        let mut one = connect_from(FROM, &arena.host.base()).await.ok()?;
        let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\nauthorization: {token}\r\n\r\n");
        one.write_all(head.as_bytes()).await.ok()?;
        let (mut text, mut part) = (String::new(), [0; 4096]);
        while let Ok(bytes @ 1..) = one.read(&mut part).await {
            text.push_str(&String::from_utf8_lossy(&part[..bytes]));
            if text.contains("\"detail\"") {
                break;
            }
        }
        Some(text)
    };
    let told = tokio::time::timeout(DEADLINE, answer).await.ok().flatten().unwrap_or_default();
    let by = if told.contains("body_too_slow") { "body_too_slow" } else { "nothing" };
    Observed::of(by, told.lines().last().unwrap_or_default()).wrong(wrong)
}

async fn connections_idle(arena: Arc<Arena>) -> Observed {
    const BEYOND: usize = 40;
    let mut idle = Vec::new();
    for _ in 0..PER_PEER_MAX + BEYOND {
        if let Ok(mut one) = Raw2::open(FROM, &arena.host.base(), 65_535).await {
            idle.push(tokio::spawn(async move { while one.next().await != Seen::End {} }));
        }
    }
    let ended = || idle.iter().filter(|one| one.is_finished()).count();
    let closed = tokio::time::timeout(DEADLINE, async {
        while ended() < BEYOND {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let closed = closed.await.is_ok();
    let told = format!("{} of {} connections were closed", ended(), idle.len());
    idle.iter().for_each(tokio::task::JoinHandle::abort);
    let seen = Observed::of(if closed { "closed" } else { "nothing" }, told);
    if closed { seen.limit("connections_per_peer_max") } else { seen }
}

async fn tail_after_key(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    let tenant = &attacker.tenant;
    tenant.subscribe(&arena.receiver).with("sources", json!(["hostile"])).create().await;
    let made = tenant.client.post(&tenant.path("/keys"), &json!({"scopes": ["read"]})).await.expect(201).json();
    let reader = Tenant::new(&tenant.name, made["key"].as_str().unwrap_or_default(), &tenant.client);
    let mut tail = Tail::open(&reader, "", None).await;
    let source = attacker.source.clone();
    let traffic = tokio::spawn(async move {
        for number in 0_u64.. {
            let _ = source.try_send(event::set(&format!("shown-{number}"))).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tail.settlement().await;
    let key = tenant.path(&format!("/keys/{}", made["id"].as_str().unwrap_or_default()));
    tenant.client.delete(&key).await.expect(204);
    let reading = async {
        loop {
            match tail.next().await {
                Some(event) if event.kind == "end" => return event.data["reason"].as_str().map(str::to_owned),
                Some(_) => {}
                None => return None,
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), reading).await;
    traffic.abort();
    match ended {
        Ok(Some(reason)) => Observed::of("ended", reason),
        Ok(None) => Observed::of("broken off", "it ended without a word"),
        Err(_) => Observed::of("nothing", "it continues"),
    }
}
