//! The control plane: what tenants and the operator set up and look at. Each file is one kind of thing; each function
//! takes what the request said, already parsed, and gives what is shown. Secrets go in and never come out, apart from
//! the ones made here, which are shown once.

pub mod deliveries;
pub mod events;
pub mod filters;
pub mod keys;
pub mod reproduction;
pub mod rollouts;
pub mod sources;
pub mod subscriptions;
pub mod tables;
pub mod tenants;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::Clock;
use crate::crypto::MasterKey;
use crate::domain::chain::Chained;
use crate::domain::event::Event;
use crate::domain::filter::Plan;
use crate::domain::id::{DeliveryId, TenantId};
use crate::domain::tenant::Quota;
use crate::ledger::Expected;
use crate::ledger::{self, Ledger, TenantView};
pub use crate::ledger::{DeliveryQuery, EventQuery};
use crate::sandbox::{Rejected, Sandbox};

/// Tells the data plane of deliveries that became due again; handed in by `app`.
pub type TellDue = Arc<dyn Fn(Vec<crate::domain::delivery::DueDelivery>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs a chain over an event once more, deciding and storing nothing; handed in by `app`.
pub type RunAgain = Arc<dyn Fn(Arc<Plan>, Event, DeliveryId) -> BoxFuture<'static, Chained> + Send + Sync>;

/// Makes a delivery that never got through its chain due again with the chain pinned anew, and gives whether it was one;
/// handed in by `app`, since pinning is the data plane's.
pub type PinAnew = Arc<dyn Fn(TenantId, DeliveryId) -> BoxFuture<'static, Result<bool, ledger::Error>> + Send + Sync>;

/// What every part works with. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Parts>);

/// The parts of the control plane.
pub struct Parts {
    /// All durable state.
    pub ledger: Ledger,
    /// Checks and compiles uploads.
    pub sandbox: Sandbox,
    /// Encrypts secrets.
    pub master: Arc<MasterKey>,
    /// Encrypts signing keys.
    pub signer: Arc<crate::signing::Signer>,
    /// Tells the time.
    pub clock: Clock,
    /// The host's quota, for tenants without one of their own.
    pub quota: Quota,
    /// Whether `http://` endpoints may be used.
    pub allow_http: bool,
    /// The data plane's ear.
    pub tell_due: TellDue,
    /// What the data plane does for rollouts.
    pub on_trial: rollouts::OnTrial,
    /// The data plane's chains.
    pub run_again: RunAgain,
    /// The data plane's pins.
    pub pin_anew: PinAnew,
}

impl Control {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The tenant's own quota, else the host's.
    fn quota_of<'a>(&'a self, view: &'a TenantView) -> &'a Quota {
        view.tenant.value.quota.as_ref().unwrap_or(&self.quota)
    }

    fn tenant(&self, tenant: &TenantId) -> Result<Arc<TenantView>, Error> {
        self.ledger.snapshot().tenant(tenant).cloned().ok_or_else(|| Error::NotFound(format!("tenant `{tenant}`")))
    }
}

impl std::ops::Deref for Control {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Why a request to the control plane was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or not for this tenant.
    #[error("there is no {0}")]
    NotFound(String),
    /// It is there already, or in use.
    #[error("{0}")]
    Conflict(String),
    /// The version given is not the one that is stored.
    #[error("it was changed meanwhile: read it again and repeat the change")]
    Version {
        /// The version that is stored; none: it is gone.
        actual: Option<u64>,
    },
    /// A field does not fit.
    #[error("`{field}`: {why}")]
    Invalid {
        /// Where, as a JSON pointer or a name.
        field: &'static str,
        /// What was wrong and what to do.
        why: String,
    },
    /// An upload is not a filter.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A backtest of the tenant is under way.
    #[error("a backtest of this tenant is under way: ask again when it has ended")]
    BacktestRunning,
    /// The cursor is not one that this list gave.
    #[error("the cursor is not one that this list gave")]
    BadCursor,
    /// The ledger could not do it.
    #[error(transparent)]
    Ledger(ledger::Error),
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        match error {
            ledger::Error::VersionMismatch { current } => Self::Version { actual: current },
            ledger::Error::Cursor => Self::BadCursor,
            ledger::Error::NoTenant(tenant) => Self::NotFound(format!("tenant `{tenant}`")),
            ledger::Error::Purging(_) | ledger::Error::InUse(_) | ledger::Error::Unbound(_) => {
                Self::Conflict(error.to_string())
            }
            other => Self::Ledger(other),
        }
    }
}

/// Whether one more fits beside the `count` there are.
fn room(count: usize, max: u64, name: &str) -> Result<(), Error> {
    if count as u64 >= max {
        return Err(Error::Conflict(format!("there are {count} already: the tenant's quota `{name}` is {max}")));
    }
    Ok(())
}

/// Characters of a free text at the most.
pub const TEXT_CHARS_MAX: usize = 1_000;

fn short<'a>(field: &'static str, texts: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    if texts.into_iter().any(|text| text.chars().count() > TEXT_CHARS_MAX) {
        return Err(Error::invalid(field, format!("at most {TEXT_CHARS_MAX} characters")));
    }
    Ok(())
}

/// Some entries of a list, newest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The entries; fewer than asked for, or none, does not mean that there are no more.
    pub items: Vec<T>,
    /// Where to go on, as `cursor`; none: that was all.
    pub next: Option<String>,
}

/// The place to go on from, as a list gave it.
fn place(cursor: Option<&str>) -> Result<Option<ledger::Cursor>, Error> {
    cursor.map(|text| text.parse().map_err(|_| Error::BadCursor)).transpose()
}

/// A change over a document that was read before: of that version, or new where there was none.
fn over<T>(read: Option<&Arc<ledger::Versioned<T>>>) -> Expected {
    read.map_or(Expected::Absent, |document| Expected::Version(document.version))
}

impl Error {
    pub(crate) fn invalid(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { field, why: why.to_string() }
    }
}
