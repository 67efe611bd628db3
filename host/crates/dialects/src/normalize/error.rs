//! Errors for refused bodies.

use setgate_domain::json::JsonError;
use setgate_domain::set::SetError;

/// Why a body is refused, with the place and the remedy. All of these are permanent: a retry of the same body fails
/// again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NormalizeError {
    /// The media type is not supported.
    #[error("the content type `{given}` is not supported: {hint} (application/json, or application/*+json, in UTF-8)")]
    UnsupportedMediaType {
        /// The given value, cut to 120 characters.
        given: String,
        /// The remedy.
        hint: String,
    },
    /// The body is not valid JSON, or not an object.
    #[error("the body cannot be read: {0}")]
    Json(#[from] JsonError),
    /// A member that the form requires is missing.
    #[error("`{claim}` is missing: {hint}")]
    MissingClaim {
        /// The name of the member.
        claim: String,
        /// The expected content of the member.
        hint: &'static str,
    },
    /// A member has an invalid type or value.
    #[error("{why}")]
    BadClaim {
        /// The name of the member.
        claim: String,
        /// The problem and its remedy, as a sentence.
        why: String,
    },
    /// The body has a different form from the one configured for its source.
    #[error(
        "this looks like {looks_like}; the source `{source_name}` is configured as {configured}, which expects {expected}: {advice}"
    )]
    WrongForm {
        /// The source.
        source_name: String,
        /// The configured form.
        configured: &'static str,
        /// Describes bodies of the configured form.
        expected: &'static str,
        /// Describes the detected form.
        looks_like: &'static str,
        /// The remedy.
        advice: &'static str,
    },
    /// The source's `issuers_allowed` does not contain `iss`.
    #[error(
        "`iss` is `{issuer}`, which the source `{source_name}` does not accept: add it to the source's `issuers_allowed`, or send from an issuer that is there"
    )]
    IssuerNotAllowed {
        /// The given issuer, cut to 120 characters.
        issuer: String,
        /// The source.
        source_name: String,
    },
}

impl NormalizeError {
    /// A stable code for each kind, for problem details and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedMediaType { .. } => "unsupported_media_type",
            Self::Json(fault) => match fault {
                JsonError::NotUtf8 { .. } => "not_utf8",
                JsonError::Malformed { .. } => "malformed_json",
                JsonError::LoneSurrogate { .. } => "lone_surrogate",
                JsonError::DuplicateKey { .. } => "duplicate_key",
                JsonError::TooDeep { .. } => "too_deep",
                JsonError::TooLarge { .. } => "too_large",
                JsonError::NotAnObject => "not_an_object",
            },
            Self::MissingClaim { .. } => "missing_claim",
            Self::BadClaim { .. } => "bad_claim",
            Self::WrongForm { .. } => "wrong_form",
            Self::IssuerNotAllowed { .. } => "issuer_not_allowed",
        }
    }

    /// The offending member, if the error concerns a single one.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::MissingClaim { claim, .. } | Self::BadClaim { claim, .. } => Some(claim),
            Self::IssuerNotAllowed { .. } => Some("iss"),
            _ => None,
        }
    }
}

impl From<SetError> for NormalizeError {
    fn from(fault: SetError) -> Self {
        match fault {
            SetError::Json(fault) => Self::Json(fault),
            SetError::Missing { claim } => Self::MissingClaim {
                claim: claim.to_owned(),
                hint: "a SET has iss, iat, jti and events (RFC 8417 section 2.2)",
            },
            fault @ SetError::EventNotAUri { .. } => Self::BadClaim {
                claim: "events".to_owned(),
                why: format!("{fault}; if its sender names events so, set the source's `allow_plain_event_names`"),
            },
            fault => Self::BadClaim { claim: fault.claim().unwrap_or_default().to_owned(), why: fault.to_string() },
        }
    }
}

/// Limit for the part of a rejected value that is repeated in an error, in characters.
const GIVEN_CHARS_MAX: usize = 120;

/// Shortens a rejected value for an error message and replaces control characters with spaces.
pub(crate) fn cut(given: &str) -> String {
    given.chars().take(GIVEN_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
