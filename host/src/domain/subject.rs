//! Whom an event is about.
//!
//! The user's id where the event has one; else what the form names instead (a user name, an address); else nobody.
//! The places are looked at in a fixed order per form; `host/docs/identities.md` has them as a table.

use super::json::Object;

/// Characters of a subject at the most; anything longer is no name of anybody and is passed over.
pub const SUBJECT_CHARS_MAX: usize = 512;

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// By the user's id at the product.
    User(String),
    /// By something else that the event names: a user name, an address, a device.
    Named(String),
}

impl Subject {
    /// The id or the name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::User(text) | Self::Named(text) => text,
        }
    }

    /// The user's id, where it is one.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User(id) => Some(id),
            Self::Named(_) => None,
        }
    }
}

/// The subject of a WSO2 event, given the value of its member: `user.id`; else the user name, then the e-mail address,
/// among `user.claims` (a failed login knows no id).
pub fn wso2(event: &Object<'_>) -> Option<Subject> {
    let user = event.object("user")?;
    name_of(&user, "id").map(Subject::User).or_else(|| wso2_claim(&user).map(Subject::Named))
}

/// The claims of a WSO2 user that name it, best first.
const WSO2_NAMES: [&str; 2] = ["http://wso2.org/claims/username", "http://wso2.org/claims/emailaddress"];

fn wso2_claim(user: &Object<'_>) -> Option<String> {
    let claims: Vec<&serde_json::value::RawValue> = serde_json::from_str(user.get("claims")?).ok()?;
    let claims: Vec<Object<'_>> = claims.iter().filter_map(|claim| Object::parse(claim.get()).ok()).collect();
    WSO2_NAMES.iter().find_map(|name| {
        claims
            .iter()
            .find(|claim| claim.string("uri").as_deref() == Some(name))
            .and_then(|claim| name_of(claim, "value"))
    })
}

/// The subject of a Logto event: `userId`, `user.id`; for `User.*` also `data.id`, and `params.userId` where a deleted
/// user is no longer in `data`; else the `value` of a lockout or the `recipient` of a rate limit.
pub fn logto(event: &str, body: &Object<'_>) -> Option<Subject> {
    let places: &[&str] = if event.starts_with("User.") {
        &["userId", "user.id", "data.id", "params.userId"]
    } else {
        &["userId", "user.id"]
    };
    let named = match event {
        "Identifier.Lockout" => "value",
        "Message.RateLimited" => "recipient",
        _ => return first(body, places).map(Subject::User),
    };
    first(body, places).map(Subject::User).or_else(|| first(body, &[named]).map(Subject::Named))
}

/// The subject of a platform event: in `data`, `user.id`, `user_id`, `userId`, `user`; for events of the category
/// `user` also `id`; else an e-mail address or a user name.
pub fn platform(category: &str, body: &Object<'_>) -> Option<Subject> {
    let data = body.object("data")?;
    let places = ["user.id", "user_id", "userId", "user", "id"];
    let places = if category == "user" { &places[..] } else { &places[..4] };
    let named = ["user.email", "email", "user.username", "username"];
    first(&data, places).map(Subject::User).or_else(|| first(&data, &named).map(Subject::Named))
}

/// The subject of a plain SET: `sub_id` (RFC 9493), else `sub`, else the `subject` inside its first event, as RISC had
/// it before its final version.
pub fn set(claims: &Object<'_>) -> Option<Subject> {
    of_claims(claims).or_else(|| {
        let events = claims.object("events")?;
        of_event(&Object::parse(events.iter().next()?.1).ok()?)
    })
}

/// The subject that the claims of a plain SET name themselves: `sub_id`, else `sub`.
pub fn of_claims(claims: &Object<'_>) -> Option<Subject> {
    if let Some(subject) = claims.object("sub_id").and_then(|id| identifier(&id, 0)) {
        return Some(subject);
    }
    name_of(claims, "sub").map(Subject::User)
}

/// The subject of an event of a plain SET, given the value of its member: its `subject`.
pub fn of_event(event: &Object<'_>) -> Option<Subject> {
    identifier(&event.object("subject")?, 0)
}

/// Levels that identifiers may stand in one another: `complex` holds simple ones, `aliases` too (RFC 9493 section
/// 3.2.8 forbids more).
const IDENTIFIER_DEPTH_MAX: usize = 2;

/// Members of a complex subject, best first (SSF 1.0, complex subjects).
const COMPLEX: [&str; 7] = ["user", "device", "session", "application", "tenant", "org_unit", "group"];

