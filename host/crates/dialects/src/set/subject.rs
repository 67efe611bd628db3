//! The subject of a SET.

use setgate_domain::json::Object;

use super::first_event;
use crate::subject::{Subject, identifier_member};

/// The subject of a plain SET: `sub_id` (RFC 9493), else `sub`, else the `subject` of its first event, as in drafts of
/// RISC.
pub(super) fn of(claims: &Object<'_>, events: Option<&Object<'_>>) -> Option<Subject> {
    of_claims(claims).or_else(|| of_event(&first_event(events)?.1))
}

/// The subject in the claims of a plain SET: `sub_id`, else `sub`.
pub(crate) fn of_claims(claims: &Object<'_>) -> Option<Subject> {
    if let Some(subject) = claims.object("sub_id").and_then(|id| identifier(&id, 0)) {
        return Some(subject);
    }
    identifier_member(claims, "sub").map(Subject::User)
}

/// The subject in an event of a plain SET: the member `subject` of its value.
pub(crate) fn of_event(event: &Object<'_>) -> Option<Subject> {
    identifier(&event.object("subject")?, 0)
}

/// Maximum nesting of identifiers: `complex` and `aliases` contain simple ones (RFC 9493 section 3.2.8 forbids deeper
/// nesting).
const IDENTIFIER_DEPTH_MAX: usize = 2;

/// Members of a complex subject in order of preference (SSF 1.0, complex subjects).
pub(super) const COMPLEX: [&str; 7] = ["user", "device", "session", "application", "tenant", "org_unit", "group"];

fn identifier(id: &Object<'_>, depth: usize) -> Option<Subject> {
    if depth > IDENTIFIER_DEPTH_MAX {
        return None;
    }
    // `subject_type` and the spelling with hyphens occur in drafts.
    let format = id.string("format").or_else(|| id.string("subject_type")).unwrap_or_else(|| "complex".to_owned());
    let named = |member| identifier_member(id, member).map(Subject::Named);
    match format.replace('-', "_").as_str() {
        "iss_sub" => identifier_member(id, "sub").map(Subject::User),
        "opaque" => identifier_member(id, "id").map(Subject::User),
        "email" => named("email"),
        "phone_number" | "phone" => named(if id.get("phone").is_some() { "phone" } else { "phone_number" }),
        "account" | "uri" => named("uri"),
        "did" => named("url"),
        "jwt_id" => named("jti"),
        "saml_assertion_id" => named("assertion_id"),
        "aliases" => {
            let all: Vec<&serde_json::value::RawValue> = serde_json::from_str(id.get("identifiers")?).ok()?;
            all.iter().filter_map(|one| Object::parse(one.get()).ok()).find_map(|one| identifier(&one, depth + 1))
        }
        "complex" => COMPLEX.iter().find_map(|member| {
            let found = identifier(&id.object(member)?, depth + 1)?;
            // The ID of a device or a tenant is not a user ID.
            Some(if *member == "user" { found } else { Subject::Named(found.as_str().to_owned()) })
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{named, user};

    fn set(claims: &str) -> Option<Subject> {
        let claims = Object::parse(claims).unwrap();
        of(&claims, claims.object("events").as_ref())
    }

    #[test]
    fn finds_subject_of_plain_sets() {
        for (claims, expected) in [
            (r#"{"sub_id":{"format":"iss_sub","iss":"i","sub":"u1"},"sub":"x"}"#, user("u1")),
            (r#"{"sub_id":{"format":"opaque","id":"u2"}}"#, user("u2")),
            (r#"{"sub_id":{"format":"email","email":"m@example.com"}}"#, named("m@example.com")),
            (r#"{"sub_id":{"format":"account","uri":"acct:m@example.com"}}"#, named("acct:m@example.com")),
            (r#"{"sub_id":{"format":"phone_number","phone_number":"+1"}}"#, named("+1")),
            (
                r#"{"sub_id":{"format":"complex","device":{"format":"opaque","id":"d"},"user":{"format":"opaque","id":"u"}}}"#,
                user("u"),
            ),
            (r#"{"sub_id":{"format":"complex","device":{"format":"opaque","id":"d"}}}"#, named("d")),
            (r#"{"sub_id":{"user":{"format":"opaque","id":"u"}}}"#, user("u")),
            (
                r#"{"sub_id":{"format":"aliases","identifiers":[{"format":"?"},{"format":"did","url":"did:x:1"}]}}"#,
                named("did:x:1"),
            ),
            (r#"{"sub_id":{"format":"?"},"sub":"u3"}"#, user("u3")),
            (r#"{"events":{"urn:x":{"subject":{"subject_type":"iss-sub","iss":"i","sub":"u4"}}}}"#, user("u4")),
            (r#"{"events":{"urn:x":{}}}"#, None),
        ] {
            assert_eq!(set(claims), expected, "{claims}");
        }
    }

    #[test]
    fn nested_identifiers_and_long_subjects_are_limited() {
        let nested = format!("{}{{\"format\":\"opaque\",\"id\":\"u\"}}{}", r#"{"user":"#.repeat(5), "}".repeat(5));
        assert_eq!(set(&format!("{{\"sub_id\":{nested}}}")), None);
        let long = format!("{{\"sub\":\"{}\"}}", "x".repeat(513));
        assert_eq!(set(&long), None);
    }
}
