//! Turns any accepted form into a SET.
//!
//! Called once per request, after the source has been authenticated and before anything is stored. Pure: the clock and
//! the random half of the id are arguments. The result carries the accepted bytes, the SET made from them, and the
//! deduplication key.
//!
//! A body that is a SET keeps its own text apart from the smallest edits that make it valid. Any other body becomes,
//! unchanged, the value of its event's member in a new SET. `docs/reference/identities.md` lists for every form the
//! origin of `iss`, `jti`, `iat`, `sub_id`, `txn` and the event type.

mod form;
mod media;
mod original;
mod plain_names;
mod refusal;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::Bytes;
use setgate_base::crypto::sha256;
use setgate_domain::catalogue::{self, Product};
use setgate_domain::event::{Dedupe, NewEvent};
use setgate_domain::id::{EventId, SourceName, TenantId};
use setgate_domain::json::{JsonLimits, Object, check_object, check_object_and, quote, replace_lone, write_object};
use setgate_domain::set::{MILLIS_FROM, SetToken, check_jti, whole_number};
use setgate_domain::source::{Form, Source};
use setgate_domain::subject::{self, Subject};
use setgate_domain::text::without_mark;
use setgate_domain::time::Timestamp;

pub use original::original_body;
pub use refusal::Refusal;

/// Deduplication window in milliseconds for a body that has neither an id of its own nor a delivery id. It covers a
/// sender's retries (Logto: up to 3) and still allows the same event to occur again for the same user.
pub const BODY_DIGEST_WINDOW_MS: i64 = 10 * 60 * 1000;

/// Limit for the length of a product's event name, in characters.
pub const EVENT_NAME_CHARS_MAX: usize = 255;

/// Nesting levels that the SET adds around a wrapped body: the claims and `events`.
const WRAPPING_DEPTH: usize = 2;

/// A request from an authenticated source.
#[derive(Debug, Clone, Copy)]
pub struct Inbound<'a> {
    /// The request body, decompressed.
    pub body: &'a Bytes,
    /// `Content-Type`. If absent, JSON is assumed.
    pub content_type: Option<&'a str>,
    /// The sender's delivery id, which stays the same across retries: `webhook-id`, `svix-id`, `x-delivery-id` or
    /// `idempotency-key`.
    pub delivery_id: Option<&'a str>,
}

/// Turns a request into an event.
///
/// # Errors
/// A [`Refusal`] with the cause, the place and the remedy. Nothing is stored in that case.
pub fn normalize(
    source: &Source,
    request: Inbound<'_>,
    now: Timestamp,
    id: EventId,
    limits: JsonLimits,
) -> Result<NewEvent, Refusal> {
    let content_type = media::json(request.content_type)?;
    let digest = sha256(request.body);
    let text = text_of(source, request.body);
    let made = match source.form {
        Form::Wso2 | Form::Set => own_set(source, &text, limits)?,
        Form::Logto => logto(source, (&text, request), &digest, now, limits)?,
        Form::Platform => platform(source, (&text, request), &digest, limits)?,
    };
    Ok(NewEvent {
        id,
        tenant: source.tenant.clone(),
        source: source.name.clone(),
        subject: made.subject.map(|subject| subject.as_str().to_owned()),
        original: request.body.clone(),
        content_type,
        accepted_at: now,
        dedupe: Dedupe {
            key: dedupe_key(&source.tenant, &source.name, &made.set.jti),
            body: digest,
            window_ms: made.window_ms,
        },
        set: made.set,
        trace: None,
    })
}

/// Checks the `Content-Type` before the body is read.
///
/// # Errors
/// The [`Refusal`] that [`normalize`] would return.
pub fn check_media_type(content_type: Option<&str>) -> Result<(), Refusal> {
    media::json(content_type).map(drop)
}

/// The deduplication key: SHA-256 over tenant, source and `jti`, each prefixed with its length in bytes as a big-endian
/// `u64`.
pub fn dedupe_key(tenant: &TenantId, source: &SourceName, jti: &str) -> [u8; 32] {
    digest_of([tenant.as_str(), source.as_str(), jti])
}

/// The body without a byte order mark. If the source is configured so, each unpaired surrogate is replaced with U+FFFD.
fn text_of<'b>(source: &Source, body: &'b [u8]) -> Cow<'b, [u8]> {
    let body = without_mark(body);
    if !source.replace_lone_surrogates {
        return Cow::Borrowed(body);
    }
    match std::str::from_utf8(body).map(replace_lone) {
        Ok(Cow::Owned(replaced)) => Cow::Owned(replaced.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(body),
    }
}

struct Made {
    set: SetToken,
    subject: Option<Subject>,
    window_ms: Option<i64>,
}

