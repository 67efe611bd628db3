//! Sealing: the body in the subscription's format, and its signature; anew for each attempt, since the signature
//! carries the time.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::delivery::DueDelivery;
use crate::domain::id::SigningKeyId;
use crate::domain::secret::signing_context;
use crate::domain::subscription::{Format, Subscription};
use crate::domain::trace::TraceContext;
use crate::ledger::Versioned;
use crate::signing;

use super::Pipeline;
use super::filter::Filtered;
use super::normalize;

/// A delivery ready to be sent: what `deliver` takes.
pub struct Sealed {
    pub(super) delivery: DueDelivery,
    pub(super) subscription: Arc<Versioned<Subscription>>,
    pub(super) accepted_at: crate::domain::time::Timestamp,
    pub(super) body: Bytes,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) keys: Vec<SigningKeyId>,
    /// Its event's place in a trace.
    pub(super) trace: Option<TraceContext>,
}

/// Why a delivery could not be sealed: the subscription's own settings, or the host's master key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No valid key, or one that cannot be read.
    #[error(transparent)]
    Signing(#[from] signing::Error),
    /// The product's own body cannot be found in the claims any more.
    #[error("the format `original` does not fit what the filters left: {0}")]
    Original(String),
}

impl Pipeline {
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
        let mut span = self.signing(event.trace.as_ref(), &subscription.value, &delivery);
        let signed = self.signer.sign(&subscription.value.signing, &context, &id, self.clock.wall(), &body);
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
