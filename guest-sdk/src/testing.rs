//! Tests filters with plain `cargo test`, without a WebAssembly toolchain or a running host.
//!
//! A [`Host`] filled by the test provides config, secrets, log and look-ups. This module does not exist in a guest.
//!
//! ```
//! use setgate_sdk::{Event, Result, Verdict, config, json, testing};
//!
//! fn filter(event: &Event) -> Result<Verdict> {
//!     let unwanted: Vec<String> = config()?;
//!     Ok(if unwanted.iter().any(|pattern| event.is(pattern)) { Verdict::drop_because("unwanted") } else { Verdict::pass() })
//! }
//!
//! let event = testing::event_of("https://example.com/login", json!({"user": "jane"}));
//! let run = testing::Host::new().config(json!({"not": "a list"})).run(filter, event);
//! assert!(run.failure().contains("config: invalid type"));
//! ```

mod cases;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::log::Level;
use crate::lookup::Refusal;
use crate::{Event, Failure, Result, Verdict};

pub use cases::cases;

/// The claims that a filter cannot change.
const SEALED: [&str; 5] = ["iss", "iat", "jti", "aud", "txn"];

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Runs a filter over an event without config, secrets or tables.
pub fn run(filter: fn(&Event) -> Result<Verdict>, event: Event) -> Run {
    Host::new().run(filter, event)
}

/// An event with these claims, as the host would pass it to a filter.
///
/// # Panics
/// If the claims are not a SET, which needs `iss`, `iat`, `jti` and an `events` object with at least one member.
pub fn event(claims: Value) -> Event {
    check_set(&claims);
    let issued_at = claims["iat"].as_u64().expect("`iat` is a whole number");
    let subject = ["/sub_id/sub", "/sub_id/id", "/sub_id/email", "/sub_id/phone_number", "/sub"];
    Event {
        id: "evt_00000000000000000000000000".to_owned(),
        issuer: claims["iss"].as_str().unwrap_or_default().to_owned(),
        issued_at,
        accepted_at: issued_at * 1000 + 250,
        types: claims["events"].as_object().map(|events| events.keys().cloned().collect()).unwrap_or_default(),
        subject: subject.iter().find_map(|place| claims.pointer(place)?.as_str().map(str::to_owned)),
        tenant: "acme".to_owned(),
        source: "test".to_owned(),
        subscription: "sub_00000000000000000000000000".to_owned(),
        delivery: "dlv_00000000000000000000000000".to_owned(),
        text: claims.to_string(),
        claims: OnceCell::new(),
    }
}

/// An event with this body as the only member of `events`, as the host creates it from a product's own format.
pub fn event_of(uri: &str, body: Value) -> Event {
    event(json!({
        "iss": "https://idp.example.com", "iat": 1_767_225_600, "jti": "test-1", "events": { uri: body }
    }))
}

/// The claims after a verdict, as the host would deliver them. `None` after a drop.
///
/// # Panics
/// If the host would report a fault: the result is not a valid SET, or changes a claim that filters cannot change.
pub fn apply(event: &Event, verdict: &Verdict) -> Option<Value> {
    let before = event.claims();
    let after = match verdict {
        Verdict::Pass => before.clone(),
        Verdict::Drop(_) => return None,
        Verdict::Patch(patch) => merge(before.clone(), serde_json::from_str(patch).expect("a patch is JSON")),
        Verdict::Replace(claims) => serde_json::from_str(claims).expect("replaced claims are JSON"),
    };
    check_set(&after);
    for claim in SEALED {
        assert_eq!(before.get(claim), after.get(claim), "a filter cannot change `{claim}`");
    }
    Some(after)
}

/// The host as seen by a filter under test.
#[derive(Debug, Default)]
pub struct Host {
    config: Option<Value>,
    secrets: BTreeMap<String, String>,
    tables: BTreeMap<String, BTreeMap<String, Value>>,
    lookups: Option<usize>,
    log: Vec<(Level, String)>,
}

impl Host {
    /// A host without config, secrets and tables.
    pub fn new() -> Host {
        Host::default()
    }

    /// Sets the binding's `config` object.
    pub fn config(mut self, config: Value) -> Host {
        self.config = Some(config);
        self
    }

