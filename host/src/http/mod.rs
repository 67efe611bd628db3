//! The HTTP surface: listeners, ingest, management, health. The only place with the HTTP server and the only one
//! that knows status codes.

mod auth;
mod caller;
mod extract;
mod health;
mod ingest;
pub mod interface;
mod manage;
mod operations;
pub mod problem;
pub mod room;
mod router;
pub mod server;
mod stream;
mod strict;
pub mod tls;

pub use manage::tail::Tails;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::pipeline::Pipeline;

/// What every route works with. Cheap to clone.
#[derive(Clone)]
pub struct Site(Arc<Parts>);

/// The parts of the HTTP surface.
pub struct Parts {
    /// The data plane.
    pub pipeline: Pipeline,
    /// The control plane.
    pub control: Control,
    /// Bytes of an ingest body at the most.
    pub ingest_body_bytes_max: usize,
    /// Bytes of an uploaded filter at the most, for any tenant; its own quota may be smaller.
    pub filter_bytes_max: usize,
    /// Bytes of an uploaded table at the most, for any tenant; its own quota may be smaller.
    pub table_bytes_max: usize,
    /// Room for events on their way in.
    pub events: room::Room,
    /// Room for what management requests bring and take.
    pub uploads: room::Room,
    /// Tails that are open.
    pub tails: Tails,
    /// Milliseconds a request may take as a whole.
    pub request_ms_max: u64,
    /// Whether `/metrics` is answered without the operator's key.
    pub metrics_open: bool,
    /// Renders `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Set once the host is on its way down: it may still take requests, and asks for no more of them.
    pub stopping: CancellationToken,
}

impl Site {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for Site {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
