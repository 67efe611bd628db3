//! Tenants, their quotas and their API keys.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, KeyId, TenantId};
use super::time::Timestamp;

/// A tenant of this host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tenant {
    /// Unique name.
    pub id: TenantId,
    /// Display name for people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Quota of the tenant. If absent, the host's default quota applies.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// The issuer (`iss`) of the SETs that it issues. Fixed when the tenant's first issuer key is created, because
    /// receivers trust it by this name.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// Distinguishes a tenant from earlier tenants with the same name, so that tokens issued for one are not valid for the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(u64);

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Tenant {
    /// The tenant's own quota, or the host's default if the tenant has none.
    pub fn quota_or<'a>(&'a self, default: &'a Quota) -> &'a Quota {
        self.quota.as_ref().unwrap_or(default)
    }

    /// Derived from the name and the time of creation. Unique, because a name can be reused only after all data of the
    /// earlier tenant was deleted, which takes more than a millisecond.
    pub fn incarnation(&self) -> Incarnation {
        // 64-bit FNV-1a: the value has to be distinct, but not secret.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let created_at = self.created_at.as_millis().to_be_bytes();
        let bytes = created_at.iter().chain(self.id.as_str().as_bytes());
        Incarnation(bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
    }
}

/// Limits of a tenant. The operator can set each of them for one tenant; [`DefaultQuota`] has those that can also be set
/// for all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Fuel of one filter call. One unit is about one instruction.
    pub fuel_per_call: u64,
    /// Additional fuel of a call for each byte of its event's claims beyond the first 32 KiB, so that a filter can
    /// process all of a large event while small events get no more than before.
    pub fuel_per_event_byte: u64,
    /// Fuel of all calls of the tenant per second. Calls wait while it is exhausted. The default is about one to two
    /// seconds of computing on one core.
    pub fuel_per_second: u64,
    /// Total size of the linear memories of a call, in bytes.
    pub memory_bytes_max: u64,
    /// Total size of the tables of a call, in elements.
    pub table_elements_max: u64,
    /// Computing time of a call in milliseconds, not including waits for its turns.
    pub wall_ms_max: u64,
    /// Size of a verdict, and of the resulting claims, in bytes.
    pub output_bytes_max: u64,
    /// Host calls in one filter call.
    pub host_calls_max: u64,
    /// Size of the log of one call, in bytes. The excess is cut.
    pub log_bytes_max: u64,
    /// Size of an uploaded filter, in bytes.
    pub filter_bytes_max: u64,
    /// Number of faults in the last 100 calls of a filter version that suspends it, at most 100. 0 disables suspension.
    pub filter_faults_max: u32,
    /// Number of due and held deliveries from which on the tenant's ingest requests are rejected with 429.
    pub backlog_deliveries_max: u64,
    /// Number of sources.
    pub sources_max: u64,
    /// Number of subscriptions.
    pub subscriptions_max: u64,
    /// Number of filters.
    pub filters_max: u64,
    /// Total size of all versions of all filters, in bytes.
    pub filters_bytes_max: u64,
    /// Number of lookup tables.
    pub tables_max: u64,
    /// Size of one version of a lookup table, in bytes.
    pub table_bytes_max: u64,
    /// Total size of all versions of all lookup tables, in bytes.
    pub tables_bytes_max: u64,
    /// Total size of the active versions of all lookup tables, in bytes. A chain with `lookup` holds them in memory.
    pub tables_active_bytes_max: u64,
    /// Number of API keys.
    pub keys_max: u64,
    /// Total size of the tenant's documents in bytes, each counted with an overhead of 1 KiB: sources, subscriptions,
    /// filters, tables (only the metadata of their versions), keys, issuer keys and the tenant itself. They are held in
    /// memory while the host runs.
    pub documents_bytes_max: u64,
    /// Storage of the tenant in bytes: events with their deliveries and history, plans, and versions of filters and
    /// tables. If it is used up, events and uploads are rejected with 429; accepted events are still delivered. 0
    /// disables the limit.
    pub stored_bytes_max: u64,
    /// Rate of event bodies in bytes per second, with a burst of four seconds. Requests beyond it are rejected (429). 0
    /// disables the limit.
    pub ingest_bytes_per_second: u64,
    /// Number of event patterns in all subscriptions. Each event is matched against all of them.
    pub patterns_max: u64,
    /// Total length of these patterns, in bytes.
    pub patterns_bytes_max: u64,
    /// Whether an endpoint must be verified before anything is sent to it. `delivery.require_verified_endpoints`
    /// requires this for all tenants.
    pub require_verified_endpoints: bool,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            fuel_per_call: 50_000_000,
            fuel_per_event_byte: 1_500,
            fuel_per_second: 2_000_000_000,
            memory_bytes_max: 32 << 20,
            table_elements_max: 10_000,
            wall_ms_max: 1_000,
            output_bytes_max: 2 << 20,
            host_calls_max: 1_000,
            log_bytes_max: 16 << 10,
            filter_bytes_max: FILTER_BYTES_MAX,
            filter_faults_max: 50,
            backlog_deliveries_max: 1_000_000,
            sources_max: 100,
            subscriptions_max: 1_000,
            filters_max: 100,
            filters_bytes_max: 256 << 20,
            tables_max: 50,
            table_bytes_max: TABLE_BYTES_MAX,
            tables_bytes_max: 256 << 20,
            tables_active_bytes_max: 64 << 20,
            keys_max: 50,
            documents_bytes_max: 16 << 20,
            stored_bytes_max: 16 << 30,
            ingest_bytes_per_second: 32 << 20,
            patterns_max: 10_000,
            patterns_bytes_max: 512 << 10,
            require_verified_endpoints: false,
        }
    }
}

