//! Tries one filter: uploads it and, if it is accepted, runs it over events. Observations come from the host's answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arena::{Arena, Attacker};
use super::guest::Guest;
use super::{Answer, words};
use crate::client::Answer as HttpAnswer;
use crate::event;
use crate::tenant::{Subscription, Tenant};

/// Time limit for a delivery to end.
const REST: Duration = Duration::from_secs(100);

/// A filter to try.
#[derive(Clone)]
pub struct Trial {
    /// Its bytes.
    pub wasm: Vec<u8>,
    /// Members of the tenant's quota that this trial overrides.
    pub quota: Value,
    /// Members of the binding that this trial overrides.
    pub binding: Value,
    /// An additional check of each delivery.
    pub also: fn(&Value) -> Result<(), String>,
}

impl Trial {
    /// A trial of a guest.
    pub fn of(guest: &Guest) -> Self {
        Self::bytes(guest.wasm())
    }

    /// A trial of any bytes.
    pub fn bytes(wasm: Vec<u8>) -> Self {
        Self { wasm, quota: json!({}), binding: json!({}), also: |_| Ok(()) }
    }

    /// Sets the quota.
    pub fn quota(self, quota: Value) -> Self {
        Self { quota, ..self }
    }

    /// Sets members of the binding.
    pub fn binding(self, binding: Value) -> Self {
        Self { binding, ..self }
    }

    /// Sets an additional check of each delivery.
    pub fn also(self, also: fn(&Value) -> Result<(), String>) -> Self {
        Self { also, ..self }
    }
}

/// The observed result of an attack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// A problem's code, a fault's kind, or a verdict.
    pub by: String,
    /// The name of the limit in the message, without its section.
    pub limit: Option<String>,
    /// The message to the tenant.
    pub told: String,
    /// Further findings, each of which makes it an escape.
    pub wrong: Vec<String>,
}

impl Observed {
    /// No observation.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// An observation without an answer of the host.
    pub fn of(by: &str, told: impl Into<String>) -> Self {
        Self { by: by.to_owned(), told: told.into(), ..Self::default() }
    }

    /// Adds findings.
    pub fn wrong(mut self, why: impl IntoIterator<Item = String>) -> Self {
        self.wrong.extend(why);
        self
    }

    /// Sets the observed limit.
    pub fn limit(mut self, limit: &str) -> Self {
        self.limit = Some(limit.to_owned());
        self
    }

    /// Whether this is the expected answer.
    pub fn is(&self, answer: Answer) -> bool {
        self.by == answer.by && self.limit.as_deref() == answer.limit
    }

    /// The answer as text.
    pub fn answer_words(&self) -> String {
        if self.by.is_empty() { "nothing".to_owned() } else { words(&self.by, self.limit.as_deref()) }
    }

    /// The observation from the answer to an upload.
    pub fn of_upload(answer: &HttpAnswer) -> Self {
        if matches!(answer.status, 200 | 201) {
            return Self::of("taken", "the filter was accepted");
        }
        let problem = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or("no problem details");
        let told = problem["detail"].as_str().unwrap_or_default();
        let wrong = answer.not_the_problem(answer.status, code);
        Self {
            by: code.to_owned(),
            limit: named_limit(told),
            told: told.to_owned(),
            wrong: wrong.into_iter().collect(),
        }
    }

    /// The observation from a delivery's record.
    pub fn of_delivery(delivery: &Value) -> Self {
        let run = &delivery["runs"][0];
        let fault = &run["fault"];
        let log = run["log"].as_array().map_or(&[][..], Vec::as_slice);
        // The fault names the answer; in a successful call, a cut log counts as an answer too.
        let log = if fault.is_null() { log } else { &[] };
        let cut = log.iter().filter_map(|line| line["text"].as_str()).find(|text| text.starts_with("[cut: "));
        let by = fault["kind"].as_str().or(run["verdict"].as_str()).unwrap_or("no run");
        let reason = delivery["reason"].as_str().map(str::to_owned);
        let told = cut.map(str::to_owned).or(reason).unwrap_or_else(|| match fault {
            Value::Null => format!("{by}: {}", delivery["state"].as_str().unwrap_or_default()),
            fault => fault.to_string(),
        });
        let limit = fault["limit_name"].as_str().map(str::to_owned).or_else(|| named_limit(&told));
        Self { by: by.to_owned(), limit, told, wrong: Vec::new() }
    }
}

/// Limits that are constants: words of their messages, and their names in the source.
const CONSTANTS: [(&str, &str); 3] = [
    ("call stack exhausted", "STACK_BYTES_MAX"),
    ("queued for the compiler, the limit per tenant", "COMPILES_QUEUED_PER_TENANT_MAX"),
    ("the limit per tenant for responses", "RESPONSES_BYTES_PER_TENANT_MAX"),
];

