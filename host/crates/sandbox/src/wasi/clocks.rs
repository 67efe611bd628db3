//! `wasi:clocks`: both clocks are frozen at the time at which the event was accepted.

use wasmtime::component::{ComponentType, LinkerInstance, Lower};

use super::super::state::State;
use super::io::always_ready;
use super::{free, function};

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

const NANOS_PER_MILLI: u32 = 1_000_000;

pub(super) fn wall(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "now", free, |state, (): ()| {
        let millis = accepted_at_millis(state);
        // The remainder is below 1,000.
        let nanoseconds = (millis % 1_000) as u32 * NANOS_PER_MILLI;
        Ok((Datetime { seconds: millis / 1_000, nanoseconds },))
    })?;
    function(linker, "resolution", free, |_, (): ()| Ok((Datetime { seconds: 0, nanoseconds: NANOS_PER_MILLI },)))
}

pub(super) fn monotonic(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    function(linker, "now", free, |state, (): ()| {
        Ok((accepted_at_millis(state).saturating_mul(NANOS_PER_MILLI.into()),))
    })?;
    function(linker, "resolution", free, |_, (): ()| Ok((u64::from(NANOS_PER_MILLI),)))?;
    // A sleep ends immediately: time does not advance, and no thread is blocked.
    for subscribe in ["subscribe-instant", "subscribe-duration"] {
        function(linker, subscribe, free, |_, (_,): (u64,)| Ok((always_ready(),)))?;
    }
    Ok(())
}

fn accepted_at_millis(state: &State) -> u64 {
    state.accepted_at.as_millis().max(0).unsigned_abs()
}
