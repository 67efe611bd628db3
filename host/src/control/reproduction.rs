//! Reproduction: runs a delivery's chain again, on this host or elsewhere with the exported data. Changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use setgate_base::crypto::sha256;
use setgate_domain::chain::ChainEnd;
use setgate_domain::delivery::DeliveryRecord;
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, Digest, FilterName, TableName, TenantId};
use setgate_domain::limits::CallLimits;
use setgate_domain::reproduction::{Difference, EventFacts, Reproduction, StepFacts, differences, why_not};
use setgate_domain::verdict::FilterRun;
use setgate_ledger::Content;

use super::{Control, Error};

/// Size of a part returned by [`Control::read_part`], in bytes.
pub use setgate_ledger::BLOB_PART_BYTES as PART_BYTES;

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
    pub differences: Vec<Difference>,
    /// The new run of each filter. Empty if the chain was not run.
    pub runs: Vec<FilterRun>,
    /// SHA-256 of the new claims. `null` if the chain did not complete.
    pub claims: Option<Digest>,
    /// The engine of this host. If the record names another engine, fuel and trap messages may differ.
    pub engine: String,
}

/// A stored blob that the tenant may read.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The tenant that the reads are charged to in fair scheduling.
    pub tenant: TenantId,
    /// The digest of the blob.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
}

/// A delivery with its content and its plan.
struct Kept {
    record: DeliveryRecord,
    content: Content,
    plan: Arc<Plan>,
}

impl Control {
    /// Everything that is needed to run a delivery's chain elsewhere, except secrets.
    pub async fn reproduction(&self, tenant: &TenantId, id: DeliveryId) -> Result<Reproduction, Error> {
        let kept = self.kept(tenant, id).await?;
        let reason = kept.why_not();
        let limits = self.limits_of(tenant, &kept.plan)?;
        let Kept { record, content, plan } = kept;
        let claims = chain_claims(&record, &content, &plan);
        let event = content.event.as_ref().clone();
        Ok(Reproduction {
            reproducible: reason.is_none(),
            reason,
            event: EventFacts {
                id: event.id,
                accepted_at_ms: event.accepted_at.as_millis(),
                tenant: event.tenant,
                source: event.source,
                delivery: id,
                subject: event.subject,
                set: event.set,
            },
            plan: record.plan,
            steps: StepFacts::of(&plan),
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
            reason: kept.why_not(),
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
            let again = self.data_plane.run_chain(&plan, &kept.content.event, id).await;
            let Kept { record, content, plan } = &kept;
            reproduced.reason = match &again.end {
                // If a table cannot be read, the chain ends before its first run.
                ChainEnd::Again(reason) => Some(reason.clone()),
                _ => why_not(plan.steps.len(), None, &again.runs),
            };
            let set = &content.event.set.text;
            reproduced.claims = match &again.end {
                ChainEnd::Through(claims) => Some(digest_of(claims.as_ref().unwrap_or(set))),
                ChainEnd::Dropped(_) | ChainEnd::Held(_) | ChainEnd::Again(_) => None,
            };
            let recorded = chain_claims(record, content, plan);
            reproduced.differences = differences(&record.runs, recorded, &again.runs, reproduced.claims);
            reproduced.runs = again.runs;
            reproduced.reproduced = reproduced.reason.is_none() && reproduced.differences.is_empty();
        }
        reproduced.reproducible = reproduced.reason.is_none();
        Ok(reproduced)
    }

    /// A filter's component. The digest alone grants no access, because tenants share the blob store: it must be a
    /// version of the tenant's filter, or a version pinned by one of the tenant's deliveries.
    pub async fn component(&self, tenant: &TenantId, name: &FilterName, digest: Digest) -> Result<Stored, Error> {
        let view = self.tenant(tenant)?;
        let is_version = view.filters.get(name).is_some_and(|filter| filter.value.version(&digest).is_some());
        if !is_version && !self.ledger.plans.is_filter_version_in_use(tenant, name, digest).await? {
            return Err(Error::NotFound(format!("version {digest} of filter `{name}`")));
        }
        self.stored(tenant, digest).await
    }

    /// The rows of a table as JSON lines, with the same access rule as [`Control::component`].
    pub async fn table_rows(&self, tenant: &TenantId, name: &TableName, digest: Digest) -> Result<Stored, Error> {
        let view = self.tenant(tenant)?;
        let is_version = view.tables.get(name).is_some_and(|table| table.value.digests().any(|kept| kept == digest));
        if !is_version && !self.ledger.plans.is_table_version_in_use(tenant, name, digest).await? {
            return Err(Error::NotFound(format!("version {digest} of table `{name}`")));
        }
        self.stored(tenant, digest).await
    }

    /// Reads a part of the blob that [`Control::component`] or [`Control::table_rows`] returned. Empty after the last
    /// part.
    pub async fn read_part(&self, stored: &Stored, number: u32) -> Result<Bytes, Error> {
        let part = self.ledger.blobs.part(&stored.tenant, &stored.digest, number).await?;
        part.ok_or_else(|| Error::NotFound(format!("{}", stored.digest)))
    }

    async fn stored(&self, tenant: &TenantId, digest: Digest) -> Result<Stored, Error> {
        let bytes = self.ledger.blobs.check(tenant, &digest).await?;
        let bytes = bytes.ok_or_else(|| Error::NotFound(format!("{digest}: its bytes are not stored here")))?;
        Ok(Stored { tenant: tenant.clone(), digest, bytes })
    }

    async fn kept(&self, tenant: &TenantId, id: DeliveryId) -> Result<Kept, Error> {
        self.tenant(tenant)?;
        let found = self.ledger.history.delivery_with_content(tenant, id).await?;
        let (record, content) = found.ok_or_else(|| Error::NotFound(format!("delivery `{id}`")))?;
        let plan = self.ledger.plans.get(tenant, &record.plan).await?;
        // A plan is retained as long as a delivery refers to it.
        let plan = plan.ok_or_else(|| setgate_ledger::Error::UnknownPlan(record.plan))?;
        Ok(Kept { record, content, plan })
    }

    /// The limits pinned with a delivery, or the current limits for deliveries from before limits were pinned.
    fn limits_of(&self, tenant: &TenantId, plan: &Plan) -> Result<CallLimits, Error> {
        let view = self.tenant(tenant)?;
        let now = || self.sandbox.within_pool(CallLimits::from(&self.quota_of(&view)));
        Ok(plan.limits.unwrap_or_else(now))
    }
}

impl Kept {
    fn why_not(&self) -> Option<String> {
        why_not(self.plan.steps.len(), self.plan.broken.as_deref(), &self.record.runs)
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