    /// Sets one of the binding's secrets.
    pub fn secret(mut self, name: &str, value: &str) -> Host {
        self.secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a row to one of the tenant's tables, and creates the table if necessary.
    pub fn row(mut self, table: &str, key: &str, row: Value) -> Host {
        self.tables.entry(table.to_owned()).or_default().insert(key.to_owned(), row);
        self
    }

    /// Limits the number of look-ups per call; unlimited by default.
    pub fn lookups_max(mut self, lookups: usize) -> Host {
        self.lookups = Some(lookups);
        self
    }

    /// Calls the filter once.
    pub fn run(self, filter: fn(&Event) -> Result<Verdict>, event: Event) -> Run {
        HOST.set(self);
        let result = filter(&event);
        Run { event, result, log: HOST.take().log }
    }
}

/// The outcome of one call.
#[derive(Debug)]
pub struct Run {
    /// The event the filter was called with.
    pub event: Event,
    /// The result of the filter.
    pub result: Result<Verdict>,
    /// The lines it logged.
    pub log: Vec<(Level, String)>,
}

impl Run {
    /// The verdict.
    ///
    /// # Panics
    /// If the filter failed.
    pub fn verdict(&self) -> &Verdict {
        self.result.as_ref().unwrap_or_else(|failure| panic!("the filter failed: {failure:?}"))
    }

    /// The reason of a failure, of either kind.
    ///
    /// # Panics
    /// If the filter returned a verdict.
    pub fn failure(&self) -> &str {
        match &self.result {
            Ok(verdict) => panic!("the filter decided: {verdict:?}"),
            Err(Failure::Transient(reason) | Failure::Permanent(reason)) => reason,
        }
    }

    /// The claims after the verdict.
    ///
    /// # Panics
    /// If the filter failed or dropped the event, and if [`apply`] panics.
    pub fn claims(&self) -> Value {
        let claims = apply(&self.event, self.verdict());
        claims.unwrap_or_else(|| panic!("the event was dropped: {:?}", self.verdict()))
    }

    /// The value of the first event member after the verdict. Panics as [`claims`](Run::claims) does.
    pub fn body(&self) -> Value {
        let mut claims = self.claims();
        let events = claims["events"].as_object_mut().expect("checked to be an object");
        events.values_mut().next().map_or(Value::Null, Value::take)
    }
}

pub(crate) fn config_all() -> String {
    HOST.with_borrow(|host| host.config.as_ref().map_or_else(|| "{}".to_owned(), Value::to_string))
}

pub(crate) fn config_get(key: &str) -> Option<String> {
    HOST.with_borrow(|host| Some(host.config.as_ref()?.get(key)?.to_string()))
}

pub(crate) fn secret(name: &str) -> Option<String> {
    HOST.with_borrow(|host| host.secrets.get(name).cloned())
}

pub(crate) fn log(level: Level, line: &str) {
    HOST.with_borrow_mut(|host| host.log.push((level, line.to_owned())));
}

pub(crate) fn lookup(table: &str, key: &str) -> Result<Option<String>, Refusal> {
    HOST.with_borrow_mut(|host| {
        if let Some(left) = &mut host.lookups {
            *left = left.checked_sub(1).ok_or(Refusal::OverBudget)?;
        }
        let rows = host.tables.get(table).ok_or(Refusal::NoSuchTable)?;
        Ok(rows.get(key).map(Value::to_string))
    })
}

/// RFC 7396, section 2.
fn merge(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut target = if let Value::Object(target) = target { target } else { serde_json::Map::new() };
    for (name, value) in patch {
        if value.is_null() {
            // Not `remove`, which would move the last member into the gap.
            target.shift_remove(&name);
        } else {
            let before = target.get_mut(&name).map_or(Value::Null, Value::take);
            target.insert(name, merge(before, value));
        }
    }
    Value::Object(target)
}

fn check_set(claims: &Value) {
    for claim in ["iss", "jti"] {
        assert!(claims[claim].is_string(), "a SET has a text `{claim}`: {claims}");
    }
    assert!(claims["iat"].is_number(), "a SET has a number `iat`: {claims}");
    let events = claims["events"].as_object().unwrap_or_else(|| panic!("a SET has an object `events`: {claims}"));
    assert!(!events.is_empty(), "a SET has at least one event: {claims}");
    assert!(events.values().all(Value::is_object), "the value of an event is an object: {claims}");
}
