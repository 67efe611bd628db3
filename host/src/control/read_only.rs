//! Support for sending documents back as they were returned. Every document that GET returns may be sent unchanged with
//! PUT or PATCH: members that only the host sets are accepted and ignored, names and ids must match the path, and a
//! secret that is absent or [`REDACTED`] keeps its stored value, while `null` removes it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::IgnoredAny;
use setgate_domain::secret::Secret;

use super::Error;

/// Replaces a secret in responses.
pub const REDACTED: &str = "***";

/// A member that only the host sets. Accepted in requests and ignored.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOnly;

impl<'de> Deserialize<'de> for ReadOnly {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for ReadOnly {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ReadOnly".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"readOnly": true})
    }
}

/// Whether a secret is the placeholder for the stored one.
pub(super) fn is_redacted(secret: &Secret) -> bool {
    secret.expose() == REDACTED
}

/// Checks that the name or id in a document, if present, matches the path.
pub(super) fn check_name<T: PartialEq + std::fmt::Display>(
    field: &'static str,
    given: Option<&T>,
    path: &T,
) -> Result<(), Error> {
    match given.filter(|given| *given != path) {
        Some(other) => Err(Error::invalid(field, format!("`{other}` is not `{path}`, which the path names"))),
        None => Ok(()),
    }
}
