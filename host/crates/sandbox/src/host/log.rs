//! `setgate:filter/log`: writes lines to the delivery's history. Requires no grant.

use wasmtime::StoreContextMut;
use wasmtime::component::LinkerInstance;

use super::super::state::{State, charge};
use super::super::wit_v0_1::Level;

/// Defines the interface in `linker`.
///
/// Lines do not count against `host_calls_max`, because the interface specifies that `write` never fails: fuel limits
/// their number, and `log_bytes_max` limits how much is stored.
pub(in super::super) fn define(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    linker.func_wrap_async("write", |mut store: StoreContextMut<'_, State>, (level, line): (Level, String)| {
        Box::new(async move {
            charge(&mut store, line.len()).await?;
            store.data_mut().log.write(level.into(), &line);
            Ok(())
        })
    })
}
