//! Creation, rotation and activation of a subscription's signing keys.
//!
//! If the scheme's header carries several signatures, a new key signs immediately, and the previous one signs beside it
//! during the overlap. If the header carries a single signature, the new key is staged instead: it is created and
//! returned, and the current key keeps signing until the new one is activated or the overlap ends.

use std::borrow::Cow;
use std::sync::Arc;

use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_dialects::{Signer, active_keys, staged_key};
use setgate_domain::audit::{Actor, AuditAction};
use setgate_domain::id::{SigningKeyId, SubscriptionId, TenantId};
use setgate_domain::secret::{Secret, SecretInput, signing_context};
use setgate_domain::subscription::{Format, Signing, SigningKey, SigningScheme};
use setgate_domain::time::Timestamp;

use super::documents::Documents;
use super::shapes::RevealedKey;
use super::{OVERLAP_HOURS_MAX, RotateInput, SigningInput, SubscriptionInput, SubscriptionOnce};
use crate::control::Error;

/// Limit for the keys of one subscription.
pub const KEYS_MAX: usize = 8;
/// Default overlap in hours during which a rotated key keeps signing.
const OVERLAP_HOURS: u32 = 24;

/// The properties of a key to be created.
pub(super) struct Wanted<'a> {
    pub(super) scheme: SigningScheme,
    pub(super) secret: Option<&'a Secret>,
    pub(super) ed25519: bool,
    pub(super) with_v1: Option<bool>,
}

/// Creates, rotates and activates signing keys.
#[derive(Clone)]
pub struct SigningKeys {
    pub(in crate::control) documents: Documents,
    pub(in crate::control) signer: Arc<Signer>,
    pub(in crate::control) clock: Clock,
}

impl SigningKeys {
    /// Rotates the signing key.
    pub async fn rotate(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
        input: RotateInput,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        let hours = input.overlap_hours.unwrap_or(OVERLAP_HOURS);
        self.documents
            .change(tenant, id, expected, |_, subscription, now| {
                if hours > OVERLAP_HOURS_MAX {
                    return Err(Error::invalid("overlap_hours", format!("at most {OVERLAP_HOURS_MAX}")));
                }
                let signing = subscription.signing.as_mut().ok_or_else(no_keys)?;
                if let Some(staged) = staged_key(signing, now) {
                    let why = "POST .../activate-key or .../cancel-key first";
                    return Err(Error::Conflict(format!(
                        "the key {} is staged already and does not sign yet: {why}",
                        staged.id
                    )));
                }
                let newest = signing.keys.first();
                let is_ed25519 = newest.is_some_and(|key| key.public.is_some());
                let ed25519 = input.ed25519.unwrap_or(is_ed25519);
                // If `v1` was switched off, it stays off.
                let with_v1 =
                    input.with_v1.or_else(|| newest.filter(|_| ed25519 && is_ed25519).map(|key| key.v1.is_some()));
                let wanted = Wanted { scheme: signing.scheme, secret: input.secret.as_ref(), ed25519, with_v1 };
                let (key, made) = self.make(tenant, id, &wanted)?;
                let audit = actor.action("subscription.rotate_key").note(key.id.to_string());
                put_in_front(signing, key, now.plus_millis(i64::from(hours) * 3_600_000), now);
                Ok((audit, made))
            })
            .await
    }

    /// Activates the staged key now. The previous key stops signing.
    pub async fn activate(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        self.end_rotation(actor.action("subscription.activate_key"), tenant, id, expected, activate).await
    }

    /// Removes the staged key. The current key keeps signing.
    pub async fn cancel(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Option<u64>,
    ) -> Result<SubscriptionOnce, Error> {
        self.end_rotation(actor.action("subscription.cancel_key"), tenant, id, expected, cancel).await
    }

