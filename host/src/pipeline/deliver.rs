//! One exchange with a receiver.

use metrics::{counter, histogram};

use crate::domain::attempt::{Attempt, Outcome};
use crate::domain::delivery::DueDelivery;
use crate::domain::subscription::Subscription;
use crate::domain::time::Timestamp;
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
        let exchange = self.egress.post(&subscription.value.endpoint, &headers, "application/json", body, None).await;

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
}
