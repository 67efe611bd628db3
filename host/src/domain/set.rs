//! Security event tokens (RFC 8417) as claims in JSON text.
//!
//! The text is kept, not a tree: member order and number text survive everything that nobody touches.
//!
//! Of every [`SetToken`] this is true, and relied upon, so that its text is not checked again: the text went through
//! [`check`](super::json::check) with no more levels than [`JsonLimits::default`] allows, or was written of parts that
//! did; no white space is around it; it is a SET as [`SetToken::parse`] reads it, and the other fields are what is read
//! there. All else that makes one (the ledger, a reproduction) puts together again what was kept of one.

mod apply;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{JsonFault, JsonLimits, Object, check_object_and, is_space, quote, write_object};

pub use apply::{Applied, SEALED, apply};

/// Characters of a `jti` at the most. Ours to choose: RFC 7519 names no limit, but it is a key of the ledger.
pub const JTI_CHARS_MAX: usize = 255;

/// Bytes of an event type URI at the most.
pub const EVENT_URI_BYTES_MAX: usize = 1024;
/// Event types of one SET at the most: each is held against every pattern of every subscription.
pub const TYPES_MAX: usize = 16;

/// Where a number stops being plausible seconds (the year 5138) and is milliseconds (since March 1973).
pub const MILLIS_FROM: i64 = 100_000_000_000;

