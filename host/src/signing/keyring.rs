//! Which keys of a ring sign at a given time.

use crate::domain::subscription::{Signing, SigningKey, SigningScheme};
use crate::domain::time::Timestamp;

/// Keys that sign beside each other at the most; older ones are left out. Bounds the header and the work of a
/// rotation that is repeated before the last one has run out.
pub const KEYS_ACTIVE_MAX: usize = 8;

/// The keys that sign at `now`, the current one first. Empty: none does any more.
///
/// The current key is the newest that has not expired. Older keys sign beside it while they have an expiry that
/// lies ahead; one without was replaced without overlap and signs no more. Where the scheme's header carries a
/// single signature, the current key signs alone.
pub fn active_keys(signing: &Signing, now: Timestamp) -> Vec<&SigningKey> {
    let mut alive = signing.keys.iter().filter(|key| key.expires_at.is_none_or(|at| now < at));
    let Some(current) = alive.next() else { return Vec::new() };
    let mut keys = vec![current];
    if signing.scheme == SigningScheme::Standard {
        keys.extend(alive.filter(|key| key.expires_at.is_some()).take(KEYS_ACTIVE_MAX - 1));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::SigningKeyId;
    use crate::domain::secret::Sealed;

    fn ring(scheme: SigningScheme, expiries: &[Option<i64>]) -> Signing {
        let at = Timestamp::from_millis;
        let key = |(n, expires): (usize, &Option<i64>)| SigningKey {
            id: SigningKeyId::new(at(0), n as u128),
            secret: Sealed(String::new()),
            public: None,
            created_at: at(0),
            expires_at: expires.map(at),
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
    fn a_single_signature_is_the_current_keys() {
        for scheme in [SigningScheme::Hub, SigningScheme::Wso2, SigningScheme::Logto] {
            check(scheme, &[None, Some(100)], 0, &[0]);
        }
    }
}
