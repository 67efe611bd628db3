//! `wasi:cli` and the preopened directories, all of it empty.

use wasmtime::component::{LinkerInstance, Resource};

use super::super::state::{State, Stop};
use super::io::{InputStream, OutputStream, STDERR, STDOUT};
use super::{free, function};

/// Resource type without instances.
pub(super) struct TerminalInput;
/// Resource type without instances.
pub(super) struct TerminalOutput;
/// Resource type without instances.
pub(super) struct Descriptor;

pub(super) fn environment(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "get-environment", free, |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    function(linker, "get-arguments", free, |_, (): ()| Ok((Vec::<String>::new(),)))?;
    function(linker, "initial-cwd", free, |_, (): ()| Ok((None::<String>,)))
}

pub(super) fn exit(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "exit", free, |_, (_,): (Result<(), ()>,)| Err::<(), _>(Stop::Exit.into()))?;
    function(linker, "exit-with-code", free, |_, (_,): (u8,)| Err::<(), _>(Stop::Exit.into()))
}

pub(super) fn stdin(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "get-stdin", free, |_, (): ()| Ok((Resource::<InputStream>::new_own(0),)))
}

pub(super) fn stdout(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "get-stdout", free, |_, (): ()| Ok((Resource::<OutputStream>::new_own(STDOUT),)))
}

pub(super) fn stderr(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "get-stderr", free, |_, (): ()| Ok((Resource::<OutputStream>::new_own(STDERR),)))
}

pub(super) fn terminal_stdin(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "get-terminal-stdin", free, |_, (): ()| Ok((None::<Resource<TerminalInput>>,)))
}

pub(super) fn terminal_output(linker: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<()> {
    function(linker, name, free, |_, (): ()| Ok((None::<Resource<TerminalOutput>>,)))
}

pub(super) fn preopens(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "get-directories", free, |_, (): ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))
}
