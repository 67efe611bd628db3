//! The HTTP API: listeners, ingest, management, health. The only module that uses the HTTP server library and status
//! codes.

mod auth;
mod caller;
mod coding;
mod connection;
mod extract;
mod framing;
mod health;
mod idempotency;
mod ingest;
pub mod interface;
mod manage;
mod operations;
mod page;
pub mod problem;
mod responses;
pub mod room;
mod router;
pub mod server;
mod strict;
pub mod tls;

pub use idempotency::InProgress;
pub use manage::tail::Tails;
pub use responses::Reads;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::control::Control;
use crate::pipeline::Pipeline;

/// Shared state of all routes. Cheap to clone.
#[derive(Clone)]
pub struct Site(Arc<Parts>);

/// Renders the answer of `/metrics`.
pub type Metrics = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// The components that the routes use.
pub struct Parts {
    /// The data plane.
    pub pipeline: Pipeline,
    /// The control plane.
    pub control: Control,
    /// The current settings.
    pub settings: Settings,
    /// Memory budget for event bodies.
    pub events: room::Room,
    /// Memory budget for bodies of management requests.
    pub uploads: room::Room,
    /// Memory budget for responses that have not been sent yet.
    pub responses: room::Room,
    /// Requests with an `Idempotency-Key` that are being executed.
    pub in_progress: InProgress,
    /// Limits concurrent read requests.
    pub reads: Reads,
    /// Open live tails.
    pub tails: Tails,
    /// Whether `/metrics` is served on a loopback address.
    pub metrics_on_loopback: bool,
    /// Renders `/metrics`.
    pub metrics: Metrics,
    /// Cancelled once the host shuts down: requests are still accepted, but connections are no longer kept alive.
    pub stopping: CancellationToken,
}

impl Site {
    /// Creates the shared state.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Upper bound (bytes) of an uploaded filter for any tenant; a tenant's own quota may be smaller.
    fn filter_bytes_max(&self) -> usize {
        usize::try_from(self.settings.now().quota.filter_bytes_max).unwrap_or(usize::MAX)
    }

    /// Upper bound (bytes) of an uploaded table for any tenant; a tenant's own quota may be smaller.
    fn table_bytes_max(&self) -> usize {
        usize::try_from(self.settings.now().quota.table_bytes_max).unwrap_or(usize::MAX)
    }

    /// Whether `/metrics` is served without the operator's key.
    fn metrics_open(&self) -> bool {
        self.settings.now().listen.metrics_open.unwrap_or(self.metrics_on_loopback)
    }
}

impl std::ops::Deref for Site {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
