//! Security event tokens (RFC 8417), as claims in JSON text.
//!
//! The claims are stored as text and not as a tree, so that unmodified parts keep their member order and the spelling
//! of numbers.
//!
//! Invariants of every [`SetToken`], so that its text need not be validated again: the text passed
//! [`check`](super::json::check) with at most the depth of [`JsonLimits::default`], or was composed of parts that did;
//! it has no surrounding white space; and it is a SET according to [`SetToken::parse`], with the other fields as parsed
//! there. Other code that constructs one (the ledger, a reproduction) restores stored fields of an existing one.

mod apply;
mod reissue;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{JsonError, JsonLimits, Object, check_object_and, is_space, quote, write_object};

pub use apply::{Applied, SEALED_CLAIMS, apply};
pub use reissue::{Reissue, reissue};

/// Maximum length of a `jti` in characters. RFC 7519 specifies no limit, but `jti` is a key in the ledger.
pub const JTI_CHARS_MAX: usize = 255;

/// Maximum length of an event type URI in bytes.
pub const EVENT_URI_BYTES_MAX: usize = 1024;
/// Maximum number of event types in a SET. Each is matched against every pattern of every subscription.
pub const TYPES_MAX: usize = 16;

/// From this value on, a number cannot be a time in seconds (the year 5138) and is treated as milliseconds (since March
/// 1973).
pub const MILLISECONDS_MIN: i64 = 100_000_000_000;

/// A valid SET: the claims as JSON text, and the claims that every stage needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetToken {
    /// The claims as JSON text.
    pub text: String,
    /// `iss`.
    pub issuer: String,
    /// `jti`.
    pub jti: String,
    /// `iat`, in whole seconds since the epoch.
    pub issued_at: i64,
    /// Member names of `events`, in order. At least one.
    pub types: Vec<String>,
}

/// Why claims are not a valid SET. The messages name the claim and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The text is not valid JSON, or not an object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A required claim is missing.
    #[error("`{claim}` is missing: a SET has iss, iat, jti and events (RFC 8417 section 2.2)")]
    Missing {
        /// Name of the claim.
        claim: &'static str,
    },
    /// A string claim has another type.
    #[error("`{claim}` has to be a string (RFC 7519 section 4.1, RFC 8417 section 2.2); leave it out if there is none")]
    NotAString {
        /// Name of the claim.
        claim: &'static str,
    },
    /// A claim that must not be empty is empty.
    #[error("`{claim}` is an empty string: it has to name something")]
    Empty {
        /// Name of the claim.
        claim: &'static str,
    },
    /// `jti` is too long.
    #[error("`jti` has {chars} characters: {JTI_CHARS_MAX} are allowed")]
    JtiTooLong {
        /// Its length in characters.
        chars: usize,
    },
    /// `jti` contains control characters.
    #[error("`jti` contains control characters: use printable ones")]
    JtiControl,
    /// `iat` is not a number.
    #[error("`iat` has to be a number: seconds since 1970-01-01T00:00:00Z (NumericDate, RFC 7519 section 2)")]
    IatNotANumber,
    /// `iat` is negative or too large.
    #[error(
        "`iat` is {given}, which is not a time in seconds since 1970-01-01T00:00:00Z: it has to be from 0 to below {MILLISECONDS_MIN}"
    )]
    IatOutOfRange {
        /// The number as it was spelled, truncated to 40 characters.
        given: String,
    },
    /// `events` is not an object.
    #[error("`events` has to be an object with one member per event type (RFC 8417 section 2.2)")]
    EventsNotAnObject,
    /// `events` has no member.
    #[error("`events` is empty: it has to have at least one member (RFC 8417 section 2.2)")]
    EventsEmpty,
    /// `events` has too many members.
    #[error(
        "`events` has {members} members: {TYPES_MAX} are allowed, all of one state transition (RFC 8417 section 2.2)"
    )]
    EventsTooMany {
        /// Number of members.
        members: usize,
    },
    /// A member name in `events` is not an absolute URI.
    #[error(
        "the member `{name}` of `events` is not named by an absolute URI of at most {EVENT_URI_BYTES_MAX} bytes (RFC 8417 section 2.2)"
    )]
    EventNotAUri {
        /// The name, truncated to 80 characters.
        name: String,
    },
    /// The value of a member in `events` is not an object.
    #[error("the member `{name}` of `events` has to be an object, `{{}}` if it has no members (RFC 8417 section 2.2)")]
    EventNotAnObject {
        /// The name, truncated to 80 characters.
        name: String,
    },
    /// `aud` is neither a string nor an array of strings.
    #[error("`aud` has to be a string or an array of strings (RFC 7519 section 4.1.3)")]
    AudNotStrings,
    /// `sub_id` is not an object with a `format`.
    #[error("`sub_id` has to be an object with a string `format` (RFC 9493 section 3)")]
    SubIdNoFormat,
    /// `toe` is not a number.
    #[error("`toe` has to be a number: seconds since 1970-01-01T00:00:00Z (RFC 8417 section 2.2)")]
    ToeNotANumber,
}

