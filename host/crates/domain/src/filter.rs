//! Filters: named components of a tenant, with versions identified by digest; and the chain that a delivery runs.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::id::{Digest, FilterName, TableName, TenantId};
use super::limits::CallLimits;
use super::rollout::{EndReason, EndedRollout, Rollout, RolloutCounts};
use super::secret::Sealed;
use super::time::Timestamp;
use super::verdict::FaultPolicy;

/// A host interface that a binding grants to a filter. `log` requires no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// `setgate:filter/config`: settings and secrets of the binding.
    Config,
    /// `setgate:filter/lookup`: the tenant's tables.
    Lookup,
}

impl Grant {
    /// All grants.
    pub const ALL: [Grant; 2] = [Grant::Config, Grant::Lookup];

    /// Name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Lookup => "lookup",
        }
    }
}

/// Describes the grants that a filter imports and its binding lacks, with the JSON to add. `None` if nothing is
/// missing.
pub fn missing_grants(needs: &BTreeSet<Grant>, granted: &BTreeSet<Grant>) -> Option<String> {
    let quoted = |grants: Vec<&Grant>, quote: char, between: &str| {
        grants.iter().map(|grant| format!("{quote}{}{quote}", grant.as_str())).collect::<Vec<_>>().join(between)
    };
    let missing: Vec<_> = needs.difference(granted).collect();
    if missing.is_empty() {
        return None;
    }
    let complete = quoted(needs.union(granted).collect(), '"', ", ");
    let missing = quoted(missing, '`', " and ");
    Some(format!("imports {missing}, which its binding does not grant: add \"grants\": [{complete}] to the binding"))
}

/// A tenant's filter with all its versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Filter {
    /// The tenant.
    pub tenant: TenantId,
    /// Name of the filter.
    pub name: FilterName,
    /// The version that new deliveries run. `None` until one is activated.
    pub active: Option<Digest>,
    /// Previously active versions, newest last. A rollback returns to the last one.
    #[serde(default)]
    pub previous: Vec<Digest>,
    /// All versions, oldest first.
    pub versions: Vec<FilterVersion>,
    /// The rollout in progress: a candidate version next to the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The last finished rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollout: Option<EndedRollout>,
    /// Versions for which an operator or a rollback decided to requeue the deliveries held by their faults. Those will
    /// run again with the current chain. Written in the same transaction as the decision, so that a crash loses none of
    /// them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub releasing: BTreeSet<Digest>,
}

impl Filter {
    /// The version with this digest.
    pub fn version(&self, digest: &Digest) -> Option<&FilterVersion> {
        self.versions.iter().find(|v| v.digest == *digest)
    }

    /// The version with this digest, mutable.
    pub fn version_mut(&mut self, digest: &Digest) -> Option<&mut FilterVersion> {
        self.versions.iter_mut().find(|v| v.digest == *digest)
    }

    /// The suspension of a version, if it is suspended.
    pub fn suspension(&self, digest: &Digest) -> Option<&Suspension> {
        self.version(digest)?.suspended.as_ref()
    }

    /// Ends the rollout, if there is one. A candidate that is not promoted is withdrawn: deliveries that pinned it and
    /// did not run it yet run the active version, and deliveries held by its faults are requeued. Returns the
    /// candidate.
    pub fn end_rollout(&mut self, at: Timestamp, reason: EndReason, counted: RolloutCounts) -> Option<Digest> {
        let rollout = self.rollout.take()?;
        let candidate = rollout.digest;
        if reason != EndReason::Promoted {
            self.withdraw(&candidate, Some(at));
            self.releasing.insert(candidate);
        }
        self.last_rollout = Some(EndedRollout { rollout, at, reason, calls: counted.calls, faults: counted.faults });
        Some(candidate)
    }

    /// Withdraws a version. `None` reverts that.
    pub fn withdraw(&mut self, digest: &Digest, since: Option<Timestamp>) {
        if let Some(version) = self.version_mut(digest) {
            version.withdrawn = since;
        }
    }

    /// Whether the version was a candidate whose rollout ended without promotion.
    pub fn is_withdrawn(&self, digest: &Digest) -> bool {
        self.active != Some(*digest) && self.version(digest).is_some_and(|version| version.withdrawn.is_some())
    }
}

/// An uploaded version of a filter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FilterVersion {
    /// SHA-256 of the component's bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Upload time.
    pub uploaded_at: Timestamp,
    /// The grants that it imports. Each binding has to provide them.
    pub needs: BTreeSet<Grant>,
    /// Compile time in milliseconds.
    pub compile_ms: u64,
    /// When its rollout ended without promotion. Deliveries that pinned it and did not run it yet run the active
    /// version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Timestamp>,
    /// Set while the version is not called because it faulted too often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
}

/// Suspension of a filter version, which is not called meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suspension {
    /// Start of the suspension.
    pub since: Timestamp,
    /// Description, with the last fault.
    pub reason: String,
    /// Number of calls considered: the last [`FAULT_WINDOW_CALLS`], or fewer.
    pub calls: u32,
    /// Number of these calls that ended in a fault of the filter itself.
    pub faults: u32,
}

/// Number of recent calls of a version over which faults are counted.
pub const FAULT_WINDOW_CALLS: u32 = 100;

