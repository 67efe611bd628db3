//! Machine code that may be loaded.
//!
//! Loading runs what the bytes say, so there are two ways to an [`Artefact`] only: out of our own compiler, and out of
//! the cache after its MAC was checked. The bytes that were checked are the bytes that are loaded: they are never read
//! twice.

use std::ops::Range;

use wasmtime::Engine;
use wasmtime::component::Component;

/// Compiled components, authentic.
pub(super) struct Artefact {
    bytes: Vec<u8>,
    /// Where in `bytes` the machine code is.
    code: Range<usize>,
}

impl Artefact {
    /// What our own compiler wrote: to be called by `compile` alone.
    pub(super) fn compiled(bytes: Vec<u8>) -> Self {
        let code = 0..bytes.len();
        Self { bytes, code }
    }

    /// What our own cache kept, its MAC checked: to be called by `cache` alone.
    pub(super) fn authenticated(bytes: Vec<u8>, code: Range<usize>) -> Self {
        Self { bytes, code }
    }

    pub(super) fn code(&self) -> &[u8] {
        &self.bytes[self.code.clone()]
    }

    /// Loads the code.
    ///
    /// # Errors
    /// Where another version or configuration of the engine made it, or it does not fit this engine's pool.
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        #[expect(unsafe_code, reason = "the one place where machine code is loaded")]
        // SAFETY: `deserialize` asks for bytes that `Engine::precompile_component` made and nobody changed since. Both
        // constructors stand for that: the compiler's own output, or bytes whose MAC under our key was checked in memory.
        unsafe {
            Component::deserialize(engine, self.code())
        }
    }
}
