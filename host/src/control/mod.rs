//! The control plane: what tenants and the operator set up and look at. Each file is one kind of thing; each function
//! takes what the request said, already parsed, and gives what is shown. Secrets go in and never come out, apart from
//! the ones made here, which are shown once.

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

use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::crypto::MasterKey;
use crate::domain::audit::{Actor, Deed};
use crate::domain::chain::Chained;
use crate::domain::delivery::DeliveryRecord;
use crate::domain::event::Event;
use crate::domain::filter::Plan;
use crate::domain::id::{DeliveryId, SubscriptionId, SubscriptionName, TenantId};
use crate::domain::subscription::Subscription;
use crate::domain::tenant::Quota;
use crate::egress::Egress;
use crate::fair::Shares;
use crate::ledger::Expected;
use crate::ledger::{self, Ledger, TenantView};
pub use crate::ledger::{DeliveryQuery, EventQuery};
use crate::sandbox::{Rejected, Sandbox};
pub use pages::{Page, PageQuery};

/// Tells the data plane of deliveries that became due again; handed in by `app`.
pub type TellDue = Arc<dyn Fn(Vec<crate::domain::delivery::DueDelivery>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs a chain over an event once more, deciding and storing nothing; handed in by `app`.
pub type RunAgain = Arc<dyn Fn(Arc<Plan>, Arc<Event>, DeliveryId) -> BoxFuture<'static, Chained> + Send + Sync>;

/// Makes those of the deliveries due again that never got through their chains, with the chains pinned anew, and gives
/// which they were; handed in by `app`, since pinning is the data plane's.
pub type PinAnew = Arc<
    dyn Fn(TenantId, Vec<DeliveryRecord>, Deed) -> BoxFuture<'static, Result<Vec<DeliveryId>, ledger::Error>>
        + Send
        + Sync,
>;

/// Sends a test event to one subscription alone, and gives its delivery; none where the subscription is gone. Handed in
/// by `app`.
pub type Ping = Arc<
    dyn Fn(TenantId, SubscriptionId, Deed) -> BoxFuture<'static, Result<Option<DeliveryId>, ledger::Error>>
        + Send
        + Sync,
>;

/// Sends the endpoint of a subscription a challenge; what it did instead of giving it back, in words. Handed in by
/// `app`.
pub type Challenge = Arc<dyn Fn(Subscription) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What every part works with, and on whose behalf. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    parts: Arc<Parts>,
    actor: Arc<Actor>,
}

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
    /// Says which endpoints it will refuse.
    pub egress: Egress,
    /// Tells the time.
    pub clock: Clock,
    /// What the operator has set, as it is now.
    pub settings: Settings,
    /// The data plane's ear.
    pub tell_due: TellDue,
    /// What the data plane does for rollouts.
    pub on_trial: rollouts::OnTrial,
    /// The data plane's chains.
    pub run_again: RunAgain,
    /// The data plane's pins.
    pub pin_anew: PinAnew,
    /// One redrive of many at a time for each tenant.
    pub(crate) redriving: Shares,
    /// The data plane's tests.
    pub ping: Ping,
    /// The data plane's challenges.
    pub challenge: Challenge,
    /// Tests and verifications of each subscription.
    pub tests: rate::PerMinute<SubscriptionId>,
}

impl Parts {
    /// A tenant's redrives of many that are under way at once.
    pub(crate) const REDRIVING_MAX: usize = 1;
}

impl Control {
    /// From its parts, acting for the host itself.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), actor: Arc::new(Actor::HOST) }
    }

    /// The same, acting for somebody: whose name stands in the audit log for what is changed through it.
    pub fn acting(&self, actor: Actor) -> Self {
        Self { parts: self.parts.clone(), actor: Arc::new(actor) }
    }

    /// What is about to be done, `kind.verb`.
    fn deed(&self, action: &'static str) -> Deed {
        Deed { actor: self.actor.as_ref().clone(), action: Some(action), note: None }
    }

    /// The tenant's own quota, else the host's.
    fn quota_of(&self, view: &TenantView) -> Quota {
        view.tenant.value.quota.clone().unwrap_or_else(|| self.settings.now().quota.clone())
    }

    /// Bounds of what is asked of the history; answers come before their requests are given up.
    fn history(&self) -> config::History {
        let settings = self.settings.now();
        settings.history.within(settings.listen.request_ms_max)
    }

    /// Uploads are large: none where the disk is nearly full, or the tenant has as much stored as it may.
    fn check_space(&self, view: &TenantView, upload_bytes: usize) -> Result<(), Error> {
        let tenant = &view.tenant.value.id;
        if let Some(shortage) = self.ledger.shortage_of(tenant) {
            return Err(shortage.into());
        }
        let (stored, max) = (self.ledger.stored(tenant), self.quota_of(view).stored_bytes_max);
        if max > 0 && stored.saturating_add(upload_bytes as u64) > max {
            return Err(Error::StorageFull { stored, max });
        }
        Ok(())
    }

    fn tenant(&self, tenant: &TenantId) -> Result<Arc<TenantView>, Error> {
        self.ledger.snapshot().tenant(tenant).cloned().ok_or_else(|| Error::NotFound(format!("tenant `{tenant}`")))
    }
}

