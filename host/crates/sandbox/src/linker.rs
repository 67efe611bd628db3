//! Links a component to exactly the interfaces that it imports, and to nothing outside the list in `imports`.

use setgate_domain::filter::Grant;
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use super::host;
use super::imports::{self, Import};
use super::state::State;
use super::wasi::{self, Resources};
use super::wit_v0_1::FilterPre;

/// Links a component that passed `validate`.
///
/// Each component gets its own linker, under the exact names that it imports. So one list serves every version of WASI,
/// and traps are defined only for imports that this component has and that may never be called.
///
/// # Errors
/// If the type of an import or of the export differs from the world's.
pub(super) fn link(engine: &Engine, component: &Component) -> wasmtime::Result<FilterPre<State>> {
    let mut linker = Linker::<State>::new(engine);
    linker.allow_shadowing(true);
    let mut resources = Resources::default();
    for (name, item) in component.component_type().imports(engine) {
        let (Some(import), ComponentItem::ComponentInstance(imported)) = (imports::parse(name), item.ty) else {
            continue; // left undefined: instantiation rejects it
        };
        let mut instance = linker.instance(name)?;
        match import {
            Import::Types => {}
            Import::Log => host::log::define(&mut instance)?,
            Import::Granted(Grant::Config) => host::config::define(&mut instance)?,
            Import::Granted(Grant::Lookup) => host::lookup::define(&mut instance)?,
            Import::Wasi(interface) => {
                wasi::define(&mut instance, interface, &imported, engine, &mut resources)?;
            }
        }
    }
    FilterPre::new(linker.instantiate_pre(component)?)
}
