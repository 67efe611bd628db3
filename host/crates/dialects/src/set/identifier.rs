//! Subject identifiers of signed SETs (RFC 9493 section 3, SSF 1.0 section 3.5): their check, and their new form if they
//! are spelled as in drafts.

use serde_json::value::RawValue;
use setgate_domain::json::{Object, canonical, quote};
use setgate_domain::source::Compat;

use super::subject::COMPLEX;
use crate::normalize::NormalizeError;
use crate::normalize::error::cut;

/// Formats with the string members that each requires. An identifier of another format is accepted as it is.
const FORMATS: [(&str, &[&str]); 9] = [
    ("account", &["uri"]),
    ("did", &["url"]),
    ("email", &["email"]),
    ("iss_sub", &["iss", "sub"]),
    ("jwt_id", &["iss", "jti"]),
    ("opaque", &["id"]),
    ("phone_number", &["phone_number"]),
    ("saml_assertion_id", &["issuer", "assertion_id"]),
    ("uri", &["uri"]),
];

/// Identifiers inside others: `complex` and `aliases` contain simple ones.
const DEPTH_MAX: usize = 2;

/// All deviations, to compare identifiers in any spelling.
const ANY_SPELLING: Compat = Compat {
    allow_missing_typ: false,
    allow_sub_and_exp: false,
    allow_subject_in_event: true,
    allow_issuer_in_iss_sub: true,
    allow_numeric_txn: false,
};

/// The `sub_id` that a SET gets: in the new form, from the event if the source allows it. `None` if the claims stay as
/// they are.
pub(super) fn new_sub_id(
    claims: &Object<'_>,
    events: Option<&Object<'_>>,
    compat: Compat,
) -> Result<Option<String>, NormalizeError> {
    let of_events = || events?.iter().find_map(|(_, event)| of_event(event));
    let Some(text) = claims.get("sub_id") else {
        let Some(in_event) = of_events() else { return Ok(None) };
        if !compat.allow_subject_in_event {
            return Err(bad(
                "`sub_id` is missing, and the event has a `subject` instead, as in drafts (SSF 1.0 section 4.1.2): send \
                 `sub_id`, or set the source's `compat.allow_subject_in_event`",
            ));
        }
        let sub_id = respelled(&in_event, compat, 0)?.unwrap_or_else(|| in_event.text().to_owned());
        return check(&sub_id).map(|()| Some(sub_id));
    };
    // A `sub_id` that is no object is refused with the other claims.
    let Ok(sub_id) = Object::parse(text) else { return Ok(None) };
    let new = respelled(&sub_id, compat, 0)?;
    let text = new.as_deref().unwrap_or(text);
    if !compat.allow_subject_in_event
        && let Some(in_event) = of_events()
    {
        let other = respelled(&in_event, ANY_SPELLING, 0)?.unwrap_or_else(|| in_event.text().to_owned());
        if canonical(&other, &[]) != canonical(text, &[]) {
            return Err(bad(
                "`sub_id` differs from the event's `subject`: send only `sub_id` (SSF 1.0 section 4.1.2), or set the \
                 source's `compat.allow_subject_in_event` to ignore the other one",
            ));
        }
    }
    check(text)?;
    Ok(new)
}

/// The member `subject` of an event, if it is an identifier. Events of other profiles may have a member of this name.
fn of_event<'e>(event: &'e str) -> Option<Object<'e>> {
    let subject = Object::parse(event).ok()?.object("subject")?;
    let has = |name: &&str| subject.object(name).is_some();
    let is_identifier = subject.string("format").or_else(|| subject.string("subject_type")).is_some();
    (is_identifier || COMPLEX.iter().any(has)).then_some(subject)
}

/// An identifier in the new spelling. `None` if it needs no change.
fn respelled(id: &Object<'_>, compat: Compat, depth: usize) -> Result<Option<String>, NormalizeError> {
    let mut edits: Vec<(&str, Option<String>)> = Vec::new();
    let old_type = id.get("format").is_none().then(|| id.string("subject_type")).flatten();
    let is_complex = |name: &&str| id.object(name).is_some();
    let given = id.string("format").or_else(|| old_type.clone());
    let format = match &given {
        Some(given) => new_format(given),
        None if id.get("format").is_none() && COMPLEX.iter().any(is_complex) => "complex".to_owned(),
        // Refused with the other claims.
        None => return Ok(None),
    };
    if old_type.is_some() || given.as_ref() != Some(&format) {
        if !compat.allow_subject_in_event {
            let (spelling, format) = (cut(&given.unwrap_or_default()), cut(&format));
            return Err(bad(&format!(
                "the subject identifier `{spelling}` is spelled as in drafts: send `\"format\":\"{format}\"` (RFC 9493 \
                 section 3), or set the source's `compat.allow_subject_in_event`"
            )));
        }
        edits.push(("format", Some(quote(&format))));
        edits.push(("subject_type", None));
    }
    if format == "iss_sub"
        && id.get("iss").is_none()
        && let Some(issuer) = id.get("issuer")
    {
        if !compat.allow_issuer_in_iss_sub {
            return Err(bad(
                "the subject identifier of the format iss_sub has `issuer`, and must have `iss` (RFC 9493 section 3.2.4): \
                 send `iss`, or set the source's `compat.allow_issuer_in_iss_sub`",
            ));
        }
        edits.push(("iss", Some(issuer.to_owned())));
        edits.push(("issuer", None));
    }
    if depth < DEPTH_MAX {
        edits.extend(respelled_parts(id, &format, compat, depth + 1)?);
    }
    Ok((!edits.is_empty()).then(|| id.with(&edits)))
}