fn identifier(id: &Object<'_>, depth: usize) -> Option<Subject> {
    if depth > IDENTIFIER_DEPTH_MAX {
        return None;
    }
    // `subject_type` and its spelling with hyphens are those of the drafts.
    let format = id.string("format").or_else(|| id.string("subject_type")).unwrap_or_else(|| "complex".to_owned());
    let named = |member| name_of(id, member).map(Subject::Named);
    match format.replace('-', "_").as_str() {
        "iss_sub" => name_of(id, "sub").map(Subject::User),
        "opaque" => name_of(id, "id").map(Subject::User),
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
            // A device's or a tenant's id names no user.
            Some(if *member == "user" { found } else { Subject::Named(found.as_str().to_owned()) })
        }),
        _ => None,
    }
}

/// The first of some places, written with dots, that names somebody.
fn first(object: &Object<'_>, places: &[&str]) -> Option<String> {
    places.iter().find_map(|place| at(object, place))
}

fn at(object: &Object<'_>, place: &str) -> Option<String> {
    match place.split_once('.') {
        Some((member, rest)) => at(&object.object(member)?, rest),
        None => name_of(object, place),
    }
}

/// A member that can name somebody: a string that is not empty, or a whole number in its own text.
fn name_of(object: &Object<'_>, member: &str) -> Option<String> {
    let text = object.get(member)?;
    let name = match object.string(member) {
        Some(name) => name,
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.to_owned(),
        None => return None,
    };
    (!name.is_empty() && name.chars().count() <= SUBJECT_CHARS_MAX).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> Option<Subject> {
        Some(Subject::User(id.to_owned()))
    }

    fn named(name: &str) -> Option<Subject> {
        Some(Subject::Named(name.to_owned()))
    }

    #[test]
    fn of_wso2_events() {
        let claims = r#""claims":[{"uri":"http://wso2.org/claims/emailaddress","value":"m@example.com"},
            {"uri":"http://wso2.org/claims/username","value":"mia"}]"#;
        for (event, expected) in [
            (format!(r#"{{"user":{{"id":"u-1",{claims}}}}}"#), user("u-1")),
            (format!(r#"{{"user":{{{claims}}}}}"#), named("mia")),
            (r#"{"role":{"id":"r-1"}}"#.to_owned(), None),
            (r#"{"user":{"claims":"?"}}"#.to_owned(), None),
        ] {
            assert_eq!(wso2(&Object::parse(&event).unwrap()), expected, "{event}");
        }
    }

    #[test]
    fn of_logto_events() {
        for (event, body, expected) in [
            ("PostSignIn", r#"{"userId":"u1","user":{"id":"u2"}}"#, user("u1")),
            ("PostSignIn", r#"{"user":{"id":"u2"}}"#, user("u2")),
            ("User.Created", r#"{"data":{"id":"u3"}}"#, user("u3")),
            ("User.Deleted", r#"{"data":null,"params":{"userId":"u4"}}"#, user("u4")),
            ("Role.Created", r#"{"data":{"id":"r1"}}"#, None),
            ("Identifier.Lockout", r#"{"value":"m@example.com"}"#, named("m@example.com")),
            ("Message.RateLimited", r#"{"recipient":"+15550100"}"#, named("+15550100")),
        ] {
            assert_eq!(logto(event, &Object::parse(body).unwrap()), expected, "{event} {body}");
        }
    }

    #[test]
    fn of_platform_events() {
        for (category, body, expected) in [
            ("mfa", r#"{"data":{"user":{"id":"u1"},"user_id":"u2"}}"#, user("u1")),
            ("mfa", r#"{"data":{"user_id":12345678901234567890123}}"#, user("12345678901234567890123")),
            ("sso", r#"{"data":{"user":"u3"}}"#, user("u3")),
            ("user", r#"{"data":{"id":"u4","email":"m@example.com"}}"#, user("u4")),
            ("oauth", r#"{"data":{"id":"client"}}"#, None),
            ("security", r#"{"data":{"email":"m@example.com"}}"#, named("m@example.com")),
            ("user", r#"{"data":{"id":""}}"#, None),
            ("user", "{}", None),
        ] {
            assert_eq!(platform(category, &Object::parse(body).unwrap()), expected, "{category} {body}");
        }
    }

    #[test]
    fn of_plain_sets() {
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
            assert_eq!(set(&Object::parse(claims).unwrap()), expected, "{claims}");
        }
    }

    #[test]
    fn nothing_endless_is_followed_or_kept() {
        let nested = format!("{}{{\"format\":\"opaque\",\"id\":\"u\"}}{}", r#"{"user":"#.repeat(5), "}".repeat(5));
        assert_eq!(set(&Object::parse(&format!("{{\"sub_id\":{nested}}}")).unwrap()), None);
        let long = format!("{{\"sub\":\"{}\"}}", "x".repeat(513));
        assert_eq!(set(&Object::parse(&long).unwrap()), None);
    }
}
