//! The engine's errors in our words.

use wasmtime::{Trap, WasmBacktrace};

use crate::domain::redact::Redactor;
use crate::domain::tenant::Quota;
use crate::domain::verdict::Fault;

use super::frames;
use super::last_words::Message;
use super::limits::Denied;
use super::log::{cut_to, printable, printable_lines};
use super::state::{State, Stop};

/// Bytes kept of what an engine or a filter has to say.
pub(super) const DETAIL_BYTES_MAX: usize = 500;
/// Bytes of a file name and line that are shown.
const LOCATION_BYTES_MAX: usize = 160;
/// How the engine says that a value from the guest is larger than `Store::set_hostcall_fuel` lets through. It has no type
/// that could be asked for.
const HOSTCALL_FUEL: &str = "fuel allocated for hostcalls has been exhausted";

/// What an error from a call means. `state` is that of the call, `redactor` knows the call's secrets.
pub(super) fn from_engine(error: &wasmtime::Error, state: &State, quota: &Quota, redactor: &Redactor) -> Fault {
    if let Some(Stop::HostCalls { limit_name, limit }) = error.downcast_ref::<Stop>() {
        return Fault::HostCalls { limit_name: (*limit_name).to_owned(), limit: *limit };
    }
    let function = frames::author_function(error);
    if let Some(stop) = error.downcast_ref::<Stop>() {
        let message = matches!(stop, Stop::Exit).then(|| state.log.last_words().message(redactor)).flatten();
        return trap(&stop.to_string(), message, function);
    }
    let trapped = error.downcast_ref::<Trap>();
    if matches!(trapped, Some(Trap::OutOfFuel)) {
        return Fault::Fuel { limit: quota.fuel_per_call, function };
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Fault::Unavailable { detail: "no instance slot is free at this host".into() };
    }
    if error.root_cause().to_string().contains(HOSTCALL_FUEL) {
        // With frames it came through a host call, without them it is what the filter returned. The real size is not
        // known, since the engine stopped reading: it is at least one more than the limit.
        let in_host_call =
            error.downcast_ref::<WasmBacktrace>().is_some_and(|backtrace| !backtrace.frames().is_empty());
        return if in_host_call {
            Fault::HostCalls { limit_name: "output_bytes_max".into(), limit: quota.output_bytes_max }
        } else {
            Fault::Output { bytes: quota.output_bytes_max.saturating_add(1), limit: quota.output_bytes_max }
        };
    }
    let gave_up = matches!(trapped, Some(Trap::UnreachableCodeReached));
    let message = gave_up.then(|| state.log.last_words().message(redactor)).flatten();
    // A guest whose allocator was refused mostly gives up by `unreachable`: then the limit is what its author needs to know.
    // One that went on without the memory and panicked later says something else.
    if message.as_ref().is_none_or(|message| !message.is_certain || is_about_memory(&message.text)) {
        match state.limits.denied() {
            Some(Denied::Memory { wanted, limit }) => return Fault::Memory { wanted, limit, function },
            Some(Denied::Table { wanted, limit }) => return Fault::Table { wanted, limit },
            None => {}
        }
    }
    let cause = error.root_cause().to_string();
    let cause = cause.lines().next().unwrap_or_default();
    let cause = match trapped {
        Some(Trap::StackOverflow) => "call stack exhausted (`stack_bytes_max`)",
        _ => cause.strip_prefix("wasm trap: ").unwrap_or(cause),
    };
    trap(&redactor.redact_start(cause, DETAIL_BYTES_MAX), message, function)
}

fn is_about_memory(message: &str) -> bool {
    ["memory", "Memory", "alloc", "capacity overflow"].iter().any(|word| message.contains(word))
}

/// The guest's own message if it left one, else the engine's words; then the place, which is never cut.
fn trap(cause: &str, message: Option<Message>, function: Option<String>) -> Fault {
    let (words, place) = match message {
        Some(Message { text, location, function: named, is_certain: true }) => {
            (text, place(named.or(function), location.filter(|location| is_own_source(location))))
        }
        Some(Message { text, .. }) => (format!("{cause}: {text}"), place(function, None)),
        None => (cause.to_owned(), place(function, None)),
    };
    let Some(place) = place else { return Fault::Trap { detail: bounded_lines(&words, DETAIL_BYTES_MAX) } };
    let place = printable_lines(&place);
    let mut detail = bounded_lines(&words, DETAIL_BYTES_MAX.saturating_sub(place.len() + 2));
    detail.push_str(if detail.contains('\n') { "\n" } else { ", " });
    detail.push_str(&place);
    Fault::Trap { detail }
}

/// `in mask::filter (src/lib.rs:12:9)`, or what of it is known.
fn place(function: Option<String>, location: Option<String>) -> Option<String> {
    let location = location.map(|location| cut_to(&location, LOCATION_BYTES_MAX).to_owned());
    match (function, location) {
        (Some(function), Some(location)) => Some(format!("in {function} ({location})")),
        (Some(function), None) => Some(format!("in {function}")),
        (None, Some(location)) => Some(format!("at {location}")),
        (None, None) => None,
    }
}

/// Whether a panic's location is in the author's own source, and not in that of the standard library or of a dependency.
fn is_own_source(location: &str) -> bool {
    !["/rustc/", "/rustlib/", "/.cargo/registry/", "/.cargo/git/"].iter().any(|part| location.contains(part))
        && !location.starts_with("library/")
}

/// `words` within [`DETAIL_BYTES_MAX`] bytes, without control characters.
pub(super) fn bounded(words: &str) -> String {
    let replaced = printable(cut_to(words, DETAIL_BYTES_MAX));
    cut_to(&replaced, DETAIL_BYTES_MAX).to_owned()
}

/// A guest's words within so many bytes, without control characters but line breaks.
fn bounded_lines(words: &str, bytes_max: usize) -> String {
    let replaced = printable_lines(cut_to(words, bytes_max));
    cut_to(&replaced, bytes_max).to_owned()
}

/// What a guest said, bounded and without its secrets.
pub(super) fn said(words: &str, redactor: &Redactor) -> String {
    bounded_lines(&redactor.redact_start(words, DETAIL_BYTES_MAX), DETAIL_BYTES_MAX)
}
