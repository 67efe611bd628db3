//! Converts engine errors to faults.

use setgate_domain::redact::Redactor;
use setgate_domain::tenant::Quota;
use setgate_domain::verdict::Fault;
use wasmtime::{Trap, WasmBacktrace};

use super::abort_message::Message;
use super::frames;
use super::limits::{DeniedGrowth, STACK_BYTES_MAX};
use super::log::{cut_to, printable, printable_lines};
use super::state::{State, Stop};

/// Maximum length of a message from the engine or from a filter, in bytes.
pub(super) const DETAIL_BYTES_MAX: usize = 500;
/// Maximum length of a file name with its line, in bytes.
const LOCATION_BYTES_MAX: usize = 160;
/// Part of the engine's error message if a value from the guest exceeds the limit of `Store::set_hostcall_fuel`. There
/// is no error type to downcast to.
const HOSTCALL_FUEL: &str = "fuel allocated for hostcalls has been exhausted";

/// Converts an error of a call. `state` is the state of that call; `redactor` contains its secrets.
pub(super) fn from_engine(error: &wasmtime::Error, state: &State, quota: &Quota, redactor: &Redactor) -> Fault {
    if let Some(Stop::HostCalls { limit_name, limit }) = error.downcast_ref::<Stop>() {
        return Fault::HostCalls { limit_name: (*limit_name).to_owned(), limit: *limit };
    }
    let function = frames::author_function(error);
    if let Some(stop) = error.downcast_ref::<Stop>() {
        let message = matches!(stop, Stop::Exit).then(|| state.log.abort_message().message(redactor)).flatten();
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
        // With frames, the value was an argument of a host call; without, it is the filter's result. The actual size is
        // unknown, since the engine stopped reading, but exceeds the limit by at least one byte.
        let in_host_call =
            error.downcast_ref::<WasmBacktrace>().is_some_and(|backtrace| !backtrace.frames().is_empty());
        return if in_host_call {
            Fault::HostCalls { limit_name: "output_bytes_max".into(), limit: quota.output_bytes_max }
        } else {
            Fault::Output { bytes: quota.output_bytes_max.saturating_add(1), limit: quota.output_bytes_max }
        };
    }
    let gave_up = matches!(trapped, Some(Trap::UnreachableCodeReached));
    let message = gave_up.then(|| state.log.abort_message().message(redactor)).flatten();
    // A guest whose allocation was denied usually aborts with `unreachable`. Then its author needs to know the limit.
    // If the guest continued without the memory and panicked later with another message, report that message.
    if message.as_ref().is_none_or(|message| !message.is_certain || is_about_memory(&message.text)) {
        match state.limits.denied() {
            Some(DeniedGrowth::Memory { wanted, limit }) => return Fault::Memory { wanted, limit, function },
            Some(DeniedGrowth::Table { wanted, limit }) => return Fault::Table { wanted, limit },
            None => {}
        }
    }
    let cause = error.root_cause().to_string();
    let cause = cause.lines().next().unwrap_or_default();
    let cause = match trapped {
        Some(Trap::StackOverflow) => &format!("call stack exhausted: the limit is {} KiB", STACK_BYTES_MAX >> 10),
        _ => cause.strip_prefix("wasm trap: ").unwrap_or(cause),
    };
    trap(&redactor.redact_start(cause, DETAIL_BYTES_MAX), message, function)
}

fn is_about_memory(message: &str) -> bool {
    ["memory", "Memory", "alloc", "capacity overflow"].iter().any(|word| message.contains(word))
}

/// Combines the guest's own message, or the engine's if there is none, with the place, which is never cut.
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

/// Formats the known parts of `in mask::filter (src/lib.rs:12:9)`.
fn place(function: Option<String>, location: Option<String>) -> Option<String> {
    let location = location.map(|location| cut_to(&location, LOCATION_BYTES_MAX).to_owned());
    match (function, location) {
        (Some(function), Some(location)) => Some(format!("in {function} ({location})")),
        (Some(function), None) => Some(format!("in {function}")),
        (None, Some(location)) => Some(format!("at {location}")),
        (None, None) => None,
    }
}

/// Whether the location of a panic is in the author's own source, not in the standard library or in a dependency.
fn is_own_source(location: &str) -> bool {
    !["/rustc/", "/rustlib/", "/.cargo/registry/", "/.cargo/git/"].iter().any(|part| location.contains(part))
        && !location.starts_with("library/")
}

/// Escapes `words` and cuts them to [`DETAIL_BYTES_MAX`] bytes.
pub(super) fn bounded(words: &str) -> String {
    let replaced = printable(cut_to(words, DETAIL_BYTES_MAX));
    cut_to(&replaced, DETAIL_BYTES_MAX).to_owned()
}

/// Escapes a guest's message, except for line breaks, and cuts it to `bytes_max` bytes.
fn bounded_lines(words: &str, bytes_max: usize) -> String {
    let replaced = printable_lines(cut_to(words, bytes_max));
    cut_to(&replaced, bytes_max).to_owned()
}

/// A guest's message, cut and with secrets redacted.
pub(super) fn guest_message(words: &str, redactor: &Redactor) -> String {
    bounded_lines(&redactor.redact_start(words, DETAIL_BYTES_MAX), DETAIL_BYTES_MAX)
}