/// A valid SET: claims as JSON text, with the few facts that every stage asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Why claims are not a valid SET. Each says which claim and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetFault {
    /// The text is not sound JSON, or not an object.
    #[error(transparent)]
    Json(#[from] JsonFault),
    /// A required claim is missing.
    #[error("`{claim}` is missing: a SET has iss, iat, jti and events (RFC 8417 section 2.2)")]
    Missing {
        /// The claim.
        claim: &'static str,
    },
    /// A claim that is text is something else.
    #[error(
        "`{claim}` has to be a string (RFC 7519 section 4.1, RFC 8417 section 2.2); leave it out where there is none"
    )]
    NotAString {
        /// The claim.
        claim: &'static str,
    },
    /// A claim that names something is empty.
    #[error("`{claim}` is an empty string: it has to name something")]
    Empty {
        /// The claim.
        claim: &'static str,
    },
    /// `jti` is too long.
    #[error("`jti` has {chars} characters: {JTI_CHARS_MAX} are allowed")]
    JtiTooLong {
        /// Characters of it.
        chars: usize,
    },
    /// `jti` holds control characters.
    #[error("`jti` holds control characters: use printable ones")]
    JtiControl,
    /// `iat` is not a number.
    #[error("`iat` has to be a number: seconds since 1970-01-01T00:00:00Z (NumericDate, RFC 7519 section 2)")]
    IatNotANumber,
    /// `iat` is negative or too large.
    #[error(
        "`iat` is {given}, which is no time in seconds since 1970-01-01T00:00:00Z: it has to be from 0 to below {MILLIS_FROM}"
    )]
    IatOutOfRange {
        /// The number as it was written, cut to 40 characters.
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
        /// How many it has.
        members: usize,
    },
    /// A member of `events` is not named by an absolute URI.
    #[error(
        "the member `{name}` of `events` is not named by an absolute URI of at most {EVENT_URI_BYTES_MAX} bytes (RFC 8417 section 2.2)"
    )]
    EventNotAUri {
        /// Its name, cut to 80 characters.
        name: String,
    },
    /// A member of `events` is not an object.
    #[error(
        "the member `{name}` of `events` has to be an object, `{{}}` where there is nothing to say (RFC 8417 section 2.2)"
    )]
    EventNotAnObject {
        /// Its name, cut to 80 characters.
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

impl SetFault {
    /// The claim at fault; none where the text is no JSON object.
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
    /// Reads claims as a SET (RFC 8417 section 2.2). The text is kept without the white space around it. A
    /// fractional `iat` is rounded down in [`issued_at`](Self::issued_at); claims that the RFC does not speak of may
    /// be anything.
    ///
    /// # Errors
    /// The first [`SetFault`]: soundness of the JSON, then the required claims, then the optional ones.
    pub fn parse(mut text: String, limits: JsonLimits) -> Result<Self, SetFault> {
        let (claims, events) = check_object_and("events", text.as_bytes(), limits)?;
        let facts = Facts::read(|claim| claims.get(claim), events.as_ref())?;
        trim(&mut text);
        Ok(facts.about(text))
    }

    /// The SET that claims become by some edits, as [`Object::with`] makes them. The claims and their `events` have gone
    /// through [`check_object_and`]; the edits are sound JSON, make nothing deeper than it may be, and leave `events` alone.
    ///
    /// # Errors
    /// The first [`SetFault`] of the edited claims, in the order of [`parse`](Self::parse).
    pub fn edited(
        claims: &Object<'_>,
        events: Option<&Object<'_>>,
        edits: &[(&str, Option<String>)],
    ) -> Result<Self, SetFault> {
        let edited = |claim: &str| match edits.iter().find(|(name, _)| *name == claim) {
            Some((_, text)) => text.as_deref(),
            None => claims.get(claim),
        };
        Ok(Facts::read(edited, events)?.about(claims.with(edits)))
    }

    /// Writes a SET of one event: its type, and the body that is its value. `sub_id` and the body are sound JSON, the
    /// body two levels flatter than a SET may be; `sub_id` is an identifier of RFC 9493.
    ///
    /// # Errors
    /// The first [`SetFault`] of issuer, `iat`, `jti` and event.
    pub fn write(
        issuer: String,
        jti: String,
        issued_at: i64,
        sub_id: Option<&str>,
        (uri, body): (&str, &str),
    ) -> Result<Self, SetFault> {
        let (iss, seconds) = (quote(&issuer), issued_at.to_string());
        let facts = Facts {
            issuer: named("iss", issuer)?,
            issued_at: in_range(issued_at, &seconds)?,
            jti: check_jti(&jti).map(|()| jti)?,
            types: check_types(&[(uri, body.starts_with('{'))])?,
        };
        let (jti, events) = (quote(&facts.jti), write_object(&[(uri, body)]));
        let mut claims = vec![("iss", iss.as_str()), ("jti", &jti), ("iat", &seconds)];
        claims.extend(sub_id.map(|sub_id| ("sub_id", sub_id)));
        claims.push(("events", &events));
        Ok(facts.about(write_object(&claims)))
    }
}

/// What is read of claims.
struct Facts {
    issuer: String,
    jti: String,
    issued_at: i64,
    types: Vec<String>,
}

impl Facts {
    /// Reads claims, given the texts of their values by name, and `events` taken apart where it is an object.
    fn read<'c>(get: impl Fn(&str) -> Option<&'c str>, events: Option<&Object<'_>>) -> Result<Self, SetFault> {
        let issuer = required_text("iss", get("iss"))?;
        let issued_at = issued_at(get("iat"))?;
        let jti = required_text("jti", get("jti"))?;
        check_jti(&jti)?;
        let types = event_types(get("events"), events)?;
        check_optional(get)?;
        Ok(Self { issuer, jti, issued_at, types })
    }

    fn about(self, text: String) -> SetToken {
        let Self { issuer, jti, issued_at, types } = self;
        SetToken { text, issuer, jti, issued_at, types }
    }
}

/// Whether a `jti` may stand as one: 1 to [`JTI_CHARS_MAX`] characters, none of them a control character.
///
/// # Errors
/// Which of these does not hold.
pub fn check_jti(jti: &str) -> Result<(), SetFault> {
    let chars = jti.chars().count();
    if chars == 0 {
        Err(SetFault::Empty { claim: "jti" })
    } else if chars > JTI_CHARS_MAX {
        Err(SetFault::JtiTooLong { chars })
    } else if jti.contains(char::is_control) {
        Err(SetFault::JtiControl)
    } else {
        Ok(())
    }
}

