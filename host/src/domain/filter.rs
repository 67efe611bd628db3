//! Filters: named components of a tenant, versioned by digest; and the chain a delivery runs.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::id::{Digest, FilterName, TableName, TenantId};
use super::limits::CallLimits;
use super::rollout::{Counted, EndReason, Ended, Rollout};
use super::secret::Sealed;
use super::time::Timestamp;
use super::verdict::FaultPolicy;

/// A capability given to a filter: one WIT interface each. `log` needs no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// `setgate:filter/config`: the binding's own settings and secrets.
    Config,
    /// `setgate:filter/lookup`: the tenant's tables.
    Lookup,
}

impl Grant {
    /// Every grant there is.
    pub const ALL: [Grant; 2] = [Grant::Config, Grant::Lookup];

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Lookup => "lookup",
        }
    }
}

/// The grants that a filter imports and its binding lacks, in words with the JSON that adds them; none if nothing is missing.
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

/// A filter of a tenant with all its versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Filter {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: FilterName,
    /// The version new deliveries run; none until one is activated.
    pub active: Option<Digest>,
    /// What was active before, newest last: what a roll-back returns to.
    #[serde(default)]
    pub previous: Vec<Digest>,
    /// All versions, oldest first.
    pub versions: Vec<FilterVersion>,
    /// A version on trial beside the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// How the last trial ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollout: Option<Ended>,
    /// Versions that a person (or a roll-back) has decided about: what their faults hold is on its way to be run anew,
    /// with the chain as it is now. Written with the decision, so that a crash in between loses none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub releasing: BTreeSet<Digest>,
}

impl Filter {
    /// The version with that digest.
    pub fn version(&self, digest: &Digest) -> Option<&FilterVersion> {
        self.versions.iter().find(|v| v.digest == *digest)
    }

    /// The same, to be changed.
    pub fn version_mut(&mut self, digest: &Digest) -> Option<&mut FilterVersion> {
        self.versions.iter_mut().find(|v| v.digest == *digest)
    }

    /// Why a version is suspended, where it is.
    pub fn suspension(&self, digest: &Digest) -> Option<&Suspension> {
        self.version(digest)?.suspended.as_ref()
    }

    /// Ends the rollout, where there is one. A candidate that is not promoted is withdrawn: deliveries that have it
    /// pinned and have not run it yet run the active version, and what its faults hold is run anew.
    pub fn end_rollout(&mut self, at: Timestamp, reason: EndReason, counted: Counted) -> Option<Digest> {
        let rollout = self.rollout.take()?;
        let candidate = rollout.digest;
        if reason != EndReason::Promoted {
            self.withdraw(&candidate, Some(at));
            self.releasing.insert(candidate);
        }
        self.last_rollout = Some(Ended { rollout, at, reason, calls: counted.calls, faults: counted.faults });
        Some(candidate)
    }

    /// Withdraws a version, or takes that back.
    pub fn withdraw(&mut self, digest: &Digest, since: Option<Timestamp>) {
        if let Some(version) = self.version_mut(digest) {
            version.withdrawn = since;
        }
    }

    /// Whether the version was tried, and the trial ended without its promotion.
    pub fn is_withdrawn(&self, digest: &Digest) -> bool {
        self.active != Some(*digest) && self.version(digest).is_some_and(|version| version.withdrawn.is_some())
    }
}

/// One uploaded component.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FilterVersion {
    /// SHA-256 of the component's bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
    /// The grants it imports, and so needs from each binding.
    pub needs: BTreeSet<Grant>,
    /// How long the compile took, in milliseconds.
    pub compile_ms: u64,
    /// Since when it is withdrawn: it was on trial, and the trial ended without its promotion. Deliveries that have it
    /// pinned and have not run it yet run the active version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Timestamp>,
    /// Set while it is not called because it faulted too often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
}

/// Why and since when a version is not called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suspension {
    /// Since when.
    pub since: Timestamp,
    /// In words, with its last fault.
    pub reason: String,
    /// Calls that were looked at: the last [`FAULT_WINDOW_CALLS`], or fewer.
    pub calls: u32,
    /// Of them, those that ended in a fault of the filter's own.
    pub faults: u32,
}

/// Calls of a version over which its faults are counted.
pub const FAULT_WINDOW_CALLS: u32 = 100;