impl SetError {
    /// The invalid claim. `None` if the text is not a JSON object.
    pub fn claim(&self) -> Option<&'static str> {
        Some(match self {
            Self::Json(_) => return None,
            Self::Missing { claim } | Self::NotAString { claim } | Self::Empty { claim } => claim,
            Self::JtiTooLong { .. } | Self::JtiControl => "jti",
            Self::IatNotANumber | Self::IatOutOfRange { .. } => "iat",
            Self::EventsNotAnObject
            | Self::EventsEmpty
            | Self::EventsTooMany { .. }
            | Self::EventNotAUri { .. }
            | Self::EventNotAnObject { .. } => "events",
            Self::AudNotStrings => "aud",
            Self::SubIdNoFormat => "sub_id",
            Self::ToeNotANumber => "toe",
        })
    }
}

impl SetToken {
    /// Parses claims as a SET (RFC 8417 section 2.2). White space around the text is removed. A fractional `iat` is
    /// rounded down in [`issued_at`](Self::issued_at). Claims that the RFC does not define may have any value.
    ///
    /// # Errors
    /// The first [`SetError`]: JSON syntax first, then required claims, then optional ones.
    pub fn parse(mut text: String, limits: JsonLimits) -> Result<Self, SetError> {
        let (claims, events) = check_object_and("events", text.as_bytes(), limits)?;
        let parsed = ParsedClaims::read(|claim| claims.get(claim), events.as_ref())?;
        trim(&mut text);
        Ok(parsed.into_token(text))
    }

    /// Applies edits to claims with [`Object::with`] and returns the resulting SET. The claims and their `events` must
    /// have passed [`check_object_and`]. The edits must be valid JSON, stay within the depth limit, and not change
    /// `events`.
    ///
    /// # Errors
    /// The first [`SetError`] of the edited claims, in the order of [`parse`](Self::parse).
    pub fn with_edits(
        claims: &Object<'_>,
        events: Option<&Object<'_>>,
        edits: &[(&str, Option<String>)],
    ) -> Result<Self, SetError> {
        let edited = |claim: &str| match edits.iter().find(|(name, _)| *name == claim) {
            Some((_, text)) => text.as_deref(),
            None => claims.get(claim),
        };
        Ok(ParsedClaims::read(edited, events)?.into_token(claims.with(edits)))
    }

    /// Creates a SET with one event, given its type and its value. `sub_id` and the value must be valid JSON, and the
    /// value at least two levels below the depth limit. `sub_id` must be a subject identifier (RFC 9493).
    ///
    /// # Errors
    /// The first [`SetError`] of issuer, `iat`, `jti` and event.
    pub fn write(
        issuer: String,
        jti: String,
        issued_at: i64,
        sub_id: Option<&str>,
        (uri, body): (&str, &str),
    ) -> Result<Self, SetError> {
        let (iss, seconds) = (quote(&issuer), issued_at.to_string());
        let parsed = ParsedClaims {
            issuer: named("iss", issuer)?,
            issued_at: in_range(issued_at, &seconds)?,
            jti: check_jti(&jti).map(|()| jti)?,
            types: check_types(&[(uri, body.starts_with('{'))])?,
        };
        let (jti, events) = (quote(&parsed.jti), write_object(&[(uri, body)]));
        let mut claims = vec![("iss", iss.as_str()), ("jti", &jti), ("iat", &seconds)];
        claims.extend(sub_id.map(|sub_id| ("sub_id", sub_id)));
        claims.push(("events", &events));
        Ok(parsed.into_token(write_object(&claims)))
    }
}

/// The parsed claims.
struct ParsedClaims {
    issuer: String,
    jti: String,
    issued_at: i64,
    types: Vec<String>,
}

