//! Why a public key is not used.

use setgate_domain::algorithm::Algorithm;

use crate::limits::{KID_BYTES_MAX, RSA_BITS_MAX, RSA_BITS_MIN};

/// Why a JWK cannot verify a signature here. In a JWKS such a key is skipped (RFC 7517 section 5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// An element of `keys`, or the text, is not a JSON object.
    #[error("not a JSON object")]
    NotAnObject,
    /// Another `kty`.
    #[error("the key type (`kty`) `{kty}` is not supported: RSA, EC and OKP are")]
    KeyType {
        /// The type, truncated.
        kty: String,
    },
    /// Another `crv`.
    #[error("the curve (`crv`) `{crv}` is not supported: P-256 and Ed25519 are")]
    Curve {
        /// The curve, truncated.
        crv: String,
    },
    /// A member is missing or has the wrong type.
    #[error("`{member}` is missing or not a string")]
    Member {
        /// Name of the member.
        member: &'static str,
    },
    /// A member is not base64url.
    #[error("`{member}` is not base64url without padding")]
    Encoding {
        /// Name of the member.
        member: &'static str,
    },
    /// A coordinate has the wrong length (RFC 7518 section 6.2.1.2, RFC 8037 section 2).
    #[error("`{member}` has {bytes} bytes, and must have 32")]
    Length {
        /// Name of the member.
        member: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The modulus is too short or too long.
    #[error("the RSA modulus (`n`) has {bits} bits: {RSA_BITS_MIN} to {RSA_BITS_MAX} are supported")]
    RsaBits {
        /// Its length in bits.
        bits: usize,
    },
    /// The exponent is not an odd number from 3 to 2^33 - 1, or the modulus is even.
    #[error("the RSA exponent (`e`) or modulus (`n`) is out of range: use 65537 and an odd modulus")]
    RsaRange,
    /// `use` is not `sig`.
    #[error("its `use` is `{key_use}`, and must be `sig`")]
    Use {
        /// The value, truncated.
        key_use: String,
    },
    /// `key_ops` does not contain `verify`.
    #[error("its `key_ops` has no `verify`")]
    KeyOps,
    /// `alg` is not a supported signature algorithm.
    #[error("its `alg` `{alg}` is not supported: RS256, PS256, ES256 and EdDSA are")]
    Algorithm {
        /// The value, truncated.
        alg: String,
    },
    /// `alg` does not fit the type of the key.
    #[error("its `alg` `{alg}` does not fit its key type")]
    AlgorithmMismatch {
        /// The algorithm.
        alg: Algorithm,
    },
    /// The private half is included, so others may have it.
    #[error(
        "it includes its private half (`d`), which is thereby disclosed: replace the key, and publish the public half"
    )]
    Private,
    /// `kid` is too long.
    #[error("its `kid` is longer than {KID_BYTES_MAX} bytes")]
    Kid,
}
