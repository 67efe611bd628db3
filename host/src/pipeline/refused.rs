//! Why an event was refused.

use setgate_dialects::normalize::NormalizeError;
use setgate_domain::id::{EventId, TenantId};

use super::decode::CodingFault;
use super::prove::Unproven;

/// Why an event was refused. Nothing of a refused event is stored.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The request did not prove that it comes from the source.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The body is not an event in the source's form.
    #[error(transparent)]
    NotAnEvent(#[from] NormalizeError),
    /// The body cannot be decompressed.
    #[error(transparent)]
    Coding(#[from] CodingFault),
    /// An event with the same `jti` and a different body was accepted before.
    #[error("an event with this `jti` and another body was accepted before, as {0}: a `jti` names one event only")]
    Conflict(EventId),
    /// The tenant's backlog quota is used up.
    #[error("tenant `{tenant}` has {backlog} deliveries waiting: `backlog_deliveries_max` is {limit}")]
    Backlog {
        /// The tenant.
        tenant: TenantId,
        /// Deliveries that are due or held.
        backlog: u64,
        /// The tenant's `backlog_deliveries_max`.
        limit: u64,
    },
    /// The tenant's storage quota is used up.
    #[error("tenant `{tenant}` has {stored} bytes stored: its quota `stored_bytes_max` is {limit}")]
    Storage {
        /// The tenant.
        tenant: TenantId,
        /// Bytes stored for the tenant.
        stored: u64,
        /// The tenant's `stored_bytes_max`.
        limit: u64,
    },
    /// The tenant exceeds its ingest rate.
    #[error("tenant `{tenant}` sends more than {limit} bytes a second: its quota `ingest_bytes_per_second`")]
    Rate {
        /// The tenant.
        tenant: TenantId,
        /// The tenant's `ingest_bytes_per_second`.
        limit: u64,
    },
    /// Too many of the tenant's events are queued for the ledger.
    #[error("{limit} events of tenant `{tenant}` are queued for the ledger, twice `ingest.appends_max`")]
    Flood {
        /// The tenant.
        tenant: TenantId,
        /// Twice `ingest.appends_max`.
        limit: usize,
    },
    /// The disk is nearly full, or the ledger has reached its size limit.
    #[error("{0}: send it again later")]
    Short(#[from] setgate_ledger::Shortage),
    /// The event could not be made durable because the ledger is busy or the disk failed. The sender should retry.
    #[error("the event could not be stored: {0}")]
    Ledger(#[from] setgate_ledger::Error),
}

impl Refused {
    /// A stable code for metrics and problem details.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unproven(Unproven::UnknownSource { .. }) => "unknown_source",
            Self::Unproven(Unproven::Mac(_) | Unproven::Unsigned | Unproven::PushOnly) => "bad_signature",
            Self::Unproven(Unproven::Bearer) => "bad_token",
            Self::Unproven(Unproven::Key) => "bad_key",
            Self::Unproven(Unproven::KeyScope) => "forbidden",
            Self::Unproven(Unproven::SecretUnreadable) => "secret_unreadable",
            Self::NotAnEvent(refusal) => refusal.code(),
            Self::Coding(CodingFault::Broken { .. }) => "coding_broken",
            Self::Coding(CodingFault::TooLarge { .. }) => "body_too_large",
            Self::Conflict(_) => "jti_conflict",
            Self::Backlog { .. } => "backlog_full",
            Self::Storage { .. } => "storage_full",
            Self::Rate { .. } => "too_many_bytes",
            Self::Flood { .. } => "busy",
            Self::Short(shortage) => shortage.code(),
            Self::Ledger(error) if error.is_damage() => "ledger_damaged",
            Self::Ledger(_) => "not_stored",
        }
    }
}
