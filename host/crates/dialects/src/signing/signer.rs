//! Signs attempts with the encrypted keys of a subscription.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use setgate_base::crypto::{self, MasterKey};
use setgate_domain::id::SigningKeyId;
use setgate_domain::secret::{Sealed, Secret};
use setgate_domain::subscription::{Signing, SigningKey, SigningScheme};
use setgate_domain::time::Timestamp;

use super::key::Key;
use super::{Error, active_keys};
use crate::dialect::scheme_of_signing;
use crate::scheme::{Headers, Message, Scheme};
use crate::webhook::ID;

/// Limit for the cache of decrypted keys. If it is reached, the cache is cleared.
const DECRYPTED_KEYS_MAX: usize = 4096;

/// Signs attempts, and encrypts and decrypts signing keys. The program has one instance.
///
/// `context` identifies the owner of the keys, a tenant and a subscription. A key that was encrypted for one owner
/// cannot be decrypted for another.
#[derive(Debug)]
pub struct Signer {
    master: Arc<MasterKey>,
    decrypted: Mutex<HashMap<(SigningKeyId, SecretPart), DecryptedKey>>,
}

/// Selects one of the secrets of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SecretPart {
    /// The key itself.
    Key,
    /// The secret that signs `v1` beside an ed25519 key.
    V1,
}

/// The signature of an attempt. Empty if it has none in its headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedHeaders {
    /// Headers, with names in lower case.
    pub headers: Headers,
    /// The keys that signed, with the current one first.
    pub keys: Vec<SigningKeyId>,
}

#[derive(Debug)]
struct DecryptedKey {
    // All inputs of the decryption. An entry is used only if all of them match.
    sealed: Sealed,
    context: String,
    scheme: SigningScheme,
    key: Arc<Key>,
}

impl Signer {
    /// A signer with the master key of the installation.
    pub fn new(master: Arc<MasterKey>) -> Self {
        Self { master, decrypted: Mutex::default() }
    }

    /// Signs one attempt at `now` over the exact bytes of `body`. If the scheme carries several signatures, every
    /// active key signs. `webhook-id` is the delivery id in every scheme.
    ///
    /// # Errors
    /// If no key is active or the id is invalid. If one of the keys cannot be decrypted, signing fails as a whole,
    /// because receivers that use this key would reject the attempt.
    pub fn sign(
        &self,
        signing: &Signing,
        context: &str,
        delivery_id: &str,
        now: Timestamp,
        body: &[u8],
    ) -> Result<SignedHeaders, Error> {
        let active = active_keys(signing, now);
        if active.is_empty() {
            return Err(Error::NoKey);
        }
        let mut keys = Vec::with_capacity(active.len());
        for key in &active {
            keys.push(self.decrypted(signing.scheme, context, key.id, SecretPart::Key, &key.secret)?);
            if let Some(v1) = &key.v1 {
                keys.push(self.decrypted(signing.scheme, context, key.id, SecretPart::V1, v1)?);
            }
        }
        let message = Message { id: delivery_id, now, body };
        let headers = headers(scheme_of_signing(signing.scheme), &keys, &message)?;
        Ok(SignedHeaders { headers, keys: active.iter().map(|key| key.id).collect() })
    }

    /// Encrypts a key's secret for the owner in `context`.
    pub fn seal_key(&self, context: &str, id: SigningKeyId, secret: &Secret) -> Sealed {
        self.master.seal(&encryption_context(context, id, SecretPart::Key), secret)
    }

    /// Encrypts the secret that signs `v1` beside an ed25519 key.
    pub fn seal_v1(&self, context: &str, id: SigningKeyId, secret: &Secret) -> Sealed {
        self.master.seal(&encryption_context(context, id, SecretPart::V1), secret)
    }

