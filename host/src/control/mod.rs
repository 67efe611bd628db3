//! The control plane: configuration and inspection by tenants and by the operator. Each file covers one resource. The
//! functions take parsed requests and return the views that the API serialises. Secrets are never returned, except for
//! generated ones, which are returned once.

pub mod audit;
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

pub use pages::{Page, PageQuery};
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_base::fair::TenantSemaphores;
use setgate_domain::audit::{Actor, AuditAction};
use setgate_domain::id::{SubscriptionId, SubscriptionName, TenantId};
use setgate_domain::tenant::Quota;
use setgate_egress::Egress;
use setgate_ledger::Expected;
pub use setgate_ledger::{DeliveryQuery, EventQuery};
use setgate_ledger::{Ledger, TenantView};
use setgate_sandbox::{Sandbox, UploadError};

/// The state shared by all parts of the control plane, together with the actor for the audit log. Cheap to clone.
#[derive(Clone)]
pub struct Control {
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
        Self { parts: Arc::new(parts), actor: Arc::new(Actor::HOST) }
    }

    /// The same control plane, acting for `actor`, which is recorded in the audit log.
    pub fn acting(&self, actor: Actor) -> Self {
        Self { parts: self.parts.clone(), actor: Arc::new(actor) }
    }

    /// The audit record of an action, `kind.verb`.
    fn audit(&self, action: &'static str) -> AuditAction {
        self.actor.action(action)
    }

    /// The tenant's own quota, or the host's default if the tenant has none.
    fn quota_of(&self, view: &TenantView) -> Quota {
        view.tenant.value.quota.clone().unwrap_or_else(|| self.settings.now().quota.clone())
    }

    /// Refuses an upload if the disk is nearly full or the tenant's storage quota would be exceeded.
    fn check_space(&self, view: &TenantView, upload_bytes: usize) -> Result<(), Error> {
        let tenant = &view.tenant.value.id;
        if let Some(shortage) = self.ledger.usage.shortage_of(tenant) {
            return Err(shortage.into());
        }
        let (stored, max) = (self.ledger.usage.stored(tenant), self.quota_of(view).stored_bytes_max);
        if max > 0 && stored.saturating_add(upload_bytes as u64) > max {
            return Err(Error::StorageFull { stored, max });
        }
        Ok(())
    }

    fn tenant(&self, tenant: &TenantId) -> Result<Arc<TenantView>, Error> {
        self.ledger
            .registry
            .snapshot()
            .tenant(tenant)
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("tenant `{tenant}`")))
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
            setgate_ledger::Error::Cursor => Self::BadCursor,
            setgate_ledger::Error::NameTaken(name) => Self::NameTaken(name),
            setgate_ledger::Error::NoTenant(tenant) => Self::NotFound(format!("tenant `{tenant}`")),
            setgate_ledger::Error::Purging(_)
            | setgate_ledger::Error::InUse(_)
            | setgate_ledger::Error::Unbound(_)
            | setgate_ledger::Error::TooHeavy { .. }
            | setgate_ledger::Error::TooLong { .. } => Self::Conflict(error.to_string()),
            other => Self::Ledger(other),
        }
    }
}

/// Checks a quota for one more item beside `count` existing ones.
fn room(count: usize, max: u64, name: &str) -> Result<(), Error> {
    if count as u64 >= max {
        return Err(Error::Conflict(format!("there are {count} already: the tenant's quota `{name}` is {max}")));
    }
    Ok(())
}

/// Limit for a free text, in characters.
pub const TEXT_CHARS_MAX: usize = 1_000;

fn short<'a>(field: &'static str, texts: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    if texts.into_iter().any(|text| text.chars().count() > TEXT_CHARS_MAX) {
        return Err(Error::invalid(field, format!("at most {TEXT_CHARS_MAX} characters")));
    }
    Ok(())
}

/// Tries for a change without an expected version while it conflicts with concurrent changes.
const TRIES: usize = 5;

/// Retries a change if the document was changed concurrently between read and write. If the client gave an expected
/// version, there is no retry, because the conflict is the client's to resolve.
async fn retried<T, F: Future<Output = Result<T, Error>>>(
    expected: Option<u64>,
    mut change: impl FnMut() -> F,
) -> Result<T, Error> {
    for _ in 0..TRIES {
        match change().await {
            Err(Error::Version { .. }) if expected.is_none() => {}
            result => return result,
        }
    }
    Err(Error::Conflict("this is being changed by others all the time: send it again".into()))
}

/// As an expected version: the document must not exist yet. No document has this version.
pub const ABSENT: u64 = 0;

/// The expectation for a change of a document that was read before: the version that the client expects, or else the
/// version that was read, or absence if there was no document.
fn over_expected<T>(expected: Option<u64>, read: Option<&Arc<setgate_ledger::Versioned<T>>>) -> Expected {
    match expected {
        Some(ABSENT) => Expected::Absent,
        Some(version) => Expected::Version(version),
        None => over(read),
    }
}

/// Checks the client's expected version before any other validation (RFC 9110 section 13.2.1). The ledger checks it
/// again on commit.
fn check_version(expected: Option<u64>, stored: u64) -> Result<(), Error> {
    match expected {
        Some(version) if version != stored => Err(Error::Version { actual: Some(stored) }),
        _ => Ok(()),
    }
}

/// The expectation for a removal: any version if the client gave none.
fn any_or(expected: Option<u64>) -> Expected {
    expected.map_or(Expected::Any, Expected::Version)
}

/// Deserialises a member that may be absent (unchanged), `null` (removed) or a value.
fn changed<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    given: D,
) -> Result<Option<Option<T>>, D::Error> {
    serde::Deserialize::deserialize(given).map(Some)
}

/// The expectation for a change of a document that was read before: the version that was read, or absence if there was
/// no document.
fn over<T>(read: Option<&Arc<setgate_ledger::Versioned<T>>>) -> Expected {
    read.map_or(Expected::Absent, |document| Expected::Version(document.version))
}

impl Error {
    pub(crate) fn invalid(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { field, why: why.to_string() }
    }
}
