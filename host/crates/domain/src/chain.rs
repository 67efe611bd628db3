//! State machine of a filter chain: applies each filter's outcome to the claims and decides whether the next filter is
//! called. Pure, so that the host and a later reproduction of a delivery's chain come to the same result.

use super::filter::Binding;
use super::id::FilterName;
use super::redact::Redactor;
use super::set::{self, Applied, SetToken};
use super::verdict::{Fault, FaultPolicy, FilterRun, Verdict};

/// Result of a chain.
#[derive(Debug, Clone)]
pub struct ChainResult {
    /// How it ended.
    pub end: ChainEnd,
    /// The runs of its filters.
    pub runs: Vec<FilterRun>,
}

/// How a chain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEnd {
    /// The delivery continues with these claims. `None` if the normalized SET is unchanged.
    Completed(Option<String>),
    /// Dropped by a filter or by a fault policy, with the reason.
    Dropped(String),
    /// Held because of a fault, with the reason.
    Held(String),
    /// To be retried, with the reason.
    Retry(String),
}

/// A running chain, between two of its steps.
#[derive(Debug)]
pub struct Chain<'a> {
    set: &'a SetToken,
    changed: Option<SetToken>,
    runs: Vec<FilterRun>,
}

impl<'a> Chain<'a> {
    /// Starts a chain.
    pub fn new(set: &'a SetToken) -> Self {
        Self { set, changed: None, runs: Vec::new() }
    }

    /// The claims for the next filter.
    pub fn claims(&self) -> &SetToken {
        self.changed.as_ref().unwrap_or(self.set)
    }

    /// The last filter run, as it will be recorded.
    pub fn last(&self) -> Option<&FilterRun> {
        self.runs.last()
    }

    /// Records the result of a step: its verdict, applied to [`Self::claims`] by [`apply`]. Returns `None` if the chain
    /// continues, otherwise its end.
    pub fn step(&mut self, of: ChainStep<'_>, applied: Result<Applied, Fault>, mut run: FilterRun) -> Option<ChainEnd> {
        let fault = match applied {
            Ok(Applied::Dropped(reason)) => {
                run.reason = Some(reason.clone());
                self.runs.push(run);
                return Some(ChainEnd::Dropped(format!("filter `{}`: {reason}", of.filter)));
            }
            Ok(applied) => {
                if let Applied::Changed(after) = applied {
                    self.changed = Some(after);
                }
                self.runs.push(run);
                return None;
            }
            Err(fault) => fault,
        };
        run.verdict = None;
        run.fault = Some(fault.clone());
        self.runs.push(run);
        let reason = format!("filter `{}` {fault}", of.filter);
        if fault.is_transient() {
            return Some(ChainEnd::Retry(reason));
        }
        match of.on_fault {
            FaultPolicy::Hold => Some(ChainEnd::Held(reason)),
            // The filter did not run: a suspension must not lose deliveries.
            FaultPolicy::Drop if matches!(fault, Fault::Suspended { .. }) => Some(ChainEnd::Held(reason)),
            FaultPolicy::Drop => Some(ChainEnd::Dropped(reason)),
            FaultPolicy::Open => None,
        }
    }

    /// The result of a chain that was ended by a step.
    pub fn end_with(self, end: ChainEnd) -> ChainResult {
        ChainResult { end, runs: self.runs }
    }

    /// The result of a chain that completed all its steps.
    pub fn complete(self) -> ChainResult {
        ChainResult { end: ChainEnd::Completed(self.changed.map(|set| set.text)), runs: self.runs }
    }
}

/// The parts of a step that the chain needs.
#[derive(Debug, Clone, Copy)]
pub struct ChainStep<'a> {
    /// The filter's name, used in reasons.
    pub filter: &'a FilterName,
    /// The policy for faults.
    pub on_fault: FaultPolicy,
}

impl<'a> From<&'a Binding> for ChainStep<'a> {
    fn from(binding: &'a Binding) -> Self {
        Self { filter: &binding.filter, on_fault: binding.on_fault }
    }
}

