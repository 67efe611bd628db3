//! Counters with high-cardinality labels that are updated for each event.

use std::sync::Arc;

use ::metrics::{Counter, counter};
use setgate_base::telemetry::persistent_counters::{self, PersistentCounter};
use setgate_base::telemetry::{MetricHandleCache, metric};
use setgate_domain::attempt::Outcome;
use setgate_domain::delivery::State;
use setgate_domain::id::{SourceName, TenantId};

/// Cached counter handles of the event path.
#[derive(Default)]
pub(super) struct Metrics {
    ingest: MetricHandleCache<(TenantId, SourceName, &'static str), Counter>,
    attempts: MetricHandleCache<(TenantId, &'static str), Counter>,
    deliveries: MetricHandleCache<(TenantId, &'static str), Arc<PersistentCounter>>,
}

impl Metrics {
    /// Metrics an ingest request. `source` is `None` if the source does not exist: the path is untrusted and must not
    /// create new time series.
    pub(super) fn ingest(&self, source: Option<(&TenantId, &SourceName)>, outcome: &'static str) {
        let Some((tenant, source)) = source else {
            return counter!(metric::INGEST, "tenant" => "", "source" => "", "outcome" => outcome).increment(1);
        };
        let new = || {
            let (tenant, source) = (tenant.to_string(), source.to_string());
            counter!(metric::INGEST, "tenant" => tenant, "source" => source, "outcome" => outcome)
        };
        self.ingest.of(&(tenant.clone(), source.clone(), outcome), new).increment(1);
    }

    /// Metrics an attempt by its outcome.
    pub(super) fn attempt(&self, tenant: &TenantId, outcome: &Outcome) {
        let outcome = outcome.class();
        let new = || counter!(metric::ATTEMPTS, "tenant" => tenant.to_string(), "outcome" => outcome);
        self.attempts.of(&(tenant.clone(), outcome), new).increment(1);
    }

    /// Metrics a delivery that reached a final or held state.
    pub(super) fn delivery(&self, tenant: &TenantId, state: State) {
        let state = state.as_str();
        let new = || persistent_counters::counter(metric::DELIVERIES, format!("tenant=\"{tenant}\",state=\"{state}\""));
        if !self.deliveries.of(&(tenant.clone(), state), new).add(1) {
            new().add(1);
        }
    }
}
