//! Digests, MACs, randomness and secrets at rest. Cryptographic libraries are used only here and in `signing`, except
//! for TLS.
//!
//! Each installation has one [`MasterKey`]. Every other key at rest is derived from it by label, or encrypted with it.

mod digest;
mod endpoint;
mod error;
mod idempotency;
mod master_key;
mod private_file;
mod random;
mod sealing;

pub use digest::{constant_time_eq, hmac_sha1, hmac_sha256, hmac_sha384, hmac_sha512, sha256, sha256_reader};
pub use error::Error;
pub use idempotency::idempotency_claim;
pub use master_key::{MASTER_KEY_BYTES, MasterKey};
pub use private_file::write_private_file;
pub use random::{random_bytes, random_u128, random_unit};
