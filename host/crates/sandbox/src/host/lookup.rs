//! `setgate:filter/lookup`: the tenant's read-only tables.

use wasmtime::StoreContextMut;
use wasmtime::component::LinkerInstance;

use super::super::state::{State, charge};
use super::super::wit_v0_1::LookupError;

/// Defines the interface in `linker`. Exceeding the budget returns an error to the filter, which may continue without
/// the row. It is not a fault.
pub(in super::super) fn define(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    linker.func_wrap_async("get", |mut store: StoreContextMut<'_, State>, (table, key): (String, String)| {
        Box::new(async move {
            charge(&mut store, table.len() + key.len()).await?;
            let state = store.data_mut();
            if state.meter.count_call().is_err() {
                return Ok((Err(LookupError::OverBudget),));
            }
            let row = match state.tables.get(&table, &key) {
                None => return Ok((Err(LookupError::NoSuchTable),)),
                Some(None) => return Ok((Ok(None),)),
                Some(Some(row)) => row,
            };
            if state.meter.count_bytes(row.len()).is_err() {
                return Ok((Err(LookupError::OverBudget),));
            }
            charge(&mut store, row.len()).await?;
            Ok((Ok(Some(row.as_ref().to_owned())),))
        })
    })
}
