//! Builds the request in the subscription's format and signs it in headers. This runs for each attempt, because the
//! signature contains the time.

use std::sync::Arc;

use bytes::Bytes;
use setgate_base::clock::Clock;
use setgate_dialects::{Signer, normalize};
use setgate_domain::attempt::SentSet;
use setgate_domain::delivery::DueDelivery;
use setgate_domain::id::SigningKeyId;
use setgate_domain::secret::signing_context;
use setgate_domain::subscription::{Format, Subscription};
use setgate_domain::trace::TraceContext;
use setgate_ledger::{SignedSet, Versioned};

use super::next::Filtered;
use super::spans::Spans;

/// A signed delivery that is ready to be sent: the input of `deliver`.
pub(super) struct Sealed {
    pub(super) delivery: DueDelivery,
    pub(super) subscription: Arc<Versioned<Subscription>>,
    pub(super) accepted_at: setgate_domain::time::Timestamp,
    pub(super) body: Bytes,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) keys: Vec<SigningKeyId>,
    /// The signed SET in the body.
    pub(super) set: Option<SentSet>,
    /// Trace context of the event.
    pub(super) trace: Option<TraceContext>,
}

/// Why a delivery could not be signed: invalid settings of the subscription, or the wrong master key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The subscription has no valid key, or a key cannot be decrypted.
    #[error(transparent)]
    Signing(#[from] setgate_dialects::Error),
    /// The subscription has no settings for its signed SETs. Its claims are not sent without a signature.
    #[error("the subscription has the format `signed_set`, but no `signed_set`: replace it with both")]
    NotSigned,
    /// The filtered claims no longer contain the product's original body.
    #[error("the format `original` does not fit what the filters left: {0}")]
    Original(String),
}

/// Headers of a pushed SET in addition to its content type (RFC 8935 section 2.1).
const SET_PUSH_HEADERS: [(&str, &str); 2] = [("accept", "application/json"), ("accept-language", "en")];

fn content_type(set: Option<&SentSet>) -> &'static str {
    if set.is_some() { "application/secevent+jwt" } else { "application/json" }
}

/// Builds and signs request bodies.
pub(super) struct Sealer {
    signer: Arc<Signer>,
    clock: Clock,
    spans: Spans,
}

impl Sealer {
    pub(super) fn new(signer: Arc<Signer>, clock: Clock, spans: Spans) -> Self {
        Self { signer, clock, spans }
    }

    /// `signed` is the signed SET of the delivery, exactly if the subscription has that format.
    pub(super) fn seal(
        &self,
        filtered: Filtered,
        signed: Option<SignedSet>,
        subscription: Arc<Versioned<Subscription>>,
    ) -> Result<Sealed, Error> {
        let Filtered { delivery, event, claims, passed: _ } = filtered;
        let claims = || claims.unwrap_or_else(|| event.set.text.clone());
        let (body, set) = match (subscription.value.format, signed) {
            (_, Some(SignedSet { kid, jti, token })) => (token, Some(SentSet { kid, jti })),
            (Format::Set, None) => (claims(), None),
            (Format::SignedSet, None) => return Err(Error::NotSigned),
            (Format::Original, None) => {
                let body = normalize::original_body(&event, &claims());
                (body.map_err(|error| Error::Original(error.to_string()))?, None)
            }
        };
        let (content_type, body) = (content_type(set.as_ref()), Bytes::from(body));
        let context = signing_context(&subscription.value.tenant, &subscription.value.id);
        let id = delivery.id.to_string();
        let mut span = self.spans.signing(event.trace.as_ref(), &subscription.value, &delivery);
        let sign = |signing| self.signer.sign(signing, &context, &id, self.clock.system_time(), &body);
        let signed = subscription.value.signing.as_ref().map(sign).transpose();
        let mut signed = signed.inspect_err(|_| span.failed("unsendable"))?.unwrap_or_default();
        drop(span);
        if set.is_some() {
            signed.headers.extend(SET_PUSH_HEADERS.map(|(name, value)| (name, value.to_owned())));
        }
        Ok(Sealed {
            delivery,
            subscription,
            accepted_at: event.accepted_at,
            body,
            content_type,
            headers: signed.headers,
            keys: signed.keys,
            set,
            trace: event.trace.clone(),
        })
    }
}
