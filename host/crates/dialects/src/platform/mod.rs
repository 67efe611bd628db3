//! The webhooks and event subscriptions platform: events of the form `{type, timestamp, data, organization}`.

mod claim_mapping;
mod events;
pub(crate) mod subject;

use setgate_domain::set::check_jti;
use setgate_domain::source::Form;

use crate::catalogue::{by_name, uri_for};
use crate::dialect::Dialect;
use crate::form::{BodyForm, NormalizeRequest, NormalizedSet};
use crate::normalize::{NormalizeError, wrapped};
use crate::samples::SampleFile;

pub(crate) const DIALECT: Dialect = Dialect {
    title: "Webhooks and event subscriptions platform",
    scheme: None,
    form: Some(BodyForm {
        form: Form::Platform,
        name: "platform",
        about: "Webhooks and event subscriptions platform: `{type, timestamp, data, organization}`.",
        expected: "an event with `type`, `timestamp` and `data`",
        accepts_any_event_type: false,
        has_characteristic_members: |body| {
            body.get("type").is_some() && (body.get("timestamp").is_some() || body.get("data").is_some())
        },
        event: "an event of the platform form",
        looks_like_event: |body| body.string("type").is_some() && body.get("timestamp").is_some(),
        describe_non_event: |_| None,
        claim_mapping: claim_mapping::CLAIM_MAPPING,
        samples: &[SampleFile { product: "platform", json: include_str!("samples/platform.json") }],
        normalize,
    }),
    products: &[events::PRODUCT],
    unlisted: None,
};

fn normalize(request: &NormalizeRequest<'_>) -> Result<NormalizedSet, NormalizeError> {
    let body = wrapped::body(request)?;
    let event = wrapped::event_name(&body, "type")?;
    let at = body.get("timestamp").ok_or(NormalizeError::MissingClaim {
        claim: "timestamp".to_owned(),
        hint: "the instant of the event, as RFC 3339 text or as a number of seconds or milliseconds since 1970",
    })?;
    let issued_at = wrapped::seconds("timestamp", at)?;
    let entry = by_name(&events::PRODUCT, &event);
    let (category, name) = entry.map_or(("other", event.as_str()), |entry| (entry.category, entry.name));
    let subject = subject::of(category, name, &body);
    let (jti, window_ms) = match body.string("id") {
        Some(id) => {
            check_jti(&id).map_err(|fault| NormalizeError::BadClaim {
                claim: "id".to_owned(),
                why: format!("`id` becomes the `jti`, but as such {fault}"),
            })?;
            (id, None)
        }
        None => wrapped::derive_jti(request),
    };
    let claims = wrapped::WrappedClaims { jti, window_ms, issued_at, subject };
    wrapped::wrap(request.source, &uri_for(&events::PRODUCT, &event), body.text(), claims)
}
