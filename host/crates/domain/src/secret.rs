//! Secrets at rest: text encrypted under the master key.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::id::{IssuerKeyId, SourceName, SubscriptionId, TenantId};

/// Replaces the value of a secret in responses and records.
pub const REDACTED: &str = "***";

/// An encrypted secret, as `v1.<base64url nonce and ciphertext>`. Decrypted only by `crypto`. Safe to store, but not
/// shown, because its length reveals the length of the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// A secret in plain text, to be held as briefly as possible. Zeroised on drop and never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a plain-text secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The plain text. Do not store, log or format it.
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

/// A secret in a document that replaces another one. An absent member retains the stored secret, and `null` removes it.
#[derive(Debug, Clone)]
pub enum SecretInput {
    /// [`REDACTED`], as shown in responses: retains the stored secret.
    Stored,
    /// A new secret.
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

/// Encryption context of a source's secrets. Ciphertexts cannot be decrypted in another context.
pub fn source_context(tenant: &TenantId, source: &SourceName) -> String {
    format!("source/{tenant}/{source}")
}

/// Encryption context of the secrets in a subscription's bindings.
pub fn binding_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("binding/{tenant}/{subscription}")
}

/// Encryption context of an endpoint's header values.
pub fn endpoint_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("endpoint/{tenant}/{subscription}")
}

/// Encryption context of the path and query of an endpoint's URL.
pub fn target_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("target/{tenant}/{subscription}")
}

/// Encryption context of a subscription's signing keys.
pub fn signing_context(tenant: &TenantId, subscription: &SubscriptionId) -> String {
    format!("{tenant}/{subscription}")
}

/// Encryption context of the private half of an issuer key.
pub fn issuer_key_context(tenant: &TenantId, kid: &IssuerKeyId) -> String {
    format!("issuer key/{tenant}/{kid}")
}
