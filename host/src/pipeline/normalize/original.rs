//! The inverse of normalization: the body in the product's own format, built from the filtered claims.

use setgate_domain::event::Event;
use setgate_domain::json::{JsonFault, Object, is_space, replace_lone};

use super::plain_names;

/// The body of a delivery with `format = "original"`, given the claims after the filters.
///
/// If the source's body was wrapped in a SET (Logto, platform), this is the value of the event's member, or of the
/// first remaining member if the filters removed that one. If the body was a SET, this is the SET with `iat` as the
/// source wrote it and without the claims that normalization added. A `sub_id` that a filter changed is retained. The
/// event itself shows which case applies, so a source may change its form while deliveries are pending.
///
/// # Errors
/// If the claims are malformed. Claims that passed [`apply`](setgate_domain::set::apply) never are.
pub fn original_body(event: &Event, claims: &str) -> Result<String, JsonFault> {
    let claims = Object::parse(claims)?;
    // If no filter changed the claims, they equal the normalized SET.
    let made = if claims.text() == event.set.text { claims.clone() } else { Object::parse(&event.set.text)? };
    let sent = std::str::from_utf8(&event.original).map_err(|error| JsonFault::NotUtf8 { at: error.valid_up_to() })?;
    // Undo the same cleanup as when the SET was made.
    let sent = replace_lone(sent.trim_start_matches('\u{feff}').trim_matches(is_space));
    let sent = sent.as_ref();
    let (made_name, made_value) = first_event(&made)?;
    if made_value == sent {
        let events = claims.object("events").ok_or(JsonFault::NotAnObject)?;
        return match events.get(&made_name) {
            Some(value) => Ok(value.to_owned()),
            None => Ok(first_event(&claims)?.1.to_owned()),
        };
    }
    let sent = Object::parse(sent)?;
    let mut edits = vec![("iat", sent.get("iat").map(str::to_owned))];
    // Normalization adds these claims if they are absent, and turns a numeric `txn` into a string.
    for changed in ["txn", "sub_id"] {
        if claims.get(changed) == made.get(changed) {
            edits.push((changed, sent.get(changed).map(str::to_owned)));
        }
    }
    if claims.get("events") == made.get("events") {
        edits.push(("events", sent.get("events").map(str::to_owned)));
    } else if let (Some(events), Some(sent)) = (claims.object("events"), sent.object("events"))
        && let Some(named) = plain_names::as_sent(&events, &sent)
    {
        edits.push(("events", Some(named)));
    }
    Ok(claims.with(&edits))
}

fn first_event<'a>(claims: &Object<'a>) -> Result<(String, &'a str), JsonFault> {
    let events = claims.object("events").ok_or(JsonFault::NotAnObject)?;
    let (name, value) = events.iter().next().ok_or(JsonFault::NotAnObject)?;
    Ok((name.to_owned(), value))
}
