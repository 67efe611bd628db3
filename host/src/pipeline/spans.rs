//! The spans of all stages with their attributes. They are defined in one place, so that it is easy to review which
//! data leaves the host through tracing. See [`traces`](crate::traces).

use ::http::HeaderMap;
use setgate_domain::attempt::Outcome;
use setgate_domain::delivery::DueDelivery;
use setgate_domain::endpoint::Endpoint;
use setgate_domain::filter::PlanStep;
use setgate_domain::id::{DeliveryId, EventId, SourceName, TenantId};
use setgate_domain::subscription::Subscription;
use setgate_domain::trace::TraceContext;
use setgate_domain::verdict::FilterRun;

use crate::traces::{Kind, Span, Traces, attribute};

/// Creates the spans of the stages. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Spans(Traces);

impl Spans {
    pub(super) fn new(traces: Traces) -> Self {
        Self(traces)
    }

    /// Only for authenticated requests: other requests create no spans, and their trace context is ignored.
    pub(super) fn accepting(
        &self,
        tenant: &TenantId,
        source: &SourceName,
        headers: &HeaderMap,
    ) -> (Span, Option<TraceContext>) {
        let (mut span, place) = self.0.enter("accept", TraceContext::from_headers(headers));
        span.say(attribute::TENANT, tenant);
        span.say(attribute::SOURCE, source);
        (span, place)
    }

    /// The span for an event created by the host itself.
    pub(super) fn making(
        &self,
        tenant: &TenantId,
        source: &SourceName,
        event: EventId,
    ) -> (Span, Option<TraceContext>) {
        let (mut span, place) = self.0.enter("accept", None);
        span.say(attribute::TENANT, tenant);
        span.say(attribute::SOURCE, source);
        span.say(attribute::EVENT, event);
        (span, place)
    }

    pub(super) fn fanning_out(&self, tenant: &TenantId, event: EventId, under: Option<&TraceContext>) -> Span {
        let mut span = self.0.begin("fan-out", Kind::Internal, under);
        span.say(attribute::TENANT, tenant);
        span.say(attribute::EVENT, event);
        span
    }

    /// The span of one filter call. Not recorded if `under` is `None`, as for a chain run on request.
    pub(super) fn filtering(
        &self,
        under: Option<&TraceContext>,
        tenant: &TenantId,
        delivery: DeliveryId,
        step: &PlanStep,
    ) -> Span {
        let mut span = self.0.begin("filter", Kind::Internal, under);
        of_delivery(&mut span, tenant, delivery);
        span.say(attribute::FILTER, &step.binding.filter);
        span.say(attribute::DIGEST, step.digest);
        span
    }

    pub(super) fn signing(
        &self,
        under: Option<&TraceContext>,
        subscription: &Subscription,
        delivery: &DueDelivery,
    ) -> Span {
        let mut span = self.0.begin("sign", Kind::Internal, under);
        of_delivery(&mut span, &delivery.tenant, delivery.id);
        span.count(attribute::ATTEMPT, u64::from(delivery.attempts) + 1);
        if let Some(signing) = &subscription.signing {
            span.say(attribute::SCHEME, signing.scheme.as_str());
        }
        span
    }

    /// Only the origin of the endpoint is recorded, because the rest of the URL may contain secrets.
    pub(super) fn attempting(
        &self,
        under: Option<&TraceContext>,
        subscription: &Subscription,
        delivery: &DueDelivery,
    ) -> Span {
        let mut span = self.0.begin("attempt", Kind::Client, under);
        if span.is_recorded() {
            of_delivery(&mut span, &delivery.tenant, delivery.id);
            span.count(attribute::ATTEMPT, u64::from(delivery.attempts) + 1);
            if let Some(origin) = subscription.endpoint.as_ref().map(Endpoint::origin) {
                span.say(attribute::SERVER_ADDRESS, &origin.host);
                span.count(attribute::SERVER_PORT, origin.port.into());
            }
        }
        span
    }
}

fn of_delivery(span: &mut Span, tenant: &TenantId, delivery: DeliveryId) {
    span.say(attribute::TENANT, tenant);
    span.say(attribute::EVENT, delivery.event);
    span.say(attribute::SUBSCRIPTION, delivery.subscription);
    span.say(attribute::DELIVERY, delivery);
}

/// `event` is `None` if it was refused.
pub(super) fn accepted(mut span: Span, event: Option<EventId>, outcome: &'static str) {
    span.say(attribute::OUTCOME, outcome);
    match event {
        Some(event) => span.say(attribute::EVENT, event),
        None => span.failed(outcome),
    }
}

/// `run` as it is in the record. Its reason, its log and the text quoted in its fault come from the guest and are
/// therefore not exported.
pub(super) fn filtered(mut span: Span, run: Option<&FilterRun>) {
    let Some(run) = run else { return };
    span.count(attribute::FUEL, run.fuel);
    if let Some(verdict) = run.verdict {
        span.say(attribute::VERDICT, verdict.as_str());
    }
    if let Some(fault) = &run.fault {
        span.failed(fault.kind());
    }
}

pub(super) fn attempted(mut span: Span, outcome: &Outcome) {
    match outcome {
        Outcome::Answered { status, .. } => {
            span.count(attribute::STATUS, u64::from(*status));
            if !outcome.is_success() {
                span.failed(status);
            }
        }
        Outcome::Acknowledged => {}
        Outcome::Rejected { .. } => span.failed(outcome.class()),
        Outcome::Failed { class, .. } => span.failed(class.as_str()),
    }
}
