//! Events with plain names instead of URIs, from sources that may send them. Event names in a SET must be URIs (RFC
//! 8417 section 2.2), so each plain name is mapped to a URI of ours, and mapped back for deliveries in the original
//! format.

use std::borrow::Cow;

use setgate_domain::json::{Object, write_object};
use setgate_domain::set::is_absolute_uri;

use crate::catalogue::{percent_encoded, setgate_uri};
use crate::normalize::EVENT_NAME_CHARS_MAX;

/// The claims with a URI for each plain event name. `None` if all names are URIs already.
pub(super) fn names_to_uris(claims: &Object<'_>, events: Option<&Object<'_>>) -> Option<String> {
    let events = events?;
    if events.iter().all(|(name, _)| !is_plain(name)) {
        return None;
    }
    let members: Vec<_> = events.iter().map(|(name, event)| (uri_of(name), event)).collect();
    Some(claims.with(&[("events", Some(write(&members)))]))
}

/// Maps the `events` of a SET back to the names in `sent`. `None` if `sent` has no plain names.
pub(super) fn uris_to_names(events: &Object<'_>, sent: &Object<'_>) -> Option<String> {
    let plain: Vec<_> = sent.iter().filter(|(name, _)| is_plain(name)).map(|(name, _)| (uri_of(name), name)).collect();
    if plain.is_empty() {
        return None;
    }
    let name_of = |uri| plain.iter().find(|(of, _)| of == uri).map_or(uri, |(_, name)| *name);
    let members: Vec<_> = events.iter().map(|(uri, event)| (Cow::Borrowed(name_of(uri)), event)).collect();
    Some(write(&members))
}

fn is_plain(name: &str) -> bool {
    !is_absolute_uri(name) && !name.is_empty() && name.chars().count() <= EVENT_NAME_CHARS_MAX
}

fn uri_of(name: &str) -> Cow<'_, str> {
    if is_plain(name) { Cow::Owned(setgate_uri("set", "other", &percent_encoded(name))) } else { Cow::Borrowed(name) }
}

fn write(members: &[(Cow<'_, str>, &str)]) -> String {
    write_object(&members.iter().map(|(name, event)| (name.as_ref(), *event)).collect::<Vec<_>>())
}
