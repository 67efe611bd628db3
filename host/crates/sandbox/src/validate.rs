//! Checks that an upload is a filter, before it is compiled.

use std::collections::BTreeSet;

use setgate_domain::filter::Grant;
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::UploadError;
use super::imports::{self, Import};
use super::upload_limits::Names;

/// The export that makes a component a filter, without its version.
const TRANSFORM: &str = "setgate:filter/transform";

/// Checks the size and the header, before anything is parsed.
pub(super) fn bytes(wasm: &[u8], bytes_max: u64) -> Result<(), UploadError> {
    if wasm.len() as u64 > bytes_max {
        return Err(UploadError::TooLarge { bytes: wasm.len() as u64, limit: bytes_max });
    }
    if Engine::detect_precompiled(wasm).is_some() {
        return Err(UploadError::Precompiled);
    }
    // Magic, then version and layer: 1 and 0 for a module, 13 and 1 for a component.
    match wasm.first_chunk::<8>() {
        Some(b"\0asm\x0d\0\x01\0") => Ok(()),
        Some(b"\0asm\x01\0\0\0") => Err(UploadError::CoreModule),
        Some([0, b'a', b's', b'm', rest @ ..]) => Err(UploadError::NotWasm {
            detail: format!("version and layer are {rest:02x?}, expected [0d, 00, 01, 00]"),
        }),
        Some(start) => Err(UploadError::NotWasm { detail: format!("it starts with {start:02x?}") }),
        None => Err(UploadError::NotWasm { detail: format!("it has {} bytes", wasm.len()) }),
    }
}

/// Checks the names of a component's imports and exports, which requires no compile. Returns the grants that it needs.
pub(super) fn names(names: &Names<'_>) -> Result<BTreeSet<Grant>, UploadError> {
    exports_transform(&names.exports)?;
    let mut needs = BTreeSet::new();
    for (name, is_instance) in &names.imports {
        let import = if *is_instance { imports::parse(name) } else { None };
        match import {
            Some(Import::Granted(grant)) => {
                needs.insert(grant);
            }
            Some(Import::Types | Import::Log | Import::Wasi(_)) => {}
            None => {
                return Err(UploadError::Import { import: super::log::printable(super::log::cut_to(name, 200)) });
            }
        }
    }
    Ok(needs)
}

/// The same check for machine code, which may come from the cache.
pub(super) fn component(engine: &Engine, component: &Component) -> Result<BTreeSet<Grant>, UploadError> {
    let of_type = component.component_type();
    let is_instance = |item: &ComponentItem| matches!(item, ComponentItem::ComponentInstance(_));
    names(&Names {
        imports: of_type.imports(engine).map(|(name, item)| (name, is_instance(&item.ty))).collect(),
        exports: of_type.exports(engine).map(|(name, _)| name).collect(),
    })
}

fn exports_transform(exports: &[&str]) -> Result<(), UploadError> {
    let mut others = Vec::new();
    for name in exports.iter().copied() {
        match name.split_once('@') {
            Some((TRANSFORM, version)) if imports::is_supported_version(version) => return Ok(()),
            Some((TRANSFORM, _)) => return Err(UploadError::WrongVersion { export: super::log::printable(name) }),
            _ if name == TRANSFORM => return Err(UploadError::WrongVersion { export: name.to_owned() }),
            _ => others.push(format!("`{}`", super::log::printable(super::log::cut_to(name, 80)))),
        }
    }
    let count = others.len();
    others.truncate(5);
    let exports = match count {
        0 => "nothing".to_owned(),
        1..=5 => others.join(", "),
        _ => format!("{} and {} more", others.join(", "), count - 5),
    };
    Err(UploadError::NoTransform { exports })
}
