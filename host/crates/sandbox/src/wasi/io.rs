//! `wasi:io`: an input stream at its end, two output streams that go to the log, and pollables that are always ready.

use wasmtime::component::{ComponentType, LinkerInstance, Lower, Resource};

use super::super::log::Stdio;
use super::super::state::State;
use super::{free, function};

/// Standard input, always at its end.
pub(super) struct InputStream;
/// Standard output or standard error, depending on the number of the handle.
pub(super) struct OutputStream;
/// Always ready.
pub(super) struct Pollable;
/// Never created.
pub(super) struct Error;

pub(super) const STDOUT: u32 = 1;
pub(super) const STDERR: u32 = 2;

/// Bytes that `check-write` permits a guest to write at once.
const WRITE_BYTES_MAX: u64 = 64 << 10;
/// Fuel for polling one pollable, which costs more than its four bytes.
const FUEL_PER_POLLABLE: usize = 64;

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "the variant is the interface's; nothing here fails that way")]
    LastOperationFailed(Resource<Error>),
    #[component(name = "closed")]
    Closed,
}

type Streamed<T> = (Result<T, StreamError>,);
type Input = Resource<InputStream>;
type Output = Resource<OutputStream>;

pub(super) fn poll(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "[method]pollable.ready", free, |_, (_,): (Resource<Pollable>,)| Ok((true,)))?;
    function(linker, "[method]pollable.block", free, |_, (_,): (Resource<Pollable>,)| Ok(()))?;
    function(
        linker,
        "poll",
        |(pollables,): &(Vec<Resource<Pollable>>,)| pollables.len().saturating_mul(FUEL_PER_POLLABLE),
        |_, (pollables,)| {
            if pollables.is_empty() {
                return Err(wasmtime::Error::msg("polled an empty list"));
            }
            Ok(((0..u32::try_from(pollables.len())?).collect::<Vec<u32>>(),))
        },
    )
}

pub(super) fn always_ready() -> Resource<Pollable> {
    Resource::new_own(0)
}

pub(super) fn streams(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    for read in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        function(linker, read, free, |_, (_, _): (Input, u64)| -> wasmtime::Result<Streamed<Vec<u8>>> {
            Ok((Err(StreamError::Closed),))
        })?;
    }
    for skip in ["[method]input-stream.skip", "[method]input-stream.blocking-skip"] {
        function(linker, skip, free, |_, (_, _): (Input, u64)| -> wasmtime::Result<Streamed<u64>> {
            Ok((Err(StreamError::Closed),))
        })?;
    }
    function(linker, "[method]input-stream.subscribe", free, |_, (_,): (Input,)| Ok((always_ready(),)))?;

    function(
        linker,
        "[method]output-stream.check-write",
        free,
        |_, (_,): (Output,)| -> wasmtime::Result<Streamed<u64>> { Ok((Ok(WRITE_BYTES_MAX),)) },
    )?;
    for write in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        function(linker, write, |(_, bytes): &(Output, Vec<u8>)| bytes.len(), take)?;
    }
    for flush in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        function(linker, flush, free, |_, (_,): (Output,)| -> wasmtime::Result<Streamed<()>> { Ok((Ok(()),)) })?;
    }
    // Zeroes are useless in a log, so they are discarded.
    for zeroes in ["[method]output-stream.write-zeroes", "[method]output-stream.blocking-write-zeroes-and-flush"] {
        function(linker, zeroes, free, |_, (_, _): (Output, u64)| -> wasmtime::Result<Streamed<()>> { Ok((Ok(()),)) })?;
    }
    for splice in ["[method]output-stream.splice", "[method]output-stream.blocking-splice"] {
        function(linker, splice, free, |_, (_, _, _): (Output, Input, u64)| -> wasmtime::Result<Streamed<u64>> {
            Ok((Err(StreamError::Closed),))
        })?;
    }
    function(linker, "[method]output-stream.subscribe", free, |_, (_,): (Output,)| Ok((always_ready(),)))
}

fn take(state: &mut State, (stream, bytes): (Output, Vec<u8>)) -> wasmtime::Result<Streamed<()>> {
    let stream = if stream.rep() == STDERR { Stdio::Err } else { Stdio::Out };
    state.log.write_stdio(stream, &bytes);
    Ok((Ok(()),))
}
