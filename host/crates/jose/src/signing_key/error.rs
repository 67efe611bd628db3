//! Why a private key is not usable.

use setgate_domain::algorithm::Algorithm;
use setgate_domain::json::JsonError;

use crate::limits::PRIVATE_KEY_BYTES_MAX;
use crate::skip_reason::SkipReason;

/// Why a private key cannot be made, imported or used. Never contains key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is too long.
    #[error(
        "the key is {bytes} bytes long: {PRIVATE_KEY_BYTES_MAX} are allowed, send one private key and nothing else"
    )]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// No PEM block that could be a key.
    #[error(
        "the PEM text has no block `-----BEGIN PRIVATE KEY-----`: send the whole file, with its first and last line"
    )]
    NoPemBlock,
    /// The content of the PEM block is not base64, or its end is missing.
    #[error("the PEM block `{label}` is damaged: send the whole file, with its line breaks and its last line")]
    DamagedPem {
        /// Label of the block.
        label: String,
    },
    /// The PEM block is encrypted with a passphrase.
    #[error(
        "the PEM block `{label}` is encrypted: remove the passphrase, with `openssl pkcs8 -topk8 -nocrypt -in FILE`"
    )]
    Encrypted {
        /// Label of the block.
        label: String,
    },
    /// The PEM block is not a private key.
    #[error(
        "the PEM block is a `{label}`: send `PRIVATE KEY` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC 1)"
    )]
    NotAPrivateKey {
        /// Label of the block, truncated.
        label: String,
    },
    /// The JWK is not usable JSON.
    #[error("the JWK: {0}")]
    Json(JsonError),
    /// The JWK is JSON, but not an object.
    #[error("the JWK is not a JSON object (RFC 7517 section 4)")]
    NotAnObject,
    /// The JWK has only public members.
    #[error("the JWK has no private half (`d`): a public key cannot sign")]
    NoPrivateHalf,
    /// Another member of the JWK is missing, not base64url, or out of range.
    #[error("`{member}` of the JWK is missing, not base64url without padding, or of the wrong length")]
    Member {
        /// Name of the member.
        member: &'static str,
    },
    /// The modulus of an RSA JWK has a length that `ring` does not sign with.
    #[error("the RSA key has {bits} bits: 2048, 3072 and 4096 are supported to sign with")]
    RsaBits {
        /// Its length in bits, rounded up to bytes.
        bits: usize,
    },
    /// The JWK has more than two primes.
    #[error("the RSA key has more than two primes (`oth`), which is not supported: make a key with two")]
    MultiPrime,
    /// The members of an RSA JWK contradict each other.
    #[error("the members of the RSA key contradict each other (`n`, `e`, `d`, `p`, `q`): export the key again")]
    RsaMembers,
    /// The public half could not be published.
    #[error("{0}")]
    Public(SkipReason),
    /// `ring` refused the key.
    #[error("the key cannot sign with {algorithm}: {}", advice(reason))]
    Rejected {
        /// The algorithm.
        algorithm: Algorithm,
        /// The reason as `ring` names it, such as `WrongAlgorithm`.
        reason: String,
    },
    /// The operating system has no random numbers.
    #[error("the operating system returned no random numbers: try again, and check the system if it persists")]
    Random,
    /// The signature could not be made.
    #[error("the signature could not be made: the operating system returned no random numbers, or the key is damaged")]
    Signing,
}

impl KeyError {
    pub(crate) fn rejected(algorithm: Algorithm, reason: &str) -> Self {
        Self::Rejected { algorithm, reason: reason.to_owned() }
    }
}

/// Reasons of `ring` in other words. It names them by what `KeyRejected` displays.
fn advice(reason: &str) -> &str {
    match reason {
        "WrongAlgorithm" => {
            "it is of another type. RS256 and PS256 need RSA (`rsaEncryption`), ES256 needs P-256, EdDSA needs Ed25519"
        }
        "TooSmall" => "it is too short, or its RSA exponent is below 65537. Use RSA with 2048, 3072 or 4096 bits",
        "TooLarge" => "it is too long. Use RSA with 2048, 3072 or 4096 bits",
        "PrivateModulusLenNotMultipleOf512Bits" => "its length is unusual. Use RSA with 2048, 3072 or 4096 bits",
        "PublicKeyIsMissing" | "VersionNotSupported" => {
            "it has an unusual form. Convert it with `openssl pkcs8 -topk8 -nocrypt -in FILE`"
        }
        "InconsistentComponents" => "its private and public half do not belong together",
        "InvalidEncoding" | "InvalidComponent" => "it is damaged, or not in PKCS#8",
        other => other,
    }
}
