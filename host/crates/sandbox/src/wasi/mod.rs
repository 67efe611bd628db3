//! The empty WASI for wasip2 guests: no files, no environment, no arguments, no sockets.
//!
//! Implemented here instead of using `wasmtime-wasi`, for three reasons. Every call has to be counted and charged in
//! fuel (see `state::charge`). Calls must not block: the clock is frozen at the time at which the event was accepted,
//! so a sleep ends immediately. And an instance has no resource tables or handles to set up, so a call of a guest with
//! the Rust standard library is as cheap as one of a guest without WASI.
//!
//! All other functions of the packages in [`PACKAGES`] are defined from the import types of the component, for any
//! interface and version. Calling one ends the call with a fault that names the function. So a standard library or a
//! language runtime that imports files, sockets and HTTP can be linked, and fails only if the filter uses them.

mod cli;
mod clocks;
mod io;
mod random;

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{ComponentNamedList, Lift, LinkerInstance, Lower, ResourceType};

use super::state::{State, Stop, charge};

/// Packages of WASI 0.2, without version. All their interfaces may be imported.
pub(super) const PACKAGES: [&str; 7] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:io", "wasi:random", "wasi:sockets"];

/// Maps the resource types that one component imports to host types, in order of their introduction. An interface may
/// use the resource of another interface under another name (`wasi:http/types` calls the `error` of `wasi:io/error`
/// `io-error`), so the lookup is by the component's type and not by name.
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

/// Defines `interface`, which belongs to one of [`PACKAGES`], as the component imports it.
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

/// One host type for each WASI resource, shared by all interfaces that use it.
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

/// Defines a function that is counted, charged for its input of `bytes`, and returns immediately.
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

/// For functions with small inputs of fixed size.
fn free<P>(_: &P) -> usize {
    0
}
