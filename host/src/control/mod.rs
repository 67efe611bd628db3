//! The control plane: configuration and inspection by tenants and by the operator. Each file covers one resource. The
//! functions take parsed requests and return the views that the API serialises. Secrets are never returned, except for
//! generated ones, which are returned once.

pub mod audit;
mod checks;
pub mod deliveries;
pub mod events;
pub mod filters;
pub mod idempotency;
pub mod keys;
pub mod pages;
pub mod rate;
pub mod read_only;
pub mod redrive;
pub mod replays;
pub mod reproduction;
pub mod rollouts;
pub mod secrets;
pub mod sources;
pub mod statistics;
pub mod subscriptions;
pub mod tables;
pub mod tail;
pub mod tenants;
pub mod versions;
pub mod warnings;

use std::sync::Arc;

use crate::config::Settings;
use crate::pipeline::DataPlane;

pub use checks::{ABSENT, TEXT_CHARS_MAX};
pub use pages::{Page, PageQuery};
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_base::fair::TenantSemaphores;
use setgate_domain::audit::{Actor, AuditAction};
use setgate_domain::id::{SubscriptionId, SubscriptionName, TenantId};
use setgate_domain::tenant::Quota;
use setgate_egress::Egress;
use setgate_ledger::Precondition;
pub use setgate_ledger::{DeliveryQuery, EventQuery};
use setgate_ledger::{Ledger, TenantView};
use setgate_sandbox::{Sandbox, UploadError};

/// The state shared by all parts of the control plane, together with the actor for the audit log. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    /// Events.
    pub events: events::Events,
    /// The audit log.
    pub audit: audit::AuditLog,
    /// Statistics of deliveries.
    pub statistics: statistics::Statistics,
    parts: Arc<Parts>,
    actor: Arc<Actor>,
}

/// The components of the control plane.
pub struct Parts {
    /// All durable state.
    pub ledger: Ledger,
    /// Validates and compiles uploads.
    pub sandbox: Sandbox,
    /// Encrypts secrets.
    pub master: Arc<MasterKey>,
    /// Encrypts signing keys.
    pub signer: Arc<setgate_dialects::Signer>,
    /// Checks endpoints against the address rules.
    pub egress: Egress,
    /// Wall and monotonic time.
    pub clock: Clock,
    /// The current configuration, which can change at run time.
    pub settings: Settings,
    /// The operations of the data plane.
    pub data_plane: DataPlane,
    /// Limits the bulk redrives of each tenant.
    pub(crate) redriving: TenantSemaphores,
    /// Rate limit for test events and verifications of each subscription.
    pub tests: rate::PerMinute<SubscriptionId>,
}

impl Parts {
    /// Limit for a tenant's concurrent bulk redrives.
    pub(crate) const REDRIVING_MAX: usize = 1;
}

impl Control {
    /// Assembles the parts. The actor is the host itself.
    pub fn new(parts: Parts) -> Self {
        let ledger = &parts.ledger;
        let (registry, history) = (&ledger.registry, &ledger.history);
        Self {
            events: events::Events {
                registry: registry.clone(),
                history: history.clone(),
                events: ledger.events.clone(),
            },
            audit: audit::AuditLog { registry: registry.clone(), history: history.clone() },
            statistics: statistics::Statistics {
                registry: registry.clone(),
                history: history.clone(),
                usage: ledger.usage.clone(),
                clock: parts.clock.clone(),
            },
            actor: Arc::new(Actor::HOST),
            parts: Arc::new(parts),
        }
    }

    /// The same control plane, acting for `actor`, which is recorded in the audit log.
    pub fn acting(&self, actor: Actor) -> Self {
        Self { actor: Arc::new(actor), ..self.clone() }
    }

    /// The audit record of an action, `kind.verb`.
    fn audit(&self, action: &'static str) -> AuditAction {
        self.actor.action(action)
    }

    fn quota_of(&self, view: &TenantView) -> Quota {
        checks::quota_of(&self.settings, view)
    }

