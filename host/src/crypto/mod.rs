//! Digests. Crypto libraries are used here and in `signing`, nowhere else (TLS aside).

use sha2::Digest;

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}