impl std::ops::Deref for Control {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
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
    /// Another subscription has that name.
    #[error("another subscription is named `{0}` already")]
    NameTaken(SubscriptionName),
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
    /// As much of it is under way as there may be. In words.
    #[error("{0}")]
    Busy(String),
    /// A backtest of the tenant is under way.
    #[error("a backtest of this tenant is under way: ask again when it has ended")]
    BacktestRunning,
    /// It was asked for too often.
    #[error("this was asked for {max} times within a minute, which is the limit (`delivery.tests_per_minute_max`)")]
    TooOften {
        /// How often it may be.
        max: u32,
    },
    /// An endpoint did not give its challenge back.
    #[error(
        "{why}; it has to answer 2xx with the challenge as its body, or with {{\"challenge\": ...}}, and the endpoint is \
         not verified"
    )]
    NotVerified {
        /// What it did instead.
        why: String,
    },
    /// The cursor is not one that this list gave.
    #[error("the cursor is not one that this list gave")]
    BadCursor,
    /// The tenant would have more stored than it may.
    #[error(
        "the tenant has {stored} bytes stored, and with this it would have more than its quota `stored_bytes_max`, which is {max}"
    )]
    StorageFull {
        /// Bytes stored.
        stored: u64,
        /// The quota.
        max: u64,
    },
    /// The disk is nearly full, or the ledger has its size.
    #[error("{0}: nothing was stored")]
    Short(#[from] ledger::Shortage),
    /// The ledger could not do it.
    #[error(transparent)]
    Ledger(ledger::Error),
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        match error {
            ledger::Error::VersionMismatch { current } => Self::Version { actual: current },
            ledger::Error::Cursor => Self::BadCursor,
            ledger::Error::NameTaken(name) => Self::NameTaken(name),
            ledger::Error::NoTenant(tenant) => Self::NotFound(format!("tenant `{tenant}`")),
            ledger::Error::Purging(_)
            | ledger::Error::InUse(_)
            | ledger::Error::Unbound(_)
            | ledger::Error::TooHeavy { .. }
            | ledger::Error::TooLong { .. } => Self::Conflict(error.to_string()),
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

/// Times that a change without a version is tried while others change the same thing.
const TRIES: usize = 5;

/// Tries a change again where the document was changed between reading and writing, by a request that this one knows
/// nothing of. Where a version was asked for, that request was meant to come first or not at all.
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

/// The version that a change expects if there is to be nothing yet: no document has it.
pub const ABSENT: u64 = 0;

/// A change over a document that was read before: of the version that was asked for, else of the one that was read, or
/// new where there was none.
fn over_expected<T>(expected: Option<u64>, read: Option<&Arc<ledger::Versioned<T>>>) -> Expected {
    match expected {
        Some(ABSENT) => Expected::Absent,
        Some(version) => Expected::Version(version),
        None => over(read),
    }
}

/// Refuses a change of another version than the one that is stored, before anything else is said of it (RFC 9110 section
/// 13.2.1). What the ledger checks once more decides.
fn check_version(expected: Option<u64>, stored: u64) -> Result<(), Error> {
    match expected {
        Some(version) if version != stored => Err(Error::Version { actual: Some(stored) }),
        _ => Ok(()),
    }
}

/// The same for a removal, which takes whatever is there.
fn any_or(expected: Option<u64>) -> Expected {
    expected.map_or(Expected::Any, Expected::Version)
}

/// Reads a member that may be absent (nothing), null (taken away) or given.
fn changed<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    given: D,
) -> Result<Option<Option<T>>, D::Error> {
    serde::Deserialize::deserialize(given).map(Some)
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
