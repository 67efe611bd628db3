//! The data to rerun a delivery's chain elsewhere, and the comparison of the results.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filter::{Grant, Plan, Reuse};
use super::id::{DeliveryId, Digest, EventId, FilterName, SourceName, TableName, TenantId};
use super::limits::CallLimits;
use super::set::SetToken;
use super::verdict::{Fault, FaultPolicy, FilterRun};

/// Everything that determined a delivery's bytes, and the recorded results of its chain. Components and tables are
/// referenced by digest, and secrets only by name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Reproduction {
    /// Whether a rerun must produce the same result.
    pub reproducible: bool,
    /// Why it need not, if `reproducible` is false.
    #[serde(default)]
    pub reason: Option<String>,
    /// Input of the filters.
    pub event: RecordedEvent,
    /// Digest of the chain.
    pub plan: Digest,
    /// The steps of the chain.
    pub steps: Vec<RecordedStep>,
    /// Limits of each call.
    pub limits: CallLimits,
    /// Whether the limits were pinned by the delivery. If false, the delivery is from an older version, and these are
    /// the tenant's current limits.
    pub limits_pinned: bool,
    /// Tables for `lookup`.
    pub tables: BTreeMap<TableName, Digest>,
    /// The recorded filter runs.
    pub runs: Vec<FilterRun>,
    /// SHA-256 of the claims after the chain, as JSON text. Absent if the chain did not complete.
    pub claims: Option<Digest>,
}

/// The event as input of filters. Fields not listed here are in the SET.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of `Event`")]
#[schemars(rename = "EventFacts")]
pub struct RecordedEvent {
    pub id: EventId,
    /// The filters' clock, in milliseconds since the epoch.
    pub accepted_at_ms: i64,
    pub tenant: TenantId,
    pub source: SourceName,
    pub delivery: DeliveryId,
    pub subject: Option<String>,
    /// The normalized SET.
    pub set: SetToken,
}

/// One step of the chain.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StepFacts")]
pub struct RecordedStep {
    /// Name of the filter.
    pub filter: FilterName,
    /// Digest of the filter version.
    pub digest: Digest,
    /// The binding's settings: a JSON object as text, since filters can read its exact bytes.
    pub config: String,
    /// Names of the binding's secrets.
    pub secrets: BTreeSet<String>,
    /// Granted host interfaces.
    pub grants: BTreeSet<Grant>,
    /// Policy for faults.
    pub on_fault: FaultPolicy,
    /// Set if instances could process several events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

impl RecordedStep {
    /// The steps of a plan.
    pub fn of(plan: &Plan) -> Vec<Self> {
        let facts = |step: &super::filter::PlanStep| Self {
            filter: step.binding.filter.clone(),
            digest: step.digest,
            config: step.binding.config.get().to_owned(),
            secrets: step.binding.secrets.keys().cloned().collect(),
            grants: step.binding.grants.clone(),
            on_fault: step.binding.on_fault,
            reuse: step.binding.reuse,
        };
        plan.steps.iter().map(facts).collect()
    }
}

/// Why a rerun of the chain need not produce the same runs. `None` if it must.
pub fn irreproducible_reason(steps: usize, broken: Option<&str>, runs: &[FilterRun]) -> Option<String> {
    if let Some(broken) = broken {
        return Some(format!("the chain was never run: {broken}"));
    }
    if steps > 0 && runs.is_empty() {
        return Some("the chain has not been run".to_owned());
    }
    runs.iter().find_map(nondeterminism)
}

/// Why a rerun of the filter need not produce the same result. `None` if it must.
fn nondeterminism(run: &FilterRun) -> Option<String> {
    if let Some(before) = run.instance_events.and_then(|events| events.checked_sub(1)).filter(|before| *before > 0) {
        let (filter, events) = (&run.filter, if before == 1 { "event" } else { "events" });
        return Some(format!(
            "filter `{filter}` ran in an instance that had processed {before} {events} before (`reuse`): the state that they left \
             is not recorded"
        ));
    }
    match run.fault.as_ref()? {
        fault @ Fault::Wall { .. } => {
            Some(format!("filter `{}` {fault}: the duration of a call is not deterministic", run.filter))
        }
        fault @ Fault::Suspended { .. } => Some(format!("filter `{}` {fault}: it was not called", run.filter)),
        fault if fault.is_transient() => {
            Some(format!("filter `{}` {fault}: the missing item may be available now", run.filter))
        }
        _ => None,
    }
}

/// A difference between the recorded and the new result.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReproductionDifference {
    /// Number of the step, starting at 1. Absent for the result of the whole chain.
    pub step: Option<usize>,
    /// Filter of the step.
    pub filter: Option<FilterName>,
    /// The differing part: a member of the run, or `claims`.
    pub what: &'static str,
    /// The recorded value.
    pub recorded: Value,
    /// The new value.
    pub now: Value,
}

impl fmt::Display for ReproductionDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(step), Some(filter)) = (self.step, &self.filter) {
            write!(f, "step {step} ({filter}): ")?;
        }
        write!(f, "{} was {}, is {}", self.what, self.recorded, self.now)
    }
}

