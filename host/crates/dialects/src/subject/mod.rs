//! The subject of an event.
//!
//! It is the user's ID if the event has one, else a name in the event (a user name, an address), else none. The members
//! are checked in a fixed order for each form; `docs/reference/identities.md` lists them in a table.
//!
//! Only members that the product itself fills are used. Data that an end user can write (custom data, a profile, a
//! display name, metadata) never determines the subject: no subject is better than a forged one.

use setgate_domain::json::Object;

/// Maximum length of a subject in characters. Longer values are ignored.
pub const SUBJECT_CHARS_MAX: usize = 512;

/// The subject of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The user's ID in the product.
    User(String),
    /// Another name in the event: a user name, an address, a device.
    Named(String),
}

impl Subject {
    /// The ID or the name.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::User(text) | Self::Named(text) => text,
        }
    }

    /// The user's ID, if the subject is one.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Self::User(id) => Some(id),
            Self::Named(_) => None,
        }
    }
}

/// The first of several dotted paths whose value can be a subject.
pub(crate) fn first(object: &Object<'_>, places: &[&str]) -> Option<String> {
    places.iter().find_map(|place| at(object, place))
}

fn at(object: &Object<'_>, place: &str) -> Option<String> {
    match place.split_once('.') {
        Some((member, rest)) => at(&object.object(member)?, rest),
        None => identifier_member(object, place),
    }
}

/// A member that can be a subject: a non-empty string, or an integer as it is spelled.
pub(crate) fn identifier_member(object: &Object<'_>, member: &str) -> Option<String> {
    let text = object.get(member)?;
    let name = match object.string(member) {
        Some(name) => name,
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.to_owned(),
        None => return None,
    };
    (!name.is_empty() && name.chars().count() <= SUBJECT_CHARS_MAX).then_some(name)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Subject;

    pub(crate) fn user(id: &str) -> Option<Subject> {
        Some(Subject::User(id.to_owned()))
    }

    pub(crate) fn named(name: &str) -> Option<Subject> {
        Some(Subject::Named(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
