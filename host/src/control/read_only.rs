//! Documents that are sent back as they were shown. Every document that a GET shows may be PUT or PATCHed as it is:
//! members that only the host sets are accepted and ignored, names and ids have to be those of the path, and a secret that
//! is absent or shown as [`REDACTED`] keeps its stored value, while `null` removes it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use crate::domain::secret::Secret;

/// Shown in the place of a secret.
pub const REDACTED: &str = "***";

/// A member that only the host sets: accepted, and ignored.
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

/// Whether a secret is the one that is stored, as it is shown.
pub(super) fn is_redacted(secret: &Secret) -> bool {
    secret.expose() == REDACTED
}

/// A name or id of the document is that of the path, if it is there at all.
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
