//! The empty WASI that a wasip2 guest finds: no files, no environment, no arguments, no sockets.
//!
//! Written here and not taken from `wasmtime-wasi`, for three reasons. Every call has to be counted and paid for in fuel
//! (see `state::charge`). Nothing may wait: the clock stands still at the instant the event was accepted, so a sleep is
//! over at once. And an instance has no tables or handles to set up, so a call of a std guest costs as little as one of
//! a guest without WASI.
//!
//! All other functions of the packages in [`PACKAGES`] are made from the component's own import types, whatever interface and
//! version they belong to. Calling one ends the call with a fault that names it. So a standard library or a language's
//! runtime that imports files, sockets and HTTP still links, and fails only if the filter uses them.

mod cli;
mod clocks;
mod io;
pub(super) mod random;

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{ComponentNamedList, Lift, LinkerInstance, Lower, ResourceType};

use super::state::{State, Stop, charge};

/// Packages of WASI 0.2 of which every interface may be imported, without version.
pub(super) const PACKAGES: [&str; 7] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:io", "wasi:random", "wasi:sockets"];

/// The host's types for the resources that one component imports, in the order in which the component introduces them. An
/// interface may use another one's resource under another name (`wasi:http/types` calls the `error` of `wasi:io/error`
/// `io-error`), so the component's own types say which resource it is, and not the name.
#[derive(Default)]
pub(super) struct Resources(Vec<(ResourceType, ResourceType)>);

impl Resources {
    fn host_type(&mut self, name: &str, imported: ResourceType) -> ResourceType {
        if let Some((_, known)) = self.0.iter().find(|(of_component, _)| *of_component == imported) {
            return *known;
        }
        let new = resource_type(name);
        self.0.push((imported, new));
        new
    }
}

/// Defines `interface`, which is one of [`PACKAGES`], as the component imports it.
pub(super) fn define(
    linker: &mut LinkerInstance<'_, State>,
    interface: &str,
    imported: &ComponentInstance,
    engine: &wasmtime::Engine,
    resources: &mut Resources,
) -> wasmtime::Result<()> {
    for (name, item) in imported.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let call: Arc<str> = format!("{interface}.{name}").into();
                linker.func_new(name, move |_, _, _, _| Err(Stop::Denied { call: call.clone() }.into()))?;
            }
            ComponentItem::Resource(of_component) => {
                linker.resource(name, resources.host_type(name, of_component), |_, _| Ok(()))?;
            }
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
