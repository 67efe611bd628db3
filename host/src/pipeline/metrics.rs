//! Counters with high-cardinality labels that are updated for each event.

use std::sync::Arc;

use ::metrics::{Counter, counter};
use setgate_base::telemetry::persistent_counters::{self, PersistentCounter};
use setgate_base::telemetry::{MetricHandleCache, metric};
use setgate_domain::attempt::Outcome;
use setgate_domain::delivery::State;
use setgate_domain::id::{SourceName, TenantId};

/// Counts ingest requests.
#[derive(Default)]
pub(super) struct IngestCounter(MetricHandleCache<(TenantId, SourceName, &'static str), Counter>);

impl IngestCounter {
    /// Counts a request. `source` is `None` if the source does not exist: the path is untrusted and must not create new
    /// time series.
    pub(super) fn add(&self, source: Option<(&TenantId, &SourceName)>, outcome: &'static str) {
        let Some((tenant, source)) = source else {
            return counter!(metric::INGEST, "tenant" => "", "source" => "", "outcome" => outcome).increment(1);
        };
        let new = || {
            let (tenant, source) = (tenant.to_string(), source.to_string());
            counter!(metric::INGEST, "tenant" => tenant, "source" => source, "outcome" => outcome)
        };
        self.0.get_or_create(&(tenant.clone(), source.clone(), outcome), new).increment(1);
    }
}

/// Counts attempts by outcome.
#[derive(Default)]
pub(super) struct AttemptCounter(MetricHandleCache<(TenantId, &'static str), Counter>);

impl AttemptCounter {
    pub(super) fn add(&self, tenant: &TenantId, outcome: &Outcome) {
        let outcome = outcome.class();
        let new = || counter!(metric::ATTEMPTS, "tenant" => tenant.to_string(), "outcome" => outcome);
        self.0.get_or_create(&(tenant.clone(), outcome), new).increment(1);
    }
}

/// Counts deliveries that reached a final or held state.
#[derive(Default)]
pub(super) struct DeliveryCounter(MetricHandleCache<(TenantId, &'static str), Arc<PersistentCounter>>);

impl DeliveryCounter {
    pub(super) fn add(&self, tenant: &TenantId, state: State) {
        let state = state.as_str();
        let new = || persistent_counters::counter(metric::DELIVERIES, format!("tenant=\"{tenant}\",state=\"{state}\""));
        if !self.0.get_or_create(&(tenant.clone(), state), new).add(1) {
            new().add(1);
        }
    }
}
