//! Why a token cannot be read.

use setgate_domain::json::JsonError;

/// Why a token cannot be read. Never contains the text of the token, except for a short `alg`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three parts.
    #[error(
        "the token has {parts} parts separated by dots: a signed token has three, header, payload and signature, in \
         compact form (RFC 7515 section 7.1)"
    )]
    Parts {
        /// Number of parts, at most 6.
        parts: usize,
    },
    /// Five parts: a JWE (RFC 7516).
    #[error("the token is encrypted (five parts, RFC 7516): send it signed and not encrypted")]
    Encrypted,
    /// A part is empty.
    #[error("the token's {part} is empty: send header, payload and signature")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// A part is too long.
    #[error("the token's {part} is {bytes} bytes long: {limit} are allowed")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Length in bytes.
        bytes: usize,
        /// Maximum length in bytes.
        limit: usize,
    },
    /// A part is not base64url.
    #[error(
        "the token's {part} is not base64url without padding (RFC 7515 section 2): remove `=`, line breaks and white \
         space, and use `-` and `_`"
    )]
    Encoding {
        /// Which part.
        part: &'static str,
    },
    /// The header is JSON, but not an object.
    #[error("the token's header is not a JSON object (RFC 7515 section 4)")]
    NotAnObject,
    /// The header is not JSON, is nested too deeply, or has a duplicate member.
    #[error("the token's header: {0}")]
    Header(JsonError),
    /// A member of the header has the wrong type.
    #[error("`{member}` in the token's header is not a string")]
    NotAString {
        /// Name of the member.
        member: &'static str,
    },
    /// The header has no `alg`.
    #[error("the token's header has no `alg`: name the algorithm of the signature")]
    NoAlgorithm,
    /// `alg` is `none`.
    #[error("the token is not signed (`alg` is `none`): sign it with RS256, PS256, ES256 or EdDSA")]
    Unsigned,
    /// `alg` is an HMAC algorithm. With a published key as secret, everyone could sign (RFC 8725 section 2.1).
    #[error(
        "the token has the HMAC algorithm `{alg}`, which needs a shared secret: sign it with a private key by RS256, \
         PS256, ES256 or EdDSA"
    )]
    Mac {
        /// The algorithm.
        alg: String,
    },
    /// `alg` is another algorithm.
    #[error("the token's algorithm `{alg}` is not supported: sign it with RS256, PS256, ES256 or EdDSA")]
    UnsupportedAlgorithm {
        /// The algorithm, truncated.
        alg: String,
    },
    /// The header has `crit`.
    #[error(
        "the token's header has `crit`, which demands an extension (RFC 7515 section 4.1.11): none is supported, send \
         the token without it"
    )]
    Critical,
    /// The header has `b64` with another value than `true`.
    #[error("the token's header has `b64`, for a payload without base64url (RFC 7797): send the token without it")]
    UnencodedPayload,
}
