//! Filters: named components of a tenant, versioned by digest; and the chain a delivery runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::id::{Digest, FilterName, TableName, TenantId};
use super::rollout::{Ended, Rollout};
use super::secret::Sealed;
use super::time::Timestamp;
use super::verdict::FaultPolicy;

/// A capability given to a filter: one WIT interface each. `log` needs no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
}

impl Filter {
    /// The version with that digest.
    pub fn version(&self, digest: &Digest) -> Option<&FilterVersion> {
        self.versions.iter().find(|v| v.digest == *digest)
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
}

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
}

/// The empty JSON object.
pub fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".into()).expect("a literal JSON object")
}

/// A chain as it was when a delivery was created: everything that decides the filtered bytes, by digest.
/// Stored once per distinct content and named by its own digest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The steps, in order. Empty: the SET goes on as it is.
    pub steps: Vec<PlanStep>,
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

/// A table of a tenant for `lookup`; the rows are kept apart, by digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: TableName,
    /// SHA-256 of the rows as uploaded.
    pub digest: Digest,
    /// How many rows.
    pub rows: u64,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}
