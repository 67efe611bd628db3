//! Secrets at rest: text that only the master key opens.

use serde::{Deserialize, Serialize};

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
