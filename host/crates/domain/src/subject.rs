//! Finds the subject of an event.
//!
//! The subject is the user's ID if the event has one, else a name in the event (a user name, an address), else none.
//! The members are checked in a fixed order for each format; `docs/reference/identities.md` lists them in a table.
//!
//! Only members that the product itself fills are used. Data that an end user can write (custom data, a profile, a
//! display name, metadata) never determines the subject: no subject is better than a forged one.

mod products;

use super::json::Object;

pub use products::{logto, platform, wso2};

/// Maximum length of a subject in characters. Longer values are ignored.
pub const SUBJECT_CHARS_MAX: usize = 512;

/// The subject of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The user's ID in the product.
    User(String),
    /// Another name in the event: a user name, an address, a device.
    Named(String),
}

impl Subject {
    /// The ID or the name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::User(text) | Self::Named(text) => text,
        }
    }

    /// The user's ID, if the subject is one.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User(id) => Some(id),
            Self::Named(_) => None,
        }
    }
}

/// The subject of a plain SET: `sub_id` (RFC 9493), else `sub`, else the `subject` of its first event, as in drafts of
/// RISC.
pub fn set(claims: &Object<'_>) -> Option<Subject> {
    of_claims(claims).or_else(|| {
        let events = claims.object("events")?;
        of_event(&Object::parse(events.iter().next()?.1).ok()?)
    })
}

/// The subject in the claims of a plain SET: `sub_id`, else `sub`.
pub fn of_claims(claims: &Object<'_>) -> Option<Subject> {
    if let Some(subject) = claims.object("sub_id").and_then(|id| identifier(&id, 0)) {
        return Some(subject);
    }
    name_of(claims, "sub").map(Subject::User)
}

/// The subject in an event of a plain SET: the member `subject` of its value.
pub fn of_event(event: &Object<'_>) -> Option<Subject> {
    identifier(&event.object("subject")?, 0)
}

/// Maximum nesting of identifiers: `complex` and `aliases` contain simple ones (RFC 9493 section 3.2.8 forbids deeper
/// nesting).
const IDENTIFIER_DEPTH_MAX: usize = 2;

/// Members of a complex subject in order of preference (SSF 1.0, complex subjects).
const COMPLEX: [&str; 7] = ["user", "device", "session", "application", "tenant", "org_unit", "group"];

fn identifier(id: &Object<'_>, depth: usize) -> Option<Subject> {
    if depth > IDENTIFIER_DEPTH_MAX {
        return None;
    }
    // `subject_type` and the spelling with hyphens occur in drafts.
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
            // The ID of a device or a tenant is not a user ID.
            Some(if *member == "user" { found } else { Subject::Named(found.as_str().to_owned()) })
        }),
        _ => None,
    }
}

/// The first of several dotted paths whose value can be a subject.
fn first(object: &Object<'_>, places: &[&str]) -> Option<String> {
    places.iter().find_map(|place| at(object, place))
}

fn at(object: &Object<'_>, place: &str) -> Option<String> {
    match place.split_once('.') {
        Some((member, rest)) => at(&object.object(member)?, rest),
        None => name_of(object, place),
    }
}

/// A member that can be a subject: a non-empty string, or an integer as it is spelled.
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
mod tests;
