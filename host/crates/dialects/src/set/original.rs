//! The inverse of normalization for bodies that are SETs.

use setgate_domain::json::{JsonError, Object};

use super::plain_names;

/// The SET with `iat` as the source wrote it and without the claims that normalization added. A `sub_id` that a filter
/// changed is retained. `made` is the normalized SET, `sent` the source's body.
pub(crate) fn original(claims: &Object<'_>, made: &Object<'_>, sent: &str) -> Result<String, JsonError> {
    let sent = Object::parse(sent)?;
    if claims.text() == made.text() {
        return Ok(sent.text().to_owned());
    }
    let mut edits = vec![("iat", sent.get("iat").map(str::to_owned))];
    // Normalization adds or removes these claims, and turns a numeric `txn` into a string.
    for changed in ["txn", "sub_id", "sub", "exp"] {
        if claims.get(changed) == made.get(changed) {
            edits.push((changed, sent.get(changed).map(str::to_owned)));
        }
    }
    if claims.get("events") == made.get("events") {
        edits.push(("events", sent.get("events").map(str::to_owned)));
    } else if let (Some(events), Some(sent)) = (claims.object("events"), sent.object("events"))
        && let Some(named) = plain_names::uris_to_names(&events, &sent)
    {
        edits.push(("events", Some(named)));
    }
    Ok(claims.with(&edits))
}
