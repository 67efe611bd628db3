//! Why a pushed SET was refused.

use setgate_dialects::normalize::SignedSetError;
use setgate_jose::{JwsError, VerifyError};

use super::key_sets::KeysUnavailable;
use crate::pipeline::refused::Refused;

/// An error code of RFC 8935 section 2.4, with the status 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    InvalidRequest,
    InvalidKey,
    InvalidIssuer,
    InvalidAudience,
    AuthenticationFailed,
}

impl ErrorCode {
    /// The codes that are sent.
    pub const ALL: [Self; 5] = [
        Self::InvalidRequest,
        Self::InvalidKey,
        Self::InvalidIssuer,
        Self::InvalidAudience,
        Self::AuthenticationFailed,
    ];

    /// The text of `err`, and a label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidKey => "invalid_key",
            Self::InvalidIssuer => "invalid_issuer",
            Self::InvalidAudience => "invalid_audience",
            Self::AuthenticationFailed => "authentication_failed",
        }
    }
}

/// Why a pushed SET was refused. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum PushRefused {
    /// The request or the token cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// The algorithm of the token is never accepted.
    #[error(transparent)]
    Algorithm(JwsError),
    /// There is no such source, or it accepts no signed SETs.
    #[error("there is no source with a `jws` proof at this path")]
    UnknownSource,
    /// The token is not signed with a key of the source.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// The header of the token has no `typ`.
    #[error(
        "the header of the token has no `typ` (SSF 1.0 section 4.1.1): send `secevent+jwt`, or set the source's \
         `compat.allow_missing_typ`"
    )]
    NoType,
    /// The `Authorization` header is missing or wrong.
    #[error("this source asks for an `Authorization` header, and the one of the request is missing or another one")]
    Authorization,
    /// The claims are refused.
    #[error(transparent)]
    Claims(#[from] SignedSetError),
    /// The keys of the source are not available now.
    #[error(transparent)]
    Keys(#[from] KeysUnavailable),
    /// A limit of the tenant or the host, or the ledger.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl PushRefused {
    /// The code of RFC 8935. `None` if the sender has to retry, and the status is not 400.
    pub fn error_code(&self) -> Option<ErrorCode> {
        Some(match self {
            Self::Malformed(_) | Self::NoType => ErrorCode::InvalidRequest,
            Self::Algorithm(_) | Self::UnknownSource | Self::Signature(_) => ErrorCode::InvalidKey,
            Self::Authorization => ErrorCode::AuthenticationFailed,
            Self::Claims(SignedSetError::Issuer(_)) => ErrorCode::InvalidIssuer,
            Self::Claims(SignedSetError::Audience(_)) => ErrorCode::InvalidAudience,
            Self::Claims(SignedSetError::Payload(_) | SignedSetError::Claims(_)) => ErrorCode::InvalidRequest,
            Self::Keys(_) | Self::Refused(_) => return None,
        })
    }

    /// A label for metrics.
    pub fn code(&self) -> &'static str {
        match (self.error_code(), self) {
            (Some(code), _) => code.as_str(),
            (None, Self::Refused(refused)) => refused.code(),
            (None, _) => "keys_unavailable",
        }
    }

    /// The reason as the sender gets it. It does not reveal whether the source exists, unless the token was signed with
    /// one of its keys, or the keys cannot be fetched.
    pub fn description(&self) -> String {
        match self {
            Self::UnknownSource | Self::Signature(_) => NO_KEY.to_owned(),
            other => other.to_string(),
        }
    }
}

const NO_KEY: &str = "the token is not signed with a key that is accepted here: the source does not exist or accepts no \
                      signed SETs, its JWKS lacks the key, its `algorithms` lack the algorithm, or the signature is wrong; \
                      check the path and the `kid` (the host's log and `setgate_ingest_total` have the exact reason)";

impl From<JwsError> for PushRefused {
    fn from(error: JwsError) -> Self {
        match error {
            JwsError::Unsigned | JwsError::Mac { .. } | JwsError::UnsupportedAlgorithm { .. } => Self::Algorithm(error),
            error => Self::Malformed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use setgate_jose::Jws;

    use super::*;

    #[test]
    fn unknown_source_and_wrong_signature_have_the_same_answer() {
        let of = |refused: PushRefused| (refused.error_code(), refused.description(), refused.code());
        let unknown = of(PushRefused::UnknownSource);
        assert_eq!(unknown.0, Some(ErrorCode::InvalidKey));
        for error in [VerifyError::BadSignature, VerifyError::UnknownKey { kid: "a".to_owned() }] {
            assert_eq!(of(error.into()), unknown);
        }
    }

    #[test]
    fn algorithms_are_a_matter_of_keys() {
        // {"alg":"none"}, {"alg":"HS256"}, {"alg":"ES512"}, {"alg":"RS256","crit":[]}
        for (header, code) in [
            ("eyJhbGciOiJub25lIn0", ErrorCode::InvalidKey),
            ("eyJhbGciOiJIUzI1NiJ9", ErrorCode::InvalidKey),
            ("eyJhbGciOiJFUzUxMiJ9", ErrorCode::InvalidKey),
            ("eyJhbGciOiJSUzI1NiIsImNyaXQiOltdfQ", ErrorCode::InvalidRequest),
        ] {
            let error = Jws::parse(format!("{header}.e30.c2ln").as_bytes()).unwrap_err();
            assert_eq!(PushRefused::from(error).error_code(), Some(code), "{header}");
        }
    }
}