/// `[quota]`: the limits whose default for all tenants can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultQuota {
    /// Fuel of one filter call. One unit is about one instruction.
    pub fuel_per_call: u64,
    /// Fuel of all calls of the tenant per second. Calls wait while it is exhausted. The default is about one to two
    /// seconds of computing on one core.
    pub fuel_per_second: u64,
    /// Total size of the linear memories of a call, in bytes.
    pub memory_bytes_max: u64,
    /// Number of faults in the last 100 calls of a filter version that suspends it, at most 100. 0 disables suspension.
    pub filter_faults_max: u32,
    /// Number of due and held deliveries from which on the tenant's ingest requests are rejected with 429.
    pub backlog_deliveries_max: u64,
    /// Number of sources.
    pub sources_max: u64,
    /// Number of subscriptions.
    pub subscriptions_max: u64,
    /// Number of filters.
    pub filters_max: u64,
    /// Storage of the tenant in bytes: events with their deliveries and history, plans, and versions of filters and
    /// tables. If it is used up, events and uploads are rejected with 429; accepted events are still delivered. 0
    /// disables the limit.
    pub stored_bytes_max: u64,
    /// Rate of event bodies in bytes per second, with a burst of four seconds. Requests beyond it are rejected (429). 0
    /// disables the limit.
    pub ingest_bytes_per_second: u64,
}

impl Default for DefaultQuota {
    fn default() -> Self {
        Self::from(&Quota::default())
    }
}

impl From<&Quota> for DefaultQuota {
    fn from(quota: &Quota) -> Self {
        Self {
            fuel_per_call: quota.fuel_per_call,
            fuel_per_second: quota.fuel_per_second,
            memory_bytes_max: quota.memory_bytes_max,
            filter_faults_max: quota.filter_faults_max,
            backlog_deliveries_max: quota.backlog_deliveries_max,
            sources_max: quota.sources_max,
            subscriptions_max: quota.subscriptions_max,
            filters_max: quota.filters_max,
            stored_bytes_max: quota.stored_bytes_max,
            ingest_bytes_per_second: quota.ingest_bytes_per_second,
        }
    }
}

impl From<DefaultQuota> for Quota {
    fn from(given: DefaultQuota) -> Self {
        Self {
            fuel_per_call: given.fuel_per_call,
            fuel_per_second: given.fuel_per_second,
            memory_bytes_max: given.memory_bytes_max,
            filter_faults_max: given.filter_faults_max,
            backlog_deliveries_max: given.backlog_deliveries_max,
            sources_max: given.sources_max,
            subscriptions_max: given.subscriptions_max,
            filters_max: given.filters_max,
            stored_bytes_max: given.stored_bytes_max,
            ingest_bytes_per_second: given.ingest_bytes_per_second,
            ..Self::default()
        }
    }
}

/// Size of an uploaded filter, in bytes.
pub const FILTER_BYTES_MAX: u64 = 24 << 20;
/// Size of one version of a lookup table, in bytes.
pub const TABLE_BYTES_MAX: u64 = 16 << 20;
/// Size of an event's claims that `fuel_per_call` covers, in bytes.
const EVENT_BYTES_FREE: u64 = 32 << 10;

impl Quota {
    /// The quota for a call with an event of this size, in bytes of claims.
    pub fn for_event(self, bytes: usize) -> Self {
        let beyond = (bytes as u64).saturating_sub(EVENT_BYTES_FREE);
        let more = beyond.saturating_mul(self.fuel_per_event_byte);
        Self { fuel_per_call: self.fuel_per_call.saturating_add(more), ..self }
    }
}

/// An API key. Only the SHA-256 of the secret half is stored; it has 256 random bits, so no slow hash is needed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKey {
    /// The public half.
    pub id: KeyId,
    /// The tenant of the key. `None` for a key of the operator.
    pub tenant: Option<TenantId>,
    /// Label for people.
    #[serde(default)]
    pub label: Option<String>,
    /// Permissions.
    pub scopes: BTreeSet<Scope>,
    /// SHA-256 of the secret half.
    pub secret: Digest,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Expiry time. `None` if it never expires.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl ApiKey {
    /// Prefix of every key, so that scanners can detect leaked ones.
    pub const PREFIX: &str = "sgk_";

    /// Splits a key `sgk_<id>_<secret>` into its public and secret half.
    pub fn parse(given: &str) -> Option<(KeyId, &str)> {
        let (id, secret) = given.strip_prefix(Self::PREFIX)?.split_once('_')?;
        Some((format!("{}{id}", KeyId::PREFIX).parse().ok()?, secret))
    }

    /// Combines both halves to a key.
    pub fn format(id: KeyId, secret: &str) -> String {
        let body = id.to_string();
        format!("{}{}_{secret}", Self::PREFIX, body.trim_start_matches(KeyId::PREFIX))
    }

    /// When the key expired, if it has expired.
    pub fn expired_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.expires_at.filter(|at| *at <= now)
    }
}

/// Permissions of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send events to sources of the tenant that accept API keys as authentication.
    Ingest,
    /// Read all data of the tenant.
    Read,
    /// Change all data of the tenant.
    Write,
    /// Read all data of every tenant and of the host.
    OperatorRead,
    /// Create and delete tenants, and read and change all data of every tenant.
    Operator,
}

impl Scope {
    /// The scopes that a tenant's key may have.
    pub const TENANTS: [Scope; 3] = [Self::Ingest, Self::Read, Self::Write];

    /// Name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Write => "write",
            Self::OperatorRead => "operator_read",
            Self::Operator => "operator",
        }
    }

    /// Whether only keys of the operator may have this scope.
    pub fn is_operator_only(self) -> bool {
        matches!(self, Self::OperatorRead | Self::Operator)
    }
}
