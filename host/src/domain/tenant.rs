//! Tenants, their quotas and their keys.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, KeyId, TenantId};
use super::time::Timestamp;

/// A tenant of this host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// What people call it.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Where it differs from the host's own quota; absent: the host's.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Tells a tenant from others that had its name before: what was given out for one of them opens nothing of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(u64);

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Tenant {
    /// Made of its name and of the instant at which it was made: a name is free again only after everything that its tenant
    /// had was deleted, which takes longer than a millisecond.
    pub fn incarnation(&self) -> Incarnation {
        // FNV-1a, 64 bits: it has to differ, not to be secret.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let made_at = self.created_at.as_millis().to_be_bytes();
        let bytes = made_at.iter().chain(self.id.as_str().as_bytes());
        Incarnation(bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
    }
}

/// What a tenant may use. Every field is a configuration key under `[quota]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Fuel for one call of one filter; about one unit an instruction.
    pub fuel_per_call: u64,
    /// Fuel that a call gets besides for each byte of its event's claims beyond the first 32 KiB: a filter that reads all of a
    /// large event gets through, and no more is given for a small one.
    pub fuel_per_event_byte: u64,
    /// Fuel of all calls of the tenant in one second; calls wait while it is spent. The default is about what one core
    /// computes in a second or two.
    pub fuel_per_second: u64,
    /// Bytes of all linear memories of one call together.
    pub memory_bytes_max: u64,
    /// Elements of all tables of one call together.
    pub table_elements_max: u64,
    /// Milliseconds one call may compute; waiting for its turns is not counted.
    pub wall_ms_max: u64,
    /// Bytes of a verdict, and of the claims after it.
    pub output_bytes_max: u64,
    /// Host calls of one call.
    pub host_calls_max: u64,
    /// Bytes of log lines of one call; what is over is cut.
    pub log_bytes_max: u64,
    /// Bytes of an uploaded filter.
    pub filter_bytes_max: u64,
    /// Faults among the last 100 calls of one version of a filter at which it is suspended; 0: never.
    pub filter_faults_max: u32,
    /// Deliveries of the tenant that may be due or held before its ingest is answered 429.
    pub backlog_deliveries_max: u64,
    /// Sources of the tenant.
    pub sources_max: u64,
    /// Subscriptions of the tenant.
    pub subscriptions_max: u64,
    /// Filters of the tenant.
    pub filters_max: u64,
    /// Bytes of all versions of all filters of the tenant together.
    pub filters_bytes_max: u64,
    /// Look-up tables of the tenant.
    pub tables_max: u64,
    /// Bytes of one version of a look-up table.
    pub table_bytes_max: u64,
    /// Bytes of all versions of all look-up tables of the tenant together.
    pub tables_bytes_max: u64,
    /// Bytes of the active versions of all its look-up tables together: what a chain that looks up has in memory.
    pub tables_active_bytes_max: u64,
    /// Keys of the tenant.
    pub keys_max: u64,
    /// Bytes of all documents of the tenant together, each with 1 KiB for itself: sources, subscriptions, filters, tables (what is
    /// known of their versions, not the versions), keys and the tenant itself. They are in memory for as long as the host runs.
    pub documents_bytes_max: u64,
    /// Bytes that the tenant may have stored: its events with their deliveries and history, plans, and versions of filters and
    /// tables. From there on, its events and uploads are answered 429; what was accepted goes on. 0: no bound.
    pub stored_bytes_max: u64,
    /// Bytes of event bodies of the tenant in a second, after a burst of four seconds' worth; beyond, they are answered 429. 0: no
    /// bound.
    pub ingest_bytes_per_second: u64,
    /// Event patterns of all subscriptions of the tenant together: each is held against each of its events.
    pub patterns_max: u64,
    /// Bytes of the texts of these patterns.
    pub patterns_bytes_max: u64,
    /// Whether nothing is sent to an endpoint before it was verified; `delivery.require_verified_endpoints` asks it of
    /// all tenants.
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
            filter_bytes_max: 24 << 20,
            filter_faults_max: 50,
            backlog_deliveries_max: 1_000_000,
            sources_max: 100,
            subscriptions_max: 1_000,
            filters_max: 100,
            filters_bytes_max: 256 << 20,
            tables_max: 50,
            table_bytes_max: 16 << 20,
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

/// Bytes of an event's claims that are in `fuel_per_call`.
const EVENT_BYTES_FREE: u64 = 32 << 10;

impl Quota {
    /// The quota of a call for an event with so many bytes of claims.
    pub fn for_event(self, bytes: usize) -> Self {
        let beyond = (bytes as u64).saturating_sub(EVENT_BYTES_FREE);
        let more = beyond.saturating_mul(self.fuel_per_event_byte);
        Self { fuel_per_call: self.fuel_per_call.saturating_add(more), ..self }
    }
}

/// An API key: the secret half is kept as SHA-256 only (it has 256 random bits, so no slow hash is needed).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKey {
    /// The public half.
    pub id: KeyId,
    /// The tenant it acts for; none: the operator.
    pub tenant: Option<TenantId>,
    /// What people call it.
    #[serde(default)]
    pub label: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// SHA-256 of the secret half.
    pub secret: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; none: never.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl ApiKey {
    /// What every key starts with, so that scanners can find leaked ones.
    pub const PREFIX: &str = "sgk_";

    /// The public and the secret half of a whole key, `sgk_<id>_<secret>`.
    pub fn parts(given: &str) -> Option<(KeyId, &str)> {
        let (id, secret) = given.strip_prefix(Self::PREFIX)?.split_once('_')?;
        Some((format!("{}{id}", KeyId::PREFIX).parse().ok()?, secret))
    }

    /// The whole key of both halves.
    pub fn whole(id: KeyId, secret: &str) -> String {
        let body = id.to_string();
        format!("{}{}_{secret}", Self::PREFIX, body.trim_start_matches(KeyId::PREFIX))
    }

    /// When it ended, where it has.
    pub fn ended(&self, now: Timestamp) -> Option<Timestamp> {
        self.expires_at.filter(|at| *at <= now)
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send events to those sources of the tenant that take its keys as a proof.
    Ingest,
    /// Look at everything of the tenant.
    Read,
    /// Change everything of the tenant.
    Write,
    /// Look at everything of every tenant, and of the host.
    OperatorRead,
    /// Make and remove tenants; everything of every tenant.
    Operator,
}

impl Scope {
    /// Those that a tenant's key may have.
    pub const TENANTS: [Scope; 3] = [Self::Ingest, Self::Read, Self::Write];

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Write => "write",
            Self::OperatorRead => "operator_read",
            Self::Operator => "operator",
        }
    }

    /// Whether it is for keys of the operator's alone.
    pub fn is_operators(self) -> bool {
        matches!(self, Self::OperatorRead | Self::Operator)
    }
}