/// Edits of the identifiers inside another one.
fn respelled_parts(
    id: &Object<'_>,
    format: &str,
    compat: Compat,
    depth: usize,
) -> Result<Vec<(&'static str, Option<String>)>, NormalizeError> {
    let mut edits = Vec::new();
    if format == "complex" {
        for name in COMPLEX {
            let Some(part) = id.object(name) else { continue };
            edits.extend(respelled(&part, compat, depth)?.map(|new| (name, Some(new))));
        }
    }
    if format == "aliases"
        && let Some(parts) = id.get("identifiers").and_then(|text| serde_json::from_str::<Vec<&RawValue>>(text).ok())
    {
        let mut texts = Vec::with_capacity(parts.len());
        let mut changed = false;
        for part in parts {
            let new = match Object::parse(part.get()) {
                Ok(part) => respelled(&part, compat, depth)?,
                Err(_) => None,
            };
            changed |= new.is_some();
            texts.push(new.unwrap_or_else(|| part.get().to_owned()));
        }
        if changed {
            edits.push(("identifiers", Some(format!("[{}]", texts.join(",")))));
        }
    }
    Ok(edits)
}

/// The name of a format without the hyphens of drafts. `ip-addresses` is spelled with one (SSF 1.0 section 3.5.3).
fn new_format(given: &str) -> String {
    let underscored = given.replace('-', "_");
    let is_known = FORMATS.iter().any(|(known, _)| *known == underscored) || underscored == "id_token_claims";
    if is_known { underscored } else { given.to_owned() }
}

/// Checks the members that a format requires.
fn check(sub_id: &str) -> Result<(), NormalizeError> {
    let Ok(id) = Object::parse(sub_id) else { return Ok(()) };
    check_parts(&id, 0)
}

fn check_parts(id: &Object<'_>, depth: usize) -> Result<(), NormalizeError> {
    let Some(format) = id.string("format") else {
        // That of `sub_id` itself is checked with the other claims.
        let missing = || bad("an identifier inside `sub_id` has no `format` (RFC 9493 section 3)");
        return if depth == 0 { Ok(()) } else { Err(missing()) };
    };
    let required = FORMATS.iter().find(|(known, _)| *known == format).map(|(_, members)| *members).unwrap_or_default();
    if let Some(member) = required.iter().find(|member| id.string(member).is_none_or(|text| text.is_empty())) {
        return Err(bad(&format!(
            "the subject identifier of the format {format} has no `{member}`, or it is not a string with characters (RFC \
             9493 section 3.2, SSF 1.0 section 3.5)"
        )));
    }
    if depth >= DEPTH_MAX {
        return Ok(());
    }
    match format.as_str() {
        "aliases" => {
            let parts = id.get("identifiers").and_then(|text| serde_json::from_str::<Vec<&RawValue>>(text).ok());
            let parts: Option<Vec<_>> =
                parts.and_then(|parts| parts.iter().map(|part| Object::parse(part.get()).ok()).collect());
            let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
                return Err(bad(
                    "the subject identifier of the format aliases has to have `identifiers`, an array of at least one \
                     identifier (RFC 9493 section 3.2.8)",
                ));
            };
            parts.iter().try_for_each(|part| check_parts(part, depth + 1))
        }
        "complex" => {
            COMPLEX.iter().filter_map(|name| id.object(name)).try_for_each(|part| check_parts(&part, depth + 1))
        }
        _ => Ok(()),
    }
}

