//! Why a request to the control plane failed.

use setgate_domain::id::{SubscriptionName, TenantId};
use setgate_sandbox::UploadError;

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
    /// An earlier tenant of this name had an issuer key.
    #[error(
        "an earlier tenant `{0}` signed SETs, and receivers that trust its issuer would trust this tenant: choose another \
         name, or give `\"new_issuer\": true`, and this tenant gets an issuer of its own"
    )]
    IssuerNameUsed(TenantId),
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
            setgate_ledger::Error::IssuerNameUsed(tenant) => Self::IssuerNameUsed(tenant),
            setgate_ledger::Error::NoPublicUrl(tenant) => Self::Conflict(format!(
                "the tenant `{tenant}` has no issuer yet, because the host has no public URL: the operator has to set \
                 `server.public_url`"
            )),
            setgate_ledger::Error::TooManyIssuerKeys { .. }
            | setgate_ledger::Error::Purging(_)
            | setgate_ledger::Error::InUse(_)
            | setgate_ledger::Error::FilterNotActive(_)
            | setgate_ledger::Error::QuotaExceeded { .. }
            | setgate_ledger::Error::DocumentTooLarge { .. } => Self::Conflict(error.to_string()),
            other => Self::Ledger(other),
        }
    }
}

impl Error {
    pub(crate) fn invalid(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { field, why: why.to_string() }
    }
}
