//! Selects the keys that sign at a given time.

use setgate_domain::subscription::{Signing, SigningKey};
use setgate_domain::time::Timestamp;

use crate::dialect::scheme_of_signing;

/// Limit for the keys that sign at the same time; older ones are left out. It bounds the header size and the work if
/// keys are rotated again before the previous overlap has ended.
pub const KEYS_ACTIVE_MAX: usize = 8;

/// The keys that sign at `now`, with the current one first. Empty if all have expired.
///
/// The current key is the newest one that is not staged and has not expired. Older keys sign beside it until they
/// expire. An older key without an expiry time was replaced without overlap and does not sign any more. If the scheme's
/// header carries a single signature, only the current key signs.
pub fn active_keys(signing: &Signing, now: Timestamp) -> Vec<&SigningKey> {
    let mut alive = signing.keys.iter().filter(|key| key.is_active(now));
    let Some(current) = alive.next() else { return Vec::new() };
    let mut keys = vec![current];
    if scheme_of_signing(signing.scheme).supports_multiple_signatures {
        keys.extend(alive.filter(|key| key.expires_at.is_some()).take(KEYS_ACTIVE_MAX - 1));
    }
    keys
}

/// The key that is staged at `now`. It signs once it is activated, or from its activation time.
pub fn staged_key(signing: &Signing, now: Timestamp) -> Option<&SigningKey> {
    signing.keys.iter().find(|key| key.is_staged(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::id::SigningKeyId;
    use setgate_domain::secret::Sealed;
    use setgate_domain::subscription::SigningScheme;

    fn ring(scheme: SigningScheme, expiries: &[Option<i64>]) -> Signing {
        let at = Timestamp::from_millis;
        let key = |(n, expires): (usize, &Option<i64>)| SigningKey {
            id: SigningKeyId::new(at(0), n as u128),
            secret: Sealed(String::new()),
            public: None,
            created_at: at(0),
            activates_at: None,
            expires_at: expires.map(at),
            v1: None,
        };
        Signing { scheme, keys: expiries.iter().enumerate().map(key).collect() }
    }

    #[track_caller]
    fn check(scheme: SigningScheme, expiries: &[Option<i64>], now: i64, expected: &[usize]) {
        let signing = ring(scheme, expiries);
        let active: Vec<usize> = active_keys(&signing, Timestamp::from_millis(now))
            .iter()
            .map(|key| signing.keys.iter().position(|k| k.id == key.id).unwrap())
            .collect();
        assert_eq!(active, expected);
    }

    #[test]
    fn old_keys_sign_until_they_expire() {
        use SigningScheme::Standard;
        check(Standard, &[None, Some(100)], 99, &[0, 1]);
        check(Standard, &[None, Some(100)], 100, &[0]);
        check(Standard, &[None, None], 0, &[0]);
        check(Standard, &[Some(50), None], 60, &[1]);
        check(Standard, &[Some(50)], 50, &[]);
        check(Standard, &[], 0, &[]);
        let many = [[None].as_slice(), &[Some(100); 20]].concat();
        check(Standard, &many, 0, &[0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn single_signature_scheme_uses_current_key() {
        for scheme in [SigningScheme::Hub, SigningScheme::Wso2, SigningScheme::Logto] {
            check(scheme, &[None, Some(100)], 0, &[0]);
        }
    }

    #[test]
    fn staged_key_becomes_current_at_its_activation_time() {
        for scheme in [SigningScheme::Hub, SigningScheme::Wso2, SigningScheme::Logto, SigningScheme::Standard] {
            let mut signing = ring(scheme, &[None, Some(100)]);
            signing.keys[0].activates_at = Some(Timestamp::from_millis(100));
            let active = |now| {
                let keys = active_keys(&signing, Timestamp::from_millis(now));
                keys.iter().map(|key| key.id == signing.keys[0].id).collect::<Vec<_>>()
            };
            assert_eq!((active(0), active(99), active(100)), (vec![false], vec![false], vec![true]), "{scheme:?}");
            let staged = |now| staged_key(&signing, Timestamp::from_millis(now)).map(|key| key.id);
            assert_eq!((staged(99), staged(100)), (Some(signing.keys[0].id), None));
        }
    }
}
