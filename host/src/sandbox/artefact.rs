//! Machine code that may be loaded.
//!
//! Loading runs what the bytes say, so there are two ways to an [`Artefact`] only: out of our own compiler, and out of
//! the cache after its MAC was checked. The bytes that were checked are the bytes that are loaded: they are never read
//! twice.
//!
//! They are mapped out of a file that is in memory only, has no name, and is sealed: nobody can change it any more, this
//! process included. From there the engine maps the first content of a guest's memory as well, which it would copy out of
//! other bytes into a file of its own. Where the system gives no such file, the engine copies the bytes.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

use rustix::fs::{MemfdFlags, SealFlags};

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
        // Whatever the reason was why it did not load from there: the bytes load, or they say what is wrong with them.
        match self.sealed().map_err(wasmtime::Error::from).and_then(|file| load_sealed(engine, &file)) {
            Ok(component) => Ok(component),
            Err(error) => {
                tracing::debug!(%error, "machine code is not mapped out of a sealed file");
                self.load_copy(engine)
            }
        }
    }

    /// The code in a file that can be changed no more.
    fn sealed(&self) -> std::io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("setgate-filter", flags)?);
        file.write_all(self.code())?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(file)
    }

    fn load_copy(&self, engine: &Engine) -> wasmtime::Result<Component> {
        #[expect(unsafe_code, reason = "the one file where machine code is loaded")]
        // SAFETY: `deserialize` asks for bytes that `Engine::precompile_component` made and nobody changed since. Both
        // constructors stand for that: the compiler's own output, or bytes whose MAC under our key was checked in memory.
        unsafe {
            Component::deserialize(engine, self.code())
        }
    }
}

/// Loads out of a sealed file, which lives on for as long as the component.
fn load_sealed(engine: &Engine, file: &File) -> wasmtime::Result<Component> {
    // The engine opens files by their names only.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    #[expect(unsafe_code, reason = "the one file where machine code is loaded")]
    // SAFETY: what `load_copy` says of the bytes, and that the file never changes while it is mapped: it is sealed against
    // writing, growing and shrinking, and against taking the seals off.
    unsafe {
        Component::deserialize_file(engine, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_has_the_code_and_takes_nothing_more() {
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
