//! `wasi:random`: pseudorandom numbers that are the same for the same event and filter.

use wasmtime::component::LinkerInstance;

use super::super::state::State;
use super::{free, function};

/// Each hash produces 32 bytes and costs far more than copying them.
const FUEL_PER_BYTE: u64 = 8;

pub(super) fn random(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    functions(linker, "get-random-bytes", "get-random-u64")
}

pub(super) fn insecure(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    functions(linker, "get-insecure-random-bytes", "get-insecure-random-u64")
}

pub(super) fn insecure_seed(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "insecure-seed", free, |state, (): ()| Ok(((state.random.u64(), state.random.u64()),)))
}

fn functions(linker: &mut LinkerInstance<'_, State>, bytes: &str, number: &str) -> wasmtime::Result<()> {
    function(
        linker,
        bytes,
        |(count,): &(u64,)| usize::try_from(count.saturating_mul(FUEL_PER_BYTE)).unwrap_or(usize::MAX),
        |state, (count,)| Ok((state.random.bytes(count)?,)),
    )?;
    function(linker, number, free, |state, (): ()| Ok((state.random.u64(),)))
}