impl ParsedClaims {
    /// Parses the claims, given a lookup of their values as text, and `events` if it is an object.
    fn read<'c>(get: impl Fn(&str) -> Option<&'c str>, events: Option<&Object<'_>>) -> Result<Self, SetError> {
        let issuer = required_text("iss", get("iss"))?;
        let issued_at = issued_at(get("iat"))?;
        let jti = required_text("jti", get("jti"))?;
        check_jti(&jti)?;
        let types = event_types(get("events"), events)?;
        check_optional(get)?;
        Ok(Self { issuer, jti, issued_at, types })
    }

    fn into_token(self, text: String) -> SetToken {
        let Self { issuer, jti, issued_at, types } = self;
        SetToken { text, issuer, jti, issued_at, types }
    }
}

/// Checks a `jti`: 1 to [`JTI_CHARS_MAX`] characters and no control characters.
///
/// # Errors
/// The violated rule.
pub fn check_jti(jti: &str) -> Result<(), SetError> {
    let chars = jti.chars().count();
    if chars == 0 {
        Err(SetError::Empty { claim: "jti" })
    } else if chars > JTI_CHARS_MAX {
        Err(SetError::JtiTooLong { chars })
    } else if jti.contains(char::is_control) {
        Err(SetError::JtiControl)
    } else {
        Ok(())
    }
}

/// Whether a text has the form of an absolute URI (RFC 3986 section 3): a scheme, a colon, and at least one further
/// character, without spaces, control characters, or characters that must be escaped in a URI.
pub fn is_absolute_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && rest.bytes().all(|b| {
            b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        })
}

/// Parses a JSON number and rounds it down. `None` if the text is not a number.
pub fn whole_number(text: &str) -> Option<i64> {
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite())?;
    // The cast saturates, and the result is then outside of all valid ranges.
    Some(number.floor() as i64)
}

/// Removes surrounding white space.
fn trim(text: &mut String) {
    text.truncate(text.trim_end_matches(is_space).len());
    text.drain(..text.len() - text.trim_start_matches(is_space).len());
}

fn required_text(claim: &'static str, text: Option<&str>) -> Result<String, SetError> {
    let text = text.ok_or(SetError::Missing { claim })?;
    named(claim, serde_json::from_str(text).map_err(|_| SetError::NotAString { claim })?)
}

fn named(claim: &'static str, text: String) -> Result<String, SetError> {
    if text.is_empty() { Err(SetError::Empty { claim }) } else { Ok(text) }
}

fn issued_at(text: Option<&str>) -> Result<i64, SetError> {
    let text = text.ok_or(SetError::Missing { claim: "iat" })?;
    in_range(whole_number(text).ok_or(SetError::IatNotANumber)?, text)
}

fn in_range(seconds: i64, text: &str) -> Result<i64, SetError> {
    if (0..MILLISECONDS_MIN).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(SetError::IatOutOfRange { given: text.chars().take(40).collect() })
    }
}

/// Checks `events`, given its text, and its members if it is an object.
fn event_types(text: Option<&str>, events: Option<&Object<'_>>) -> Result<Vec<String>, SetError> {
    if text.is_none() {
        return Err(SetError::Missing { claim: "events" });
    }
    let events = events.ok_or(SetError::EventsNotAnObject)?;
    let members: Vec<_> = events.iter().map(|(name, event)| (name, event.starts_with('{'))).collect();
    check_types(&members)
}

/// Checks the members of `events`, given their names and whether each is an object.
fn check_types(members: &[(&str, bool)]) -> Result<Vec<String>, SetError> {
    if members.is_empty() {
        return Err(SetError::EventsEmpty);
    }
    if members.len() > TYPES_MAX {
        return Err(SetError::EventsTooMany { members: members.len() });
    }
    let mut types = Vec::with_capacity(members.len());
    for (name, is_object) in members {
        let cut = || name.chars().take(80).collect();
        if name.len() > EVENT_URI_BYTES_MAX || !is_absolute_uri(name) {
            return Err(SetError::EventNotAUri { name: cut() });
        }
        if !is_object {
            return Err(SetError::EventNotAnObject { name: cut() });
        }
        types.push((*name).to_owned());
    }
    Ok(types)
}

