//! The engine's errors in our words.

use wasmtime::{Trap, WasmBacktrace};

use crate::domain::redact::Redactor;
use crate::domain::tenant::Quota;
use crate::domain::verdict::Fault;

use super::limits::{Denied, Limits};
use super::log::{cut_to, printable};
use super::state::Stop;

/// Bytes kept of what an engine or a filter has to say.
pub(super) const DETAIL_BYTES_MAX: usize = 500;
/// How the engine says that a value from the guest is larger than `Store::set_hostcall_fuel` lets through. It has no type
/// that could be asked for.
const HOSTCALL_FUEL: &str = "fuel allocated for hostcalls has been exhausted";

/// What an error from a call means. `limits` are those of the call's store, `redactor` knows the call's secrets.
pub(super) fn from_engine(error: &wasmtime::Error, limits: &Limits, quota: &Quota, redactor: &Redactor) -> Fault {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::HostCalls { limit_name, limit } => {
                Fault::HostCalls { limit_name: (*limit_name).to_owned(), limit: *limit }
            }
            Stop::Exit => Fault::Trap { detail: stop.to_string() },
        };
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::OutOfFuel)) {
        return Fault::Fuel { limit: quota.fuel_per_call };
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Fault::Unavailable { detail: "no instance slot is free at this host".into() };
    }
    let frames = frames(error);
    if error.root_cause().to_string().contains(HOSTCALL_FUEL) {
        // With frames it came through a host call, without them it is what the filter returned. The real size is not
        // known, since the engine stopped reading: it is at least one more than the limit.
        return if frames.is_empty() {
            Fault::Output { bytes: quota.output_bytes_max.saturating_add(1), limit: quota.output_bytes_max }
        } else {
            Fault::HostCalls { limit_name: "output_bytes_max".into(), limit: quota.output_bytes_max }
        };
    }
    // A guest whose allocator was told no mostly gives up by `unreachable`: then the limit is what its author needs to hear.
    match limits.denied() {
        Some(Denied::Memory { wanted, limit }) => return Fault::Memory { wanted, limit },
        Some(Denied::Table { wanted, limit }) => return Fault::Table { wanted, limit },
        None => {}
    }
    let cause = error.root_cause().to_string();
    let cause = cause.lines().next().unwrap_or_default();
    let cause = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "call stack exhausted (`stack_bytes_max`)",
        _ => cause.strip_prefix("wasm trap: ").unwrap_or(cause),
    };
    let detail = if frames.is_empty() { cause.to_owned() } else { format!("{cause}, in {frames}") };
    Fault::Trap { detail: said(&detail, redactor) }
}

/// `words` within [`DETAIL_BYTES_MAX`] bytes, without control characters.
pub(super) fn bounded(words: &str) -> String {
    let replaced = printable(cut_to(words, DETAIL_BYTES_MAX));
    cut_to(&replaced, DETAIL_BYTES_MAX).to_owned()
}

/// What a guest said, bounded and without its secrets.
pub(super) fn said(words: &str, redactor: &Redactor) -> String {
    bounded(&redactor.redact_start(words, DETAIL_BYTES_MAX))
}

/// The functions the guest was in, innermost first.
fn frames(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let names: Vec<_> = backtrace
        .frames()
        .iter()
        .map(|frame| match frame.func_name() {
            Some(name) => cut_to(name, 80).to_owned(),
            None => format!("function {}", frame.func_index()),
        })
        .collect();
    names.join(" < ")
}
