//! Signs deliveries with the keys of a subscription.
//!
//! [`active_keys`] selects the current keys, [`Signer`] decrypts them and lets the subscription's
//! [`Scheme`](crate::Scheme) create the headers, [`generate`] creates keys and [`public_key_of`] validates given ones.

mod error;
mod generate;
mod key;
mod keyring;
mod signer;

pub use error::Error;
pub use generate::{KeyKind, NewKey, generate, public_key_of};
pub use key::{HMAC_KEY_BYTES_MAX, HMAC_KEY_BYTES_MIN, TEXT_BYTES_MAX, TEXT_BYTES_MIN};
pub(crate) use key::{Key, SYMMETRIC_PREFIX, body_mac, decode};
pub use keyring::{KEYS_ACTIVE_MAX, active_keys, staged_key};
#[cfg(test)]
pub(crate) use signer::headers;
pub use signer::{SignedHeaders, Signer};
