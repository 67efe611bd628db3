//! Issuer keys: the keys with which a tenant signs the SETs that it issues.
//!
//! A key is published in the tenant's JWKS as long as it exists. Its state follows from times alone, so no job has to
//! change it: it is `published` until its `signs_from`, `signing` until another key of the same algorithm signs, and
//! `retired` from then on. Receivers cache a JWKS, so a new key is published for [`KEY_PUBLISHED_S`] before it signs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::id::{IssuerKeyId, TenantId};
use super::secret::Sealed;
use super::time::Timestamp;

/// Seconds for which receivers may cache a JWKS (`max-age`).
pub const JWKS_MAX_AGE_S: i64 = 300;
/// Seconds for which a key is published before it signs, and for which it remains published after it stopped: twice the
/// time for which a JWKS is cached, because caches between host and receiver may add theirs.
pub const KEY_PUBLISHED_S: i64 = 2 * JWKS_MAX_AGE_S;
/// Seconds before its `signs_from` in which a key is no longer removed: a SET may be signed with it at any moment.
const ABOUT_TO_SIGN_S: i64 = 10;
/// Maximum number of issuer keys of a tenant, in any state.
pub const ISSUER_KEYS_MAX: usize = 16;

/// An issuer key of a tenant, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssuerKey {
    /// The tenant.
    pub tenant: TenantId,
    /// Thumbprint of the public key.
    pub kid: IssuerKeyId,
    /// The only algorithm that it signs with.
    pub algorithm: Algorithm,
    /// The public key as it is published: a JWK as JSON text.
    pub public_jwk: String,
    /// The private key, PKCS#8 in base64, encrypted.
    pub private: Sealed,
    /// Time of its creation or import.
    pub created_at: Timestamp,
    /// Time from which it signs, until another key of the same algorithm does.
    pub signs_from: Timestamp,
}

/// State of an issuer key at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "IssuerKeyState")]
pub enum KeyState {
    /// In the JWKS, and does not sign yet.
    Published,
    /// Signs all new SETs of its algorithm.
    Signing,
    /// In the JWKS, so that SETs that it signed can be verified; signs no more.
    Retired,
}

/// Why a key may not be removed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRemovable {
    /// It signs, or will within seconds.
    #[error(
        "it signs, or is about to: create or activate another key of its algorithm first, and remove this one when it is retired"
    )]
    Signing,
    /// It stopped signing a short time ago.
    #[error("it signed until a short time ago, and receivers may still verify what it signed: remove it after {until}")]
    Retired {
        /// Time from which it may be removed.
        until: Timestamp,
    },
}

impl IssuerKey {
    /// Orders the keys of an algorithm by the time from which they sign. The other members only break ties.
    fn turn(&self) -> (Timestamp, Timestamp, &IssuerKeyId) {
        (self.signs_from, self.created_at, &self.kid)
    }

    /// State among all keys of the tenant.
    pub fn state<'k>(&'k self, keys: impl IntoIterator<Item = &'k Self>, now: Timestamp) -> KeyState {
        if signing_key(keys, self.algorithm, now).is_some_and(|signing| signing.kid == self.kid) {
            KeyState::Signing
        } else if now < self.signs_from {
            KeyState::Published
        } else {
            KeyState::Retired
        }
    }

    /// The time at which another one of these keys takes over from this one. `None` if none will.
    pub fn retired_at<'k>(&self, keys: impl IntoIterator<Item = &'k Self>) -> Option<Timestamp> {
        let same = keys.into_iter().filter(|other| other.algorithm == self.algorithm);
        same.filter(|other| other.turn() > self.turn()).map(|other| other.signs_from).min()
    }

    /// Checks whether the key may be removed, as far as times tell. A retired key is needed longer if SETs that it
    /// signed are still stored, which only the ledger can check.
    pub fn check_removable<'k, K>(&'k self, keys: K, now: Timestamp) -> Result<(), NotRemovable>
    where
        K: IntoIterator<Item = &'k Self> + Clone,
    {
        match self.state(keys.clone(), now) {
            KeyState::Published if now.plus_millis(ABOUT_TO_SIGN_S * 1_000) < self.signs_from => Ok(()),
            KeyState::Published | KeyState::Signing => Err(NotRemovable::Signing),
            KeyState::Retired => {
                let until = self.retired_at(keys).map_or(now, |at| at.plus_millis(KEY_PUBLISHED_S * 1_000));
                if now < until { Err(NotRemovable::Retired { until }) } else { Ok(()) }
            }
        }
    }
}

/// The key that signs for an algorithm at a time: the one with the latest `signs_from` that has passed. If none has
/// passed, because the clock was set back, the earliest.
pub fn signing_key<'k>(
    keys: impl IntoIterator<Item = &'k IssuerKey>,
    algorithm: Algorithm,
    now: Timestamp,
) -> Option<&'k IssuerKey> {
    let same = keys.into_iter().filter(|key| key.algorithm == algorithm);
    same.reduce(|best, key| {
        let (later, earlier) = if key.turn() > best.turn() { (key, best) } else { (best, key) };
        if later.signs_from <= now { later } else { earlier }
    })
}

/// Time from which a new key signs: at once if it is the first of its algorithm, otherwise after it was published for
/// [`KEY_PUBLISHED_S`].
pub fn signs_from<'k>(
    keys: impl IntoIterator<Item = &'k IssuerKey>,
    algorithm: Algorithm,
    now: Timestamp,
) -> Timestamp {
    let is_first = keys.into_iter().all(|key| key.algorithm != algorithm);
    if is_first { now } else { now.plus_millis(KEY_PUBLISHED_S * 1_000) }
}

