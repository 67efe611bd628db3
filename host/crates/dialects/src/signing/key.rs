//! Signing keys, parsed from the notation of their scheme.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use setgate_base::crypto::hmac_sha256;
use setgate_domain::secret::Secret;
use zeroize::Zeroizing;

use super::Error;
use crate::scheme::{Message, Notation};

/// Shortest symmetric key in bytes (Standard Webhooks, "Signature scheme": 24 to 64 bytes).
pub const HMAC_KEY_BYTES_MIN: usize = 24;
/// Longest symmetric key in bytes (Standard Webhooks, "Signature scheme": 24 to 64 bytes).
pub const HMAC_KEY_BYTES_MAX: usize = 64;
/// Shortest text secret in bytes. It is low, because receivers built for a product use the secrets that they already
/// have.
pub const TEXT_BYTES_MIN: usize = 8;
/// Longest text secret in bytes (WebSub section 5.1: `hub.secret` is less than 200 bytes).
pub const TEXT_BYTES_MAX: usize = 199;

pub(crate) const SYMMETRIC_PREFIX: &str = "whsec_";
pub(super) const PRIVATE_PREFIX: &str = "whsk_";
pub(super) const PUBLIC_PREFIX: &str = "whpk_";

// Products write their secrets with and without padding.
const BASE64_ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signing key. Zeroized on drop and never printed.
pub(crate) enum Key {
    /// HMAC-SHA256.
    Symmetric(Zeroizing<Vec<u8>>),
    /// ed25519 (RFC 8032, pure).
    Ed25519(Box<SigningKey>),
}

impl Key {
    /// Parses a secret.
    pub(crate) fn parse(notation: Notation, secret: &Secret) -> Result<Self, Error> {
        let text = secret.expose();
        match notation {
            Notation::Prefixed => {
                if let Some(body) = text.strip_prefix(SYMMETRIC_PREFIX) {
                    let bytes = decode(body).ok_or(Error::Base64 { prefix: SYMMETRIC_PREFIX })?;
                    let fits = (HMAC_KEY_BYTES_MIN..=HMAC_KEY_BYTES_MAX).contains(&bytes.len());
                    if fits { Ok(Self::Symmetric(bytes)) } else { Err(Error::HmacSize { found: bytes.len() }) }
                } else if let Some(body) = text.strip_prefix(PRIVATE_PREFIX) {
                    let bytes = decode(body).ok_or(Error::Base64 { prefix: PRIVATE_PREFIX })?;
                    ed25519(&bytes).map(|key| Self::Ed25519(Box::new(key)))
                } else {
                    Err(Error::Prefix)
                }
            }
            Notation::Text => {
                let fits = (TEXT_BYTES_MIN..=TEXT_BYTES_MAX).contains(&text.len());
                if !fits || text.contains(char::is_control) {
                    return Err(Error::Text);
                }
                Ok(Self::Symmetric(Zeroizing::new(text.as_bytes().to_vec())))
            }
        }
    }

    /// The public key as `whpk_...`, if this is an ed25519 key.
    pub(super) fn public(&self) -> Option<String> {
        match self {
            Self::Symmetric(_) => None,
            Self::Ed25519(key) => {
                Some(format!("{PUBLIC_PREFIX}{}", BASE64_STANDARD.encode(key.verifying_key().as_bytes())))
            }
        }
    }
}

/// HMAC-SHA256 of only the body under the current key, in lower-case hex.
pub(crate) fn body_mac(keys: &[Arc<Key>], message: &Message<'_>) -> Result<String, Error> {
    match keys.first().map(Arc::as_ref) {
        Some(Key::Symmetric(key)) => Ok(hex::encode(hmac_sha256(key, &[message.body]))),
        // Key validation refuses ed25519 keys for such a scheme.
        Some(Key::Ed25519(_)) | None => Err(Error::NoKey),
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Decodes standard base64, with or without padding.
pub(crate) fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    BASE64_ANY_PADDING.decode(text).ok().map(Zeroizing::new)
}

fn ed25519(bytes: &[u8]) -> Result<SigningKey, Error> {
    if let Ok(seed) = bytes.try_into() {
        Ok(SigningKey::from_bytes(seed))
    } else if let Ok(pair) = bytes.try_into() {
        SigningKey::from_keypair_bytes(pair).map_err(|_| Error::Ed25519Pair)
    } else {
        Err(Error::Ed25519Size { found: bytes.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(notation: Notation, text: &str) -> Result<Key, Error> {
        Key::parse(notation, &Secret::new(text.to_owned()))
    }

    fn bytes(prefix: &str, count: usize) -> String {
        format!("{prefix}{}", BASE64_STANDARD.encode(vec![7; count]))
    }

    #[test]
    fn malformed_standard_secrets_are_described() {
        for (text, refused) in [
            ("", "Prefix"),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "Prefix"),
            ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", "Prefix"),
            ("whsec_", "HmacSize { found: 0 }"),
            ("whsec_not base64", "Base64 { prefix: \"whsec_\" }"),
            (&bytes("whsec_", 23), "HmacSize { found: 23 }"),
            (&bytes("whsec_", 65), "HmacSize { found: 65 }"),
            ("whsk_!", "Base64 { prefix: \"whsk_\" }"),
            (&bytes("whsk_", 33), "Ed25519Size { found: 33 }"),
            (&bytes("whsk_", 64), "Ed25519Pair"),
        ] {
            assert_eq!(format!("{:?}", parse(Notation::Prefixed, text).unwrap_err()), refused, "{text}");
        }
        for good in [bytes("whsec_", 24), bytes("whsec_", 64), bytes("whsk_", 32)] {
            parse(Notation::Prefixed, &good).unwrap();
            parse(Notation::Prefixed, good.trim_end_matches('=')).unwrap();
        }
    }

    #[test]
    fn text_secret_length_is_limited() {
        for bad in ["", "short", "line\nbreak in it", &"x".repeat(200)] {
            assert!(matches!(parse(Notation::Text, bad), Err(Error::Text)), "{bad:?}");
        }
        parse(Notation::Text, "It's a Secret to Everybody").unwrap();
        parse(Notation::Text, "pässwörter").unwrap();
    }

    #[test]
    fn debug_output_hides_key() {
        let secret = Secret::new(bytes("whsec_", 32));
        let key = Key::parse(Notation::Prefixed, &secret).unwrap();
        let ed25519 = parse(Notation::Prefixed, &bytes("whsk_", 32)).unwrap();
        assert_eq!(format!("{secret:?} {key:?} {ed25519:?}"), "Secret(..) Key(..) Key(..)");
    }
}
