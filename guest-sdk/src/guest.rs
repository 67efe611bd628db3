//! The boundary between guest and host: the generated bindings, and conversions between them and this crate's types.
//! Nothing else uses the bindings, so a new version of the contract changes only this file.

use std::cell::OnceCell;

use bindings::exports::setgate::filter::transform;
use bindings::setgate::filter::{config, log, lookup};

use crate::log::Level;
use crate::lookup::Refusal;
use crate::{Event, Failure, Result, Verdict};

#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unused_qualifications,
    clippy::undocumented_unsafe_blocks,
    clippy::allow_attributes_without_reason,
    reason = "generated from wit/world.wit"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "filter",
        pub_export_macro: true,
        export_macro_name: "export_transform",
    });
}

pub use transform::Guest;

/// Calls a filter with an event from the host. Keeps no state between calls, so it works in fresh and reused instances
/// alike.
pub fn process(
    event: transform::Event,
    filter: fn(&Event) -> Result<Verdict>,
) -> std::result::Result<transform::Verdict, transform::Failure> {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
    match filter(&event.into()) {
        Ok(Verdict::Pass) => Ok(transform::Verdict::Pass),
        Ok(Verdict::Patch(patch)) => Ok(transform::Verdict::Patch(patch)),
        Ok(Verdict::Replace(claims)) => Ok(transform::Verdict::Replace(claims)),
        Ok(Verdict::Drop(reason)) => Ok(transform::Verdict::Drop(reason)),
        Err(Failure::Transient(reason)) => Err(transform::Failure::Transient(reason)),
        Err(Failure::Permanent(reason)) => Err(transform::Failure::Permanent(reason)),
    }
}

impl From<transform::Event> for Event {
    fn from(event: transform::Event) -> Event {
        Event {
            id: event.id,
            issuer: event.issuer,
            issued_at: event.issued_at,
            accepted_at: event.accepted_at,
            types: event.types,
            subject: event.subject,
            tenant: event.tenant,
            source: event.source,
            subscription: event.subscription,
            delivery: event.delivery,
            text: event.claims,
            claims: OnceCell::new(),
        }
    }
}

pub(crate) fn config_all() -> String {
    config::all()
}

pub(crate) fn config_get(key: &str) -> Option<String> {
    config::get(key)
}

pub(crate) fn secret(name: &str) -> Option<String> {
    config::secret(name)
}

pub(crate) fn log(level: Level, line: &str) {
    let level = match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, line);
}

pub(crate) fn lookup(table: &str, key: &str) -> Result<Option<String>, Refusal> {
    lookup::get(table, key).map_err(|error| match error {
        lookup::LookupError::NoSuchTable => Refusal::NoSuchTable,
        lookup::LookupError::OverBudget => Refusal::OverBudget,
    })
}
