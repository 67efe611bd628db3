//! Shared state of all routes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use futures_util::future::BoxFuture;
use setgate_base::live::Live;
use setgate_domain::tenant::{FILTER_BYTES_MAX, TABLE_BYTES_MAX};
use tokio_util::sync::CancellationToken;

use super::body_budget::BodyBudget;
use super::in_progress::InProgress;
use super::listener::settings::Listen;
use super::read_limiter::ReadLimiter;
use super::slots::Slots;
use crate::control::ControlPlane;
use crate::control::audit::AuditLog;
use crate::control::deliveries::DeliveryHistory;
use crate::control::downloads::Downloads;
use crate::control::events::Events;
use crate::control::filters::Filters;
use crate::control::issuer_keys::IssuerKeys;
use crate::control::keys::{Access, Keys};
use crate::control::redrive::Redrives;
use crate::control::replays::Replays;
use crate::control::reproduction::Reproductions;
use crate::control::rollouts::Rollouts;
use crate::control::sources::Sources;
use crate::control::statistics::Statistics;
use crate::control::subscriptions::{PollTokens, SigningKeys, Subscriptions, TestEvents, Verifications};
use crate::control::tables::Tables;
use crate::control::tail::Settlements;
use crate::control::tenants::Tenants;
use crate::pipeline::Poller;
use crate::pipeline::accept::Acceptor;
use crate::pipeline::prove::Prover;
use crate::pipeline::readiness::Readiness;
use crate::pipeline::settings::Ingest;
use crate::pipeline::sources::PushReceiver;

/// Renders the response of `/metrics`.
pub type Metrics = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// Handle to the state, as the routes get it.
pub type SharedState = Arc<AppState>;

/// The components that the routes use.
pub struct AppState {
    /// Authenticates ingest requests.
    pub prover: Prover,
    /// Accepts events.
    pub acceptor: Arc<Acceptor>,
    /// Receives signed SETs.
    pub pushes: PushReceiver,
    /// Answers receivers that poll.
    pub(crate) poller: Poller,
    /// Checks whether the host can accept events.
    pub readiness: Readiness,
    /// The control plane.
    pub control: ControlPlane,
    pub listen: Live<Listen>,
    pub ingest: Live<Ingest>,
    /// Memory budget for event bodies.
    pub events: BodyBudget,
    /// Memory budget for bodies of management requests.
    pub uploads: BodyBudget,
    /// Memory budget for responses that have not been sent yet.
    pub responses: BodyBudget,
    /// Requests with an `Idempotency-Key` that are being executed.
    pub in_progress: InProgress,
    /// Limits concurrent read requests.
    pub reads: ReadLimiter,
    /// Open live tails.
    pub tails: Slots,
    /// Polls that are held or at work.
    pub polls: Slots,
    /// Whether `/metrics` is served on a loopback address.
    pub metrics_on_loopback: bool,
    /// Renders `/metrics`.
    pub metrics: Metrics,
    /// Cancelled once the host shuts down: requests are still accepted, but connections are no longer kept alive.
    pub stopping: CancellationToken,
}

impl AppState {
    /// Upper bound (bytes) of an uploaded filter for any tenant; a tenant's own quota may be smaller.
    pub(super) fn filter_bytes_max(&self) -> usize {
        usize::try_from(FILTER_BYTES_MAX).unwrap_or(usize::MAX)
    }

    /// Upper bound (bytes) of an uploaded table for any tenant; a tenant's own quota may be smaller.
    pub(super) fn table_bytes_max(&self) -> usize {
        usize::try_from(TABLE_BYTES_MAX).unwrap_or(usize::MAX)
    }

    /// Time limit of work that stops by itself and answers with its partial result: half of the request timeout, so that
    /// the response is sent before the request times out.
    pub(super) fn work_limit(&self) -> Duration {
        Duration::from_millis(self.listen.now().request_ms_max / 2)
    }

    /// Whether `/metrics` is served without the operator's key.
    pub(super) fn metrics_open(&self) -> bool {
        self.listen.now().metrics_open.unwrap_or(self.metrics_on_loopback)
    }
}

/// A route can take one handle of the control plane as its state.
macro_rules! handles {
    ($($field:ident: $handle:ty),* $(,)?) => {$(
        impl FromRef<SharedState> for $handle {
            fn from_ref(app: &SharedState) -> Self {
                app.control.$field.clone()
            }
        }
    )*};
}

handles! {
    access: Access,
    audit: AuditLog,
    delivery_history: DeliveryHistory,
    downloads: Downloads,
    events: Events,
    filters: Filters,
    issuer_keys: IssuerKeys,
    keys: Keys,
    poll_tokens: PollTokens,
    redrives: Redrives,
    replays: Replays,
    reproductions: Reproductions,
    rollouts: Rollouts,
    settlements: Settlements,
    signing_keys: SigningKeys,
    sources: Sources,
    statistics: Statistics,
    subscriptions: Subscriptions,
    tables: Tables,
    tenants: Tenants,
    test_events: TestEvents,
    verifications: Verifications,
}
