//! Sets of public keys (RFC 7517 section 5).

use serde_json::value::RawValue;
use setgate_domain::json::{JsonError, JsonLimits, Object, check_object};

use crate::jwk::PublicJwk;
use crate::limits::{JSON_DEPTH_MAX, JWKS_BYTES_MAX, KEYS_MAX};
use crate::shown::shown;
use crate::skip_reason::SkipReason;

/// The public keys of an issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JwkSet {
    keys: Vec<PublicJwk>,
    skipped: Vec<SkippedKey>,
}

/// A key of a JWKS that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its `kid`, truncated and escaped, if it has one.
    pub kid: Option<String>,
    /// Why it is not used.
    pub reason: SkipReason,
}

/// Why a JWKS cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkSetError {
    /// Not JSON, too long, nested too deeply, or an object has a duplicate member.
    #[error("the JWKS: {0}")]
    Json(JsonError),
    /// Not an object with an array `keys`.
    #[error("the JWKS has no array `keys` (RFC 7517 section 5): expected {{\"keys\":[...]}}")]
    NoKeys,
    /// Too many keys.
    #[error("the JWKS has {keys} keys: {KEYS_MAX} are allowed")]
    TooManyKeys {
        /// Number of keys.
        keys: usize,
    },
}

impl JwkSet {
    /// Parses a JWKS. Keys that cannot verify signatures here are skipped, so that an issuer can publish keys for other
    /// purposes.
    ///
    /// # Errors
    /// [`JwkSetError`].
    pub fn parse(json: &[u8]) -> Result<Self, JwkSetError> {
        let limits = JsonLimits { depth_max: JSON_DEPTH_MAX, bytes_max: JWKS_BYTES_MAX };
        let object = check_object(json, limits).map_err(|error| match error {
            JsonError::NotAnObject => JwkSetError::NoKeys,
            error => JwkSetError::Json(error),
        })?;
        let keys = object.get("keys").ok_or(JwkSetError::NoKeys)?;
        let keys: Vec<&RawValue> = serde_json::from_str(keys).map_err(|_| JwkSetError::NoKeys)?;
        if keys.len() > KEYS_MAX {
            return Err(JwkSetError::TooManyKeys { keys: keys.len() });
        }
        let mut set = Self::default();
        for key in keys {
            set.add(key.get());
        }
        Ok(set)
    }

    /// A set of keys that are known to be usable, such as our own. Their number is not limited here.
    pub fn from_keys(keys: impl IntoIterator<Item = PublicJwk>) -> Self {
        Self { keys: keys.into_iter().collect(), skipped: Vec::new() }
    }

    /// The usable keys in their order.
    pub fn keys(&self) -> &[PublicJwk] {
        &self.keys
    }

    /// The keys that are not used.
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// The JWKS as JSON. Each key has the members of its type, `use`, and `kid` and `alg` if it has them.
    pub fn to_json(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(PublicJwk::to_json).collect();
        format!("{{\"keys\":[{}]}}", keys.join(","))
    }

    /// Bytes in memory, estimated, for the limit of a cache.
    pub fn bytes(&self) -> usize {
        let skipped = |key: &SkippedKey| size_of::<SkippedKey>() + key.kid.as_ref().map_or(0, String::capacity);
        let keys: usize = self.keys.iter().map(PublicJwk::bytes).sum();
        size_of::<Self>() + keys + self.skipped.iter().map(skipped).sum::<usize>()
    }

    fn add(&mut self, json: &str) {
        let Ok(object) = Object::parse(json) else {
            self.skipped.push(SkippedKey { kid: None, reason: SkipReason::NotAnObject });
            return;
        };
        match PublicJwk::from_object(&object) {
            Ok(key) => self.keys.push(key),
            Err(reason) => self.skipped.push(SkippedKey { kid: object.string("kid").map(|kid| shown(&kid)), reason }),
        }
    }
}
