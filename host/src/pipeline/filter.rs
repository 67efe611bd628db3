//! The chain: each filter over what the one before left, once per delivery. The bytes it makes are kept before the
//! first send, so that every retry and every restart sends the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::domain::delivery::{DueDelivery, State, Step};
use crate::domain::event::Event;
use crate::domain::filter::{Grant, Plan, PlanStep};
use crate::domain::redact::Redactor;
use crate::domain::secret::binding_context;
use crate::domain::set::{self, Applied, SetToken};
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Fault, FaultPolicy, FilterRun, Verdict};
use crate::ledger;
use crate::sandbox::{Call, EventView};

use super::Pipeline;
use super::tables::PinnedTables;

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

/// A delivery whose chain has run: what `seal` takes.
#[derive(Debug)]
pub struct Filtered {
    pub(super) delivery: DueDelivery,
    pub(super) event: Event,
    /// None: the SET as normalized.
    pub(super) claims: Option<String>,
}

impl Filtered {
    pub(super) fn accepted_at(&self) -> Timestamp {
        self.event.accepted_at
    }
}

/// Whether a delivery goes on or came to rest.
pub(super) enum Progress {
    On(Box<Filtered>),
    /// Due again, as this row.
    Again(Box<DueDelivery>),
    Rests,
}

impl Pipeline {
    /// Runs the chain of a due delivery, unless it has run, and settles what came of it.
    pub(super) async fn filter(&self, delivery: DueDelivery) -> Result<Progress, ledger::Error> {
        let Some(content) = self.ledger.load(delivery.seq).await? else {
            // Removed with its tenant meanwhile.
            return Ok(Progress::Rests);
        };
        // A lease may be older than the row: what was due when it was listed may have ended or been put off since.
        if content.state != State::Due {
            return Ok(Progress::Rests);
        }
        let stale = content.attempts != delivery.attempts || content.due_at > delivery.due_at;
        let delivery = DueDelivery { filtered: content.filtered, filter_tries: content.filter_tries, ..delivery };
        if stale {
            // Nobody else may hold the row, so it goes back to its lane as it is now.
            let row = DueDelivery { due_at: content.due_at, attempts: content.attempts, ..delivery };
            return Ok(Progress::Again(Box::new(row)));
        }
        let event = content.event;
        if delivery.filtered {
            return Ok(Progress::On(Box::new(Filtered { delivery, event, claims: content.claims })));
        }
        let Some(plan) = self.ledger.plan(&delivery.plan).await? else {
            let reason = format!("the plan {} is not in the ledger", delivery.plan);
            self.settle(&delivery, Step::Held { runs: Vec::new(), reason }).await?;
            return Ok(Progress::Rests);
        };
        if let Some(reason) = plan.broken.clone() {
            self.settle(&delivery, Step::Held { runs: Vec::new(), reason }).await?;
            return Ok(Progress::Rests);
        }
        let Chained { end, runs } = self.run_chain(&plan, &event, &delivery).await;
        let step = match end {
            ChainEnd::Through(claims) => {
                // Without filters there is nothing to keep: the SET is in the journal.
                if !plan.steps.is_empty() {
                    self.settle(&delivery, Step::Filtered { claims: claims.clone(), runs }).await?;
                }
                return Ok(Progress::On(Box::new(Filtered { delivery, event, claims })));
            }
            ChainEnd::Dropped(reason) => Step::Dropped { runs, reason },
            ChainEnd::Held(reason) => Step::Held { runs, reason },
            ChainEnd::Again(reason) => self.again(&delivery, runs, reason),
        };
        let again = match &step {
            Step::FilterAgain { due_at, .. } => Some(*due_at),
            _ => None,
        };
        self.settle(&delivery, step).await?;
        Ok(again.map_or(Progress::Rests, |due_at| {
            let filter_tries = delivery.filter_tries + 1;
            Progress::Again(Box::new(DueDelivery { due_at, filter_tries, ..delivery }))
        }))
    }