/// Applies a verdict. If the result is not a valid SET, the fault quotes the filter's output with secrets redacted.
pub fn apply(before: &SetToken, verdict: Verdict, bytes_max: u64, redactor: &Redactor) -> Result<Applied, Fault> {
    if redactor.is_empty() {
        return set::apply(before, verdict, bytes_max);
    }
    let given = verdict.clone();
    match set::apply(before, verdict, bytes_max) {
        Err(Fault::NotASet { .. }) => {
            // Apply it again with the secrets redacted first, before anything is quoted or truncated.
            let without_secrets = match given {
                Verdict::Patch(text) => Verdict::Patch(redactor.redact(&text)),
                Verdict::Replace(text) => Verdict::Replace(redactor.redact(&text)),
                verdict => verdict,
            };
            match set::apply(before, without_secrets, u64::MAX) {
                Err(fault @ Fault::NotASet { .. }) => Err(fault),
                _ => Err(Fault::NotASet { detail: "the error cannot be described without quoting its secrets".into() }),
            }
        }
        applied => applied,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::Digest;
    use crate::json::JsonLimits;
    use crate::secret::Secret;

    fn run() -> FilterRun {
        let not_called = FilterRun::not_called("one".parse().unwrap(), Digest([1; 32]));
        FilterRun { fuel: 1, memory_bytes: 1, elapsed_us: 1, ..not_called }
    }

    #[test]
    fn fault_follows_policy_and_transient_one_is_retried() {
        let text = r#"{"iss":"i","iat":1,"jti":"j","events":{"urn:x:y":{}}}"#;
        let set = SetToken::parse(text.to_owned(), JsonLimits::default()).unwrap();
        let filter = "one".parse().unwrap();
        let trap = || Fault::Trap { detail: "x".into() };
        let end = |decided: Result<Verdict, Fault>, on_fault| {
            let applied = decided.and_then(|verdict| apply(&set, verdict, 999, &Redactor::default()));
            Chain::new(&set).step(ChainStep { filter: &filter, on_fault }, applied, run())
        };
        assert!(
            matches!(end(Err(trap()), FaultPolicy::Hold), Some(ChainEnd::Held(why)) if why.contains("`one` trapped"))
        );
        assert!(matches!(end(Err(trap()), FaultPolicy::Drop), Some(ChainEnd::Dropped(_))));
        assert_eq!(end(Err(trap()), FaultPolicy::Open), None);
        let transient = Fault::Transient { reason: "later".into() };
        assert!(matches!(end(Err(transient), FaultPolicy::Open), Some(ChainEnd::Retry(_))));
        // The filter's output is validated as a SET before it counts as a verdict.
        let sealed = Verdict::Patch(r#"{"iss":"other"}"#.into());
        assert!(matches!(end(Ok(sealed), FaultPolicy::Hold), Some(ChainEnd::Held(why)) if why.contains("`iss`")));
    }

    #[test]
    fn each_step_gets_claims_of_previous_step() {
        let text = r#"{"iss":"i","iat":1,"jti":"j","events":{"urn:x:y":{}}}"#;
        let set = SetToken::parse(text.to_owned(), JsonLimits::default()).unwrap();
        let filter = "one".parse().unwrap();
        let of = ChainStep { filter: &filter, on_fault: FaultPolicy::Hold };
        let mut chain = Chain::new(&set);
        let patch = |chain: &Chain<'_>, text: &str| {
            apply(chain.claims(), Verdict::Patch(text.into()), 999, &Redactor::default())
        };
        let applied = patch(&chain, r#"{"a":1}"#);
        assert_eq!(chain.step(of, applied, run()), None);
        assert!(chain.claims().text.contains(r#""a":1"#));
        let applied = patch(&chain, r#"{"a":null,"b":2}"#);
        assert_eq!(chain.step(of, applied, run()), None);
        let ChainResult { end, runs } = chain.complete();
        let expected = r#"{"iss":"i","iat":1,"jti":"j","events":{"urn:x:y":{}},"b":2}"#;
        assert_eq!((end, runs.len()), (ChainEnd::Completed(Some(expected.into())), 2));
    }

    #[test]
    fn fault_does_not_quote_secrets() {
        let before = r#"{"iss":"i","jti":"1","iat":1,"events":{"urn:x:y":{}}}"#;
        let before = SetToken::parse(before.to_owned(), JsonLimits::default()).unwrap();
        let key = "0123456789".repeat(10);
        let redactor = Redactor::new(&BTreeMap::from([("key".to_owned(), Secret::new(key.clone()))]));
        for patch in [
            format!(r#"{{"{key}":1,"{key}":2}}"#),
            // Longer than the quoted part of a name.
            format!(r#"{{"events":{{"not a URI {key}":{{}}}}}}"#),
            format!(r#"{{"{key}":{{"a":1,"a":1}}}}"#),
        ] {
            let fault = apply(&before, Verdict::Patch(patch.clone()), 1 << 20, &redactor).unwrap_err().to_string();
            assert!(!fault.contains("0123") && fault.contains("[secret key]"), "{patch}: {fault}");
        }
        let claims = format!(r#"{{"note":"{key}"}}"#);
        let Ok(Applied::Changed(after)) = apply(&before, Verdict::Patch(claims), 1 << 20, &redactor) else {
            panic!("a change")
        };
        assert!(after.text.contains(&key), "the claims are not secret");
    }
}
