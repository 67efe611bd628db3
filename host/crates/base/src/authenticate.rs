//! Authentication by API key. Ingest and management both use it; each maps a refusal to its own response.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use setgate_domain::id::KeyId;
use setgate_domain::tenant::ApiKey;
use setgate_domain::time::Timestamp;

use crate::crypto::{constant_time_eq, sha256};

/// Why a key was refused. An unknown key and a wrong secret share one error, so that ids cannot be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no bearer token.
    #[error("send an API key of this host as `Authorization: Bearer sgk_...`; this request has none")]
    Missing,
    /// The key is malformed, unknown or was removed, or its secret is wrong.
    #[error("send an API key of this host as `Authorization: Bearer sgk_...`; this one is unknown or was removed")]
    Unknown,
    /// The key has expired.
    #[error("this key expired at {0}: use the key that replaced it, or create a new one")]
    Expired(Timestamp),
}

impl AuthError {
    /// Value of the label `reason` in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired(_) => "ended",
        }
    }
}

/// Finds the stored key whose id and secret are those of the bearer token `given`, unless it has expired at `now`.
/// `key_by_id` looks up a stored key.
///
/// Malformed and unknown keys take the same time as keys with a wrong secret, so that the response time does not reveal
/// whether an id exists.
pub fn authenticate<'k>(
    given: Option<&str>,
    key_by_id: impl FnOnce(&KeyId) -> Option<&'k ApiKey>,
    now: Timestamp,
) -> Result<&'k ApiKey, AuthError> {
    let given = given.ok_or(AuthError::Missing)?;
    let (id, secret) = ApiKey::parse(given).map_or((None, given), |(id, secret)| (Some(id), secret));
    let key = id.and_then(|id| key_by_id(&id));
    let stored_digest = key.map_or([0; 32], |key| key.secret.0);
    let is_same = constant_time_eq(&sha256(secret.as_bytes()), &stored_digest);
    let key = key.filter(|_| is_same).ok_or(AuthError::Unknown)?;
    match key.expired_at(now) {
        Some(expired_at) => Err(AuthError::Expired(expired_at)),
        None => Ok(key),
    }
}

/// The bearer token of a request (RFC 6750 section 2.1). `None` if `Authorization` is absent or has another scheme. The
/// scheme is case-insensitive.
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderValue;
    use setgate_domain::id::Digest;
    use setgate_domain::tenant::Scope;

    use super::*;

    const SECRET: &str = "kJ3v-a_secret-with-underscores";

    fn id(byte: u8) -> KeyId {
        KeyId::from_bytes([byte; 16])
    }

    fn key(id: KeyId, expires_at: Option<Timestamp>) -> ApiKey {
        ApiKey {
            id,
            tenant: None,
            label: None,
            scopes: [Scope::Operator].into(),
            secret: Digest(sha256(SECRET.as_bytes())),
            created_at: Timestamp::from_millis(0),
            expires_at,
        }
    }

    #[test]
    fn accepts_only_matching_id_and_secret() {
        let keys: BTreeMap<KeyId, ApiKey> = [(id(1), key(id(1), None)), (id(2), key(id(2), None))].into();
        let authenticated =
            |given: Option<&str>| authenticate(given, |id| keys.get(id), Timestamp::from_millis(1)).map(|key| key.id);
        assert_eq!(authenticated(Some(&ApiKey::format(id(1), SECRET))), Ok(id(1)));
        assert_eq!(authenticated(Some(&ApiKey::format(id(2), SECRET))), Ok(id(2)));
        assert_eq!(authenticated(None), Err(AuthError::Missing));
        for wrong in [
            ApiKey::format(id(1), "another"),
            ApiKey::format(id(1), ""),
            ApiKey::format(id(3), SECRET),
            SECRET.to_owned(),
            "sgk_".to_owned(),
            format!("sgk_nothing_{SECRET}"),
            ApiKey::format(id(1), SECRET).to_uppercase(),
        ] {
            assert_eq!(authenticated(Some(&wrong)), Err(AuthError::Unknown), "{wrong}");
        }
    }

    #[test]
    fn unknown_id_is_rejected() {
        // The digest that stands in for a missing key must not authenticate anything.
        let zeros = ApiKey { secret: Digest([0; 32]), ..key(id(1), None) };
        let given = ApiKey::format(id(1), SECRET);
        for stored in [None, Some(&zeros)] {
            let found = authenticate(Some(&given), |_| stored, Timestamp::from_millis(1)).map(|key| key.id);
            assert_eq!(found, Err(AuthError::Unknown));
        }
    }

    #[test]
    fn expired_key_is_reported_only_with_its_secret() {
        let ends = Timestamp::from_millis(100);
        let key = key(id(1), Some(ends));
        let at = |secret: &str, ms: i64| {
            let given = ApiKey::format(id(1), secret);
            authenticate(Some(&given), |_| Some(&key), Timestamp::from_millis(ms)).map(|key| key.id)
        };
        assert_eq!(at(SECRET, 99), Ok(id(1)));
        assert_eq!(at(SECRET, 100), Err(AuthError::Expired(ends)));
        assert_eq!(at("another", 100), Err(AuthError::Unknown), "a wrong secret must not reveal the expiry");
    }

    #[test]
    fn bearer_token_is_parsed_per_rfc_6750() {
        let token = |value: &'static [u8]| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())]);
            bearer_token(&headers).map(str::to_owned)
        };
        for accepted in ["Bearer abc", "bearer abc", "BEARER  abc ", "Bearer \tabc"] {
            assert_eq!(token(accepted.as_bytes()).as_deref(), Some("abc"), "{accepted:?}");
        }
        for refused in [&b"abc"[..], b"Bearer", b"Bearer ", b"Bearer   ", b"Basic abc", b"Bearerabc", b"Bearer \xff"] {
            assert_eq!(token(refused), None, "{refused:?}");
        }
        assert_eq!(bearer_token(&HeaderMap::new()), None);
    }
}