/// Whether a text has the shape of an absolute URI (RFC 3986 section 3): a scheme, a colon, and something behind it
/// without spaces, controls, or characters that a URI has to escape.
pub fn is_absolute_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && rest.bytes().all(|b| {
            b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        })
}

/// The number that a JSON text is, rounded down; none where it is none.
pub(crate) fn whole_number(text: &str) -> Option<i64> {
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite())?;
    // The cast saturates, which is as good as any number outside of every range asked for here.
    Some(number.floor() as i64)
}

/// Takes the white space off both ends of a text.
fn trim(text: &mut String) {
    text.truncate(text.trim_end_matches(is_space).len());
    text.drain(..text.len() - text.trim_start_matches(is_space).len());
}

fn required_text(claim: &'static str, text: Option<&str>) -> Result<String, SetFault> {
    let text = text.ok_or(SetFault::Missing { claim })?;
    named(claim, serde_json::from_str(text).map_err(|_| SetFault::NotAString { claim })?)
}

fn named(claim: &'static str, text: String) -> Result<String, SetFault> {
    if text.is_empty() { Err(SetFault::Empty { claim }) } else { Ok(text) }
}

fn issued_at(text: Option<&str>) -> Result<i64, SetFault> {
    let text = text.ok_or(SetFault::Missing { claim: "iat" })?;
    in_range(whole_number(text).ok_or(SetFault::IatNotANumber)?, text)
}

fn in_range(seconds: i64, text: &str) -> Result<i64, SetFault> {
    if (0..MILLIS_FROM).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(SetFault::IatOutOfRange { given: text.chars().take(40).collect() })
    }
}

/// Reads `events`: its text, and its members where it is an object.
fn event_types(text: Option<&str>, events: Option<&Object<'_>>) -> Result<Vec<String>, SetFault> {
    if text.is_none() {
        return Err(SetFault::Missing { claim: "events" });
    }
    let events = events.ok_or(SetFault::EventsNotAnObject)?;
    let members: Vec<_> = events.iter().map(|(name, event)| (name, event.starts_with('{'))).collect();
    check_types(&members)
}

/// Checks the members of `events`: their names, and whether each is an object.
fn check_types(members: &[(&str, bool)]) -> Result<Vec<String>, SetFault> {
    if members.is_empty() {
        return Err(SetFault::EventsEmpty);
    }
    if members.len() > TYPES_MAX {
        return Err(SetFault::EventsTooMany { members: members.len() });
    }
    let mut types = Vec::with_capacity(members.len());
    for (name, is_object) in members {
        let cut = || name.chars().take(80).collect();
        if name.len() > EVENT_URI_BYTES_MAX || !is_absolute_uri(name) {
            return Err(SetFault::EventNotAUri { name: cut() });
        }
        if !is_object {
            return Err(SetFault::EventNotAnObject { name: cut() });
        }
        types.push((*name).to_owned());
    }
    Ok(types)
}

