//! Bodies that are not SETs: each becomes, unchanged, the value of its event's member in a new SET, and back.

use setgate_domain::json::{JsonError, JsonLimits, Object, check_object, quote};
use setgate_domain::set::{MILLISECONDS_MIN, SetToken, whole_number};
use setgate_domain::source::Source;
use setgate_domain::time::Timestamp;

use super::{
    BODY_DIGEST_WINDOW_MS, EVENT_NAME_CHARS_MAX, NormalizeError, default_issuer, detect_form, digest_of, error, iss_sub,
};
use crate::form::{NormalizeRequest, NormalizedSet};
use crate::subject::Subject;

/// Nesting levels that the SET adds around a wrapped body: the claims and `events`.
const WRAPPING_DEPTH: usize = 2;

/// Validates a body that will be wrapped in a SET, with limits reduced so that the SET stays within them too.
pub(crate) fn body<'b>(request: &NormalizeRequest<'b>) -> Result<Object<'b>, NormalizeError> {
    let depth_max = request.limits.depth_max.saturating_sub(WRAPPING_DEPTH);
    let body = check_object(request.text, JsonLimits { depth_max, ..request.limits })?;
    detect_form::check_form(request.source, &body)?;
    Ok(body)
}

/// The claims of a wrapped body.
pub(crate) struct WrappedClaims {
    pub(crate) jti: String,
    pub(crate) window_ms: Option<i64>,
    pub(crate) issued_at: i64,
    pub(crate) subject: Option<Subject>,
}

/// Wraps a body in a SET with `iss`, `jti`, `iat`, `events`, and `sub_id` if the user is known.
pub(crate) fn wrap(
    source: &Source,
    uri: &str,
    body: &str,
    claims: WrappedClaims,
) -> Result<NormalizedSet, NormalizeError> {
    let WrappedClaims { jti, window_ms, issued_at, subject } = claims;
    let issuer = issuer_of(source);
    let sub_id = subject.as_ref().and_then(Subject::user).map(|user| iss_sub(&quote(&issuer), user));
    let set = SetToken::write(issuer, jti, issued_at, sub_id.as_deref(), (uri, body))?;
    Ok(NormalizedSet { set, subject, window_ms })
}

/// The way back: the value of the event's member, or of the first remaining member if the filters removed that one.
pub(super) fn unwrap(claims: &Object<'_>, name: &str) -> Result<String, JsonError> {
    let events = claims.object("events").ok_or(JsonError::NotAnObject)?;
    let value = events.get(name).or_else(|| events.iter().next().map(|(_, value)| value));
    value.map(str::to_owned).ok_or(JsonError::NotAnObject)
}

/// `iss` for forms that carry none.
fn issuer_of(source: &Source) -> String {
    source.issuer.clone().unwrap_or_else(|| default_issuer(&source.tenant, &source.name))
}

/// A `jti` for a body that has none, and its deduplication window. It is derived from the sender's delivery id, or from
/// the digest of the body with a window of [`BODY_DIGEST_WINDOW_MS`] if there is no delivery id.
pub(crate) fn derive_jti(request: &NormalizeRequest<'_>) -> (String, Option<i64>) {
    let short = |digest: &[u8; 32]| hex::encode(&digest[..16]);
    match request.input.delivery_id.map(str::trim).filter(|id| !id.is_empty()) {
        Some(id) => {
            let digest = digest_of(&[request.source.tenant.as_str(), request.source.name.as_str(), id]);
            (format!("d-{}", short(&digest)), None)
        }
        None => (format!("b-{}", short(request.digest)), Some(BODY_DIGEST_WINDOW_MS)),
    }
}

/// The event's name in the member `claim`.
pub(crate) fn event_name(body: &Object<'_>, claim: &str) -> Result<String, NormalizeError> {
    let bad = |why: &str| NormalizeError::BadClaim { claim: claim.to_owned(), why: format!("`{claim}` {why}") };
    if body.get(claim).is_none() {
        return Err(NormalizeError::MissingClaim {
            claim: claim.to_owned(),
            hint: "the name of the event, as a string",
        });
    }
    let name = body.string(claim).ok_or_else(|| bad("has to be a string: the name of the event"))?;
    if name.is_empty() || name.chars().count() > EVENT_NAME_CHARS_MAX || name.contains(char::is_control) {
        return Err(bad(&format!("has to be 1 to {EVENT_NAME_CHARS_MAX} characters without control characters")));
    }
    Ok(name)
}

/// Parses a product's timestamp, RFC 3339 text or a number in seconds or milliseconds, into whole seconds.
pub(crate) fn seconds(claim: &str, text: &str) -> Result<i64, NormalizeError> {
    let read = match whole_number(text) {
        Some(number) if number >= MILLISECONDS_MIN => Some(number / 1000),
        Some(number) => Some(number),
        None => {
            serde_json::from_str::<String>(text).ok().and_then(|at| Timestamp::parse(&at)).map(Timestamp::as_seconds)
        }
    };
    read.filter(|at| (0..MILLISECONDS_MIN).contains(at)).ok_or_else(|| NormalizeError::BadClaim {
        claim: claim.to_owned(),
        why: format!(
            "`{claim}` is {}: write RFC 3339 text with an offset (2026-08-21T12:16:09Z), or a number of seconds or \
             milliseconds since 1970",
            error::cut(text)
        ),
    })
}