    async fn end_rotation(
        &self,
        audit: AuditAction,
        tenant: &TenantId,
        id: SubscriptionId,
        expected: Option<u64>,
        end: fn(&mut Signing, Timestamp) -> Option<SigningKeyId>,
    ) -> Result<SubscriptionOnce, Error> {
        self.documents
            .change(tenant, id, expected, |_, subscription, now| {
                let signing = subscription.signing.as_mut().ok_or_else(no_keys)?;
                let key = end(signing, now).ok_or_else(|| {
                    Error::Conflict(
                        "no key is staged: `rotate-key` stages one, if the scheme carries a single signature".into(),
                    )
                })?;
                Ok((audit.clone().note(key.to_string()), RevealedKey::default()))
            })
            .await
    }

    /// The keys of a new subscription, if it signs in headers.
    pub(super) fn create(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        given: Option<&SigningInput>,
    ) -> Result<(Option<Signing>, RevealedKey), Error> {
        let Some(given) = given else { return Ok((None, RevealedKey::default())) };
        let (key, made) = self.make(tenant, id, &given.wanted()?)?;
        Ok((Some(Signing { scheme: given.scheme, keys: vec![key] }), made))
    }

    /// The keys of a subscription after its replacement. They are retained unless another scheme or secret is given,
    /// which replaces all keys at once.
    pub(super) fn replace(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        given: Option<&SigningInput>,
        before: Option<&Signing>,
    ) -> Result<(Option<Signing>, RevealedKey), Error> {
        match (given, before) {
            (Some(given), Some(before)) => {
                let (signing, made) = self.replace_keys(tenant, id, given, before)?;
                Ok((Some(signing), made))
            }
            (given, _) => self.create(tenant, id, given),
        }
    }

    fn replace_keys(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        given: &SigningInput,
        before: &Signing,
    ) -> Result<(Signing, RevealedKey), Error> {
        let secret = given.new_secret();
        let is_new =
            given.scheme != before.scheme || secret.is_some_and(|secret| !self.is_known(tenant, id, before, secret));
        if is_new {
            let wanted = Wanted {
                scheme: given.scheme,
                secret,
                ed25519: given.ed25519.unwrap_or(false),
                with_v1: given.with_v1,
            };
            let (key, made) = self.make(tenant, id, &wanted)?;
            return Ok((Signing { scheme: given.scheme, keys: vec![key] }, made));
        }
        let mut signing = before.clone();
        let is_ed25519 = signing.keys.first().is_some_and(|key| key.public.is_some());
        if secret.is_none() && given.ed25519.is_some_and(|wanted| wanted != is_ed25519) {
            let why = "replacing keeps the keys, which are of the other kind: make one of this kind by `rotate-key`";
            return Err(Error::invalid("signing/ed25519", why));
        }
        let mut made = RevealedKey::default();
        match given.with_v1 {
            None => {}
            Some(_) if !is_ed25519 => return Err(only_ed25519()),
            Some(false) => signing.keys.iter_mut().for_each(|key| key.v1 = None),
            Some(true) => {
                if let Some(key) = signing.keys.first_mut().filter(|key| key.v1.is_none()) {
                    let (v1, shown) = self.make_v1(tenant, id, key.id)?;
                    key.v1 = Some(v1);
                    made.secret = Some(shown);
                }
            }
        }
        Ok((signing, made))
    }

    /// Whether a secret belongs to one of the keys.
    fn is_known(&self, tenant: &TenantId, id: SubscriptionId, signing: &Signing, secret: &Secret) -> bool {
        let context = signing_context(tenant, &id);
        let digest = |secret: &Secret| crypto::sha256(secret.expose().as_bytes());
        let opened = signing.keys.iter().filter_map(|key| self.signer.open_key(&context, key.id, &key.secret).ok());
        opened.into_iter().any(|key| crypto::constant_time_eq(&digest(&key), &digest(secret)))
    }

