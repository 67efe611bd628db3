//! Verification of API keys.

use setgate_domain::tenant::ApiKey;

use super::{constant_time_eq, sha256};

/// The key, if `secret` is its secret half. Takes the same time if `key` is `None`, so that the response time does not
/// reveal whether an id exists.
pub fn opened_by<'k>(key: Option<&'k ApiKey>, secret: &str) -> Option<&'k ApiKey> {
    let kept = key.map_or([0; 32], |key| key.secret.0);
    let same = constant_time_eq(&sha256(secret.as_bytes()), &kept);
    key.filter(|_| same)
}