/// One filter's place in one subscription's chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Binding {
    /// Which filter; its active version is pinned when a delivery is created.
    pub filter: FilterName,
    /// Settings: a JSON object, kept as text.
    #[serde(default = "empty_object")]
    pub config: Box<RawValue>,
    /// Secrets by name, encrypted.
    #[serde(default)]
    pub secrets: BTreeMap<String, Sealed>,
    /// What it is granted.
    #[serde(default)]
    pub grants: BTreeSet<Grant>,
    /// What happens when it faults.
    #[serde(default)]
    pub on_fault: FaultPolicy,
    /// Whether one instance of it may see several events, and how many; none: each has a fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// The least events for which it makes sense to keep an instance: with one, each has a fresh one.
pub const REUSE_EVENTS_MIN: u32 = 2;

/// Leave to keep an instance of a filter for the next events of the same binding. What one event leaves in it the next
/// ones can see, so that a run in such an instance cannot be reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InstanceReuse")]
pub struct Reuse {
    /// Events that one instance sees at the most; not more than the host's `sandbox.reuse_events_max`.
    #[schemars(range(min = REUSE_EVENTS_MIN))]
    pub events_max: u32,
}

/// The empty JSON object.
pub fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".into()).expect("a literal JSON object")
}

/// A chain as it was when a delivery was created: everything that decides the filtered bytes, by digest.
/// Stored once per distinct content and named by its own digest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Whose it is, so that only the owner finds components and tables by it; none in rows older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The steps, in order. Empty: the SET goes on as it is.
    pub steps: Vec<PlanStep>,
    /// What each call may use, as it was; none in rows older than this field: the tenant's present quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<CallLimits>,
    /// The tables that `lookup` sees, by name, as they were.
    #[serde(default)]
    pub tables: BTreeMap<TableName, Digest>,
    /// Why the chain could not be pinned, where it could not: its deliveries are held with this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// One step of a [`Plan`]: a binding with its filter's version pinned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanStep {
    /// The binding as it was.
    pub binding: Binding,
    /// The version it runs.
    pub digest: Digest,
}

/// A table of a tenant for `lookup` with its versions; the rows are kept apart, by digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: TableName,
    /// The version that new deliveries see.
    pub digest: Digest,
    /// Rows of that version.
    pub rows: u64,
    /// When that version was uploaded.
    pub uploaded_at: Timestamp,
    /// What was active before, newest last: what a roll-back returns to.
    #[serde(default)]
    pub previous: Vec<Digest>,
    /// All versions that are kept, oldest first; none in rows older than this field: see [`Table::kept`].
    #[serde(default)]
    pub versions: Vec<TableVersion>,
}

impl Table {
    /// The versions that are kept, the active one among them.
    pub fn kept(&self) -> Vec<TableVersion> {
        if !self.versions.is_empty() {
            return self.versions.clone();
        }
        let Self { digest, rows, uploaded_at, .. } = *self;
        vec![TableVersion { digest, rows, bytes: 0, format: TableFormat::JsonLines, uploaded_at }]
    }

    /// The digests of the versions that are kept.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.versions.iter().map(|version| version.digest).chain([self.digest])
    }
}

/// One upload of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableVersion {
    /// SHA-256 of the rows as they are kept: JSON lines.
    pub digest: Digest,
    /// How many rows.
    pub rows: u64,
    /// Bytes of the rows as they are kept; 0 where it was not counted yet.
    pub bytes: u64,
    /// What it was uploaded as.
    pub format: TableFormat,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}

/// What a table is uploaded as. It is kept as JSON lines in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableFormat {
    /// Lines of `{"key": "...", "value": ...}`.
    JsonLines,
    /// RFC 4180 with a header.
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
    fn rows_that_are_older_than_a_field_are_read() {
        let digest = Digest([7; 32]);
        let plan: Plan = serde_json::from_str(r#"{"steps":[]}"#).unwrap();
        assert_eq!((plan.tenant, plan.limits), (None, None));
        let table = format!(
            r#"{{"tenant":"acme","name":"apps","digest":"{digest}","rows":2,"uploaded_at":"2026-01-01T00:00:00.000Z"}}"#
        );
        let table: Table = serde_json::from_str(&table).unwrap();
        let kept = table.kept();
        assert_eq!((kept.len(), kept[0].digest, kept[0].rows), (1, digest, 2), "its one version is the active one");
        assert_eq!(table.digests().collect::<Vec<_>>(), [digest]);
    }
}
