//! Turns any accepted form into a SET, and back.
//!
//! Called once per request, after the source has been authenticated and before anything is stored. Pure: the clock and
//! the random half of the id are arguments. The result carries the accepted bytes, the SET made from them, and the
//! deduplication key. The source's [`BodyForm`](crate::BodyForm) makes the SET.
//!
//! `docs/reference/identities.md` lists for every form the origin of `iss`, `jti`, `iat`, `sub_id`, `txn` and the event
//! type.

pub(crate) mod detect_form;
pub(crate) mod error;
mod media_type;
mod original;
#[cfg(test)]
mod tests;
pub(crate) mod wrapped;

use std::borrow::Cow;

use bytes::Bytes;
use setgate_base::crypto::sha256;
use setgate_domain::event::{Dedupe, NewEvent};
use setgate_domain::id::{EventId, SourceName, TenantId};
use setgate_domain::json::{JsonLimits, quote, replace_lone_surrogates_in, write_object};
use setgate_domain::source::Source;
use setgate_domain::text::strip_bom;
use setgate_domain::time::Timestamp;

use crate::dialect::form_of;
use crate::form::NormalizeRequest;

pub use error::NormalizeError;
pub use original::original_body;

pub use crate::set::{IAT_AHEAD_S_MAX, SignedSet, SignedSetError, normalize_signed};

/// Deduplication window in milliseconds for a body that has neither an id of its own nor a delivery id. It covers a
/// sender's retries (Logto: up to 3) and still allows the same event to occur again for the same user.
pub const BODY_DIGEST_WINDOW_MS: i64 = 10 * 60 * 1000;

/// Media type of a signed SET (RFC 8417 section 7.2).
pub const SIGNED_SET: &str = "application/secevent+jwt";

/// Limit for the length of a product's event name, in characters.
pub const EVENT_NAME_CHARS_MAX: usize = 255;

/// A request from an authenticated source.
#[derive(Debug, Clone, Copy)]
pub struct NormalizeInput<'a> {
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
/// A [`NormalizeError`] with the cause, the place and the remedy. Nothing is stored in that case.
pub fn normalize(
    source: &Source,
    input: NormalizeInput<'_>,
    now: Timestamp,
    id: EventId,
    limits: JsonLimits,
) -> Result<NewEvent, NormalizeError> {
    let content_type = media_type::check_json(input.content_type)?;
    let digest = sha256(input.body);
    let text = text_of(source, input.body);
    let request = NormalizeRequest { source, text: &text, input, digest: &digest, now, limits };
    let made = (form_of(source.form).normalize)(&request)?;
    Ok(NewEvent {
        id,
        tenant: source.tenant.clone(),
        source: source.name.clone(),
        subject: made.subject.map(|subject| subject.as_str().to_owned()),
        original: input.body.clone(),
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
/// The [`NormalizeError`] that [`normalize`] would return.
pub fn check_media_type(content_type: Option<&str>) -> Result<(), NormalizeError> {
    media_type::check_json(content_type).map(drop)
}

/// The deduplication key: SHA-256 over tenant, source and `jti`, each prefixed with its length in bytes as a big-endian
/// `u64`.
pub fn dedupe_key(tenant: &TenantId, source: &SourceName, jti: &str) -> [u8; 32] {
    digest_of(&[tenant.as_str(), source.as_str(), jti])
}

/// The deduplication key of a signed SET: like [`dedupe_key`], over tenant, source, `iss` and `jti`. The `jti` is unique
/// for its issuer only (RFC 8417 section 2.2).
pub(crate) fn signed_dedupe_key(tenant: &TenantId, source: &SourceName, issuer: &str, jti: &str) -> [u8; 32] {
    digest_of(&[tenant.as_str(), source.as_str(), issuer, jti])
}

/// The body without a byte order mark. If the source is configured so, each unpaired surrogate is replaced with U+FFFD.
pub(crate) fn text_of<'b>(source: &Source, body: &'b [u8]) -> Cow<'b, [u8]> {
    let body = strip_bom(body);
    if !source.replace_lone_surrogates {
        return Cow::Borrowed(body);
    }
    match std::str::from_utf8(body).map(replace_lone_surrogates_in) {
        Ok(Cow::Owned(replaced)) => Cow::Owned(replaced.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(body),
    }
}

/// `iss` of a source without a configured issuer.
pub fn default_issuer(tenant: &TenantId, source: &SourceName) -> String {
    format!("https://schemas.setgate.dev/sources/{tenant}/{source}")
}

/// Subject identifier of format `iss_sub` (RFC 9493 section 3.2.3). `issuer` is JSON text already.
pub(crate) fn iss_sub(issuer: &str, user: &str) -> String {
    write_object(&[("format", "\"iss_sub\""), ("iss", issuer), ("sub", &quote(user))])
}

fn digest_of(parts: &[&str]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    sha256(&bytes)
}
