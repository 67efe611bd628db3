//! The inverse of normalization: the body in the product's own format, built from the filtered claims.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use setgate_domain::event::Event;
use setgate_domain::json::{JsonError, Object, is_space, replace_lone_surrogates_in};

use super::{SIGNED_SET, wrapped};
use crate::set;

/// The body of a delivery with `format = "original"`, given the claims after the filters.
///
/// If the source's body was wrapped in a SET (Logto, platform), this is the value of the event's member. If the body was
/// a SET, this is the SET without the edits of normalization, and of a signed SET these are its claims. The event itself shows which case applies, so a source may
/// change its form while deliveries are pending.
///
/// # Errors
/// If the claims are malformed. Claims that passed [`apply`](setgate_domain::set::apply) never are.
pub fn original_body(event: &Event, claims: &str) -> Result<String, JsonError> {
    let claims = Object::parse(claims)?;
    // If no filter changed the claims, they equal the normalized SET.
    let made = if claims.text() == event.set.text { claims.clone() } else { Object::parse(&event.set.text)? };
    let sent = match event.content_type.as_str() {
        SIGNED_SET => Cow::Owned(payload_of(&event.original)),
        _ => Cow::Borrowed(&event.original[..]),
    };
    let sent = std::str::from_utf8(&sent).map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() })?;
    // Undo the same cleanup as when the SET was made.
    let sent = replace_lone_surrogates_in(sent.trim_start_matches('\u{feff}').trim_matches(is_space));
    let events = made.object("events").ok_or(JsonError::NotAnObject)?;
    let (name, value) = events.iter().next().ok_or(JsonError::NotAnObject)?;
    if value == sent.as_ref() { wrapped::unwrap(&claims, name) } else { set::original(&claims, &made, &sent) }
}

/// The payload of a compact token that was verified before. Empty if there is none.
fn payload_of(token: &[u8]) -> Vec<u8> {
    let payload = token.split(|byte| *byte == b'.').nth(1).unwrap_or_default();
    BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap_or_default()
}
