//! A form of request bodies: how a product writes its events, and how they become SETs.

use setgate_domain::json::{JsonLimits, Object};
use setgate_domain::set::SetToken;
use setgate_domain::source::{Form, Source};
use setgate_domain::time::Timestamp;

use crate::claim_mapping::ClaimMapping;
use crate::normalize::{NormalizeError, NormalizeInput};
use crate::samples::SampleFile;
use crate::subject::Subject;

/// A form of request bodies.
///
/// A body that is a SET keeps its own text apart from the smallest edits that make it valid. Any other body becomes,
/// unchanged, the value of its event's member in a new SET. The event itself shows which of the two applies, so the way
/// back for the format `original` is chosen without the form: see
/// [`original_body`](crate::normalize::original_body).
#[derive(Debug)]
pub struct BodyForm {
    /// The stored name.
    pub form: Form,
    /// The stored name as text, in settings, OpenAPI and on the command line.
    pub name: &'static str,
    /// The product and its bodies: the row of the form in OpenAPI.
    pub about: &'static str,
    /// The bodies of this form, for errors about bodies of another form.
    pub(crate) expected: &'static str,
    /// Whether its sources send event types that others define, so that any event type may occur.
    pub accepts_any_event_type: bool,
    /// Whether a body has the characteristic members of this form.
    pub(crate) has_characteristic_members: fn(&Object<'_>) -> bool,
    /// Describes an event of this form in errors about bodies of another form.
    pub(crate) event: &'static str,
    /// Whether a body of any form is most likely an event of this form.
    pub(crate) looks_like_event: fn(&Object<'_>) -> bool,
    /// Describes a body of the same product that is not an event, such as a request of its API.
    pub(crate) describe_non_event: fn(&Object<'_>) -> Option<&'static str>,
    /// Its rows in the documentation.
    pub(crate) claim_mapping: ClaimMapping,
    /// Sample events of the products that send this form.
    pub(crate) samples: &'static [SampleFile],
    /// Makes the SET and finds its subject.
    pub(crate) normalize: fn(&NormalizeRequest<'_>) -> Result<NormalizedSet, NormalizeError>,
}

/// A request from an authenticated source, with everything that its SET depends on.
#[derive(Debug)]
pub(crate) struct NormalizeRequest<'a> {
    pub(crate) source: &'a Source,
    /// The body as text: see [`NormalizeInput::body`] for the bytes.
    pub(crate) text: &'a [u8],
    pub(crate) input: NormalizeInput<'a>,
    /// SHA-256 of the body.
    pub(crate) digest: &'a [u8; 32],
    pub(crate) now: Timestamp,
    pub(crate) limits: JsonLimits,
}

/// The SET that was made from a request.
#[derive(Debug)]
pub(crate) struct NormalizedSet {
    pub(crate) set: SetToken,
    pub(crate) subject: Option<Subject>,
    /// The deduplication window in milliseconds. `None` if the event's `jti` is unique for good.
    pub(crate) window_ms: Option<i64>,
}