    /// A new key, and the parts of it that are returned once.
    pub(super) fn make(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        wanted: &Wanted<'_>,
    ) -> Result<(SigningKey, RevealedKey), Error> {
        let Wanted { scheme, secret: given, ed25519, with_v1 } = *wanted;
        let new = match given {
            Some(secret) => {
                let public =
                    setgate_dialects::public_key_of(scheme, secret).map_err(|e| Error::invalid("signing/secret", e))?;
                setgate_dialects::NewKey { secret: secret.clone(), public }
            }
            None => {
                let kind =
                    if ed25519 { setgate_dialects::KeyKind::Ed25519 } else { setgate_dialects::KeyKind::Symmetric };
                setgate_dialects::generate(scheme, kind).map_err(|e| Error::invalid("signing/ed25519", e))?
            }
        };
        let now = self.clock.now();
        let key_id = SigningKeyId::new(now, crypto::random_u128());
        let mut made = RevealedKey { public: new.public.clone(), ..RevealedKey::default() };
        let mut v1 = None;
        if new.public.is_some() {
            // Published verifiers support only `v1`.
            if with_v1.unwrap_or(true) {
                let (sealed, shown) = self.make_v1(tenant, id, key_id)?;
                (v1, made.secret) = (Some(sealed), Some(shown));
            }
        } else if with_v1.is_some() {
            return Err(only_ed25519());
        } else if given.is_none() {
            made.secret = Some(new.secret.expose().to_owned());
        }
        let key = SigningKey {
            id: key_id,
            secret: self.signer.seal_key(&signing_context(tenant, &id), key_id, &new.secret),
            public: new.public,
            created_at: now,
            activates_at: None,
            expires_at: None,
            v1,
        };
        Ok((key, made))
    }

    /// A secret that signs `v1` beside an ed25519 key: encrypted for storage, and in plain text for the response.
    fn make_v1(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        key: SigningKeyId,
    ) -> Result<(setgate_domain::secret::Sealed, String), Error> {
        let new = setgate_dialects::generate(SigningScheme::Standard, setgate_dialects::KeyKind::Symmetric);
        let secret = new.map_err(|error| Error::invalid("signing/with_v1", error))?.secret;
        let sealed = self.signer.seal_v1(&signing_context(tenant, &id), key, &secret);
        Ok((sealed, secret.expose().to_owned()))
    }
}

impl SigningInput {
    /// The secret in the request, unless it is the placeholder for the stored one.
    fn new_secret(&self) -> Option<&Secret> {
        match &self.secret {
            Some(SecretInput::New(secret)) => Some(secret),
            Some(SecretInput::Stored) | None => None,
        }
    }

    /// The properties of the first key of a new subscription.
    pub(super) fn wanted(&self) -> Result<Wanted<'_>, Error> {
        if matches!(self.secret, Some(SecretInput::Stored)) {
            return Err(Error::invalid(
                "signing/secret",
                "nothing is stored yet: give a secret, or leave it out to have one made",
            ));
        }
        let (scheme, secret) = (self.scheme, self.new_secret());
        Ok(Wanted { scheme, secret, ed25519: self.ed25519.unwrap_or(false), with_v1: self.with_v1 })
    }
}

/// The settings of the signature in headers. A signed SET needs none.
pub(super) fn of(input: &SubscriptionInput) -> Option<Cow<'_, SigningInput>> {
    match (&input.signing, input.format) {
        (Some(given), _) => Some(Cow::Borrowed(given)),
        (None, Format::SignedSet) => None,
        (None, Format::Set | Format::Original) => Some(Cow::Owned(SigningInput::default())),
    }
}

fn no_keys() -> Error {
    let why = "this subscription has no signing keys: its SETs are signed with the issuer keys of the tenant, see \
               .../issuer-keys";
    Error::Conflict(why.into())
}

fn only_ed25519() -> Error {
    Error::invalid(
        "signing/with_v1",
        "this is for ed25519 keys, which sign `v1a`; all others sign as their scheme says",
    )
}

