//! Ingest: turns a request into a durable event. A 202 may be sent only after [`Pipeline::ingest`] has returned `Ok`.

use std::time::Duration;

use setgate_base::crypto;
use setgate_base::telemetry::LogThrottle;
use setgate_dialects::normalize::{self, Refusal};
use setgate_domain::event::NewEvent;
use setgate_domain::id::{EventId, SourceName, TenantId};
use setgate_domain::json::JsonLimits;
use setgate_domain::time::Timestamp;
use setgate_domain::trace::TraceContext;
use setgate_ledger::{AppendOutcome, Appended};

use super::decode::{Coding, CodingFault, gunzip};
use super::plan::{OfEvent, Wanted};
use super::prove::{Inbound, Proven, Unproven};
use super::{Pipeline, spans};
use crate::traces::attribute;

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

/// Why an event was refused. Nothing of a refused event is stored.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The request did not prove that it comes from the source.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The body is not an event in the source's form.
    #[error(transparent)]
    NotAnEvent(#[from] Refusal),
    /// The body cannot be decompressed.
    #[error(transparent)]
    Coding(#[from] CodingFault),
    /// An event with the same `jti` and a different body was accepted before.
    #[error("an event with this `jti` and another body was accepted before, as {0}: a `jti` names one event only")]
    Conflict(EventId),
    /// The tenant's backlog quota is used up.
    #[error("tenant `{tenant}` has {backlog} deliveries waiting: `backlog_deliveries_max` is {limit}")]
    Backlog {
        /// The tenant.
        tenant: TenantId,
        /// Deliveries that are due or held.
        backlog: u64,
        /// The tenant's `backlog_deliveries_max`.
        limit: u64,
    },
    /// The tenant's storage quota is used up.
    #[error("tenant `{tenant}` has {stored} bytes stored: its quota `stored_bytes_max` is {limit}")]
    Storage {
        /// The tenant.
        tenant: TenantId,
        /// Bytes stored for the tenant.
        stored: u64,
        /// The tenant's `stored_bytes_max`.
        limit: u64,
    },
    /// The tenant exceeds its ingest rate.
    #[error("tenant `{tenant}` sends more than {limit} bytes a second: its quota `ingest_bytes_per_second`")]
    Rate {
        /// The tenant.
        tenant: TenantId,
        /// The tenant's `ingest_bytes_per_second`.
        limit: u64,
    },
    /// Too many of the tenant's events are queued for the ledger.
    #[error("{limit} events of tenant `{tenant}` are queued for the ledger, twice `ingest.appends_max`")]
    Flood {
        /// The tenant.
        tenant: TenantId,
        /// Twice `ingest.appends_max`.
        limit: usize,
    },
    /// The disk is nearly full, or the ledger has reached its size limit.
    #[error("{0}: send it again later")]
    Short(#[from] setgate_ledger::Shortage),
    /// The event could not be made durable because the ledger is busy or the disk failed. The sender should retry.
    #[error("the event could not be stored: {0}")]
    Ledger(#[from] setgate_ledger::Error),
}

impl Refused {
    /// A stable code for metrics and problem details.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unproven(Unproven::UnknownSource { .. }) => "unknown_source",
            Self::Unproven(Unproven::Mac(_) | Unproven::Unsigned) => "bad_signature",
            Self::Unproven(Unproven::Bearer) => "bad_token",
            Self::Unproven(Unproven::Key) => "bad_key",
            Self::Unproven(Unproven::KeyScope) => "forbidden",
            Self::Unproven(Unproven::SecretUnreadable) => "secret_unreadable",
            Self::NotAnEvent(refusal) => refusal.code(),
            Self::Coding(CodingFault::Broken { .. }) => "coding_broken",
            Self::Coding(CodingFault::TooLarge { .. }) => "body_too_large",
            Self::Conflict(_) => "jti_conflict",
            Self::Backlog { .. } => "backlog_full",
            Self::Storage { .. } => "storage_full",
            Self::Rate { .. } => "too_many_bytes",
            Self::Flood { .. } => "busy",
            Self::Short(shortage) => shortage.code(),
            Self::Ledger(error) if error.is_damage() => "ledger_damaged",
            Self::Ledger(_) => "not_stored",
        }
    }
}

/// A label for metrics and spans.
fn outcome_of(result: &Result<Receipt, Refused>) -> &'static str {
    match result {
        Ok(Receipt { duplicate: false, .. }) => "accepted",
        Ok(_) => "duplicate",
        Err(refused) => refused.code(),
    }
}

