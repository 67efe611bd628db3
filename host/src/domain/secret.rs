//! Secrets at rest: text that only the master key opens.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::id::{SourceName, SubscriptionId, TenantId};

/// Stands for the value of a secret in what is shown and recorded.
pub const REDACTED: &str = "***";

/// An encrypted secret, as `v1.<base64url nonce and ciphertext>`. Opened by `crypto` alone.
/// Safe to store; still not shown, since its length tells something.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// A secret in the clear, for as short as possible. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes hold of the text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. Do not keep, log or format it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "password",
            "writeOnly": true,
            "description": "A secret in the clear. It is stored encrypted and never shown.",
        })
    }
}

/// A secret in a document that takes the place of another one. A member that is absent keeps the stored secret too, and `null`
/// removes it.
#[derive(Debug, Clone)]
pub enum SecretInput {
    /// [`REDACTED`], as it is shown: the stored one stays.
    Stored,
    /// Another one.
    New(Secret),
}

impl<'de> Deserialize<'de> for SecretInput {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Secret::deserialize(deserializer)?;
        Ok(if given.expose() == REDACTED { Self::Stored } else { Self::New(given) })
    }
}

impl JsonSchema for SecretInput {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretInput".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "password",
            "description": "A secret in the clear, which is stored encrypted and never shown; or `***`, as it is shown, to keep \
                the stored one.",
        })
    }
}

/// What a source's secrets are bound to when they are encrypted: moved elsewhere, they do not open.
pub fn source_context(tenant: &TenantId, source: &SourceName) -> String {
    format!("source/{tenant}/{source}")
}

/// What the secrets of a subscription's bindings are bound to.
pub fn binding_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("binding/{tenant}/{subscription}")
}

/// What the values of an endpoint's headers are bound to.
pub fn endpoint_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("endpoint/{tenant}/{subscription}")
}

/// What the path and query of an endpoint's URL are bound to.
pub fn target_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("target/{tenant}/{subscription}")
}

/// What a subscription's signing keys are bound to.
pub fn signing_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("{tenant}/{subscription}")
}
