//! Whom an event is about.
//!
//! The user's id if the event has one; else what the form names instead (a user name, an address); else nobody.
//! The places are looked at in a fixed order per form; `docs/reference/identities.md` has them as a table.
//!
//! Only members that the product itself fills are looked at. Data that an end user can write (custom data, a profile, a
//! display name, metadata) never names the subject: no subject is better than somebody else's.

mod products;

use super::json::Object;

pub use products::{logto, platform, wso2};

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
mod tests;
