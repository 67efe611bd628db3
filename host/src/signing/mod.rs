//! How deliveries are signed, and how a source's signature is checked.
//!
//! [`active_keys`] chooses the keys of a ring that sign now, [`Signer`] opens them and writes the headers of a
//! [`SigningScheme`](crate::domain::subscription::SigningScheme), [`generate`] makes keys and [`public_of`] checks
//! given ones. [`verify_mac`] is the other direction: what ingest asks about a source's request.

mod error;
mod generate;
mod key;
mod keyring;
mod signer;
mod source;
mod webhook;

pub use error::Error;
pub use generate::{Kind, NewKey, generate, public_of};
pub use key::{HMAC_KEY_BYTES_MAX, HMAC_KEY_BYTES_MIN, TEXT_BYTES_MAX, TEXT_BYTES_MIN};
pub use keyring::{KEYS_ACTIVE_MAX, active_keys, staged_key};
pub use signer::{Signed, Signer};
pub use source::{
    MacError, MacRules, SOURCE_KEY_BYTES_MIN, Signed as SourceSigned, check_source_secret, check_text,
    signature_header, verify_mac,
};
