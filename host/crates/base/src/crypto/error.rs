//! Errors of the master key and of encrypted secrets.

use std::io;
use std::path::PathBuf;

use super::MASTER_KEY_BYTES;

/// Why the master key or an encrypted secret is unusable. The messages contain no key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key is not base64.
    #[error(
        "the master key is not base64: use {MASTER_KEY_BYTES} random bytes in base64, as from `openssl rand -base64 {MASTER_KEY_BYTES}`"
    )]
    KeyNotBase64,
    /// The master key has the wrong length.
    #[error(
        "the master key has {found} bytes instead of {MASTER_KEY_BYTES}: create one with `openssl rand -base64 {MASTER_KEY_BYTES}`"
    )]
    KeyLength {
        /// Length in bytes after decoding.
        found: usize,
    },
    /// The key file is accessible to others than its owner.
    #[error("the master key {path} is accessible to other users (mode {mode:04o}): run `chmod 600 {path}`")]
    KeyPermissions {
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
    #[error("an encrypted secret does not have the form `v1.<base64url>`")]
    MalformedCiphertext,
    /// Decryption failed: the text was encrypted with another master key or for another owner, or was changed.
    #[error(
        "a secret cannot be decrypted: it was encrypted with another master key or for another owner, or was changed"
    )]
    DecryptionFailed,
}
