//! One exchange with a receiver.

use std::time::Duration;

use bytes::Bytes;
use metrics::{counter, histogram};
use tracing::warn;

use crate::crypto;
use crate::domain;
use crate::domain::attempt::{Attempt, Outcome};
use crate::domain::delivery::DueDelivery;
use crate::domain::endpoint::{ClientCertificate, Endpoint};
use crate::domain::secret::endpoint_context;
use crate::domain::subscription::Subscription;
use crate::domain::time::Timestamp;
use crate::domain::trace::TraceContext;
use crate::domain::verdict::FilterRun;
use crate::egress::{Exchange, Identity, Post};
use crate::ledger::Versioned;
use crate::telemetry::{Seldom, metric};

use super::Pipeline;
use super::seal::Sealed;
use super::spans;

/// A delivery after an attempt: what `settle` takes.
pub struct Attempted {
    pub(super) delivery: DueDelivery,
    pub(super) subscription: std::sync::Arc<Versioned<Subscription>>,
    pub(super) accepted_at: Timestamp,
    pub(super) attempt: Attempt,
    /// See [`Filtered::passed`](super::filter::Filtered).
    pub(super) passed: Vec<FilterRun>,
}

/// Log lines about deliveries that were put back.
static PUT_BACK: Seldom = Seldom::new(Duration::from_secs(60));

impl Pipeline {
    /// One attempt. None if this host was short of something that it takes: then it is no attempt, and the delivery stays
    /// due.
    pub(super) async fn deliver(&self, sealed: Sealed, passed: Vec<FilterRun>) -> Option<Attempted> {
        let Sealed { delivery, subscription, accepted_at, body, mut headers, keys, trace } = sealed;
        let at = self.clock.now();
        let span = self.attempting(trace.as_ref(), &subscription.value, &delivery);
        // Below the attempt; where that is not recorded, below whoever was there before.
        headers.extend(span.place().or(trace.as_ref()).into_iter().flat_map(TraceContext::headers));
        let exchange = self.post(&subscription.value, &headers, body).await;
        spans::attempted(span, &exchange.outcome);
        if let Some(fault) = exchange.own_fault {
            counter!(metric::ATTEMPTS_PUT_BACK, "cause" => fault.as_str()).increment(1);
            if let (Some(unsaid), Outcome::Failed { detail, .. }) = (PUT_BACK.due(), &exchange.outcome) {
                warn!(tenant = %delivery.tenant, delivery = %delivery.id, cause = fault.as_str(), detail, unsaid,
                    "this host is short of something that an attempt takes: deliveries stay due, without an attempt");
            }
            return None;
        }

        self.counts.attempt(&delivery.tenant, &exchange.outcome);
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one exchange")]
        histogram!(metric::ATTEMPT_SECONDS).record(exchange.latency_us as f64 / 1e6);

        let attempt = Attempt {
            number: delivery.attempts + 1,
            at,
            latency_us: exchange.latency_us,
            outcome: exchange.outcome,
            signed_with: keys,
            sent: exchange.sent,
            connection: exchange.connection,
        };
        Some(Attempted { delivery, subscription, accepted_at, attempt, passed })
    }

    /// One exchange with a subscription's endpoint: with its headers and its identity, within its time.
    pub(super) async fn post(
        &self,
        subscription: &Subscription,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Exchange {
        let (endpoint, identity) = match self.open_endpoint(subscription) {
            Ok(opened) => opened,
            Err(error) => return Exchange::unsendable(format!("a secret of the endpoint: {error}")),
        };
        let post = Post {
            tenant: &subscription.tenant,
            endpoint: &endpoint,
            identity: &identity,
            headers,
            content_type: "application/json",
            body,
            within: subscription.pacing.response_ms_max.map(|ms| Duration::from_millis(ms.get().into())),
        };
        self.egress.post(post).await
    }

    /// The endpoint with its headers opened, and what is particular to TLS there.
    fn open_endpoint(&self, subscription: &Subscription) -> Result<(Endpoint, Identity), crypto::Error> {
        let context = endpoint_context(&subscription.tenant, &subscription.id);
        let open = |(name, sealed): (&String, &domain::secret::Sealed)| {
            Ok((name.clone(), self.master.open(&context, sealed)?.expose().to_owned()))
        };
        let opened = subscription.headers.iter().map(open).collect::<Result<Vec<_>, crypto::Error>>()?;
        let tls = subscription.endpoint.tls();
        let shown = |client: &ClientCertificate| {
            Ok::<_, crypto::Error>((client.certificate_pem.clone(), self.master.open(&context, &client.key)?))
        };
        let client = tls.client.as_ref().map(shown).transpose()?;
        Ok((subscription.endpoint.with_headers(opened), Identity { ca_pem: tls.ca_pem.clone(), client }))
    }
}
