//! Generation of keys, and validation of given ones.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use setgate_base::crypto::random_bytes;
use setgate_domain::secret::Secret;
use setgate_domain::subscription::SigningScheme;
use zeroize::Zeroizing;

use super::Error;
use super::key::{Key, PRIVATE_PREFIX, SYMMETRIC_PREFIX};
use crate::dialect::scheme_of_signing;
use crate::scheme::Notation;

/// Symmetric or asymmetric signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// HMAC-SHA256 with a shared secret.
    #[default]
    Symmetric,
    /// ed25519, `v1a` in Standard Webhooks.
    Ed25519,
}

/// A new key.
#[derive(Debug)]
pub struct NewKey {
    /// The secret in the notation of its scheme.
    pub secret: Secret,
    /// `whpk_...` if it is an ed25519 key.
    pub public: Option<String>,
}

/// Generates a key from 32 random bytes. For Standard Webhooks it is `whsec_...` or `whsk_...` (seed and public key, 64
/// bytes), for the other schemes 43 characters of base64url.
pub fn generate(scheme: SigningScheme, kind: KeyKind) -> Result<NewKey, Error> {
    let seed = Zeroizing::new(random_bytes::<32>());
    let text = match (scheme_of_signing(scheme).notation, kind) {
        (Notation::Prefixed, KeyKind::Symmetric) => format!("{SYMMETRIC_PREFIX}{}", BASE64_STANDARD.encode(*seed)),
        (Notation::Prefixed, KeyKind::Ed25519) => {
            let pair = Zeroizing::new(SigningKey::from_bytes(&seed).to_keypair_bytes());
            format!("{PRIVATE_PREFIX}{}", BASE64_STANDARD.encode(*pair))
        }
        (Notation::Text, KeyKind::Symmetric) => BASE64_URL_SAFE_NO_PAD.encode(*seed),
        (Notation::Text, KeyKind::Ed25519) => return Err(Error::KindOfScheme),
    };
    let secret = Secret::new(text);
    let public = public_key_of(scheme, &secret)?;
    Ok(NewKey { secret, public })
}

/// Validates a given secret. Returns `whpk_...` if it is an ed25519 key.
///
/// # Errors
/// The [`Error`] that describes the invalid part.
pub fn public_key_of(scheme: SigningScheme, secret: &Secret) -> Result<Option<String>, Error> {
    Ok(Key::parse(scheme_of_signing(scheme).notation, secret)?.public())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_are_valid() {
        use SigningScheme::{Hub, Logto, Standard, Wso2};
        for (scheme, kind, prefix) in [
            (Standard, KeyKind::Symmetric, "whsec_"),
            (Standard, KeyKind::Ed25519, "whsk_"),
            (Hub, KeyKind::Symmetric, ""),
            (Wso2, KeyKind::Symmetric, ""),
            (Logto, KeyKind::Symmetric, ""),
        ] {
            let key = generate(scheme, kind).unwrap();
            assert!(key.secret.expose().starts_with(prefix));
            assert_eq!(public_key_of(scheme, &key.secret).unwrap(), key.public);
            assert_eq!(key.public.is_some(), kind == KeyKind::Ed25519);
            assert_ne!(key.secret.expose(), generate(scheme, kind).unwrap().secret.expose());
            assert!(!format!("{key:?}").contains(key.secret.expose()));
        }
        assert!(matches!(generate(Hub, KeyKind::Ed25519), Err(Error::KindOfScheme)));
    }

    #[test]
    fn published_key_pair_matches() {
        const PUBLISHED: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
        let pair = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
        let public = public_key_of(SigningScheme::Standard, &Secret::new(pair.to_owned())).unwrap();
        assert_eq!(public.as_deref(), Some(PUBLISHED));
        let bytes = super::super::key::decode(&pair[5..]).unwrap();
        let seed = Secret::new(format!("whsk_{}", BASE64_STANDARD.encode(&bytes[..32])));
        assert_eq!(public_key_of(SigningScheme::Standard, &seed).unwrap().as_deref(), Some(PUBLISHED));
    }
}