/// A SET from WSO2 or from any other product: keeps its own text, with the smallest edits.
fn own_set(source: &Source, body: &[u8], limits: JsonLimits) -> Result<Made, Refusal> {
    let (claims, events) = check_object_and("events", body, limits)?;
    form::expect(source, &claims)?;
    if source.allow_plain_event_names
        && let Some(renamed) = plain_names::with_uris(&claims, events.as_ref())
    {
        // Validated again, because two names may have become equal. The size limit applies to the original body, not to
        // the added text.
        let limits = JsonLimits { bytes_max: usize::MAX, ..limits };
        let (claims, events) = check_object_and("events", renamed.as_bytes(), limits)?;
        return of_claims(source, &claims, events.as_ref());
    }
    of_claims(source, &claims, events.as_ref())
}

fn of_claims(source: &Source, claims: &Object<'_>, events: Option<&Object<'_>>) -> Result<Made, Refusal> {
    let mut edits: Vec<(&str, Option<String>)> = Vec::new();
    if let Some(iat) = claims.get("iat").and_then(whole_number).filter(|iat| *iat >= MILLIS_FROM) {
        edits.push(("iat", Some((iat / 1000).to_string())));
    }
    // Drafts of SSF allowed numbers here.
    if let Some(number) = claims.get("txn").filter(|txn| txn.starts_with(|c: char| c == '-' || c.is_ascii_digit())) {
        edits.push(("txn", Some(quote(number))));
    }
    let mut subject = subject::of_claims(claims);
    let first_event = || {
        let (uri, event) = events?.iter().next()?;
        Some((uri, Object::parse(event).ok()?))
    };
    if source.form == Form::Wso2 {
        if let Some(rci) = claims.string("rci").filter(|rci| !rci.is_empty() && claims.get("txn").is_none()) {
            edits.push(("txn", Some(quote(&rci))));
        }
        let event = first_event();
        subject = subject.or_else(|| event.as_ref().and_then(|(_, event)| subject::of_event(event)));
        if let Some(derived) = event.as_ref().and_then(|(uri, event)| subject::wso2(uri, event)) {
            let named = claims.get("sub_id").is_some() || claims.get("sub").is_some();
            // Any other `iss` is refused below.
            let issuer = claims.get("iss").filter(|iss| iss.starts_with('"'));
            if let (false, Some(iss), Some(user)) = (named, issuer, derived.user()) {
                edits.push(("sub_id", Some(iss_sub(iss, user))));
            }
            subject = subject.or(Some(derived));
        }
    } else {
        subject = subject.or_else(|| first_event().and_then(|(_, event)| subject::of_event(&event)));
    }
    // The edits add one or two members but no nesting level: strings, numbers, and one flat object beside `events`.
    let set = SetToken::edited(claims, events, &edits)?;
    if !source.issuers_allowed.is_empty() && !source.issuers_allowed.contains(&set.issuer) {
        return Err(Refusal::IssuerNotAllowed {
            issuer: refusal::cut(&set.issuer),
            source_name: source.name.to_string(),
        });
    }
    Ok(Made { set, subject, window_ms: None })
}

fn logto(
    source: &Source,
    (text, request): (&[u8], Inbound<'_>),
    digest: &[u8; 32],
    now: Timestamp,
    limits: JsonLimits,
) -> Result<Made, Refusal> {
    let body = wrapped_body(source, text, limits)?;
    let event = event_name(&body, "event")?;
    let issued_at = match body.get("createdAt") {
        Some(at) => seconds("createdAt", at)?,
        None => now.as_seconds(),
    };
    let subject = subject::logto(&event, &body);
    let (jti, window_ms) = derived_jti(source, request, digest);
    wrap(
        source,
        &catalogue::uri_for(Product::Logto, &event),
        body.text(),
        Wrapping { jti, window_ms, issued_at, subject },
    )
}

fn platform(
    source: &Source,
    (text, request): (&[u8], Inbound<'_>),
    digest: &[u8; 32],
    limits: JsonLimits,
) -> Result<Made, Refusal> {
    let body = wrapped_body(source, text, limits)?;
    let event = event_name(&body, "type")?;
    let at = body.get("timestamp").ok_or(Refusal::MissingClaim {
        claim: "timestamp".to_owned(),
        hint: "the instant of the event, as RFC 3339 text or as a number of seconds or milliseconds since 1970",
    })?;
    let issued_at = seconds("timestamp", at)?;
    let entry = catalogue::by_name(Product::Platform, &event);
    let (category, name) = entry.map_or(("other", event.as_str()), |entry| (entry.category, entry.name));
    let subject = subject::platform(category, name, &body);
    let (jti, window_ms) = match body.string("id") {
        Some(id) => {
            check_jti(&id).map_err(|fault| Refusal::BadClaim {
                claim: "id".to_owned(),
                why: format!("`id` becomes the `jti`, but as such {fault}"),
            })?;
            (id, None)
        }
        None => derived_jti(source, request, digest),
    };
    wrap(
        source,
        &catalogue::uri_for(Product::Platform, &event),
        body.text(),
        Wrapping { jti, window_ms, issued_at, subject },
    )
}

/// Validates a body that will be wrapped in a SET, with limits reduced so that the SET stays within them too.
fn wrapped_body<'b>(source: &Source, body: &'b [u8], limits: JsonLimits) -> Result<Object<'b>, Refusal> {
    let limits = JsonLimits { depth_max: limits.depth_max.saturating_sub(WRAPPING_DEPTH), ..limits };
    let body = check_object(body, limits)?;
    form::expect(source, &body)?;
    Ok(body)
}

