//! Encryption of secrets at rest.
//!
//! The format is `v1.` and base64url (no padding) of a random nonce of 24 bytes, followed by XChaCha20-Poly1305 of the
//! secret's text. The key is derived from the master key for this purpose only. The associated data are `v1.` and the
//! context, which identifies the owner, so an encrypted text that is copied to another tenant's row cannot be decrypted
//! there. A nonce of 24 bytes can be chosen at random for any number of secrets.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use setgate_domain::secret::{Sealed, Secret};

use super::{Error, random_bytes};

const PREFIX: &str = "v1.";
const NONCE_BYTES: usize = 24;

/// Encrypts and decrypts secrets. Zeroizes its key on drop.
pub(super) struct Sealing(XChaCha20Poly1305);

impl Sealing {
    /// Derivation label of the key.
    pub(super) const LABEL: &str = "sealing";

    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// See [`MasterKey::seal`](super::MasterKey::seal).
    pub(super) fn seal(&self, context: &str, secret: &Secret) -> Sealed {
        let nonce = random_bytes::<NONCE_BYTES>();
        let aad = associated(context);
        let sealed = self
            .0
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: secret.expose().as_bytes(), aad: &aad })
            .expect("a secret is far shorter than 256 GiB");
        Sealed(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())))
    }

    /// See [`MasterKey::open`](super::MasterKey::open).
    pub(super) fn open(&self, context: &str, sealed: &Sealed) -> Result<Secret, Error> {
        let body = sealed.0.strip_prefix(PREFIX).ok_or(Error::MalformedCiphertext)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_| Error::MalformedCiphertext)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES).ok_or(Error::MalformedCiphertext)?;
        let aad = associated(context);
        let opened = self
            .0
            .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: &aad })
            .map_err(|_| Error::DecryptionFailed)?;
        // Only text is ever encrypted, so other bytes cannot have a valid tag.
        String::from_utf8(opened).map(Secret::new).map_err(|_| Error::DecryptionFailed)
    }
}

fn associated(context: &str) -> Vec<u8> {
    [PREFIX.as_bytes(), context.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::MasterKey;
    use super::*;

    fn secret() -> Secret {
        Secret::new("whsec_not-to-be-seen".to_owned())
    }

    #[test]
    fn decrypts_only_with_same_context() {
        let key = MasterKey::generate();
        let sealed = key.seal("acme/sub_1", &secret());
        assert!(sealed.0.starts_with("v1."));
        assert_eq!(key.open("acme/sub_1", &sealed).unwrap().expose(), "whsec_not-to-be-seen");
        assert!(matches!(key.open("evil/sub_1", &sealed), Err(Error::DecryptionFailed)));
        assert!(matches!(MasterKey::generate().open("acme/sub_1", &sealed), Err(Error::DecryptionFailed)));
        assert_ne!(sealed, key.seal("acme/sub_1", &secret()), "a nonce is never used twice");
    }

    #[test]
    fn detects_every_changed_byte() {
        let key = MasterKey::generate();
        let sealed = key.seal("c", &secret());
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&sealed.0[3..]).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = Sealed(format!("v1.{}", BASE64_URL_SAFE_NO_PAD.encode(changed)));
            assert!(matches!(key.open("c", &changed), Err(Error::DecryptionFailed)), "byte {at}");
        }
    }

    #[test]
    fn refuses_malformed_ciphertext() {
        let key = MasterKey::generate();
        for bad in ["", "v1.", "v1.AAAA", "v2.AAAA", "v1.####", "plain"] {
            assert!(matches!(key.open("c", &Sealed(bad.to_owned())), Err(Error::MalformedCiphertext)), "{bad}");
        }
        let empty = key.seal("c", &Secret::new(String::new()));
        assert_eq!(key.open("c", &empty).unwrap().expose(), "");
    }
}
