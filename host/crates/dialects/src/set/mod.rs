//! SETs as plain JSON (RFC 8417), with the event types of CAEP, RISC and SSF.

mod claim_mapping;
mod events;
mod identifier;
mod normalize;
mod original;
mod plain_names;
mod signed;
pub(crate) mod subject;

use setgate_domain::json::Object;
use setgate_domain::source::Form;

use crate::dialect::Dialect;
use crate::form::BodyForm;
use crate::samples::SampleFile;

pub(crate) use normalize::{ProductClaims, first_event, normalize_set};
pub(crate) use original::original;
pub use signed::{IAT_AHEAD_S_MAX, SignedSet, SignedSetError, normalize_signed};

pub(crate) const DIALECT: Dialect = Dialect {
    title: "SET (RFC 8417)",
    scheme: None,
    form: Some(BodyForm {
        form: Form::Set,
        name: "set",
        about: "A SET as plain JSON (RFC 8417), including CAEP, RISC and SSF events.",
        expected: "a SET as JSON with iss, jti, iat and events (RFC 8417)",
        accepts_any_event_type: true,
        has_characteristic_members: is_set,
        event: "a SET (RFC 8417)",
        looks_like_event: |body| {
            body.object("events").is_some() && (body.get("iss").is_some() || body.get("jti").is_some())
        },
        describe_non_event,
        claim_mapping: claim_mapping::CLAIM_MAPPING,
        samples: &[SampleFile { product: "set", json: include_str!("samples/set.json") }],
        normalize: |request| {
            normalize_set(request, |claims, events| ProductClaims {
                added: Vec::new(),
                subject: subject::of(claims, events),
            })
        },
    }),
    products: &[events::CAEP, events::RISC, events::SSF],
    unlisted: Some(events::unlisted),
};

/// Whether a body has the characteristic member of a SET. This is also the mark of the products that send SETs: a WSO2
/// server may be configured to send CAEP events, and a plain SET may come from WSO2.
pub(crate) fn is_set(body: &Object<'_>) -> bool {
    body.get("events").is_some()
}

fn describe_non_event(body: &Object<'_>) -> Option<&'static str> {
    let has = |key| body.get(key).is_some();
    if has("sets") {
        Some("an answer to a poll for SETs (RFC 8936)")
    } else if has("ack") || has("setErrs") || has("returnImmediately") || has("maxEvents") {
        Some("a poll request for SETs (RFC 8936)")
    } else if body.string("err").is_some() {
        Some("an error answer to a pushed SET (RFC 8935)")
    } else {
        None
    }
}
