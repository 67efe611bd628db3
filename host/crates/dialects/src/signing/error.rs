//! Errors of signing and of key validation.

use setgate_base::crypto;
use setgate_domain::id::SigningKeyId;

use super::key::{HMAC_KEY_BYTES_MAX, HMAC_KEY_BYTES_MIN, TEXT_BYTES_MAX, TEXT_BYTES_MIN};

/// Why a delivery could not be signed or a key was refused. The messages contain no key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All keys have expired, or there are none.
    #[error("no signing key is active: add one to the subscription")]
    NoKey,
    /// The delivery id cannot be part of the signed text.
    #[error("a delivery id is printable ASCII without white space and without `.`")]
    DeliveryId,
    /// A stored key cannot be decrypted.
    #[error("the signing key {id} cannot be decrypted")]
    Sealed {
        /// The key.
        id: SigningKeyId,
        /// The cause.
        source: crypto::Error,
    },
    /// A Standard Webhooks key without a prefix.
    #[error("a Standard Webhooks secret starts with `whsec_` (symmetric) or `whsk_` (ed25519)")]
    Prefix,
    /// The text after the prefix is not base64.
    #[error("the text after `{prefix}` is not base64")]
    Base64 {
        /// `whsec_` or `whsk_`.
        prefix: &'static str,
    },
    /// A symmetric Standard Webhooks key of invalid length.
    #[error("a `whsec_` secret has {HMAC_KEY_BYTES_MIN} to {HMAC_KEY_BYTES_MAX} bytes in base64, this one {found}")]
    HmacSize {
        /// Length in bytes after decoding.
        found: usize,
    },
    /// An ed25519 key of invalid length.
    #[error("a `whsk_` secret has 32 bytes (seed) or 64 (seed and public key) in base64, this one {found}")]
    Ed25519Size {
        /// Length in bytes after decoding.
        found: usize,
    },
    /// The public half of an ed25519 key does not match its private half.
    #[error("the public half of the `whsk_` secret does not belong to its seed")]
    Ed25519Pair,
    /// A text secret that is too short, too long, or contains control characters.
    #[error("a secret of this scheme is {TEXT_BYTES_MIN} to {TEXT_BYTES_MAX} bytes of text without control characters")]
    Text,
    /// An ed25519 key for a scheme that supports only MACs.
    #[error("only the scheme `standard` supports ed25519 keys")]
    KindOfScheme,
}
