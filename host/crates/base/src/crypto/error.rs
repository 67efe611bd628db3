//! Errors of the master key and of encrypted secrets.

use std::io;
use std::path::PathBuf;

use super::MASTER_KEY_BYTES;

/// Why the master key or an encrypted secret is unusable. The messages contain no key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key is not base64.
    #[error(
        "the master key is not base64: give {MASTER_KEY_BYTES} random bytes in base64, as from `openssl rand -base64 {MASTER_KEY_BYTES}`"
    )]
    KeyText,
    /// The master key has the wrong length.
    #[error(
        "the master key has {found} bytes, it needs {MASTER_KEY_BYTES}: make one with `openssl rand -base64 {MASTER_KEY_BYTES}`"
    )]
    KeySize {
        /// Length in bytes after decoding.
        found: usize,
    },
    /// The key file is accessible to others than its owner.
    #[error("others may read or change the master key {path} (mode {mode:04o}): run `chmod 600 {path}`")]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file could not be read or created.
    #[error("cannot {action} the master key {path}")]
    KeyFile {
        /// `read` or `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An encrypted text does not have the form `v1.<base64url>`.
    #[error("a sealed secret is not of the form `v1.<base64url>`")]
    SealedForm,
    /// Decryption failed: the text was encrypted with another master key or for another owner, or was changed.
    #[error("a sealed secret does not open: it was sealed under another master key, for another owner, or was changed")]
    SealedShut,
}
