//! Bodies that are SETs: each keeps its own text, with the smallest edits.

use setgate_domain::json::{JsonLimits, Object, check_object_and, quote};
use setgate_domain::set::{MILLISECONDS_MIN, SetToken, whole_number};

use super::plain_names;
use crate::form::{NormalizeRequest, NormalizedSet};
use crate::normalize::{NormalizeError, detect_form, error};
use crate::subject::Subject;

/// The part of a product: its subject, and the claims that it adds to the SET.
pub(crate) struct ProductClaims {
    /// Names and JSON texts of claims that the SET does not have.
    pub(crate) added: Vec<(&'static str, String)>,
    pub(crate) subject: Option<Subject>,
}

/// Derives the part of a product from the claims and the `events`.
type Derive = fn(&Object<'_>, Option<&Object<'_>>) -> ProductClaims;

/// A SET from any product.
pub(crate) fn normalize_set(request: &NormalizeRequest<'_>, derive: Derive) -> Result<NormalizedSet, NormalizeError> {
    let &NormalizeRequest { source, text, limits, .. } = request;
    let (claims, events) = check_object_and("events", text, limits)?;
    detect_form::check_form(source, &claims)?;
    if source.allow_plain_event_names
        && let Some(renamed) = plain_names::names_to_uris(&claims, events.as_ref())
    {
        // Validated again, because two names may have become equal. The size limit applies to the original body, not to
        // the added text.
        let limits = JsonLimits { bytes_max: usize::MAX, ..limits };
        let (claims, events) = check_object_and("events", renamed.as_bytes(), limits)?;
        return of_claims(request, &claims, events.as_ref(), derive);
    }
    of_claims(request, &claims, events.as_ref(), derive)
}

fn of_claims(
    request: &NormalizeRequest<'_>,
    claims: &Object<'_>,
    events: Option<&Object<'_>>,
    derive: Derive,
) -> Result<NormalizedSet, NormalizeError> {
    let mut edits: Vec<(&str, Option<String>)> = Vec::new();
    if let Some(iat) = claims.get("iat").and_then(whole_number).filter(|iat| *iat >= MILLISECONDS_MIN) {
        edits.push(("iat", Some((iat / 1000).to_string())));
    }
    // Drafts of SSF allowed numbers here.
    if let Some(number) = claims.get("txn").filter(|txn| txn.starts_with(|c: char| c == '-' || c.is_ascii_digit())) {
        edits.push(("txn", Some(quote(number))));
    }
    let ProductClaims { added, subject } = derive(claims, events);
    // The edits add one or two members but no nesting level: strings, numbers, and one flat object beside `events`.
    edits.extend(added.into_iter().map(|(claim, text)| (claim, Some(text))));
    let set = SetToken::with_edits(claims, events, &edits)?;
    let source = request.source;
    if !source.issuers_allowed.is_empty() && !source.issuers_allowed.contains(&set.issuer) {
        return Err(NormalizeError::IssuerNotAllowed {
            issuer: error::cut(&set.issuer),
            source_name: source.name.to_string(),
        });
    }
    Ok(NormalizedSet { set, subject, window_ms: None })
}

/// Event type and value of the first event, if the value is an object.
pub(crate) fn first_event<'o>(events: Option<&'o Object<'o>>) -> Option<(&'o str, Object<'o>)> {
    let (uri, event) = events?.iter().next()?;
    Some((uri, Object::parse(event).ok()?))
}
