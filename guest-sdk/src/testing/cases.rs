use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Host, Run, event, event_of};
use crate::{Event, Result, Verdict};

/// Runs a filter over cases that are stored as data, so that adding one needs no code.
///
/// The text is a JSON object. `config`, `secrets` and `tables` (rows by table and key) are provided to the filter; a
/// case may override `config`. Each of the `cases` has a `name`, the event as `type` and `body` or as whole `claims`,
/// and the result to `expect`: `"pass"`, `{"drop": "reason"}`, `{"body": ...}`, `{"claims": ...}`, or `{"failure":
/// "part of its text"}`.
///
/// ```
/// use setgate_sdk::{Event, Result, Verdict, testing};
///
/// fn filter(event: &Event) -> Result<Verdict> {
///     Ok(if event.is("*Issued") { Verdict::drop_because("noise") } else { Verdict::pass() })
/// }
///
/// testing::cases(
///     filter,
///     r#"{"cases": [
///         {"name": "a token", "type": "urn:accessTokenIssued", "body": {}, "expect": {"drop": "noise"}},
///         {"name": "a login", "type": "urn:loginSuccess", "body": {}, "expect": "pass"}
///     ]}"#,
/// );
/// ```
///
/// # Panics
/// If the result of a case differs (the message contains its name), and if the text has another format.
pub fn cases(filter: fn(&Event) -> Result<Verdict>, text: &str) {
    let file: Cases = serde_json::from_str(text).unwrap_or_else(|error| panic!("the cases cannot be read: {error}"));
    for case in &file.cases {
        let event = match (&case.claims, &case.kind) {
            (Some(claims), None) => event(claims.clone()),
            (None, Some(uri)) => event_of(uri, case.body.clone()),
            _ => panic!("{}: an event is either `claims`, or `type` and `body`", case.name),
        };
        let config = case.config.clone().or(file.config.clone());
        let host = Host { config, secrets: file.secrets.clone(), tables: file.tables.clone(), ..Host::default() };
        case.expect.check(&case.name, &host.run(filter, event));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    config: Option<Value>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    tables: BTreeMap<String, BTreeMap<String, Value>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    claims: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    body: Value,
    config: Option<Value>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Pass,
    Drop(String),
    Body(Value),
    Claims(Value),
    Failure(String),
}

impl Expect {
    fn check(&self, name: &str, run: &Run) {
        match self {
            Expect::Pass => assert_eq!(run.verdict(), &Verdict::Pass, "{name}"),
            Expect::Drop(reason) => assert_eq!(run.verdict(), &Verdict::drop_because(reason), "{name}"),
            Expect::Body(body) => same(name, &run.body(), body),
            Expect::Claims(claims) => same(name, &run.claims(), claims),
            Expect::Failure(part) => assert!(run.failure().contains(part), "{name}: {}", run.failure()),
        }
    }
}

/// Compares printed JSON, which shows a difference more clearly than Rust's debug format.
fn same(name: &str, left: &Value, right: &Value) {
    assert!(left == right, "{name}\n     got: {left}\nexpected: {right}");
}
