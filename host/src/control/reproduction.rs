//! Running a delivery's chain again: here, or elsewhere with what is given out for it. Changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Control, Error};
use crate::crypto::sha256;
use crate::domain::chain::ChainEnd;
use crate::domain::delivery::DeliveryRecord;
use crate::domain::filter::Plan;
use crate::domain::id::{DeliveryId, Digest, FilterName, TableName, TenantId};
use crate::domain::limits::CallLimits;
use crate::domain::reproduction::{Difference, EventFacts, Reproduction, StepFacts, differences, why_not};
use crate::domain::verdict::FilterRun;
use crate::ledger::{self, Content};

/// Bytes of a part of [`Control::read_part`].
pub use crate::ledger::BLOB_PART_BYTES as PART_BYTES;

/// Milliseconds a call may take when it is run again, where its limit was less: what is asked is whether it comes to the
/// same, not whether it is as fast on a host that does something else at the same time.
pub const AGAIN_WALL_MS_MIN: u64 = 10_000;

/// What came of running a delivery's chain again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reproduced {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Whether it must come to the same.
    pub reproducible: bool,
    /// Why not, where not.
    pub reason: Option<String>,
    /// Whether it came to the same, byte for byte.
    pub reproduced: bool,
    /// What came out differently.
    pub differences: Vec<Difference>,
    /// What each filter did now; nothing where it was not run.
    pub runs: Vec<FilterRun>,
    /// SHA-256 of the claims after the chain now; none where nothing came through it.
    pub claims: Option<Digest>,
    /// The engine of this host. Where the record names another one, fuel and the words of a trap may differ.
    pub engine: String,
}

/// Stored bytes that a tenant may have, not read yet.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Their name.
    pub digest: Digest,
    /// How many there are.
    pub bytes: u64,
}

/// A delivery with its chain.
struct Kept {
    record: DeliveryRecord,
    content: Content,
    plan: Arc<Plan>,
}

impl Control {
    /// All that is needed to run a delivery's chain elsewhere, secrets apart.
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

    /// Runs a delivery's chain again at this host and compares. Stores and sends nothing.
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
            let again = (self.run_again)(Arc::new(plan), kept.content.event.clone(), id).await;
            let Kept { record, content, plan } = &kept;
            reproduced.reason = match &again.end {
                // A table that cannot be read ends the chain before its first run.
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

    /// A filter's component. The digest alone opens nothing, since tenants share what is stored: it has to be a version
    /// of the tenant's filter, or one that a delivery of the tenant was made with.
    pub async fn component(&self, tenant: &TenantId, name: &FilterName, digest: Digest) -> Result<Stored, Error> {
        let view = self.tenant(tenant)?;
        let is_version = view.filters.get(name).is_some_and(|filter| filter.value.version(&digest).is_some());
        if !is_version && !self.ledger.ran_filter(tenant, name, digest).await? {
            return Err(Error::NotFound(format!("version {digest} of filter `{name}`")));
        }
        self.stored(digest).await
    }

    /// The rows of a table as JSON lines; open to the same as [`Control::component`].
    pub async fn table_rows(&self, tenant: &TenantId, name: &TableName, digest: Digest) -> Result<Stored, Error> {
        let view = self.tenant(tenant)?;
        let is_version = view.tables.get(name).is_some_and(|table| table.value.digests().any(|kept| kept == digest));
        if !is_version && !self.ledger.saw_table(tenant, name, digest).await? {
            return Err(Error::NotFound(format!("version {digest} of table `{name}`")));
        }
        self.stored(digest).await
    }

    /// Reads a part of what [`Control::component`] or [`Control::table_rows`] found; empty behind the last one.
    pub async fn read_part(&self, stored: Stored, number: u32) -> Result<Bytes, Error> {
        let part = self.ledger.blob_part(&stored.digest, number).await?;
        part.ok_or_else(|| Error::NotFound(format!("{}", stored.digest)))
    }

    async fn stored(&self, digest: Digest) -> Result<Stored, Error> {
        let bytes = self.ledger.check_blob(&digest).await?;
        let bytes = bytes.ok_or_else(|| Error::NotFound(format!("{digest}: its bytes are not stored here")))?;
        Ok(Stored { digest, bytes })
    }

    async fn kept(&self, tenant: &TenantId, id: DeliveryId) -> Result<Kept, Error> {
        self.tenant(tenant)?;
        let found = self.ledger.delivery_with_content(tenant, id).await?;
        let (record, content) = found.ok_or_else(|| Error::NotFound(format!("delivery `{id}`")))?;
        let plan = self.ledger.plan(&record.plan).await?;
        // A plan stays as long as a delivery that runs it.
        let plan = plan.ok_or_else(|| ledger::Error::UnknownPlan(record.plan))?;
        Ok(Kept { record, content, plan })
    }

    /// The limits that a delivery was made with; of one that is older than their record, those of now.
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

/// The claims that came through the chain, by digest. None where they were not kept: the chain ended in a drop or a
/// fault, or has not been run, or a person let the delivery go on without it.
fn chain_claims(record: &DeliveryRecord, content: &Content, plan: &Plan) -> Option<Digest> {
    let ran = content.filtered && !record.released;
    // Of a chain without filters nothing is noted, since nothing can come of it.
    let came_through = ran || (plan.steps.is_empty() && plan.broken.is_none());
    came_through.then(|| digest_of(content.claims.as_ref().unwrap_or(&content.event.set.text)))
}

fn digest_of(claims: &str) -> Digest {
    Digest(sha256(claims.as_bytes()))
}
