//! Security event tokens (RFC 8417) as claims in JSON text.
//!
//! The text is kept, not a tree: member order and number text survive everything that nobody touches.

use serde::{Deserialize, Serialize};

/// A valid SET: claims as JSON text, with the few facts that every stage asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetToken {
    /// The claims as JSON text.
    pub text: String,
    /// `iss`.
    pub issuer: String,
    /// `jti`.
    pub jti: String,
    /// `iat`, whole seconds since the epoch.
    pub issued_at: i64,
    /// The member names of `events`, in their order; at least one.
    pub types: Vec<String>,
}