/// Inserts a new key at `now`, with an overlap that ends at `ends`.
fn put_in_front(signing: &mut Signing, mut key: SigningKey, ends: Timestamp, now: Timestamp) {
    for old in &mut signing.keys {
        old.expires_at = Some(old.expires_at.map_or(ends, |at| at.min(ends)));
    }
    if !setgate_dialects::scheme_of_signing(signing.scheme).supports_multiple_signatures && now < ends {
        key.activates_at = Some(ends);
    }
    signing.keys.retain(|key| key.is_active(now));
    signing.keys.insert(0, key);
    signing.keys.truncate(KEYS_MAX);
}

/// Retains only the staged key and activates it.
fn activate(signing: &mut Signing, now: Timestamp) -> Option<SigningKeyId> {
    let id = staged_key(signing, now)?.id;
    signing.keys.retain(|key| key.id == id);
    signing.keys.iter_mut().for_each(|key| key.activates_at = None);
    Some(id)
}

/// Removes the staged key, and the expiry time that the rotation set on the current key.
fn cancel(signing: &mut Signing, now: Timestamp) -> Option<SigningKeyId> {
    let id = staged_key(signing, now)?.id;
    signing.keys.retain(|key| key.id != id);
    let current = active_keys(signing, now).first().map(|key| key.id);
    signing.keys.iter_mut().filter(|key| Some(key.id) == current).for_each(|key| key.expires_at = None);
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::secret::Sealed;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn key(n: u128) -> SigningKey {
        SigningKey {
            id: SigningKeyId::new(NOW, n),
            secret: Sealed(String::new()),
            public: None,
            created_at: NOW,
            activates_at: None,
            expires_at: None,
            v1: None,
        }
    }

    fn rotated(scheme: SigningScheme, overlap_ms: i64) -> Signing {
        let mut signing = Signing { scheme, keys: vec![key(1)] };
        put_in_front(&mut signing, key(2), NOW.plus_millis(overlap_ms), NOW);
        signing
    }

    fn signs(signing: &Signing, after_ms: i64) -> Vec<SigningKeyId> {
        active_keys(signing, NOW.plus_millis(after_ms)).iter().map(|key| key.id).collect()
    }

    #[test]
    fn a_rotation_is_staged_if_a_header_has_room_for_one_signature() {
        let (old, new) = (key(1).id, key(2).id);
        for scheme in [SigningScheme::Hub, SigningScheme::Wso2, SigningScheme::Logto] {
            let staged = rotated(scheme, 1_000);
            assert_eq!(
                (signs(&staged, 0), signs(&staged, 999), signs(&staged, 1_000)),
                (vec![old], vec![old], vec![new])
            );
            let at_once = rotated(scheme, 0);
            assert_eq!(
                (signs(&at_once, 0), at_once.keys.len()),
                (vec![new], 1),
                "without an overlap there is no stage"
            );
        }
        let beside = rotated(SigningScheme::Standard, 1_000);
        assert_eq!((signs(&beside, 0), signs(&beside, 1_000)), (vec![new, old], vec![new]));
    }

    #[test]
    fn a_staged_key_is_activated_or_cancelled_once() {
        let (old, new) = (key(1).id, key(2).id);
        let mut activated = rotated(SigningScheme::Hub, 1_000);
        assert_eq!(activate(&mut activated, NOW), Some(new));
        assert_eq!((signs(&activated, 0), activated.keys.len()), (vec![new], 1));
        assert_eq!((activate(&mut activated, NOW), cancel(&mut activated, NOW)), (None, None));

        let mut cancelled = rotated(SigningScheme::Hub, 1_000);
        assert_eq!(cancel(&mut cancelled, NOW), Some(new));
        assert_eq!((signs(&cancelled, 0), signs(&cancelled, 9_999)), (vec![old], vec![old]), "its end is gone");
        assert_eq!(activate(&mut rotated(SigningScheme::Hub, 1_000), NOW.plus_millis(1_000)), None, "it signs already");
    }
}
