//! Signed tokens: the part of JOSE that security event tokens need.
//!
//! - [`Jws`]: a JSON Web Signature in compact form (RFC 7515 section 7.1), parsed and verified.
//! - [`JwkSet`], [`PublicJwk`]: public keys (RFC 7517), read from an issuer or published as our own.
//! - [`SigningKey`]: a private key, generated or imported, that signs.
//!
//! Four algorithms: RS256, PS256, ES256 (RFC 7518) and EdDSA with Ed25519 (RFC 8037). Cryptography is `ring`. The
//! crate `rsa` makes RSA keys and converts them, which `ring` cannot; it never signs or verifies.
//!
//! # What is refused, and why
//!
//! The rules are those of RFC 8725. The algorithm of a token must be in the caller's list and fit the key. `none` and
//! HMAC algorithms are refused when the token is parsed, so a public key can never serve as a shared secret. Keys in a
//! token's own header (`jwk`, `jku`, `x5c`, `x5u`) are ignored. Any `crit` is refused, since no extension is supported.
//! Objects with duplicate member names are refused. Base64url is strict: no padding, no white space, and no unused bits
//! that are set, so there is one spelling of each token.
//!
//! Input comes from strangers. All of it is bounded by the constants of [`limits`], and verification tries at most
//! [`limits::KEYS_MAX`] keys.
//!
//! There is no I/O here and no clock: claims such as `iss`, `aud` and `iat` are for the caller to check.

mod algorithm;
mod base64url;
mod header;
mod jwk;
mod jwk_set;
mod jws;
mod jws_error;
pub mod limits;
mod material;
mod shown;
mod signing_key;
mod skip_reason;
#[cfg(test)]
mod tests;
mod verify;

pub use algorithm::HeaderAlgorithm;
pub use header::Header;
pub use jwk::PublicJwk;
pub use jwk_set::{JwkSet, JwkSetError, SkippedKey};
pub use jws::Jws;
pub use jws_error::JwsError;
pub use setgate_domain::algorithm::{Algorithm, UnknownAlgorithm};
pub use signing_key::{KeyError, SigningKey};
pub use skip_reason::SkipReason;
pub use verify::VerifyError;
