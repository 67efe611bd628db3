//! Why a delivery could not be signed or a key not be taken.

use super::key::{HMAC_KEY_BYTES_MAX, HMAC_KEY_BYTES_MIN, TEXT_BYTES_MAX, TEXT_BYTES_MIN};
use crate::crypto;
use crate::domain::id::SigningKeyId;

/// Why a delivery could not be signed or a key not be taken. None of the texts holds key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every key of the ring has expired, or there is none.
    #[error("no key signs any more: add a signing key to the subscription")]
    NoKey,
    /// The delivery id cannot stand in the signed bytes.
    #[error("a delivery id is printable ASCII without white space and without `.`")]
    DeliveryId,
    /// A key's seal does not open.
    #[error("the signing key {id} does not open")]
    Sealed {
        /// Which key.
        id: SigningKeyId,
        /// Why not.
        source: crypto::Error,
    },
    /// A symmetric Standard Webhooks key without its prefix.
    #[error("a Standard Webhooks secret starts with `whsec_` (symmetric) or `whsk_` (ed25519)")]
    Prefix,
    /// What follows the prefix is not base64.
    #[error("what follows `{prefix}` is not base64")]
    Base64 {
        /// `whsec_` or `whsk_`.
        prefix: &'static str,
    },
    /// A symmetric Standard Webhooks key of another length.
    #[error("a `whsec_` secret holds {HMAC_KEY_BYTES_MIN} to {HMAC_KEY_BYTES_MAX} bytes in base64, this one {found}")]
    HmacSize {
        /// Bytes found after decoding.
        found: usize,
    },
    /// An ed25519 key of another length.
    #[error("a `whsk_` secret holds 32 bytes (seed) or 64 (seed and public key) in base64, this one {found}")]
    Ed25519Size {
        /// Bytes found after decoding.
        found: usize,
    },
    /// The two halves of an ed25519 key do not belong together.
    #[error("the public half of the `whsk_` secret does not belong to its seed")]
    Ed25519Pair,
    /// A text secret that is too short, too long, or not plain text.
    #[error("a secret of this scheme is {TEXT_BYTES_MIN} to {TEXT_BYTES_MAX} bytes of text without control characters")]
    Text,
    /// An ed25519 key for a scheme that knows MACs alone.
    #[error("ed25519 keys are for the scheme `standard` alone")]
    KindOfScheme,
}