/// Checks the optional claims, given a lookup of their values as text.
fn check_optional<'c>(get: impl Fn(&str) -> Option<&'c str>) -> Result<(), SetError> {
    for claim in ["txn", "sub"] {
        if let Some(text) = get(claim) {
            required_text(claim, Some(text))?;
        }
    }
    if let Some(aud) = get("aud") {
        let read = serde_json::from_str(aud).unwrap_or(Value::Null);
        let ok = read.is_string() || read.as_array().is_some_and(|all| all.iter().all(Value::is_string));
        if !ok {
            return Err(SetError::AudNotStrings);
        }
    }
    if let Some(sub_id) = get("sub_id")
        && Object::parse(sub_id).ok().and_then(|id| id.string("format")).is_none()
    {
        return Err(SetError::SubIdNoFormat);
    }
    if get("toe").is_some_and(|toe| whole_number(toe).is_none()) {
        return Err(SetError::ToeNotANumber);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"{"iss":"https://idp.example","iat":1520364019.75,"jti":"a.b","aud":["x"],"txn":"8","sub":"u",
        "sub_id":{"format":"opaque","id":"u"},"toe":1,"events":{"urn:x:y":{},"https://e.example/t":{"n":1.10}}}"#;

    fn parse(text: &str) -> Result<SetToken, SetError> {
        SetToken::parse(text.to_owned(), JsonLimits::default())
    }

    #[test]
    fn parse_keeps_text_and_extracts_claims() {
        let set = parse(&format!("\n {SOUND} \n")).unwrap();
        assert_eq!(set.text, SOUND);
        assert_eq!(
            (set.issuer.as_str(), set.jti.as_str(), set.issued_at),
            ("https://idp.example", "a.b", 1_520_364_019)
        );
        assert_eq!(set.types, ["urn:x:y", "https://e.example/t"]);
    }

    #[test]
    fn each_error_names_its_claim() {
        let claims = Object::parse(SOUND).unwrap();
        let long = format!("\"{}\"", "j".repeat(256));
        for (claim, text, expected) in [
            ("iss", None, SetError::Missing { claim: "iss" }),
            ("iss", Some("7"), SetError::NotAString { claim: "iss" }),
            ("iss", Some("\"\""), SetError::Empty { claim: "iss" }),
            ("jti", None, SetError::Missing { claim: "jti" }),
            ("jti", Some("\"a\\u0007\""), SetError::JtiControl),
            ("jti", Some(long.as_str()), SetError::JtiTooLong { chars: 256 }),
            ("iat", None, SetError::Missing { claim: "iat" }),
            ("iat", Some("\"1520364019\""), SetError::IatNotANumber),
            ("iat", Some("1520364019750"), SetError::IatOutOfRange { given: "1520364019750".into() }),
            ("iat", Some("-1"), SetError::IatOutOfRange { given: "-1".into() }),
            ("iat", Some("1e300"), SetError::IatOutOfRange { given: "1e300".into() }),
            ("events", None, SetError::Missing { claim: "events" }),
            ("events", Some("[]"), SetError::EventsNotAnObject),
            ("events", Some("{}"), SetError::EventsEmpty),
            ("events", Some(r#"{"login":{}}"#), SetError::EventNotAUri { name: "login".into() }),
            ("events", Some(r#"{"urn:a b":{}}"#), SetError::EventNotAUri { name: "urn:a b".into() }),
            ("events", Some(r#"{"urn:a":1}"#), SetError::EventNotAnObject { name: "urn:a".into() }),
            ("aud", Some("[1]"), SetError::AudNotStrings),
            ("aud", Some("null"), SetError::AudNotStrings),
            ("txn", Some("8"), SetError::NotAString { claim: "txn" }),
            ("sub", Some("null"), SetError::NotAString { claim: "sub" }),
            ("sub_id", Some("{}"), SetError::SubIdNoFormat),
            ("toe", Some("\"1\""), SetError::ToeNotANumber),
        ] {
            let broken = claims.with(&[(claim, text.map(str::to_owned))]);
            assert_eq!(parse(&broken), Err(expected.clone()), "{broken}");
            assert_eq!(expected.claim(), Some(claim));
        }
        assert_eq!(parse("[]"), Err(SetError::Json(JsonError::NotAnObject)));
    }

    #[test]
    fn optional_claims_may_be_absent() {
        assert!(parse(r#"{"jti":"1","iss":"x","iat":0,"events":{"urn:x":{}}}"#).is_ok());
    }

    #[test]
    fn too_many_event_types_are_refused() {
        let of = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"urn:x:{n}\":{{}}")).collect();
            let text = format!("{{\"iss\":\"i\",\"iat\":1,\"jti\":\"j\",\"events\":{{{}}}}}", members.join(","));
            SetToken::parse(text, JsonLimits::default())
        };
        assert_eq!(of(TYPES_MAX).unwrap().types.len(), TYPES_MAX);
        assert_eq!(of(TYPES_MAX + 1), Err(SetError::EventsTooMany { members: TYPES_MAX + 1 }));
    }
}