    /// Runs a plan over an event. Decides nothing about the delivery and stores nothing.
    pub async fn run_chain(&self, plan: &Plan, event: &Event, delivery: &DueDelivery) -> Chained {
        let mut claims: Option<SetToken> = None;
        let mut runs = Vec::with_capacity(plan.steps.len());
        let tables = match self.tables_of(plan).await {
            Ok(tables) => tables,
            Err(detail) => return Chained { end: ChainEnd::Again(detail), runs },
        };
        for step in &plan.steps {
            let before = claims.as_ref().unwrap_or(&event.set);
            let (decided, mut run, redactor) = self.run_step(step, before, event, delivery, &tables).await;
            let quota = self.quota_of(&event.tenant);
            let decided = match decided {
                Ok(verdict) => apply_aside(before, verdict, quota.output_bytes_max, redactor).await,
                Err(fault) => Err(fault),
            };
            let fault = match decided {
                Ok(Applied::Dropped(reason)) => {
                    run.reason = Some(reason.clone());
                    runs.push(run);
                    let end = ChainEnd::Dropped(format!("filter `{}`: {reason}", step.binding.filter));
                    return Chained { end, runs };
                }
                Ok(applied) => {
                    if let Applied::Changed(after) = applied {
                        claims = Some(after);
                    }
                    runs.push(run);
                    continue;
                }
                Err(fault) => fault,
            };
            run.verdict = None;
            run.fault = Some(fault.clone());
            runs.push(run);
            let reason = format!("filter `{}` {fault}", step.binding.filter);
            if fault.is_transient() {
                return Chained { end: ChainEnd::Again(reason), runs };
            }
            match step.binding.on_fault {
                FaultPolicy::Hold => return Chained { end: ChainEnd::Held(reason), runs },
                FaultPolicy::Drop => return Chained { end: ChainEnd::Dropped(reason), runs },
                FaultPolicy::Open => {}
            }
        }
        Chained { end: ChainEnd::Through(claims.map(|set| set.text)), runs }
    }

    async fn run_step(
        &self,
        step: &PlanStep,
        before: &SetToken,
        event: &Event,
        delivery: &DueDelivery,
        tables: &Arc<PinnedTables>,
    ) -> (Result<Verdict, Fault>, FilterRun, Redactor) {
        let binding = &step.binding;
        let context = binding_context(&event.tenant, &delivery.id.subscription);
        let mut secrets = BTreeMap::new();
        if binding.grants.contains(&Grant::Config) {
            for (name, sealed) in &binding.secrets {
                match self.master.open(&context, sealed) {
                    Ok(secret) => drop(secrets.insert(name.clone(), secret)),
                    Err(_) => {
                        let detail = format!("its secret `{name}` cannot be opened with the host's master key");
                        return (Err(Fault::Unavailable { detail }), not_run(step), Redactor::default());
                    }
                }
            }
        }
        let redactor = Redactor::new(&secrets);
        let ran = self
            .sandbox
            .run(Call {
                digest: step.digest,
                filter: binding.filter.clone(),
                event: EventView {
                    id: event.id,
                    issuer: before.issuer.clone(),
                    issued_at: before.issued_at,
                    accepted_at: event.accepted_at,
                    types: before.types.clone(),
                    subject: event.subject.clone(),
                    tenant: event.tenant.clone(),
                    source: event.source.clone(),
                    subscription: delivery.id.subscription,
                    delivery: delivery.id,
                    claims: before.text.clone(),
                },
                config: binding.config.get().into(),
                secrets,
                grants: binding.grants.clone(),
                tables: tables.clone(),
                quota: self.quota_of(&event.tenant),
            })
            .await;
        (ran.verdict, ran.run, redactor)
    }

    async fn tables_of(&self, plan: &Plan) -> Result<Arc<PinnedTables>, String> {
        let mut pinned = BTreeMap::new();
        for (name, digest) in &plan.tables {
            let rows = self
                .tables
                .try_get_with(*digest, async {
                    let bytes = self.ledger.blob(digest).await.map_err(|e| e.to_string())?;
                    let bytes = bytes.ok_or_else(|| format!("the table `{name}` ({digest}) is not in the ledger"))?;
                    crate::domain::table::parse(&bytes).map(Arc::new)
                })
                .await
                .map_err(|error: Arc<String>| error.as_ref().clone())?;
            pinned.insert(name.clone(), rows);
        }
        Ok(Arc::new(PinnedTables(pinned)))
    }
}

/// Bytes of claims and verdict together up to which a verdict is applied on the spot: fractions of a millisecond.
const APPLIED_ON_THE_SPOT_BYTES_MAX: usize = 32 << 10;
/// Large verdicts that are applied at once. A megabyte of claims can take part of a second, and its filter has paid for no
/// more than writing it: neither the host's own threads nor all of its cores are for that.
static LARGE: Semaphore = Semaphore::const_new(1);