struct Wrapping {
    jti: String,
    window_ms: Option<i64>,
    issued_at: i64,
    subject: Option<Subject>,
}

/// Wraps a body in a SET with `iss`, `jti`, `iat`, `events`, and `sub_id` if the user is known.
fn wrap(source: &Source, uri: &str, body: &str, wrapping: Wrapping) -> Result<Made, Refusal> {
    let Wrapping { jti, window_ms, issued_at, subject } = wrapping;
    let issuer = issuer_of(source);
    let sub_id = subject.as_ref().and_then(Subject::user).map(|user| iss_sub(&quote(&issuer), user));
    let set = SetToken::write(issuer, jti, issued_at, sub_id.as_deref(), (uri, body))?;
    Ok(Made { set, subject, window_ms })
}

/// `iss` for forms that carry none.
fn issuer_of(source: &Source) -> String {
    source.issuer.clone().unwrap_or_else(|| default_issuer(&source.tenant, &source.name))
}

/// `iss` of a source without a configured issuer.
pub fn default_issuer(tenant: &TenantId, source: &SourceName) -> String {
    format!("https://schemas.setgate.dev/sources/{tenant}/{source}")
}

/// Subject identifier of format `iss_sub` (RFC 9493 section 3.2.3). `issuer` is JSON text already.
fn iss_sub(issuer: &str, user: &str) -> String {
    write_object(&[("format", "\"iss_sub\""), ("iss", issuer), ("sub", &quote(user))])
}

/// A `jti` for a body that has none, and its deduplication window. It is derived from the sender's delivery id, or from
/// the digest of the body with a window of [`BODY_DIGEST_WINDOW_MS`] if there is no delivery id.
fn derived_jti(source: &Source, request: Inbound<'_>, digest: &[u8; 32]) -> (String, Option<i64>) {
    let short = |digest: &[u8; 32]| hex::encode(&digest[..16]);
    match request.delivery_id.map(str::trim).filter(|id| !id.is_empty()) {
        Some(id) => {
            let digest = digest_of([source.tenant.as_str(), source.name.as_str(), id]);
            (format!("d-{}", short(&digest)), None)
        }
        None => (format!("b-{}", short(digest)), Some(BODY_DIGEST_WINDOW_MS)),
    }
}

fn digest_of(parts: [&str; 3]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    sha256(&bytes)
}

fn event_name(body: &Object<'_>, claim: &str) -> Result<String, Refusal> {
    let bad = |why: &str| Refusal::BadClaim { claim: claim.to_owned(), why: format!("`{claim}` {why}") };
    if body.get(claim).is_none() {
        return Err(Refusal::MissingClaim { claim: claim.to_owned(), hint: "the name of the event, as a string" });
    }
    let name = body.string(claim).ok_or_else(|| bad("has to be a string: the name of the event"))?;
    if name.is_empty() || name.chars().count() > EVENT_NAME_CHARS_MAX || name.contains(char::is_control) {
        return Err(bad(&format!("has to be 1 to {EVENT_NAME_CHARS_MAX} characters without control characters")));
    }
    Ok(name)
}

/// Parses a product's timestamp, RFC 3339 text or a number in seconds or milliseconds, into whole seconds.
fn seconds(claim: &str, text: &str) -> Result<i64, Refusal> {
    let read = match whole_number(text) {
        Some(number) if number >= MILLIS_FROM => Some(number / 1000),
        Some(number) => Some(number),
        None => {
            serde_json::from_str::<String>(text).ok().and_then(|at| Timestamp::parse(&at)).map(Timestamp::as_seconds)
        }
    };
    read.filter(|at| (0..MILLIS_FROM).contains(at)).ok_or_else(|| Refusal::BadClaim {
        claim: claim.to_owned(),
        why: format!(
            "`{claim}` is {}: write RFC 3339 text with an offset (2026-08-21T12:16:09Z), or a number of seconds or \
             milliseconds since 1970",
            refusal::cut(text)
        ),
    })
}