impl Pipeline {
    /// Proves, normalizes and appends one request. If this returns `Ok`, the event is durable.
    pub async fn ingest(&self, inbound: Inbound) -> Result<Receipt, Refused> {
        let (tenant, source) = (inbound.tenant.clone(), inbound.source.clone());
        let result = match self.prove(inbound) {
            Ok(proven) => {
                let (span, trace) = self.spans.accepting(&proven.inbound);
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

    /// Counts a request by outcome, labelled with its source if the source exists. [`Pipeline::ingest`] calls this
    /// itself; other callers use it for requests that fail before they reach `ingest`.
    pub fn counted(&self, source: Option<(&TenantId, &SourceName)>, outcome: &'static str) {
        self.ingest_counter.add(source, outcome);
    }

    async fn accept(
        &self,
        Proven { source, inbound, signed_id }: Proven,
        trace: Option<TraceContext>,
    ) -> Result<Receipt, Refused> {
        let source = &source.value;
        self.has_room(&source.tenant, inbound.body.len())?;
        let limit = self.quotas.of(&source.tenant).backlog_deliveries_max;
        let backlog = self.ledger.usage.backlog(&source.tenant);
        if backlog >= limit {
            return Err(Refused::Backlog { tenant: source.tenant.clone(), backlog, limit });
        }
        let now = self.clock.now();
        let id = EventId::new(now, crypto::random_u128());
        let text = |name: &str| inbound.headers.get(name).and_then(|value| value.to_str().ok());
        let limits = self.limits();
        let body = match inbound.coding {
            Coding::Identity => inbound.body.clone(),
            Coding::Gzip => gunzip(&inbound.body, limits.bytes_max)?,
        };
        let request = normalize::Inbound {
            body: &body,
            content_type: text("content-type"),
            delivery_id: signed_id.as_deref().or_else(|| setgate_dialects::delivery_id(&inbound.headers)),
        };
        let event = NewEvent { trace, ..normalize::normalize(source, request, now, id, limits)? };
        match self.append(event, now).await? {
            Appended::New(_) => Ok(Receipt { event: id, duplicate: false }),
            Appended::Duplicate { id } => Ok(Receipt { event: id, duplicate: true }),
            Appended::Conflict { id } => Err(Refused::Conflict(id)),
        }
    }

    /// Checks the host's and the tenant's storage limits and the tenant's ingest rate before a body is accepted.
    fn has_room(&self, tenant: &TenantId, bytes: usize) -> Result<(), Refused> {
        if let Some(shortage) = self.ledger.usage.shortage_of(tenant) {
            return Err(shortage.into());
        }
        let quota = self.quotas.of(tenant);
        let (stored, limit) = (self.ledger.usage.stored(tenant), quota.stored_bytes_max);
        if limit > 0 && stored >= limit {
            return Err(Refused::Storage { tenant: tenant.clone(), stored, limit });
        }
        let limit = quota.ingest_bytes_per_second;
        if !self.ingest_rate.try_take(tenant, bytes, limit, self.clock.now()) {
            return Err(Refused::Rate { tenant: tenant.clone(), limit });
        }
        Ok(())
    }

    /// Appends the event together with the deliveries for the current subscriptions.
    pub(super) async fn append(&self, event: NewEvent, now: Timestamp) -> Result<Appended, Refused> {
        let snapshot = self.ledger.registry.snapshot();
        // The tenant was removed in the meantime: the ledger returns the error for that.
        let Some(view) = snapshot.tenant(&event.tenant) else { return Ok(self.ledger.events.append(event).await?) };
        let tenant = &view.tenant.value.id;
        let mut span = self.spans.fanning_out(tenant, event.id, event.trace.as_ref());
        let limit = self.appends_waiting_max;
        let flood = |_| Refused::Flood { tenant: tenant.clone(), limit };
        let wanting = self.matcher.wanting(view, &event.source, &event.set.types, true).await;
        let wanting = wanting.map_err(flood).inspect_err(|_| span.never_was())?;
        let deliveries = if wanting.len() <= self.ledger.events.append_deliveries_max() {
            let event = OfEvent::from(&event);
            let wanted = wanting.iter().map(|subscription| Wanted { view, subscription, event }).collect();
            let pinned = self.pinned.deliveries(wanted, now).await;
            Some(pinned.inspect_err(|_| span.failed("not_stored"))?)
        } else {
            // Too many deliveries for one append: loop A creates them and pins their plans.
            None
        };
        let turn = self.appends.acquire_bounded(tenant).await;
        let _turn = turn.map_err(flood).inspect_err(|_| span.never_was())?;
        let at_once = deliveries.is_some();
        let taken = match deliveries {
            Some(deliveries) => self.ledger.events.append_with(event, deliveries).await,
            None => {
                self.ledger.events.append(event).await.map(|appended| AppendOutcome { appended, fanned_out: false })
            }
        };
        let AppendOutcome { appended, fanned_out } = taken.inspect_err(|_| span.failed("not_stored"))?;
        if fanned_out {
            span.count(attribute::DELIVERIES, wanting.len() as u64);
            return Ok(appended);
        }
        // No fan-out took place here: the event is a duplicate, or loop A creates its deliveries.
        span.never_was();
        if at_once && matches!(appended, Appended::New(_)) {
            // Retention may have swept one of the plans, so drop the cached ones. Loop A pins new plans.
            self.pinned.forget_all_of(tenant);
        }
        Ok(appended)
    }

    /// JSON limits for request bodies.
    fn limits(&self) -> JsonLimits {
        let settings = self.settings.now();
        JsonLimits { depth_max: JSON_DEPTH_MAX, bytes_max: settings.ingest.body_bytes_max }
    }
}