/// The path of an issuer below the host's public URL, and below it its JWKS. `number` counts the tenants of this name
/// that had an issuer, from 1 on.
pub fn issuer_path(tenant: &TenantId, number: u32) -> String {
    if number <= 1 { format!("/t/{tenant}") } else { format!("/t/{tenant}/{number}") }
}

/// The JWKS with these public keys.
pub fn jwks<'k>(public_jwks: impl IntoIterator<Item = &'k str>) -> String {
    let keys: Vec<&str> = public_jwks.into_iter().collect();
    format!("{{\"keys\":[{}]}}", keys.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn at(seconds: i64) -> Timestamp {
        START.plus_millis(seconds * 1_000)
    }

    fn key(name: char, algorithm: Algorithm, created_s: i64, signs_s: i64) -> IssuerKey {
        IssuerKey {
            tenant: "acme".parse().unwrap(),
            kid: name.to_string().repeat(43).parse().unwrap(),
            algorithm,
            public_jwk: "{}".to_owned(),
            private: Sealed("v1.x".to_owned()),
            created_at: at(created_s),
            signs_from: at(signs_s),
        }
    }

    fn signs(keys: &[IssuerKey], algorithm: Algorithm, now_s: i64) -> Option<char> {
        signing_key(keys, algorithm, at(now_s)).map(|key| key.kid.as_str().chars().next().unwrap())
    }

    fn states(keys: &[IssuerKey], now_s: i64) -> Vec<KeyState> {
        keys.iter().map(|key| key.state(keys, at(now_s))).collect()
    }

    #[test]
    fn keys_take_over_by_time() {
        use KeyState::{Published, Retired, Signing};
        let keys = [key('a', Algorithm::Rs256, 0, 0), key('b', Algorithm::Rs256, 100, 700)];
        for (now, signer, expected) in [
            (-1, Some('a'), [Signing, Published]),
            (0, Some('a'), [Signing, Published]),
            (699, Some('a'), [Signing, Published]),
            (700, Some('b'), [Retired, Signing]),
            (9_999, Some('b'), [Retired, Signing]),
        ] {
            assert_eq!((signs(&keys, Algorithm::Rs256, now), states(&keys, now)), (signer, expected.to_vec()), "{now}");
        }
        assert_eq!(keys[0].retired_at(&keys), Some(at(700)));
        assert_eq!(keys[1].retired_at(&keys), None);
    }

    #[test]
    fn algorithms_are_independent() {
        let keys = [key('a', Algorithm::Rs256, 0, 0), key('b', Algorithm::Es256, 50, 50)];
        assert_eq!(states(&keys, 100), [KeyState::Signing, KeyState::Signing]);
        assert_eq!(signs(&keys, Algorithm::Es256, 100), Some('b'));
        assert_eq!(signs(&keys, Algorithm::EdDsa, 100), None);
        assert_eq!(signs_from(&keys, Algorithm::EdDsa, at(100)), at(100), "the first of its algorithm");
        assert_eq!(signs_from(&keys, Algorithm::Es256, at(100)), at(100 + KEY_PUBLISHED_S));
    }

    /// Activating an older key again makes it sign again. Exactly one key signs at any time.
    #[test]
    fn exactly_one_key_signs_in_any_order_of_activation() {
        let mut keys = vec![
            key('a', Algorithm::EdDsa, 0, 0),
            key('b', Algorithm::EdDsa, 10, 610),
            key('c', Algorithm::EdDsa, 20, 20),
            key('d', Algorithm::EdDsa, 20, 20),
        ];
        let check = |keys: &[IssuerKey], now: i64, signer| {
            let signing = states(keys, now).iter().filter(|state| **state == KeyState::Signing).count();
            assert_eq!((signs(keys, Algorithm::EdDsa, now), signing), (Some(signer), 1), "{now}");
        };
        check(&keys, -5, 'a');
        check(&keys, 19, 'a');
        check(&keys, 20, 'd');
        check(&keys, 610, 'b');
        keys[0].signs_from = at(700);
        check(&keys, 699, 'b');
        check(&keys, 700, 'a');
    }

    #[test]
    fn key_is_removable_before_it_signs_and_some_time_after() {
        let keys = [
            key('a', Algorithm::Rs256, 0, 0),
            key('b', Algorithm::Rs256, 100, 700),
            key('c', Algorithm::Rs256, 200, 2_000),
        ];
        let check = |key: usize, now| keys[key].check_removable(keys.iter(), at(now));
        let until = |seconds| Err(NotRemovable::Retired { until: at(seconds) });
        assert_eq!(check(0, 699), Err(NotRemovable::Signing));
        assert_eq!(check(0, 700), until(700 + KEY_PUBLISHED_S));
        assert_eq!(check(0, 700 + KEY_PUBLISHED_S - 1), until(700 + KEY_PUBLISHED_S));
        assert_eq!(check(0, 700 + KEY_PUBLISHED_S), Ok(()));
        assert_eq!(check(1, 689), Ok(()), "nothing can be signed with it yet");
        assert_eq!(check(1, 690), Err(NotRemovable::Signing), "it signs in ten seconds");
        assert_eq!(check(1, 1_500), Err(NotRemovable::Signing));
        assert_eq!(check(2, 1_500), Ok(()));
        assert_eq!(check(2, 99_999), Err(NotRemovable::Signing), "there is no other");
    }

    #[test]
    fn path_and_jwks_of_an_issuer() {
        let tenant: TenantId = "acme".parse().unwrap();
        assert_eq!([1, 2, 17].map(|number| issuer_path(&tenant, number)), ["/t/acme", "/t/acme/2", "/t/acme/17"]);
        assert_eq!(jwks([]), "{\"keys\":[]}");
        assert_eq!(jwks(["{\"kid\":\"a\"}", "{}"]), "{\"keys\":[{\"kid\":\"a\"},{}]}");
    }
}
