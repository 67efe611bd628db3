//! Generated types for `setgate:filter@0.1`, and the conversions between them and the domain's types.

use setgate_domain::verdict::{LogLevel, Verdict};

use super::EventView;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        world: "filter",
        exports: { default: async },
    });
}

pub(super) use bindings::setgate::filter::log::Level;
pub(super) use bindings::setgate::filter::lookup::LookupError;
pub(super) use bindings::setgate::filter::types::{Event, Failure, Verdict as GuestVerdict};
pub(super) use bindings::{Filter, FilterIndices, FilterPre};

use bindings::setgate::filter::types as wit;

impl From<EventView> for Event {
    fn from(event: EventView) -> Self {
        Self {
            id: event.id.to_string(),
            issuer: event.issuer,
            issued_at: event.issued_at.max(0).unsigned_abs(),
            accepted_at: event.accepted_at.as_millis().max(0).unsigned_abs(),
            types: event.types,
            subject: event.subject,
            tenant: event.tenant.to_string(),
            source: event.source.to_string(),
            subscription: event.subscription.to_string(),
            delivery: event.delivery.to_string(),
            claims: event.claims,
        }
    }
}

impl From<wit::Verdict> for Verdict {
    fn from(verdict: wit::Verdict) -> Self {
        match verdict {
            wit::Verdict::Pass => Self::Pass,
            wit::Verdict::Patch(patch) => Self::Patch(patch),
            wit::Verdict::Replace(claims) => Self::Replace(claims),
            wit::Verdict::Drop(reason) => Self::Drop(reason),
        }
    }
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}