    fn check_space(&self, view: &TenantView, upload_bytes: usize) -> Result<(), Error> {
        checks::check_space(&self.ledger.usage, &view.tenant.value.id, &self.quota_of(view), upload_bytes)
    }

    fn tenant(&self, tenant: &TenantId) -> Result<Arc<TenantView>, Error> {
        checks::find_tenant(&self.ledger.registry, tenant)
    }
}

impl std::ops::Deref for Control {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// Why a request to the control plane failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource does not exist, or belongs to another tenant.
    #[error("there is no {0}")]
    NotFound(String),
    /// The resource exists already, is in use, or a limit is reached.
    #[error("{0}")]
    Conflict(String),
    /// The expected version is not the stored version.
    #[error("it was changed meanwhile: read it again and repeat the change")]
    Version {
        /// The stored version. `None` if the document does not exist.
        actual: Option<u64>,
    },
    /// Another subscription has this name.
    #[error("another subscription is named `{0}` already")]
    NameTaken(SubscriptionName),
    /// A field is invalid.
    #[error("`{field}`: {why}")]
    Invalid {
        /// The field, as a JSON pointer or a name.
        field: &'static str,
        /// The problem and its remedy.
        why: String,
    },
    /// The uploaded component is not a valid filter.
    #[error(transparent)]
    Rejected(#[from] UploadError),
    /// The limit for concurrent operations of this kind is reached. Carries the message.
    #[error("{0}")]
    Busy(String),
    /// The tenant already has a running backtest.
    #[error("a backtest of this tenant is under way: ask again when it has ended")]
    BacktestRunning,
    /// The rate limit of the operation is reached.
    #[error("this was asked for {max} times within a minute, which is the limit")]
    TooOften {
        /// Operations allowed per minute.
        max: u32,
    },
    /// An endpoint did not return its challenge.
    #[error(
        "{why}; it has to answer 2xx with the challenge as its body, or with {{\"challenge\": ...}}, and the endpoint is \
         not verified"
    )]
    NotVerified {
        /// Describes the endpoint's response.
        why: String,
    },
    /// The cursor does not belong to this list.
    #[error("the cursor is not one that this list gave")]
    BadCursor,
    /// The tenant's storage quota would be exceeded.
    #[error(
        "the tenant has {stored} bytes stored, and with this it would have more than its quota `stored_bytes_max`, which is {max}"
    )]
    StorageFull {
        /// Bytes stored.
        stored: u64,
        /// The tenant's `stored_bytes_max`.
        max: u64,
    },
    /// The disk is nearly full, or the ledger has reached its size limit.
    #[error("{0}: nothing was stored")]
    Short(#[from] setgate_ledger::Shortage),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(setgate_ledger::Error),
}

impl From<setgate_ledger::Error> for Error {
    fn from(error: setgate_ledger::Error) -> Self {
        match error {
            setgate_ledger::Error::VersionMismatch { current } => Self::Version { actual: current },
            setgate_ledger::Error::InvalidCursor => Self::BadCursor,
            setgate_ledger::Error::NameTaken(name) => Self::NameTaken(name),
            setgate_ledger::Error::NoTenant(tenant) => Self::NotFound(format!("tenant `{tenant}`")),
            setgate_ledger::Error::Purging(_)
            | setgate_ledger::Error::InUse(_)
            | setgate_ledger::Error::FilterNotActive(_)
            | setgate_ledger::Error::QuotaExceeded { .. }
            | setgate_ledger::Error::DocumentTooLarge { .. } => Self::Conflict(error.to_string()),
            other => Self::Ledger(other),
        }
    }
}

/// Deserialises a member that may be absent (unchanged), `null` (removed) or a value.
fn changed<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    given: D,
) -> Result<Option<Option<T>>, D::Error> {
    serde::Deserialize::deserialize(given).map(Some)
}

impl Error {
    pub(crate) fn invalid(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { field, why: why.to_string() }
    }
}