/// The limit that a message names: a constant, or the last configuration key between backticks, without its section.
fn named_limit(text: &str) -> Option<String> {
    if let Some((_, name)) = CONSTANTS.iter().find(|(words, _)| text.contains(words)) {
        return Some((*name).to_owned());
    }
    let is_key = |word: &&str| {
        word.contains('_') && word.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
    };
    let keys = text.split('`').skip(1).step_by(2).filter(is_key);
    keys.last().and_then(|key| key.rsplit('.').next()).map(str::to_owned)
}

/// Only uploads.
pub async fn upload(attacker: &Attacker, trial: &Trial) -> Observed {
    Observed::of_upload(&attacker.tenant.upload("hostile", trial.wasm.clone()).await)
}

/// Uploads, which must succeed, and runs over the arena's number of events.
pub async fn run(arena: &Arena, attacker: &Attacker, trial: &Trial) -> Observed {
    run_events(arena, attacker, trial, arena.events).await
}

/// Uploads, which must succeed, and runs over the given number of events. All observations must be the same.
pub async fn run_events(arena: &Arena, attacker: &Attacker, trial: &Trial, events: usize) -> Observed {
    let uploaded = upload(attacker, trial).await;
    if uploaded.by != "taken" {
        let why = "the guest was to pass the upload, and to be stopped when it runs".to_owned();
        return uploaded.wrong([why]);
    }
    let subscription = subscribe(arena, attacker, "hostile", &trial.binding).await;
    let met = match meet(attacker, &subscription, events).await {
        Ok(met) => met,
        Err(why) => return Observed::nothing().wrong([why]),
    };
    let mut seen: Option<Observed> = None;
    for met in met {
        let also = (trial.also)(&met.delivery).err().or_else(|| changed(arena, &met));
        let one = Observed::of_delivery(&met.delivery).wrong(also);
        let first = seen.get_or_insert_with(|| one.clone());
        if first.answer_words() != one.answer_words() {
            first.wrong.push(format!("another event saw {}: {}", one.answer_words(), one.told));
        }
        if first.wrong.is_empty() {
            first.wrong.extend(one.wrong);
        }
    }
    seen.unwrap_or_default()
}

/// Binds a filter to the attacker's hostile events.
pub async fn subscribe(arena: &Arena, attacker: &Attacker, filter: &str, binding: &Value) -> Subscription {
    let mut chain = json!([binding]);
    chain[0]["filter"] = json!(filter);
    if chain[0]["grants"].is_null() {
        chain[0]["grants"] = attacker.tenant.needs(filter).await;
    }
    let asked = attacker.tenant.subscribe(&arena.receiver).chain(chain);
    asked.with("sources", json!(["hostile"])).retry(&[1, 1]).create().await
}

/// An event that a filter has processed.
pub struct Met {
    /// The sent body.
    pub sent: String,
    /// Its delivery's id.
    pub id: String,
    /// Its delivery's record in its final state.
    pub delivery: Value,
}

/// Sends events, and returns their deliveries in their final state.
///
/// # Errors
/// If a delivery does not end.
pub async fn meet(attacker: &Attacker, subscription: &Subscription, events: usize) -> Result<Vec<Met>, String> {
    let mut met = Vec::with_capacity(events);
    for number in 0..events {
        let sent = event::set(&format!("{}-{number}", subscription.id));
        let id = subscription.delivery_of(&attacker.source.accept(sent.clone()).await);
        met.push(Met { sent, id, delivery: Value::Null });
    }
    for met in &mut met {
        met.delivery = at_rest(&attacker.tenant, &met.id).await?;
    }
    Ok(met)
}

/// Describes changes in the delivered bytes of an event that its filter passed, or that was delivered without its
/// filter.
pub fn changed(arena: &Arena, met: &Met) -> Option<String> {
    let run = &met.delivery["runs"][0];
    let untouched = run["verdict"] == "pass" || run["verdict"].is_null();
    if met.delivery["state"] != "delivered" || !untouched {
        return None;
    }
    match arena.receiver.all().iter().find(|received| received.id() == met.id) {
        None => Some(format!("{} is delivered, but did not arrive", met.id)),
        Some(received) if received.text() != met.sent => Some(format!("it arrived changed: {}", received.text())),
        Some(_) => None,
    }
}

/// A delivery's record once it is no longer due.
///
/// # Errors
/// If that does not happen.
pub async fn at_rest(tenant: &Tenant, id: &str) -> Result<Value, String> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let path = tenant.path(&format!("/deliveries/{id}"));
        let answer = tenant.client.try_send(http::Method::GET, &path, &[], "").await?;
        let record = match answer.status {
            200 => answer.json(),
            404 => json!({"state": "due", "reason": "it is not fanned out yet"}),
            status => return Err(format!("GET {path} is answered {status}: {}", answer.text())),
        };
        if record["state"] != "due" {
            return Ok(record);
        }
        if began.elapsed() > REST {
            return Err(format!("the delivery has not ended within {} s: {record}", REST.as_secs()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