/// Compares the recorded results with new ones. `elapsed_us`, `engine` and `instance_events` are ignored: the first two
/// do not influence the bytes, and [`irreproducible_reason`] reports cases in which the third may.
pub fn differences(
    recorded: &[FilterRun],
    recorded_claims: Option<Digest>,
    now: &[FilterRun],
    now_claims: Option<Digest>,
) -> Vec<ReproductionDifference> {
    let mut found = Vec::new();
    for at in 0..recorded.len().max(now.len()) {
        let (was, is) = (recorded.get(at).map(members), now.get(at).map(members));
        let filter = recorded.get(at).or(now.get(at)).map(|run| run.filter.clone());
        let mut differs = |what, recorded: Value, now: Value| {
            if recorded != now {
                found.push(ReproductionDifference { step: Some(at + 1), filter: filter.clone(), what, recorded, now });
            }
        };
        match (was, is) {
            (Some(was), Some(is)) => {
                for ((what, was), (_, is)) in was.into_iter().zip(is) {
                    differs(what, was, is);
                }
            }
            (was, is) => differs("run", was.is_some().into(), is.is_some().into()),
        }
    }
    // If no claims were recorded, there is nothing to compare: the runs already show how the chain ended.
    if let Some(recorded) = recorded_claims.filter(|_| recorded_claims != now_claims) {
        let now = now_claims.map_or(Value::Null, |digest| digest.to_string().into());
        found.push(ReproductionDifference {
            step: None,
            filter: None,
            what: "claims",
            recorded: recorded.to_string().into(),
            now,
        });
    }
    found
}

fn members(run: &FilterRun) -> [(&'static str, Value); 8] {
    fn json<T: Serialize>(value: &T) -> Value {
        serde_json::to_value(value).unwrap_or_default()
    }
    [
        ("filter", json(&run.filter)),
        ("digest", json(&run.digest)),
        ("verdict", json(&run.verdict)),
        ("reason", json(&run.reason)),
        ("fault", json(&run.fault)),
        ("fuel", json(&run.fuel)),
        ("memory_bytes", json(&run.memory_bytes)),
        ("log", json(&run.log)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{LogLevel, LogLine, VerdictKind};

    fn run() -> FilterRun {
        FilterRun {
            filter: "redact".parse().unwrap(),
            digest: Digest([1; 32]),
            verdict: Some(VerdictKind::Patch),
            reason: None,
            fault: None,
            fuel: 1_000,
            memory_bytes: 65_536,
            elapsed_us: 90,
            log: Vec::new(),
            engine: Some("a".into()),
            instance_events: None,
        }
    }

    fn faulted(fault: Fault) -> FilterRun {
        FilterRun { verdict: None, fault: Some(fault), ..run() }
    }

    #[test]
    fn every_deterministic_member_is_compared() {
        let claims = Some(Digest([2; 32]));
        let same = FilterRun { elapsed_us: 7, engine: None, ..run() };
        assert_eq!(differences(&[run()], claims, &[same], claims), []);
        for (what, other) in [
            ("filter", FilterRun { filter: "other".parse().unwrap(), ..run() }),
            ("digest", FilterRun { digest: Digest([9; 32]), ..run() }),
            ("verdict", FilterRun { verdict: Some(VerdictKind::Replace), ..run() }),
            ("reason", FilterRun { reason: Some("so".into()), ..run() }),
            ("fault", FilterRun { fault: Some(Fault::Trap { detail: "x".into() }), ..run() }),
            ("fuel", FilterRun { fuel: 1_001, ..run() }),
            ("memory_bytes", FilterRun { memory_bytes: 1, ..run() }),
            ("log", FilterRun { log: vec![LogLine { level: LogLevel::Info, text: "x".into() }], ..run() }),
        ] {
            let found = differences(&[run()], claims, &[other], claims);
            assert_eq!(found.iter().map(|d| d.what).collect::<Vec<_>>(), [what]);
            assert!(found[0].to_string().starts_with("step 1 (redact): "), "{}", found[0]);
        }
        let found = differences(&[run(), run()], claims, &[run()], Some(Digest([3; 32])));
        assert_eq!(found.iter().map(|d| (d.step, d.what)).collect::<Vec<_>>(), [(Some(2), "run"), (None, "claims")]);
        assert_eq!(differences(&[], claims, &[], None).len(), 1, "missing claims are a difference");
        assert_eq!(differences(&[], None, &[], claims), [], "no claims were recorded to compare with");
    }

    #[test]
    fn nondeterministic_runs_are_irreproducible() {
        let unavailable = Fault::Unavailable { detail: "no slot".into() };
        for fault in [Fault::Wall { limit_ms: 5 }, Fault::Transient { reason: "later".into() }, unavailable] {
            assert!(
                irreproducible_reason(2, None, &[run(), faulted(fault.clone())]).unwrap().contains("`redact`"),
                "{fault}"
            );
        }
        for fault in [Fault::Fuel { limit: 5, function: None }, Fault::Permanent { reason: "no".into() }] {
            assert_eq!(irreproducible_reason(1, None, &[faulted(fault)]), None);
        }
        assert!(irreproducible_reason(1, None, &[]).unwrap().contains("has not been run"));
        let nth = |events| FilterRun { instance_events: Some(events), ..run() };
        assert_eq!(irreproducible_reason(2, None, &[nth(1), run()]), None, "the first event gets a fresh instance");
        let reason = irreproducible_reason(2, None, &[run(), nth(7)]).unwrap();
        assert!(reason.contains("`redact`") && reason.contains("6 events before"), "{reason}");
        assert_eq!(irreproducible_reason(0, None, &[]), None, "an empty chain is always reproducible");
        assert!(irreproducible_reason(0, Some("no active version"), &[]).unwrap().contains("no active version"));
    }
}