/// Applies a verdict, a large one on a thread that may be kept.
async fn apply_aside(
    before: &SetToken,
    verdict: Verdict,
    bytes_max: u64,
    redactor: Redactor,
) -> Result<Applied, Fault> {
    let given = match &verdict {
        Verdict::Patch(text) | Verdict::Replace(text) => text.len(),
        Verdict::Pass | Verdict::Drop(_) => 0,
    };
    if given == 0 || before.text.len() + given <= APPLIED_ON_THE_SPOT_BYTES_MAX {
        return apply(before, verdict, bytes_max, &redactor);
    }
    let failed = |detail: String| Fault::Unavailable { detail };
    let _turn = LARGE.acquire().await.map_err(|error| failed(error.to_string()))?;
    let before = before.clone();
    let applying = tokio::task::spawn_blocking(move || apply(&before, verdict, bytes_max, &redactor));
    applying.await.unwrap_or_else(|error| Err(failed(error.to_string())))
}

/// Applies a verdict. Where it makes no SET, the fault quotes what the filter returned: without its secrets, then.
fn apply(before: &SetToken, verdict: Verdict, bytes_max: u64, redactor: &Redactor) -> Result<Applied, Fault> {
    if redactor.is_empty() {
        return set::apply(before, verdict, bytes_max);
    }
    let given = verdict.clone();
    match set::apply(before, verdict, bytes_max) {
        Err(Fault::NotASet { .. }) => {
            // Asked again with the secrets taken out before anything is quoted or cut.
            let without_secrets = match given {
                Verdict::Patch(text) => Verdict::Patch(redactor.redact(&text)),
                Verdict::Replace(text) => Verdict::Replace(redactor.redact(&text)),
                verdict => verdict,
            };
            match set::apply(before, without_secrets, u64::MAX) {
                Err(fault @ Fault::NotASet { .. }) => Err(fault),
                _ => Err(Fault::NotASet { detail: "what is wrong with it cannot be told without its secrets".into() }),
            }
        }
        applied => applied,
    }
}

fn not_run(step: &PlanStep) -> FilterRun {
    FilterRun {
        filter: step.binding.filter.clone(),
        digest: step.digest,
        verdict: None,
        reason: None,
        fault: None,
        fuel: 0,
        memory_bytes: 0,
        elapsed_us: 0,
        log: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::JsonLimits;
    use crate::domain::secret::Secret;

    #[tokio::test]
    async fn a_large_verdict_is_applied_like_a_small_one() {
        let text = r#"{"iss":"https://idp.example","jti":"1","iat":1520364019,"events":{"urn:x:login":{}}}"#;
        let before = SetToken::parse(text.to_owned(), JsonLimits::default()).unwrap();
        let long = "x".repeat(2 * APPLIED_ON_THE_SPOT_BYTES_MAX);
        let verdict = Verdict::Patch(format!(r#"{{"a":"{long}"}}"#));
        let aside = apply_aside(&before, verdict.clone(), 1 << 20, Redactor::default()).await;
        assert!(matches!(&aside, Ok(Applied::Changed(after)) if after.text.contains(&long)));
        assert_eq!(aside, apply(&before, verdict, 1 << 20, &Redactor::default()));
        let changed = Verdict::Patch(format!(r#"{{"iss":"{long}"}}"#));
        assert_eq!(
            apply_aside(&before, changed, 1 << 20, Redactor::default()).await,
            Err(Fault::Sealed { claim: "iss".into() })
        );
    }

    #[test]
    fn a_fault_does_not_quote_a_secret() {
        let before = r#"{"iss":"i","jti":"1","iat":1,"events":{"urn:x:y":{}}}"#;
        let before = SetToken::parse(before.to_owned(), JsonLimits::default()).unwrap();
        let key = "0123456789".repeat(10);
        let redactor = Redactor::new(&BTreeMap::from([("key".to_owned(), Secret::new(key.clone()))]));
        for patch in [
            format!(r#"{{"{key}":1,"{key}":2}}"#),
            // Longer than what is quoted of a name.
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
        assert!(after.text.contains(&key), "claims are the tenant's own");
    }
}