/// A filter in the chain of a subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the filter. Its active version is pinned when a delivery is created.
    pub filter: FilterName,
    /// Settings: a JSON object, stored as text.
    #[serde(default = "empty_object")]
    pub config: Box<RawValue>,
    /// Encrypted secrets by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, Sealed>,
    /// Granted host interfaces.
    #[serde(default)]
    pub grants: BTreeSet<Grant>,
    /// Policy for faults.
    #[serde(default)]
    pub on_fault: FaultPolicy,
    /// Enables instance reuse. If `None`, each event gets a fresh instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// Minimum for reuse: with one event, each event gets a fresh instance anyway.
pub const REUSE_EVENTS_MIN: u32 = 2;

/// Allows an instance of a filter to process several events of the same binding. Later events can observe state that
/// earlier ones left in the instance, so such runs cannot be reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InstanceReuse")]
pub struct Reuse {
    /// Maximum events for each instance. Capped at the host's `sandbox.reuse_events_max`.
    #[schemars(range(min = REUSE_EVENTS_MIN))]
    pub events_max: u32,
}

/// The empty JSON object.
pub fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".into()).expect("a literal JSON object")
}

/// A pinned chain: everything that determines the filtered bytes, identified by digest. Created with a delivery.
/// Identical plans are stored once, under their own digest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The owner. Only the owner's components and tables can be accessed through the plan. `None` in rows of older
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The steps, in order. If empty, the SET is delivered unchanged.
    pub steps: Vec<PlanStep>,
    /// The limits of each call at the time of pinning. `None` in rows of older versions, which use the tenant's current
    /// quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<CallLimits>,
    /// Pinned tables for `lookup`, by name.
    #[serde(default)]
    pub tables: BTreeMap<TableName, Digest>,
    /// Why the chain could not be pinned. If set, its deliveries are held with this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// A step of a [`Plan`]: a binding with a pinned filter version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanStep {
    /// The binding at the time of pinning.
    pub binding: Binding,
    /// The pinned filter version.
    pub digest: Digest,
}

/// A tenant's table for `lookup`, with its versions. The rows are stored separately, by digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// The tenant.
    pub tenant: TenantId,
    /// Name of the table.
    pub name: TableName,
    /// The active version, which new deliveries pin.
    pub digest: Digest,
    /// Number of rows in the active version.
    pub rows: u64,
    /// Upload time of the active version.
    pub uploaded_at: Timestamp,
    /// Previously active versions, newest last. A rollback returns to the last one.
    #[serde(default)]
    pub previous: Vec<Digest>,
    /// All retained versions, oldest first. Empty in rows of older versions: see [`Table::retained_versions`].
    #[serde(default)]
    pub versions: Vec<TableVersion>,
}

impl Table {
    /// All retained versions, including the active one.
    pub fn retained_versions(&self) -> Vec<TableVersion> {
        if !self.versions.is_empty() {
            return self.versions.clone();
        }
        let Self { digest, rows, uploaded_at, .. } = *self;
        vec![TableVersion { digest, rows, bytes: 0, format: TableFormat::JsonLines, uploaded_at }]
    }

    /// Digests of all retained versions.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.versions.iter().map(|version| version.digest).chain([self.digest])
    }
}

/// An uploaded version of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableVersion {
    /// SHA-256 of the rows in their stored form, JSON Lines.
    pub digest: Digest,
    /// Number of rows.
    pub rows: u64,
    /// Size of the rows in their stored form, in bytes. 0 if unknown, in older records.
    pub bytes: u64,
    /// Format of the upload.
    pub format: TableFormat,
    /// Upload time.
    pub uploaded_at: Timestamp,
}

/// Format of a table upload. Tables are always stored as JSON Lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableFormat {
    /// Lines of `{"key": "...", "value": ...}`.
    JsonLines,
    /// CSV (RFC 4180) with a header line.
    Csv,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_grants_are_named_with_the_json_that_adds_them() {
        let words = |needs: &[Grant], granted: &[Grant]| {
            missing_grants(&needs.iter().copied().collect(), &granted.iter().copied().collect())
        };
        assert_eq!(words(&[], &[]), None);
        assert_eq!(words(&[Grant::Config], &Grant::ALL), None);
        assert_eq!(
            words(&[Grant::Lookup], &[Grant::Config]).unwrap(),
            "imports `lookup`, which its binding does not grant: add \"grants\": [\"config\", \"lookup\"] to the binding"
        );
        assert!(words(&Grant::ALL, &[]).unwrap().starts_with("imports `config` and `lookup`, "));
    }

    #[test]
    fn deserialises_rows_without_newer_fields() {
        let digest = Digest([7; 32]);
        let plan: Plan = serde_json::from_str(r#"{"steps":[]}"#).unwrap();
        assert_eq!((plan.tenant, plan.limits), (None, None));
        let table = format!(
            r#"{{"tenant":"acme","name":"apps","digest":"{digest}","rows":2,"uploaded_at":"2026-01-01T00:00:00.000Z"}}"#
        );
        let table: Table = serde_json::from_str(&table).unwrap();
        let kept = table.retained_versions();
        assert_eq!((kept.len(), kept[0].digest, kept[0].rows), (1, digest, 2), "its only version is the active one");
        assert_eq!(table.digests().collect::<Vec<_>>(), [digest]);
    }
}
