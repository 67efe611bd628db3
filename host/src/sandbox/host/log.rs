//! `setgate:filter/log`: lines for the delivery's history. Needs no grant.

use wasmtime::StoreContextMut;
use wasmtime::component::LinkerInstance;

use super::super::state::{State, charge};
use super::super::wit_v0_1::Level;

/// Defines the interface in `linker`.
///
/// Lines are not counted against `host_calls_max`, since the interface says that `write` never fails: the fuel bounds
/// how many there are, and `log_bytes_max` what is kept of them.
pub(in super::super) fn define(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    linker.func_wrap_async("write", |mut store: StoreContextMut<'_, State>, (level, line): (Level, String)| {
        Box::new(async move {
            charge(&mut store, line.len()).await?;
            store.data_mut().log.write(level.into(), &line);
            Ok(())
        })
    })
}
