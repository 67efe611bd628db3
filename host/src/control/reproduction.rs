//! Reproduction: runs a delivery's chain again, on this host or elsewhere with the exported data. Changes nothing.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use setgate_base::crypto::sha256;
use setgate_base::live::Live;
use setgate_domain::chain::ChainEnd;
use setgate_domain::delivery::DeliveryRecord;
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, Digest, TenantId};
use setgate_domain::limits::CallLimits;
use setgate_domain::reproduction::{
    RecordedEvent, RecordedStep, Reproduction, ReproductionDifference, differences, irreproducible_reason,
};
use setgate_domain::tenant::Quota;
use setgate_domain::verdict::FilterRun;
use setgate_ledger::{Content, History, Plans, Registry};
use setgate_sandbox::Sandbox;

use super::Error;
use super::checks::{find_tenant, quota_of};
use crate::pipeline::ChainRunner;

/// Minimum wall-clock limit of a call in milliseconds during reproduction. It overrides a shorter limit, because
/// reproduction compares results, and a busy host must not cause a timeout.
pub const AGAIN_WALL_MS_MIN: u64 = 10_000;

/// The result of running a delivery's chain again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reproduced {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Whether the chain is deterministic, so that the results must match.
    pub reproducible: bool,
    /// The reason if the chain is not reproducible.
    pub reason: Option<String>,
    /// Whether the results match byte for byte.
    pub reproduced: bool,
    /// The differences between the recorded and the new results.
    pub differences: Vec<ReproductionDifference>,
    /// The new run of each filter. Empty if the chain was not run.
    pub runs: Vec<FilterRun>,
    /// SHA-256 of the new claims. `null` if the chain did not complete.
    pub claims: Option<Digest>,
    /// The engine of this host. If the record names another engine, fuel and trap messages may differ.
    pub engine: String,
}

/// A delivery with its content and its plan.
struct Kept {
    record: DeliveryRecord,
    content: Content,
    plan: Arc<Plan>,
}

/// Runs the chains of past deliveries again.
#[derive(Clone)]
pub struct Reproductions {
    pub(super) registry: Registry,
    pub(super) history: History,
    pub(super) plans: Plans,
    pub(super) sandbox: Sandbox,
    pub(super) chain: Arc<ChainRunner>,
    pub(super) default_quota: Live<Quota>,
}

impl Reproductions {
    /// Everything that is needed to run a delivery's chain elsewhere, except secrets.
    pub async fn show(&self, tenant: &TenantId, id: DeliveryId) -> Result<Reproduction, Error> {
        let kept = self.kept(tenant, id).await?;
        let reason = kept.irreproducible_reason();
        let limits = self.limits_of(tenant, &kept.plan)?;
        let Kept { record, content, plan } = kept;
        let claims = chain_claims(&record, &content, &plan);
        let event = content.event.as_ref().clone();
        Ok(Reproduction {
            reproducible: reason.is_none(),
            reason,
            event: RecordedEvent {
                id: event.id,
                accepted_at_ms: event.accepted_at.as_millis(),
                tenant: event.tenant,
                source: event.source,
                delivery: id,
                subject: event.subject,
                set: event.set,
            },
            plan: record.plan,
            steps: RecordedStep::of(&plan),
            limits,
            limits_pinned: plan.limits.is_some(),
            tables: plan.tables.clone(),
            runs: record.runs,
            claims,
        })
    }

    /// Runs a delivery's chain again on this host and compares the results. Nothing is stored or sent.
    pub async fn reproduce(&self, tenant: &TenantId, id: DeliveryId) -> Result<Reproduced, Error> {
        let kept = self.kept(tenant, id).await?;
        let mut reproduced = Reproduced {
            delivery: id,
            reproducible: true,
            reason: kept.irreproducible_reason(),
            reproduced: false,
            differences: Vec::new(),
            runs: Vec::new(),
            claims: None,
            engine: self.sandbox.engine_id().to_owned(),
        };
        if reproduced.reason.is_none() {
            let mut limits = self.limits_of(tenant, &kept.plan)?;
            limits.wall_ms_max = limits.wall_ms_max.max(AGAIN_WALL_MS_MIN);
            let plan = Plan { limits: Some(limits), ..kept.plan.as_ref().clone() };
            let again = self.chain.run_alone(&plan, &kept.content.event, id).await;
            let Kept { record, content, plan } = &kept;
            reproduced.reason = match &again.end {
                // If a table cannot be read, the chain ends before its first run.
                ChainEnd::Retry(reason) => Some(reason.clone()),
                _ => irreproducible_reason(plan.steps.len(), None, &again.runs),
            };
            let set = &content.event.set.text;
            reproduced.claims = match &again.end {
                ChainEnd::Completed(claims) => Some(digest_of(claims.as_ref().unwrap_or(set))),
                ChainEnd::Dropped(_) | ChainEnd::Held(_) | ChainEnd::Retry(_) => None,
            };
            let recorded = chain_claims(record, content, plan);
            reproduced.differences = differences(&record.runs, recorded, &again.runs, reproduced.claims);
            reproduced.runs = again.runs;
            reproduced.reproduced = reproduced.reason.is_none() && reproduced.differences.is_empty();
        }
        reproduced.reproducible = reproduced.reason.is_none();
        Ok(reproduced)
    }

    async fn kept(&self, tenant: &TenantId, id: DeliveryId) -> Result<Kept, Error> {
        find_tenant(&self.registry, tenant)?;
        let found = self.history.delivery_with_content(tenant, id).await?;
        let (record, content) = found.ok_or_else(|| Error::NotFound(format!("delivery `{id}`")))?;
        let plan = self.plans.get(tenant, &record.plan).await?;
        // A plan is retained as long as a delivery refers to it.
        let plan = plan.ok_or_else(|| setgate_ledger::Error::UnknownPlan(record.plan))?;
        Ok(Kept { record, content, plan })
    }

    /// The limits pinned with a delivery, or the current limits for deliveries from before limits were pinned.
    fn limits_of(&self, tenant: &TenantId, plan: &Plan) -> Result<CallLimits, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        let now = || self.sandbox.clamp_to_pool(CallLimits::from(&quota_of(&self.default_quota, &view)));
        Ok(plan.limits.unwrap_or_else(now))
    }
}

impl Kept {
    fn irreproducible_reason(&self) -> Option<String> {
        irreproducible_reason(self.plan.steps.len(), self.plan.broken.as_deref(), &self.record.runs)
    }
}

/// The digest of the claims that completed the chain. `None` if there are none: the chain was dropped or faulted, or
/// has not run, or a user released the delivery without running it.
fn chain_claims(record: &DeliveryRecord, content: &Content, plan: &Plan) -> Option<Digest> {
    let ran = content.filtered && !record.released;
    // A chain without filters records no runs and always completes.
    let came_through = ran || (plan.steps.is_empty() && plan.broken.is_none());
    came_through.then(|| digest_of(content.claims.as_ref().unwrap_or(&content.event.set.text)))
}

fn digest_of(claims: &str) -> Digest {
    Digest(sha256(claims.as_bytes()))
}
