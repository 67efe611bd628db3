//! The empty WASI that a wasip2 guest finds: no files, no environment, no arguments, no sockets.
//!
//! Written here and not taken from `wasmtime-wasi`, for three reasons. Every call has to be counted and paid for in fuel
//! (see `state::charge`). Nothing may wait: the clock stands still at the instant the event was accepted, so a sleep is
//! over at once. And an instance has no tables or handles to set up, so a call of a std guest costs as little as one of
//! a guest without WASI.
//!
//! What needs a file or a socket first can never be called; it is there as a trap, so that a standard library that
//! imports everything still links.

mod cli;
mod clocks;
mod io;
pub(super) mod random;

use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{ComponentNamedList, Lift, LinkerInstance, Lower, ResourceType};

use super::state::{State, charge};

/// Every interface a standard library may import, without version: those of `wasi:cli/imports` short of the sockets.
pub(super) const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Defines `interface` (a name out of [`INTERFACES`], or one that brings types only) as the component imports it.
pub(super) fn define(
    linker: &mut LinkerInstance<'_, State>,
    interface: &str,
    imported: &ComponentInstance,
    engine: &wasmtime::Engine,
) -> wasmtime::Result<()> {
    for (name, item) in imported.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let called = format!("{interface} {name}");
                linker.func_new(name, move |_, _, _, _| {
                    Err(wasmtime::Error::msg(format!("called {called}, which is not to be had here")))
                })?;
            }
            ComponentItem::Resource(_) => linker.resource(name, resource_type(name), |_, _| Ok(()))?,
            _ => {}
        }
    }
    match interface {
        "wasi:cli/environment" => cli::environment(linker),
        "wasi:cli/exit" => cli::exit(linker),
        "wasi:cli/stdin" => cli::stdin(linker),
        "wasi:cli/stdout" => cli::stdout(linker),
        "wasi:cli/stderr" => cli::stderr(linker),
        "wasi:cli/terminal-stdin" => cli::terminal_stdin(linker),
        "wasi:cli/terminal-stdout" => cli::terminal_output(linker, "get-terminal-stdout"),
        "wasi:cli/terminal-stderr" => cli::terminal_output(linker, "get-terminal-stderr"),
        "wasi:clocks/monotonic-clock" => clocks::monotonic(linker),
        "wasi:clocks/wall-clock" => clocks::wall(linker),
        "wasi:filesystem/preopens" => cli::preopens(linker),
        "wasi:io/poll" => io::poll(linker),
        "wasi:io/streams" => io::streams(linker),
        "wasi:random/random" => random::random(linker),
        "wasi:random/insecure" => random::insecure(linker),
        "wasi:random/insecure-seed" => random::insecure_seed(linker),
        _ => Ok(()),
    }
}

/// One host type for each WASI resource, the same in every interface that speaks of it.
fn resource_type(name: &str) -> ResourceType {
    match name {
        "error" => ResourceType::host::<io::Error>(),
        "pollable" => ResourceType::host::<io::Pollable>(),
        "input-stream" => ResourceType::host::<io::InputStream>(),
        "output-stream" => ResourceType::host::<io::OutputStream>(),
        "terminal-input" => ResourceType::host::<cli::TerminalInput>(),
        "terminal-output" => ResourceType::host::<cli::TerminalOutput>(),
        "descriptor" => ResourceType::host::<cli::Descriptor>(),
        _ => ResourceType::host::<()>(),
    }
}

/// Defines one function that is counted, pays for the `bytes` it was given, and then answers at once.
fn function<P, R>(
    linker: &mut LinkerInstance<'_, State>,
    name: &str,
    bytes: fn(&P) -> usize,
    answer: fn(&mut State, P) -> wasmtime::Result<R>,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + Send + Sync + 'static,
    R: ComponentNamedList + Lower + Send + Sync + 'static,
{
    linker.func_wrap_async(name, move |mut store: StoreContextMut<'_, State>, given: P| {
        Box::new(async move {
            store.data_mut().meter.count_call()?;
            charge(&mut store, bytes(&given)).await?;
            answer(store.data_mut(), given)
        })
    })
}

/// For functions that are given nothing to speak of.
fn free<P>(_: &P) -> usize {
    0
}
