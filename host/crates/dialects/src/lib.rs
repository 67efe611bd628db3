//! Signatures of deliveries, and verification of the signatures of sources.
//!
//! [`active_keys`] selects the current keys of a subscription, [`Signer`] decrypts them and creates the headers of a
//! [`SigningScheme`](setgate_domain::subscription::SigningScheme), [`generate`] creates keys and [`public_of`] validates
//! given ones. [`verify_mac`] is the other direction: it verifies a source's request during ingest.

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