fn bad(why: &str) -> NormalizeError {
    NormalizeError::BadClaim { claim: "sub_id".to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Compat = Compat {
        allow_missing_typ: false,
        allow_sub_and_exp: false,
        allow_subject_in_event: false,
        allow_issuer_in_iss_sub: false,
        allow_numeric_txn: false,
    };

    fn new(claims: &str, compat: Compat) -> Result<Option<String>, String> {
        let claims = Object::parse(claims).unwrap();
        let events = claims.object("events");
        new_sub_id(&claims, events.as_ref(), compat).map_err(|error| error.to_string())
    }

    #[test]
    fn identifiers_of_rfc_9493_stay_as_they_are() {
        for id in [
            r#"{"format":"account","uri":"acct:u@example.com"}"#,
            r#"{"format":"did","url":"did:example:1"}"#,
            r#"{"format":"email","email":"u@example.com"}"#,
            r#"{"format":"iss_sub","iss":"https://idp.example","sub":"u"}"#,
            r#"{"format":"opaque","id":"1"}"#,
            r#"{"format":"phone_number","phone_number":"+12065550100"}"#,
            r#"{"format":"uri","uri":"urn:x"}"#,
            r#"{"format":"jwt_id","iss":"i","jti":"1"}"#,
            r#"{"format":"saml_assertion_id","issuer":"i","assertion_id":"1"}"#,
            r#"{"format":"ip-addresses","ip-addresses":["10.0.0.1"]}"#,
            r#"{"format":"scim","uri":"/Users/1"}"#,
            r#"{"format":"of-another-profile","x":1}"#,
            r#"{"format":"aliases","identifiers":[{"format":"opaque","id":"1"},{"format":"email","email":"u@x"}]}"#,
            r#"{"format":"complex","user":{"format":"opaque","id":"1"},"device":{"format":"opaque","id":"2"}}"#,
        ] {
            for compat in [STRICT, ANY_SPELLING] {
                assert_eq!(new(&format!(r#"{{"sub_id":{id}}}"#), compat), Ok(None), "{id}");
            }
            let both = format!(r#"{{"sub_id":{id},"events":{{"urn:x":{{"subject": {id} }}}}}}"#);
            assert_eq!(new(&both, STRICT), Ok(None), "the event may repeat it: {both}");
        }
        assert_eq!(new(r#"{"events":{"urn:x":{"subject":"text","y":1}}}"#, STRICT), Ok(None), "not an identifier");
    }

    #[test]
    fn incomplete_identifiers_are_refused() {
        for (id, part) in [
            (r#"{"format":"email","mail":"u@example.com"}"#, "has no `email`"),
            (r#"{"format":"email","email":7}"#, "has no `email`"),
            (r#"{"format":"iss_sub","iss":"i","sub":""}"#, "has no `sub`"),
            (r#"{"format":"iss_sub","sub":"u"}"#, "has no `iss`"),
            (r#"{"format":"aliases","identifiers":[]}"#, "`identifiers`, an array"),
            (r#"{"format":"aliases","identifiers":["u"]}"#, "`identifiers`, an array"),
            (r#"{"format":"aliases","identifiers":[{"email":"u"}]}"#, "has no `format`"),
            (r#"{"format":"complex","user":{"format":"opaque"}}"#, "has no `id`"),
        ] {
            let why = new(&format!(r#"{{"sub_id":{id}}}"#), ANY_SPELLING).unwrap_err();
            assert!(why.contains(part), "{id}: {why}");
        }
    }

    #[test]
    fn draft_spellings_need_their_switch_and_are_renewed() {
        let (in_event, issuer) = ("allow_subject_in_event", "allow_issuer_in_iss_sub");
        for (claims, switch, expected) in [
            (
                r#"{"events":{"urn:x":{"subject":{"subject_type":"iss-sub","iss":"i","sub":"u"}}}}"#,
                in_event,
                r#"{"iss":"i","sub":"u","format":"iss_sub"}"#,
            ),
            (
                r#"{"events":{"urn:x":{"subject":{"format":"email","email":"u"}}}}"#,
                in_event,
                r#"{"format":"email","email":"u"}"#,
            ),
            (
                r#"{"sub_id":{"format":"phone-number","phone_number":"1"}}"#,
                in_event,
                r#"{"format":"phone_number","phone_number":"1"}"#,
            ),
            (
                r#"{"events":{"urn:x":{"subject":{"user":{"subject_type":"opaque","id":"u"}}}}}"#,
                in_event,
                r#"{"user":{"id":"u","format":"opaque"},"format":"complex"}"#,
            ),
            (
                r#"{"sub_id":{"format":"aliases","identifiers":[{"format":"jwt-id","iss":"i","jti":"1"},{"format":"opaque","id":"2"}]}}"#,
                in_event,
                r#"{"format":"aliases","identifiers":[{"format":"jwt_id","iss":"i","jti":"1"},{"format":"opaque","id":"2"}]}"#,
            ),
            (
                r#"{"sub_id":{"format":"iss_sub","issuer":"i","sub":"u"}}"#,
                issuer,
                r#"{"format":"iss_sub","sub":"u","iss":"i"}"#,
            ),
        ] {
            assert_eq!(new(claims, ANY_SPELLING), Ok(Some(expected.to_owned())), "{claims}");
            let why = new(claims, STRICT).unwrap_err();
            assert!(why.contains(switch), "{claims}: {why}");
            let other = match switch {
                "allow_subject_in_event" => Compat { allow_subject_in_event: false, ..ANY_SPELLING },
                _ => Compat { allow_issuer_in_iss_sub: false, ..ANY_SPELLING },
            };
            assert!(new(claims, other).unwrap_err().contains(switch), "{claims}: each switch is its own");
        }
    }

    #[test]
    fn two_different_subjects_are_refused_unless_allowed() {
        let claims =
            r#"{"sub_id":{"format":"opaque","id":"1"},"events":{"urn:x":{"subject":{"format":"opaque","id":"2"}}}}"#;
        assert!(new(claims, STRICT).unwrap_err().contains("differs from the event's `subject`"));
        assert_eq!(new(claims, ANY_SPELLING), Ok(None), "`sub_id` counts");
    }
}
