//! A guest in JavaScript, which contains its interpreter, in fresh and in reused instances.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bench_guest::acts::ACTS;
use bytes::Bytes;
use setgate_domain::id::Digest;
use setgate_sandbox::engine_config;

use super::bare::{self, Bare};
use super::input::Input;
use super::ours::{self, Ours};
use super::{AT_ONCE, SECTION, Turns, built};
use crate::Mode;
use crate::cores::{on_all, on_one, repeat};
use crate::report::Sheet;

/// The guest, or the reason for which this run does not measure it.
pub(super) fn guest(mode: Mode) -> Result<Bytes, String> {
    if mode == Mode::Quick {
        return Err("it takes longer to compile than a quick run".to_owned());
    }
    built("bench-guest-javascript.wasm")
        .map_err(|_| "it is not built: `cargo xtask guests --javascript`, with node and npm".to_owned())
}

/// Measures it on one core.
pub(super) fn measure(sheet: &mut Sheet, turns: Turns, folder: &Path, wasm: &Bytes) -> anyhow::Result<()> {
    // Compiled on all cores and cached, so that the pinned threads only load it.
    let bare = on_all(|| {
        Ours::new(ours::options(folder), 1)?.take_in(wasm.clone())?;
        Ok(Bare::new(&engine_config(&ours::options(folder)), wasm)?)
    })?;
    on_one(|| {
        let ours = Arc::new(Ours::new(ours::options(folder), 1)?);
        let filter = ours.take_in(wasm.clone())?;
        for (bytes, size) in turns.sizes {
            for act in ACTS {
                let input = Arc::new(Input::new(act, *bytes)?);
                let name = |what: &str| format!("one core, JavaScript: {act}, {size}: {what}");
                let rounds = (0..turns.rounds)
                    .map(|_| round(&bare, (&ours, filter), &input, turns))
                    .collect::<Result<Vec<_>, _>>();
                let rounds = rounds.with_context(|| name("a call"))?;
                let mut row = |what: &str, unit: &str, of: &dyn Fn(&[f64; 3]) -> f64| {
                    sheet.figure(SECTION, &name(what), unit, &rounds.iter().map(of).collect::<Vec<_>>());
                };
                row("bare engine", "us", &|[bare, ..]| *bare);
                row("sandbox", "us", &|[_, fresh, _]| *fresh);
                row("sandbox, instances reused", "us", &|[.., kept]| *kept);
                row("sandbox / bare engine", "", &|[bare, fresh, _]| fresh / bare);
            }
        }
        Ok(())
    })
}

/// CPU microseconds per call: on the bare engine, in the sandbox, and in the sandbox with reused instances.
fn round(
    bare: &Bare,
    (ours, filter): (&Arc<Ours>, Digest),
    input: &Arc<Input>,
    turns: Turns,
) -> anyhow::Result<[f64; 3]> {
    let event = bare::event(input);
    let bare = repeat(turns.lasts, || Ok(bare.call(&event)?))?;
    let fresh = ours.repeat(filter, input, AT_ONCE, false, turns.lasts)?;
    let kept = ours.repeat(filter, input, AT_ONCE, true, turns.lasts)?;
    Ok([bare.cpu_us(), fresh.cpu_us(), kept.cpu_us()])
}
