//! A chain while it runs: what each filter's outcome makes of the claims, and whether the next one is asked. Decides
//! and does nothing else, so that a host and whoever runs a delivery's chain again come to the same end.

use super::filter::Binding;
use super::id::FilterName;
use super::set::{self, Applied, SetToken};
use super::verdict::{Fault, FaultPolicy, FilterRun, Verdict};

/// What a chain came to.
#[derive(Debug, Clone)]
pub struct Chained {
    /// How it ended.
    pub end: ChainEnd,
    /// What each filter did.
    pub runs: Vec<FilterRun>,
}

/// How a chain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEnd {
    /// These claims go on; none: the SET as normalized.
    Through(Option<String>),
    /// Ended by a filter's drop or a fault policy, and why.
    Dropped(String),
    /// Kept back by a fault, and why.
    Held(String),
    /// To be tried again, and why.
    Again(String),
}

/// A chain between two of its steps.
#[derive(Debug)]
pub struct Chain<'a> {
    set: &'a SetToken,
    changed: Option<SetToken>,
    runs: Vec<FilterRun>,
}

impl<'a> Chain<'a> {
    /// Before the first step.
    pub fn over(set: &'a SetToken) -> Self {
        Self { set, changed: None, runs: Vec::new() }
    }

    /// What the next filter is given.
    pub fn claims(&self) -> &SetToken {
        self.changed.as_ref().unwrap_or(self.set)
    }

    /// Takes what a step came to. None: the next one follows; else the chain is at its end.
    pub fn step(
        &mut self,
        of: Step<'_>,
        decided: Result<Verdict, Fault>,
        mut run: FilterRun,
        output_bytes_max: u64,
    ) -> Option<ChainEnd> {
        let fault = match decided.and_then(|verdict| set::apply(self.claims(), verdict, output_bytes_max)) {
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
            return Some(ChainEnd::Again(reason));
        }
        match of.on_fault {
            FaultPolicy::Hold => Some(ChainEnd::Held(reason)),
            // The filter has not seen it: a suspension is to lose nothing.
            FaultPolicy::Drop if matches!(fault, Fault::Suspended { .. }) => Some(ChainEnd::Held(reason)),
            FaultPolicy::Drop => Some(ChainEnd::Dropped(reason)),
            FaultPolicy::Open => None,
        }
    }

    /// Ended by a step.
    pub fn ended(self, end: ChainEnd) -> Chained {
        Chained { end, runs: self.runs }
    }

    /// All steps are behind it.
    pub fn through(self) -> Chained {
        Chained { end: ChainEnd::Through(self.changed.map(|set| set.text)), runs: self.runs }
    }
}

/// What a chain has to know of a step: the filter's name, and what happens when it faults.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The filter's name, for the reason.
    pub filter: &'a FilterName,
    /// What a fault does to the delivery.
    pub on_fault: FaultPolicy,
}

impl<'a> From<&'a Binding> for Step<'a> {
    fn from(binding: &'a Binding) -> Self {
        Self { filter: &binding.filter, on_fault: binding.on_fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Digest;
    use crate::domain::json::JsonLimits;

    fn run() -> FilterRun {
        FilterRun {
            filter: "one".parse().unwrap(),
            digest: Digest([1; 32]),
            verdict: None,
            reason: None,
            fault: None,
            fuel: 1,
            memory_bytes: 1,
            elapsed_us: 1,
            log: Vec::new(),
            engine: None,
        }
    }

    #[test]
    fn a_fault_follows_its_policy_and_a_transient_one_is_tried_again() {
        let text = r#"{"iss":"i","iat":1,"jti":"j","events":{"urn:x:y":{}}}"#;
        let set = SetToken::parse(text.to_owned(), JsonLimits::default()).unwrap();
        let filter = "one".parse().unwrap();
        let trap = || Fault::Trap { detail: "x".into() };
        let end = |decided, on_fault| Chain::over(&set).step(Step { filter: &filter, on_fault }, decided, run(), 999);
        assert!(
            matches!(end(Err(trap()), FaultPolicy::Hold), Some(ChainEnd::Held(why)) if why.contains("`one` trapped"))
        );
        assert!(matches!(end(Err(trap()), FaultPolicy::Drop), Some(ChainEnd::Dropped(_))));
        assert_eq!(end(Err(trap()), FaultPolicy::Open), None);
        let transient = Fault::Transient { reason: "later".into() };
        assert!(matches!(end(Err(transient), FaultPolicy::Open), Some(ChainEnd::Again(_))));
        // What a filter returns is held to be a SET before it counts as a verdict.
        let sealed = Verdict::Patch(r#"{"iss":"other"}"#.into());
        assert!(matches!(end(Ok(sealed), FaultPolicy::Hold), Some(ChainEnd::Held(why)) if why.contains("`iss`")));
    }

    #[test]
    fn each_step_is_given_what_the_one_before_left() {
        let text = r#"{"iss":"i","iat":1,"jti":"j","events":{"urn:x:y":{}}}"#;
        let set = SetToken::parse(text.to_owned(), JsonLimits::default()).unwrap();
        let filter = "one".parse().unwrap();
        let of = Step { filter: &filter, on_fault: FaultPolicy::Hold };
        let mut chain = Chain::over(&set);
        assert_eq!(chain.step(of, Ok(Verdict::Patch(r#"{"a":1}"#.into())), run(), 999), None);
        assert!(chain.claims().text.contains(r#""a":1"#));
        assert_eq!(chain.step(of, Ok(Verdict::Patch(r#"{"a":null,"b":2}"#.into())), run(), 999), None);
        let Chained { end, runs } = chain.through();
        let expected = r#"{"iss":"i","iat":1,"jti":"j","events":{"urn:x:y":{}},"b":2}"#;
        assert_eq!((end, runs.len()), (ChainEnd::Through(Some(expected.into())), 2));
    }
}