    /// Decrypts a secret from [`Signer::seal_key`], to configure the receiver.
    pub fn open_key(&self, context: &str, id: SigningKeyId, sealed: &Sealed) -> Result<Secret, Error> {
        self.open(context, id, SecretPart::Key, sealed)
    }

    /// Decrypts a secret from [`Signer::seal_v1`].
    pub fn open_v1(&self, context: &str, id: SigningKeyId, sealed: &Sealed) -> Result<Secret, Error> {
        self.open(context, id, SecretPart::V1, sealed)
    }

    fn open(&self, context: &str, id: SigningKeyId, part: SecretPart, sealed: &Sealed) -> Result<Secret, Error> {
        self.master
            .open(&encryption_context(context, id, part), sealed)
            .map_err(|source: crypto::Error| Error::Sealed { id, source })
    }

    /// The secrets that receivers verify with, without those that cannot be decrypted. For an ed25519 key the receiver
    /// has only the public half, so its private half is not included.
    pub fn symmetric_secrets(&self, context: &str, signing: &Signing) -> Vec<Secret> {
        let decrypted = |key: &SigningKey| match (&key.public, &key.v1) {
            (None, _) => self.open_key(context, key.id, &key.secret).ok(),
            (Some(_), Some(v1)) => self.open_v1(context, key.id, v1).ok(),
            (Some(_), None) => None,
        };
        signing.keys.iter().filter_map(decrypted).collect()
    }

