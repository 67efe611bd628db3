//! Why a body is not taken.

use super::super::decode::CodingFault;
use crate::domain::json::JsonFault;
use crate::domain::set::SetFault;

/// Why a body is not taken: what, where, and what to do. Trying the same body again never helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The media type is none that is read.
    #[error("the content type `{given}` is not read here: {hint} (application/json, or application/*+json, in UTF-8)")]
    UnsupportedMediaType {
        /// What was given, cut to 120 characters.
        given: String,
        /// What to do.
        hint: String,
    },
    /// The body cannot be decoded as its coding says.
    #[error(transparent)]
    Coding(#[from] CodingFault),
    /// The body is no sound JSON, or not one object.
    #[error("the body cannot be read: {0}")]
    Json(#[from] JsonFault),
    /// A member that the form needs is missing.
    #[error("`{claim}` is missing: {hint}")]
    MissingClaim {
        /// Its name.
        claim: String,
        /// What it has to hold.
        hint: &'static str,
    },
    /// A member has another type or value than it may have.
    #[error("{why}")]
    BadClaim {
        /// Its name.
        claim: String,
        /// What is wrong with it and what to do, as a sentence.
        why: String,
    },
    /// The body has another form than its source is configured for.
    #[error(
        "this looks like {looks_like}; the source `{source_name}` is configured as {configured}, which expects {expected}: {advice}"
    )]
    WrongForm {
        /// The source.
        source_name: String,
        /// The form it is configured for.
        configured: &'static str,
        /// What a body of that form has.
        expected: &'static str,
        /// What the body looks like.
        looks_like: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// `iss` is none of those that the source takes.
    #[error(
        "`iss` is `{issuer}`, which the source `{source_name}` does not take: add it to the source's `issuers_allowed`, or send from an issuer that is there"
    )]
    IssuerNotAllowed {
        /// The issuer given, cut to 120 characters.
        issuer: String,
        /// The source.
        source_name: String,
    },
}

impl Refusal {
    /// A stable word per kind, for problem details and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedMediaType { .. } => "unsupported_media_type",
            Self::Coding(CodingFault::Broken { .. }) => "coding_broken",
            Self::Coding(CodingFault::TooLarge { .. }) => "body_too_large",
            Self::Json(fault) => match fault {
                JsonFault::NotUtf8 { .. } => "not_utf8",
                JsonFault::Malformed { .. } => "malformed_json",
                JsonFault::LoneSurrogate { .. } => "lone_surrogate",
                JsonFault::DuplicateKey { .. } => "duplicate_key",
                JsonFault::TooDeep { .. } => "too_deep",
                JsonFault::TooLarge { .. } => "too_large",
                JsonFault::NotAnObject => "not_an_object",
            },
            Self::MissingClaim { .. } => "missing_claim",
            Self::BadClaim { .. } => "bad_claim",
            Self::WrongForm { .. } => "wrong_form",
            Self::IssuerNotAllowed { .. } => "issuer_not_allowed",
        }
    }

    /// The member at fault, where there is one.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::MissingClaim { claim, .. } | Self::BadClaim { claim, .. } => Some(claim),
            Self::IssuerNotAllowed { .. } => Some("iss"),
            _ => None,
        }
    }
}

impl From<SetFault> for Refusal {
    fn from(fault: SetFault) -> Self {
        match fault {
            SetFault::Json(fault) => Self::Json(fault),
            SetFault::Missing { claim } => Self::MissingClaim {
                claim: claim.to_owned(),
                hint: "a SET has iss, iat, jti and events (RFC 8417 section 2.2)",
            },
            fault @ SetFault::EventNotAUri { .. } => Self::BadClaim {
                claim: "events".to_owned(),
                why: format!("{fault}; if its sender names events so, set the source's `allow_plain_event_names`"),
            },
            fault => Self::BadClaim { claim: fault.claim().unwrap_or_default().to_owned(), why: fault.to_string() },
        }
    }
}

/// Characters of what was given that a refusal repeats.
const GIVEN_CHARS_MAX: usize = 120;

/// What was given, short enough to be repeated and without control characters.
pub(super) fn cut(given: &str) -> String {
    given.chars().take(GIVEN_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
