//! `setgate:filter/config`: the settings and secrets of the binding.

use wasmtime::StoreContextMut;
use wasmtime::component::LinkerInstance;

use super::super::state::{State, charge};

/// Defines the interface in `linker`.
pub(in super::super) fn define(linker: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    linker.func_wrap_async("get", |store: StoreContextMut<'_, State>, (key,): (String,)| {
        Box::new(async move {
            // The first call parses the whole object, and every call is charged for that: the cost of a call should not
            // depend on earlier calls.
            let read = store.data().config.text.len();
            answer(store, key.len() + read, |state| state.config.member(&key)).await
        })
    })?;
    linker.func_wrap_async("all", |store: StoreContextMut<'_, State>, (): ()| {
        Box::new(async move {
            let (all,) = answer(store, 0, |state| Some(state.config.text.as_ref().to_owned())).await?;
            Ok((all.unwrap_or_default(),))
        })
    })?;
    linker.func_wrap_async("secret", |store: StoreContextMut<'_, State>, (name,): (String,)| {
        Box::new(async move {
            let read = name.len();
            answer(store, read, |state| state.config.secrets.get(&name).map(|secret| secret.expose().to_owned())).await
        })
    })
}

/// Looks up one value, counts the call and charges its fuel.
async fn answer(
    mut store: StoreContextMut<'_, State>,
    read: usize,
    find: impl FnOnce(&mut State) -> Option<String>,
) -> wasmtime::Result<(Option<String>,)> {
    store.data_mut().meter.count_call()?;
    charge(&mut store, read).await?;
    let value = find(store.data_mut());
    if let Some(value) = &value {
        store.data_mut().meter.count_bytes(value.len())?;
        charge(&mut store, value.len()).await?;
    }
    Ok((value,))
}