    fn decrypted(
        &self,
        scheme: SigningScheme,
        context: &str,
        id: SigningKeyId,
        part: SecretPart,
        sealed: &Sealed,
    ) -> Result<Arc<Key>, Error> {
        // Entries are inserted atomically, so a poisoned lock is safe to use.
        let known = self.decrypted.lock().unwrap_or_else(PoisonError::into_inner).get(&(id, part)).and_then(|known| {
            let same = known.sealed == *sealed && known.context == context && known.scheme == scheme;
            same.then(|| Arc::clone(&known.key))
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let decrypted =
            Arc::new(Key::parse(scheme_of_signing(scheme).notation, &self.open(context, id, part, sealed)?)?);
        let entry =
            DecryptedKey { sealed: sealed.clone(), context: context.to_owned(), scheme, key: Arc::clone(&decrypted) };
        let mut all = self.decrypted.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DECRYPTED_KEYS_MAX {
            all.clear();
        }
        all.insert((id, part), entry);
        Ok(decrypted)
    }
}

/// The headers of a delivery. `keys` starts with the current key and is never empty. Each key is followed by its
/// additional `v1` key, if it has one.
pub(crate) fn headers(scheme: &Scheme, keys: &[Arc<Key>], message: &Message<'_>) -> Result<Headers, Error> {
    // If the id could contain a dot, bytes could be moved between id, timestamp and body under the same signature.
    if message.id.is_empty() || !message.id.bytes().all(|b| b.is_ascii_graphic() && b != b'.') {
        return Err(Error::DeliveryId);
    }
    let mut headers = (scheme.sign)(keys, message)?;
    if headers.iter().all(|(name, _)| *name != ID) {
        headers.insert(0, (ID, message.id.to_owned()));
    }
    Ok(headers)
}

fn encryption_context(context: &str, id: SigningKeyId, part: SecretPart) -> String {
    match part {
        SecretPart::Key => format!("signing/{context}/{id}"),
        SecretPart::V1 => format!("signing/{context}/{id}/v1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyKind, generate};
    use setgate_base::crypto::random_u128;

    const CONTEXT: &str = "acme/sub_1";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_500);

    struct Ring {
        signer: Signer,
        signing: Signing,
        secrets: Vec<Secret>,
    }

    /// A key for each given kind and expiry time, newest first.
    fn ring(scheme: SigningScheme, keys: &[(KeyKind, Option<Timestamp>)]) -> Ring {
        let signer = Signer::new(Arc::new(MasterKey::generate()));
        let mut signing = Signing { scheme, keys: Vec::new() };
        let mut secrets = Vec::new();
        for (kind, expires_at) in keys {
            let made = generate(scheme, *kind).unwrap();
            let id = SigningKeyId::new(NOW, random_u128());
            signing.keys.push(SigningKey {
                id,
                secret: signer.seal_key(CONTEXT, id, &made.secret),
                public: made.public,
                created_at: NOW,
                activates_at: None,
                expires_at: *expires_at,
                v1: None,
            });
            secrets.push(made.secret);
        }
        Ring { signer, signing, secrets }
    }

    fn header_map(signed: &SignedHeaders) -> http::HeaderMap {
        let pair =
            |(name, value): &(&'static str, String)| (http::HeaderName::from_static(name), value.parse().unwrap());
        signed.headers.iter().map(pair).collect()
    }

    /// Interoperability: the `standardwebhooks` crate verifies against the wall clock.
    #[test]
    fn reference_library_verifies_both_keys() {
        let now = setgate_base::clock::Clock::system().now();
        let later = Some(now.plus_millis(1000));
        let ring = ring(
            SigningScheme::Standard,
            &[(KeyKind::Symmetric, None), (KeyKind::Ed25519, later), (KeyKind::Symmetric, later)],
        );
        let signed = ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", now, BODY).unwrap();
        assert_eq!(signed.keys, ring.signing.keys.iter().map(|k| k.id).collect::<Vec<_>>());
        for at in [0, 2] {
            let library = standardwebhooks::Webhook::new(ring.secrets[at].expose()).unwrap();
            library.verify(BODY, &header_map(&signed)).unwrap();
            library.verify(b"{}", &header_map(&signed)).unwrap_err();
        }
        let other = generate(SigningScheme::Standard, KeyKind::Symmetric).unwrap();
        let library = standardwebhooks::Webhook::new(other.secret.expose()).unwrap();
        library.verify(BODY, &header_map(&signed)).unwrap_err();
    }

    #[test]
    fn public_key_verifies_v1a() {
        use ed25519_dalek::{Signature, VerifyingKey};
        let ring = ring(SigningScheme::Standard, &[(KeyKind::Ed25519, None)]);
        let signed = ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", NOW, BODY).unwrap();
        let public = ring.signing.keys[0].public.as_deref().unwrap().strip_prefix("whpk_").unwrap();
        let public: [u8; 32] = super::super::decode(public).unwrap().as_slice().try_into().unwrap();
        let entry = signed.headers[2].1.strip_prefix("v1a,").unwrap();
        let entry: [u8; 64] = super::super::decode(entry).unwrap().as_slice().try_into().unwrap();
        let bytes = [b"dlv_1.1790000000.", BODY].concat();
        VerifyingKey::from_bytes(&public).unwrap().verify_strict(&bytes, &Signature::from_bytes(&entry)).unwrap();
    }

    /// Interoperability: verifiers of `v1` and of `v1a` both accept the same header.
    #[test]
    fn ed25519_key_also_signs_v1_with_own_secret() {
        use ed25519_dalek::{Signature, VerifyingKey};
        let now = setgate_base::clock::Clock::system().now();
        let mut ring = ring(SigningScheme::Standard, &[(KeyKind::Ed25519, None)]);
        let v1 = generate(SigningScheme::Standard, KeyKind::Symmetric).unwrap().secret;
        let id = ring.signing.keys[0].id;
        ring.signing.keys[0].v1 = Some(ring.signer.seal_v1(CONTEXT, id, &v1));
        let signed = ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", now, BODY).unwrap();
        assert_eq!(signed.keys, [id]);
        let library = standardwebhooks::Webhook::new(v1.expose()).unwrap();
        library.verify(BODY, &header_map(&signed)).unwrap();
        library.verify(b"{}", &header_map(&signed)).unwrap_err();
        let (v1a, _) = signed.headers[2].1.split_once(' ').unwrap();
        let public = ring.signing.keys[0].public.as_deref().unwrap().strip_prefix("whpk_").unwrap();
        let public: [u8; 32] = super::super::decode(public).unwrap().as_slice().try_into().unwrap();
        let entry = super::super::decode(v1a.strip_prefix("v1a,").unwrap()).unwrap();
        let bytes = [format!("dlv_1.{}.", now.as_seconds()).as_bytes(), BODY].concat();
        let signature = Signature::from_slice(&entry).unwrap();
        VerifyingKey::from_bytes(&public).unwrap().verify_strict(&bytes, &signature).unwrap();
        let known = ring.signer.symmetric_secrets(CONTEXT, &ring.signing);
        assert_eq!(
            known.iter().map(Secret::expose).collect::<Vec<_>>(),
            [v1.expose()],
            "there is no private key among them"
        );
        // A secret at the position of the other one cannot be decrypted.
        assert!(ring.signer.open_key(CONTEXT, id, ring.signing.keys[0].v1.as_ref().unwrap()).is_err());
    }

    #[test]
    fn ambiguous_delivery_ids_are_refused() {
        let keys = [Arc::new(Key::Symmetric(b"It's a Secret to Everybody".to_vec().into()))];
        for scheme in crate::schemes() {
            for bad in ["", "a.b", "a b", "a\r\nb: c", "ä"] {
                let signed = headers(scheme, &keys, &Message { id: bad, now: NOW, body: b"" });
                assert!(matches!(signed, Err(Error::DeliveryId)), "{bad:?}");
            }
        }
    }

    #[test]
    fn expired_key_does_not_sign() {
        let soon = Some(NOW.plus_millis(1));
        let ring = ring(SigningScheme::Standard, &[(KeyKind::Symmetric, None), (KeyKind::Symmetric, soon)]);
        let during = ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", NOW, BODY).unwrap();
        let after = ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", NOW.plus_millis(1), BODY).unwrap();
        assert_eq!((during.keys.len(), after.keys.len()), (2, 1));
        assert_eq!(during.headers[2].1.split(' ').next(), Some(after.headers[2].1.as_str()));
        let none = Signing { scheme: SigningScheme::Standard, keys: Vec::new() };
        assert!(matches!(ring.signer.sign(&none, CONTEXT, "dlv_1", NOW, BODY), Err(Error::NoKey)));
    }

    #[test]
    fn key_decrypts_only_for_its_owner() {
        let ring = ring(SigningScheme::Logto, &[(KeyKind::Symmetric, None)]);
        ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", NOW, BODY).unwrap();
        let stolen = ring.signer.sign(&ring.signing, "evil/sub_2", "dlv_1", NOW, BODY);
        assert!(matches!(stolen, Err(Error::Sealed { .. })));
        // A replaced secret with the same id is not taken from the cache.
        let mut changed = ring.signing.clone();
        let id = changed.keys[0].id;
        let other = Secret::new("another secret".to_owned());
        changed.keys[0].secret = ring.signer.seal_key(CONTEXT, id, &other);
        let first = ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", NOW, BODY).unwrap();
        let second = ring.signer.sign(&changed, CONTEXT, "dlv_1", NOW, BODY).unwrap();
        assert_ne!(first.headers, second.headers);
        assert_eq!(ring.signer.open_key(CONTEXT, id, &changed.keys[0].secret).unwrap().expose(), "another secret");
    }

    #[test]
    fn debug_output_hides_key() {
        let ring = ring(SigningScheme::Wso2, &[(KeyKind::Symmetric, None)]);
        ring.signer.sign(&ring.signing, CONTEXT, "dlv_1", NOW, BODY).unwrap();
        let printed = format!("{:?} {:?}", ring.signer, ring.signing);
        assert!(!printed.contains(ring.secrets[0].expose()), "{printed}");
        assert!(!printed.contains(&ring.signing.keys[0].secret.0), "{printed}");
    }
}
