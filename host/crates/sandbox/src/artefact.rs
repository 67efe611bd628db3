//! Machine code that is safe to load.
//!
//! Loading machine code means trusting it, so there are only two ways to create an [`Artefact`]: from the output of our
//! own compiler, and from the cache after its MAC was verified. The verified bytes in memory are the bytes that are
//! loaded: they are never read twice.
//!
//! The code is mapped from a sealed memfd, which no process can modify any more, this one included. The engine also
//! maps the initial contents of guest memories from it. If the code were loaded from a buffer, the engine would copy
//! them to a file of its own. If the system does not support sealed memfds, the code is loaded from the buffer.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

use rustix::fs::{MemfdFlags, SealFlags};

use wasmtime::Engine;
use wasmtime::component::Component;

/// A compiled component of trusted origin.
pub(super) struct Artefact {
    bytes: Vec<u8>,
    /// The range of the machine code in `bytes`.
    code: Range<usize>,
}

impl Artefact {
    /// From the output of our own compiler. Only `compile` may call this.
    pub(super) fn compiled(bytes: Vec<u8>) -> Self {
        let code = 0..bytes.len();
        Self { bytes, code }
    }

    /// From our own cache, after the MAC was verified. Only `cache` may call this.
    pub(super) fn authenticated(bytes: Vec<u8>, code: Range<usize>) -> Self {
        Self { bytes, code }
    }

    pub(super) fn code(&self) -> &[u8] {
        &self.bytes[self.code.clone()]
    }

    /// Loads the code.
    ///
    /// # Errors
    /// If it was compiled by another version or configuration of the engine, or does not fit this engine's pool.
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // On any error, load from the buffer: that either succeeds or returns the actual error.
        match self.sealed().map_err(wasmtime::Error::from).and_then(|file| load_sealed(engine, &file)) {
            Ok(component) => Ok(component),
            Err(error) => {
                tracing::debug!(%error, "cannot map machine code from a sealed file: loading a copy");
                self.load_copy(engine)
            }
        }
    }

    /// Copies the code to a sealed memfd.
    fn sealed(&self) -> std::io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("setgate-filter", flags)?);
        file.write_all(self.code())?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(file)
    }

    fn load_copy(&self, engine: &Engine) -> wasmtime::Result<Component> {
        #[expect(unsafe_code, reason = "the one file where machine code is loaded")]
        // SAFETY: `deserialize` requires unmodified output of `Engine::precompile_component`. Both constructors
        // guarantee this: the bytes are our own compiler's output, or their MAC under our key was verified in memory.
        unsafe {
            Component::deserialize(engine, self.code())
        }
    }
}

/// Loads from a sealed file. The component keeps the file mapped.
fn load_sealed(engine: &Engine, file: &File) -> wasmtime::Result<Component> {
    // The engine opens files only by path.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    #[expect(unsafe_code, reason = "the one file where machine code is loaded")]
    // SAFETY: as in `load_copy` for the bytes. The file does not change while it is mapped: it is sealed against
    // writing, growing, shrinking and against removal of the seals.
    unsafe {
        Component::deserialize_file(engine, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_memfd_contains_code_and_is_immutable() {
        let bytes = b"header code mac".to_vec();
        let mut file = Artefact::authenticated(bytes, 7..11).sealed().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(std::fs::read(&path).unwrap(), b"code");
        for changed in [file.write_all(b"x"), file.set_len(1), file.set_len(9), std::fs::write(&path, b"x")] {
            assert_eq!(changed.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"code");
    }
}
