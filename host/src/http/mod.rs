//! The HTTP surface: listeners, ingest, management, health. The only place with the HTTP server and the only one
//! that knows status codes.

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

/// What every route works with. Cheap to clone.
#[derive(Clone)]
pub struct Site(Arc<Parts>);

/// Writes what `/metrics` answers.
pub type Metrics = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// The parts of the HTTP surface.
pub struct Parts {
    /// The data plane.
    pub pipeline: Pipeline,
    /// The control plane.
    pub control: Control,
    /// What the operator has set, as it is now.
    pub settings: Settings,
    /// Room for events on their way in.
    pub events: room::Room,
    /// Room for what management requests bring and take.
    pub uploads: room::Room,
    /// Room for responses that are not sent yet.
    pub responses: room::Room,
    /// Requests with an `Idempotency-Key` that are being carried out.
    pub in_progress: InProgress,
    /// Turns of requests that read.
    pub reads: Reads,
    /// Tails that are open.
    pub tails: Tails,
    /// Whether who reaches `/metrics` is on this machine.
    pub metrics_on_loopback: bool,
    /// Renders `/metrics`.
    pub metrics: Metrics,
    /// Set once the host is on its way down: it may still take requests, and asks for no more of them.
    pub stopping: CancellationToken,
}

impl Site {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Bytes of an uploaded filter at the most, for any tenant; its own quota may be smaller.
    fn filter_bytes_max(&self) -> usize {
        usize::try_from(self.settings.now().quota.filter_bytes_max).unwrap_or(usize::MAX)
    }

    /// Bytes of an uploaded table at the most, for any tenant; its own quota may be smaller.
    fn table_bytes_max(&self) -> usize {
        usize::try_from(self.settings.now().quota.table_bytes_max).unwrap_or(usize::MAX)
    }

    /// Whether `/metrics` is answered without the operator's key.
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
