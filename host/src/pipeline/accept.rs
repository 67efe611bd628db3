//! Ingest: turns a request into a durable event. A 202 may be sent only after [`Acceptor::ingest`] has returned `Ok`.

use std::time::Duration;

use super::settings::Ingest;
use setgate_base::clock::Clock;
use setgate_base::crypto;
use setgate_base::fair::ByteRateLimiter;
use setgate_base::live::Live;
use setgate_base::telemetry::LogThrottle;
use setgate_dialects::normalize;
use setgate_domain::event::NewEvent;
use setgate_domain::id::{EventId, SourceName, TenantId};
use setgate_domain::json::JsonLimits;
use setgate_domain::source::Source;
use setgate_domain::time::Timestamp;
use setgate_domain::trace::TraceContext;
use setgate_ledger::{Appended, Usage};

use super::append::Appender;
use super::decode::{Coding, gunzip};
use super::metrics::IngestCounter;
use super::prove::{Inbound, Proven, Prover, Unproven};
use super::quotas::Quotas;
use super::refused::Refused;
use super::spans::{self, Spans};

/// Nesting depth of arrays and objects in an event. The output of filters is validated with the same depth.
const JSON_DEPTH_MAX: usize = 64;

/// Anybody can send requests without a valid proof, in any number, so the log line is rate-limited.
static UNPROVEN: LogThrottle = LogThrottle::new(Duration::from_secs(10));

/// The answer to the sender once the event is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id on this host. For a duplicate, the id of the first copy.
    pub event: EventId,
    /// True if the event had already been accepted. It is delivered only once.
    pub duplicate: bool,
}

/// A label for metrics and spans.
fn outcome_of(result: &Result<Receipt, Refused>) -> &'static str {
    match result {
        Ok(Receipt { duplicate: false, .. }) => "accepted",
        Ok(_) => "duplicate",
        Err(refused) => refused.code(),
    }
}

/// Accepts events.
pub struct Acceptor {
    prover: Prover,
    pub(super) appender: Appender,
    usage: Usage,
    quotas: Quotas,
    clock: Clock,
    settings: Live<Ingest>,
    spans: Spans,
    /// Ingest rate of each tenant, in bytes of bodies.
    rate: ByteRateLimiter,
    counter: IngestCounter,
}

impl Acceptor {
    pub(super) fn new(
        prover: Prover,
        appender: Appender,
        usage: Usage,
        quotas: Quotas,
        clock: Clock,
        settings: Live<Ingest>,
        spans: Spans,
    ) -> Self {
        let (rate, counter) = (ByteRateLimiter::default(), IngestCounter::default());
        Self { prover, appender, usage, quotas, clock, settings, spans, rate, counter }
    }

    /// Proves, normalizes and appends one request. If this returns `Ok`, the event is durable.
    pub async fn ingest(&self, inbound: Inbound) -> Result<Receipt, Refused> {
        let (tenant, source) = (inbound.tenant.clone(), inbound.source.clone());
        let result = match self.prover.prove(inbound) {
            Ok(proven) => {
                let (span, trace) = self.spans.accepting(&tenant, &source, &proven.inbound.headers);
                let result = self.accept(proven, trace).await;
                spans::accepted(span, result.as_ref().ok().map(|receipt| receipt.event), outcome_of(&result));
                result
            }
            Err(unproven) => return Err(self.refuse_unproven(&tenant, &source, unproven)),
        };
        self.counted(Some((&tenant, &source)), outcome_of(&result));
        result
    }

    /// Counts and logs a request that failed its proof. The log gets the full reason; the response carries less,
    /// because the sender is unauthenticated.
    pub fn refuse_unproven(&self, tenant: &TenantId, source: &SourceName, why: Unproven) -> Refused {
        let known = !matches!(why, Unproven::UnknownSource { .. });
        let refused = Refused::Unproven(why);
        self.counted(known.then_some((tenant, source)), refused.code());
        if let Some(unsaid) = UNPROVEN.allow() {
            tracing::info!(%tenant, %source, unsaid, "ingest refused a request without a valid proof: {refused}");
        }
        refused
    }

    /// Counts a request by outcome, labelled with its source if the source exists. [`Acceptor::ingest`] calls this
    /// itself; other callers use it for requests that fail before they reach `ingest`.
    pub fn counted(&self, source: Option<(&TenantId, &SourceName)>, outcome: &'static str) {
        self.counter.add(source, outcome);
    }

    async fn accept(
        &self,
        Proven { source, inbound, signed_id }: Proven,
        trace: Option<TraceContext>,
    ) -> Result<Receipt, Refused> {
        let source = &source.value;
        let text = |name: &str| inbound.headers.get(name).and_then(|value| value.to_str().ok());
        let submitted = self.submit(source, inbound.body.len(), |now, id, limits| {
            let body = match inbound.coding {
                Coding::Identity => inbound.body.clone(),
                Coding::Gzip => gunzip(&inbound.body, limits.bytes_max)?,
            };
            let request = normalize::NormalizeInput {
                body: &body,
                content_type: text("content-type"),
                delivery_id: signed_id.as_deref().or_else(|| setgate_dialects::delivery_id(&inbound.headers)),
            };
            Ok::<_, Refused>(NewEvent { trace, ..normalize::normalize(source, request, now, id, limits)? })
        });
        match submitted.await? {
            (id, Appended::New(_)) => Ok(Receipt { event: id, duplicate: false }),
            (_, Appended::Duplicate { id }) => Ok(Receipt { event: id, duplicate: true }),
            (_, Appended::Conflict { id }) => Err(Refused::Conflict(id)),
        }
    }

    /// Checks the limits for an event of `bytes`, lets `make` build the event with its time, id and JSON limits, and
    /// appends it. Returns the new event's id.
    pub(super) async fn submit<E: From<Refused>>(
        &self,
        source: &Source,
        bytes: usize,
        make: impl FnOnce(Timestamp, EventId, JsonLimits) -> Result<NewEvent, E>,
    ) -> Result<(EventId, Appended), E> {
        self.has_room(&source.tenant, bytes)?;
        let limit = self.quotas.of(&source.tenant).backlog_deliveries_max;
        let backlog = self.usage.backlog(&source.tenant);
        if backlog >= limit {
            return Err(Refused::Backlog { tenant: source.tenant.clone(), backlog, limit }.into());
        }
        let now = self.clock.now();
        let id = EventId::new(now, crypto::random_u128());
        let event = make(now, id, self.limits())?;
        Ok((id, self.appender.append(event, now).await?))
    }

    /// For the spans of events that are accepted elsewhere.
    pub(super) fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Checks the host's and the tenant's storage limits and the tenant's ingest rate before a body is accepted.
    fn has_room(&self, tenant: &TenantId, bytes: usize) -> Result<(), Refused> {
        if let Some(shortage) = self.usage.shortage_of(tenant) {
            return Err(shortage.into());
        }
        let quota = self.quotas.of(tenant);
        let (stored, limit) = (self.usage.stored(tenant), quota.stored_bytes_max);
        if limit > 0 && stored >= limit {
            return Err(Refused::Storage { tenant: tenant.clone(), stored, limit });
        }
        let limit = quota.ingest_bytes_per_second;
        if !self.rate.try_take(tenant, bytes, limit, self.clock.now()) {
            return Err(Refused::Rate { tenant: tenant.clone(), limit });
        }
        Ok(())
    }

    /// JSON limits for request bodies.
    fn limits(&self) -> JsonLimits {
        let settings = self.settings.now();
        JsonLimits { depth_max: JSON_DEPTH_MAX, bytes_max: settings.body_bytes_max }
    }
}
