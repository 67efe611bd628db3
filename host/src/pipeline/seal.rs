//! Builds the request body in the subscription's format and signs it. This runs for each attempt, because the signature
//! contains the time.

use std::sync::Arc;

use bytes::Bytes;
use setgate_base::clock::Clock;
use setgate_dialects::{Signer, normalize};
use setgate_domain::delivery::DueDelivery;
use setgate_domain::id::SigningKeyId;
use setgate_domain::secret::signing_context;
use setgate_domain::subscription::{Format, Subscription};
use setgate_domain::trace::TraceContext;
use setgate_ledger::Versioned;

use super::next::Filtered;
use super::spans::Spans;

/// A signed delivery that is ready to be sent: the input of `deliver`.
pub(super) struct Sealed {
    pub(super) delivery: DueDelivery,
    pub(super) subscription: Arc<Versioned<Subscription>>,
    pub(super) accepted_at: setgate_domain::time::Timestamp,
    pub(super) body: Bytes,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) keys: Vec<SigningKeyId>,
    /// Trace context of the event.
    pub(super) trace: Option<TraceContext>,
}

/// Why a delivery could not be signed: invalid settings of the subscription, or the wrong master key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The subscription has no valid key, or a key cannot be decrypted.
    #[error(transparent)]
    Signing(#[from] setgate_dialects::Error),
    /// The filtered claims no longer contain the product's original body.
    #[error("the format `original` does not fit what the filters left: {0}")]
    Original(String),
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

    pub(super) fn seal(&self, filtered: Filtered, subscription: Arc<Versioned<Subscription>>) -> Result<Sealed, Error> {
        let Filtered { delivery, event, claims, passed: _ } = filtered;
        let claims = claims.unwrap_or_else(|| event.set.text.clone());
        let body = match subscription.value.format {
            Format::Set => claims,
            Format::Original => {
                normalize::original_body(&event, &claims).map_err(|error| Error::Original(error.to_string()))?
            }
        };
        let body = Bytes::from(body);
        let context = signing_context(&subscription.value.tenant, &subscription.value.id);
        let id = delivery.id.to_string();
        let mut span = self.spans.signing(event.trace.as_ref(), &subscription.value, &delivery);
        let signed = self.signer.sign(&subscription.value.signing, &context, &id, self.clock.system_time(), &body);
        let signed = signed.inspect_err(|_| span.failed("unsendable"))?;
        drop(span);
        Ok(Sealed {
            delivery,
            subscription,
            accepted_at: event.accepted_at,
            body,
            headers: signed.headers,
            keys: signed.keys,
            trace: event.trace.clone(),
        })
    }
}
