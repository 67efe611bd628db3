//! What can be wrong with the master key or a sealed secret.

use std::io;
use std::path::PathBuf;

use super::MASTER_KEY_BYTES;

/// What was wrong with the master key or with a sealed secret. None of the texts holds key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key is not base64.
    #[error(
        "the master key is not base64: give {MASTER_KEY_BYTES} random bytes in base64, as from `openssl rand -base64 {MASTER_KEY_BYTES}`"
    )]
    KeyText,
    /// The master key has another length.
    #[error(
        "the master key has {found} bytes, it needs {MASTER_KEY_BYTES}: make one with `openssl rand -base64 {MASTER_KEY_BYTES}`"
    )]
    KeySize {
        /// Bytes found after decoding.
        found: usize,
    },
    /// Others than its owner may read or change the key file.
    #[error("others may read or change the master key {path} (mode {mode:04o}): run `chmod 600 {path}`")]
    KeyMode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file could not be read or made.
    #[error("cannot {action} the master key {path}")]
    KeyFile {
        /// `read` or `create`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A sealed text is not `v1.<base64url>`.
    #[error("a sealed secret is not of the form `v1.<base64url>`")]
    SealedForm,
    /// The seal does not open: another master key, another owner, or the text was changed.
    #[error("a sealed secret does not open: it was sealed under another master key, for another owner, or was changed")]
    SealedShut,
}
