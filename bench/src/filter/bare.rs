//! The bare engine with the sandbox's settings: a store, fuel, an instance and a call, and nothing around them.

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use super::FUEL;
use super::input::Input;
pub(super) use bindings::setgate::filter::types::Event;

mod bindings {
    wasmtime::component::bindgen!({ path: "../wit", world: "filter" });
}

/// A component that is ready to be instantiated.
pub(super) struct Bare {
    engine: Engine,
    filter: bindings::FilterPre<()>,
}

impl Bare {
    /// Compiles a component for a separate engine. Its imports are defined but trap, because the bench's guest calls
    /// none of them.
    pub(super) fn new(config: &wasmtime::Config, wasm: &[u8]) -> wasmtime::Result<Self> {
        let engine = Engine::new(config)?;
        let component = Component::new(&engine, wasm)?;
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let filter = bindings::FilterPre::new(linker.instantiate_pre(&component)?)?;
        component.initialize_copy_on_write_image()?;
        Ok(Self { engine, filter })
    }

    /// One call in a fresh instance.
    pub(super) fn call(&self, event: &Event) -> wasmtime::Result<()> {
        let mut store = Store::try_new(&self.engine, ())?;
        store.set_fuel(FUEL)?;
        // The engine checks its epoch, which nothing increments here.
        store.set_epoch_deadline(1);
        let filter = self.filter.instantiate(&mut store)?;
        let said = filter.setgate_filter_transform().call_process(&mut store, event)?;
        said.map(drop).map_err(|failure| wasmtime::Error::msg(format!("{failure:?}")))
    }
}

/// Converts the event to the engine's types.
pub(super) fn event(input: &Input) -> Event {
    let view = &input.view;
    Event {
        id: view.id.to_string(),
        issuer: view.issuer.clone(),
        issued_at: view.issued_at.unsigned_abs(),
        accepted_at: view.accepted_at.as_millis().unsigned_abs(),
        types: view.types.clone(),
        subject: view.subject.clone(),
        tenant: view.tenant.to_string(),
        source: view.source.to_string(),
        subscription: view.subscription.to_string(),
        delivery: view.delivery.to_string(),
        claims: input.set.text.clone(),
    }
}
