//! One HTTP request to a receiver.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::{counter, histogram};
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::telemetry::{LogThrottle, metric};
use setgate_domain::attempt::{Attempt, ErrorClass, Outcome};
use setgate_domain::attempt_effects::{AttemptEffects, AttemptResult, Protocol, RetryState, interpret};
use setgate_domain::delivery::DueDelivery;
use setgate_domain::subscription::{Format, Subscription};
use setgate_domain::time::Timestamp;
use setgate_domain::trace::TraceContext;
use setgate_domain::verdict::FilterRun;
use setgate_egress::{Egress, Exchange, PostRequest};
use setgate_ledger::Versioned;
use tracing::warn;

use super::endpoints::{EndpointCache, OpenEndpoint, Unopened};
use super::metrics::AttemptCounter;
use super::next::Attempted;
use super::seal::Sealed;
use super::spans::{self, Spans};

/// Rate limit for the log line about attempts that were put back.
static PUT_BACK: LogThrottle = LogThrottle::new(Duration::from_secs(60));

/// Makes attempts.
pub(super) struct Sender {
    egress: Egress,
    endpoints: EndpointCache,
    clock: Clock,
    spans: Spans,
    counter: AttemptCounter,
}

impl Sender {
    pub(super) fn new(egress: Egress, endpoints: EndpointCache, clock: Clock, spans: Spans) -> Self {
        Self { egress, endpoints, clock, spans, counter: AttemptCounter::default() }
    }

    /// Makes one attempt. If this host lacked a resource for it, that does not count as an attempt, and the delivery
    /// stays due.
    pub(super) async fn deliver(&self, sealed: Sealed, passed: Vec<FilterRun>) -> Attempted {
        let Sealed { delivery, subscription, accepted_at, body, content_type, mut headers, keys, set, trace } = sealed;
        let at = self.clock.now();
        let span = self.spans.attempting(trace.as_ref(), &subscription.value, &delivery);
        // The receiver continues the trace below the attempt's span, or below the incoming context if the span is not
        // recorded.
        headers.extend(span.place().or(trace.as_ref()).into_iter().flat_map(TraceContext::headers));
        let exchange = match self.endpoints.get(&subscription) {
            Ok(endpoint) => post(&self.egress, &subscription.value, &endpoint, &headers, (content_type, body)).await,
            Err(error) => unopened(&error),
        };
        spans::attempted(span, &exchange.outcome);
        if let Some(fault) = exchange.host_shortage {
            counter!(metric::ATTEMPTS_PUT_BACK, "cause" => fault.as_str()).increment(1);
            if let (Some(unsaid), Outcome::Failed { detail, .. }) = (PUT_BACK.allow(), &exchange.outcome) {
                warn!(tenant = %delivery.tenant, delivery = %delivery.id, cause = fault.as_str(), detail, unsaid,
                    "this host lacks a resource for attempts; deliveries stay due, and no attempts are recorded");
            }
        } else {
            self.counter.add(&delivery.tenant, &exchange.outcome);
            #[expect(clippy::cast_precision_loss, reason = "microseconds of one exchange")]
            histogram!(metric::ATTEMPT_SECONDS).record(exchange.latency_us as f64 / 1e6);
        }
        let host_shortage = exchange.host_shortage.is_some();
        let attempt = Attempt {
            number: delivery.attempts + 1,
            at,
            latency_us: exchange.latency_us,
            outcome: exchange.outcome,
            signed_with: keys,
            set,
            sent: exchange.sent,
            connection: exchange.connection,
        };
        let consequences = self.interpret(&delivery, &subscription.value, &attempt, host_shortage);
        Attempted { delivery, subscription, accepted_at, attempt, consequences, passed }
    }

    /// The record of an attempt that could not be built or signed. It is retried like any other attempt, because its
    /// cause is a setting that a user can fix.
    pub(super) fn unsendable(
        &self,
        delivery: DueDelivery,
        subscription: Arc<Versioned<Subscription>>,
        (accepted_at, passed): (Timestamp, Vec<FilterRun>),
        detail: String,
    ) -> Attempted {
        let attempt = Attempt {
            number: delivery.attempts + 1,
            at: self.clock.now(),
            latency_us: 0,
            outcome: Outcome::Failed { class: ErrorClass::Unsendable, detail },
            signed_with: Vec::new(),
            set: None,
            sent: None,
            connection: None,
        };
        self.attempted(delivery, subscription, (accepted_at, passed), attempt)
    }

    /// An attempt that was made or refused elsewhere, with its effects.
    pub(super) fn attempted(
        &self,
        delivery: DueDelivery,
        subscription: Arc<Versioned<Subscription>>,
        (accepted_at, passed): (Timestamp, Vec<FilterRun>),
        attempt: Attempt,
    ) -> Attempted {
        let consequences = self.interpret(&delivery, &subscription.value, &attempt, false);
        Attempted { delivery, subscription, accepted_at, attempt, consequences, passed }
    }

    fn interpret(
        &self,
        delivery: &DueDelivery,
        subscription: &Subscription,
        attempt: &Attempt,
        host_shortage: bool,
    ) -> AttemptEffects {
        let protocol = match subscription.format {
            Format::SignedSet => Protocol::SetPush,
            Format::Set | Format::Original => Protocol::Webhook,
        };
        let answer = AttemptResult { outcome: &attempt.outcome, host_shortage, protocol };
        let retries = RetryState {
            schedule: &subscription.retry,
            failed_before: delivery.attempts.saturating_sub(delivery.attempts_before),
            jitter: crypto::random_unit(),
        };
        interpret(answer, retries, self.clock.now())
    }
}

/// Sends one request to the subscription's endpoint, within the subscription's response timeout.
pub(super) async fn post(
    egress: &Egress,
    subscription: &Subscription,
    endpoint: &OpenEndpoint,
    headers: &[(&'static str, String)],
    (content_type, body): (&str, Bytes),
) -> Exchange {
    let post = PostRequest {
        tenant: &subscription.tenant,
        endpoint: &endpoint.destination,
        identity: &endpoint.identity,
        headers,
        redactor: &endpoint.secrets,
        content_type,
        body,
        timeout: subscription.pacing.response_ms_max.map(|ms| Duration::from_millis(ms.get().into())),
    };
    egress.post(post).await
}

/// The result of an attempt that could not start because there is no endpoint.
pub(super) fn unopened(why: &Unopened) -> Exchange {
    Exchange::unsendable(why.to_string())
}
