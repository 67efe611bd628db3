//! One exchange with a receiver.

use metrics::{counter, histogram};

use crate::crypto;
use crate::domain;
use crate::domain::attempt::{Attempt, ErrorClass, Outcome};
use crate::domain::delivery::DueDelivery;
use crate::domain::endpoint::Endpoint;
use crate::domain::secret::endpoint_context;
use crate::domain::subscription::Subscription;
use crate::domain::time::Timestamp;
use crate::egress::Exchange;
use crate::ledger::Versioned;
use crate::telemetry::metric;

use super::Pipeline;
use super::seal::Sealed;

/// A delivery after an attempt: what `settle` takes.
pub struct Attempted {
    pub(super) delivery: DueDelivery,
    pub(super) subscription: std::sync::Arc<Versioned<Subscription>>,
    pub(super) accepted_at: Timestamp,
    pub(super) attempt: Attempt,
}

impl Pipeline {
    pub(super) async fn deliver(&self, sealed: Sealed) -> Attempted {
        let Sealed { delivery, subscription, accepted_at, body, headers, keys } = sealed;
        let at = self.clock.now();
        let exchange = match self.endpoint(&subscription.value) {
            Ok(endpoint) => self.egress.post(&endpoint, &headers, "application/json", body, None).await,
            Err(error) => {
                let detail = format!("a header of the endpoint: {error}");
                Exchange { outcome: Outcome::Failed { class: ErrorClass::Unsendable, detail }, latency_us: 0 }
            }
        };

        let label = match &exchange.outcome {
            Outcome::Answered { status, .. } => format!("{}xx", status / 100),
            Outcome::Failed { class, .. } => class.as_str().to_owned(),
        };
        let tenant = delivery.tenant.to_string();
        counter!(metric::ATTEMPTS, "tenant" => tenant, "outcome" => label).increment(1);
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one exchange")]
        histogram!(metric::ATTEMPT_SECONDS).record(exchange.latency_us as f64 / 1e6);

        let attempt = Attempt {
            number: delivery.attempts + 1,
            at,
            latency_us: exchange.latency_us,
            outcome: exchange.outcome,
            signed_with: keys,
        };
        Attempted { delivery, subscription, accepted_at, attempt }
    }

    /// The endpoint with its headers opened.
    pub(super) fn endpoint(&self, subscription: &Subscription) -> Result<Endpoint, crypto::Error> {
        let context = endpoint_context(&subscription.tenant, &subscription.id);
        let open = |(name, sealed): (&String, &domain::secret::Sealed)| {
            Ok((name.clone(), self.master.open(&context, sealed)?.expose().to_owned()))
        };
        let opened = subscription.headers.iter().map(open).collect::<Result<Vec<_>, crypto::Error>>()?;
        Ok(subscription.endpoint.with_headers(opened))
    }
}
