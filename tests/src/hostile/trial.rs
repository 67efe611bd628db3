//! One filter tried: uploaded, and where that passes, run over events. What is seen is read from the host's answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arena::{Arena, Attacker};
use super::guest::Guest;
use super::{Answer, words};
use crate::client::Answer as HttpAnswer;
use crate::event;
use crate::tenant::{Subscription, Tenant};

/// How long a delivery may take to come to rest.
const REST: Duration = Duration::from_secs(100);

/// A filter to try.
#[derive(Clone)]
pub struct Trial {
    /// Its bytes.
    pub wasm: Vec<u8>,
    /// Of its tenant's quota, what this trial wants otherwise.
    pub quota: Value,
    /// Of its binding, what this trial wants otherwise.
    pub binding: Value,
    /// What has to hold of each delivery besides.
    pub also: fn(&Value) -> Result<(), String>,
}

impl Trial {
    /// A guest.
    pub fn of(guest: &Guest) -> Self {
        Self::bytes(guest.wasm())
    }

    /// Any bytes.
    pub fn bytes(wasm: Vec<u8>) -> Self {
        Self { wasm, quota: json!({}), binding: json!({}), also: |_| Ok(()) }
    }

    /// With this quota.
    pub fn quota(self, quota: Value) -> Self {
        Self { quota, ..self }
    }

    /// With these members in its binding.
    pub fn binding(self, binding: Value) -> Self {
        Self { binding, ..self }
    }

    /// With something that has to hold of each delivery besides.
    pub fn also(self, also: fn(&Value) -> Result<(), String>) -> Self {
        Self { also, ..self }
    }
}

/// What was seen of an attack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// A problem's code, a fault's kind, or a verdict.
    pub by: String,
    /// The configuration key that was named.
    pub limit: Option<String>,
    /// What the tenant reads.
    pub told: String,
    /// What was wrong besides: any of it is an escape.
    pub wrong: Vec<String>,
}

impl Observed {
    /// Nothing was seen.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Of an attack on something that no answer is about.
    pub fn of(by: &str, told: impl Into<String>) -> Self {
        Self { by: by.to_owned(), told: told.into(), ..Self::default() }
    }

    /// With what was wrong.
    pub fn wrong(mut self, why: impl IntoIterator<Item = String>) -> Self {
        self.wrong.extend(why);
        self
    }

    /// With the limit that showed.
    pub fn limit(mut self, limit: &str) -> Self {
        self.limit = Some(limit.to_owned());
        self
    }

    /// Whether this is the answer.
    pub fn is(&self, answer: Answer) -> bool {
        self.by == answer.by && self.limit.as_deref() == answer.limit
    }

    /// What answered, for people.
    pub fn answer_words(&self) -> String {
        if self.by.is_empty() { "nothing".to_owned() } else { words(&self.by, self.limit.as_deref()) }
    }

    /// What an upload was answered.
    pub fn of_upload(answer: &HttpAnswer) -> Self {
        if matches!(answer.status, 200 | 201) {
            return Self::of("taken", "the filter was taken");
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

    /// What a delivery's record says.
    pub fn of_delivery(delivery: &Value) -> Self {
        let run = &delivery["runs"][0];
        let fault = &run["fault"];
        let log = run["log"].as_array().map_or(&[][..], Vec::as_slice);
        // A fault says what answered; a cut in the log of a call that went well is an answer too.
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

/// The configuration key between backticks, the last where there are several, without its section.
fn named_limit(text: &str) -> Option<String> {
    let is_key = |word: &&str| {
        word.contains('_') && word.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
    };
    let keys = text.split('`').skip(1).step_by(2).filter(is_key);
    keys.last().and_then(|key| key.rsplit('.').next()).map(str::to_owned)
}

/// Uploads only.
pub async fn upload(attacker: &Attacker, trial: &Trial) -> Observed {
    Observed::of_upload(&attacker.tenant.upload("hostile", trial.wasm.clone()).await)
}

/// Uploads, which has to pass, and runs over as many events as the arena says.
pub async fn run(arena: &Arena, attacker: &Attacker, trial: &Trial) -> Observed {
    run_events(arena, attacker, trial, arena.events).await
}

/// Uploads, which has to pass, and runs over so many events. All have to see the same.
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

/// An event that met a filter.
pub struct Met {
    /// What was sent.
    pub sent: String,
    /// Its delivery's id.
    pub id: String,
    /// Its delivery's record, at rest.
    pub delivery: Value,
}

/// Sends so many events, and gives their deliveries at rest.
///
/// # Errors
/// Where one does not come to rest.
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

/// What is wrong with the bytes that arrived of an event whose filter decided to pass it, or that went on without one.
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

/// A delivery's record, once nothing is due of it any more.
///
/// # Errors
/// Where that does not happen.
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
            return Err(format!("the delivery does not come to rest within {} s: {record}", REST.as_secs()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