/// Checks the claims that need not be there, given the texts of their values by name.
fn check_optional<'c>(get: impl Fn(&str) -> Option<&'c str>) -> Result<(), SetFault> {
    for claim in ["txn", "sub"] {
        if let Some(text) = get(claim) {
            required_text(claim, Some(text))?;
        }
    }
    if let Some(aud) = get("aud") {
        let read = serde_json::from_str(aud).unwrap_or(Value::Null);
        let ok = read.is_string() || read.as_array().is_some_and(|all| all.iter().all(Value::is_string));
        if !ok {
            return Err(SetFault::AudNotStrings);
        }
    }
    if let Some(sub_id) = get("sub_id")
        && Object::parse(sub_id).ok().and_then(|id| id.string("format")).is_none()
    {
        return Err(SetFault::SubIdNoFormat);
    }
    if get("toe").is_some_and(|toe| whole_number(toe).is_none()) {
        return Err(SetFault::ToeNotANumber);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"{"iss":"https://idp.example","iat":1520364019.75,"jti":"a.b","aud":["x"],"txn":"8","sub":"u",
        "sub_id":{"format":"opaque","id":"u"},"toe":1,"events":{"urn:x:y":{},"https://e.example/t":{"n":1.10}}}"#;

    fn parse(text: &str) -> Result<SetToken, SetFault> {
        SetToken::parse(text.to_owned(), JsonLimits::default())
    }

    #[test]
    fn a_set_keeps_its_text_and_tells_its_facts() {
        let set = parse(&format!("\n {SOUND} \n")).unwrap();
        assert_eq!(set.text, SOUND);
        assert_eq!(
            (set.issuer.as_str(), set.jti.as_str(), set.issued_at),
            ("https://idp.example", "a.b", 1_520_364_019)
        );
        assert_eq!(set.types, ["urn:x:y", "https://e.example/t"]);
    }

    #[test]
    fn each_violation_names_its_claim() {
        let claims = Object::parse(SOUND).unwrap();
        let long = format!("\"{}\"", "j".repeat(256));
        for (claim, text, expected) in [
            ("iss", None, SetFault::Missing { claim: "iss" }),
            ("iss", Some("7"), SetFault::NotAString { claim: "iss" }),
            ("iss", Some("\"\""), SetFault::Empty { claim: "iss" }),
            ("jti", None, SetFault::Missing { claim: "jti" }),
            ("jti", Some("\"a\\u0007\""), SetFault::JtiControl),
            ("jti", Some(long.as_str()), SetFault::JtiTooLong { chars: 256 }),
            ("iat", None, SetFault::Missing { claim: "iat" }),
            ("iat", Some("\"1520364019\""), SetFault::IatNotANumber),
            ("iat", Some("1520364019750"), SetFault::IatOutOfRange { given: "1520364019750".into() }),
            ("iat", Some("-1"), SetFault::IatOutOfRange { given: "-1".into() }),
            ("iat", Some("1e300"), SetFault::IatOutOfRange { given: "1e300".into() }),
            ("events", None, SetFault::Missing { claim: "events" }),
            ("events", Some("[]"), SetFault::EventsNotAnObject),
            ("events", Some("{}"), SetFault::EventsEmpty),
            ("events", Some(r#"{"login":{}}"#), SetFault::EventNotAUri { name: "login".into() }),
            ("events", Some(r#"{"urn:a b":{}}"#), SetFault::EventNotAUri { name: "urn:a b".into() }),
            ("events", Some(r#"{"urn:a":1}"#), SetFault::EventNotAnObject { name: "urn:a".into() }),
            ("aud", Some("[1]"), SetFault::AudNotStrings),
            ("aud", Some("null"), SetFault::AudNotStrings),
            ("txn", Some("8"), SetFault::NotAString { claim: "txn" }),
            ("sub", Some("null"), SetFault::NotAString { claim: "sub" }),
            ("sub_id", Some("{}"), SetFault::SubIdNoFormat),
            ("toe", Some("\"1\""), SetFault::ToeNotANumber),
        ] {
            let broken = claims.with(&[(claim, text.map(str::to_owned))]);
            assert_eq!(parse(&broken), Err(expected.clone()), "{broken}");
            assert_eq!(expected.claim(), Some(claim));
        }
        assert_eq!(parse("[]"), Err(SetFault::Json(JsonFault::NotAnObject)));
    }

    #[test]
    fn what_is_optional_may_be_missing() {
        assert!(parse(r#"{"jti":"1","iss":"x","iat":0,"events":{"urn:x":{}}}"#).is_ok());
    }

    #[test]
    fn a_set_of_too_many_types_is_refused() {
        let of = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"urn:x:{n}\":{{}}")).collect();
            let text = format!("{{\"iss\":\"i\",\"iat\":1,\"jti\":\"j\",\"events\":{{{}}}}}", members.join(","));
            SetToken::parse(text, JsonLimits::default())
        };
        assert_eq!(of(TYPES_MAX).unwrap().types.len(), TYPES_MAX);
        assert_eq!(of(TYPES_MAX + 1), Err(SetFault::EventsTooMany { members: TYPES_MAX + 1 }));
    }
}
