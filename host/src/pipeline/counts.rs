//! What is counted for each event, by labels of which there can be many.

use std::sync::Arc;

use metrics::{Counter, counter};

use crate::domain::attempt::Outcome;
use crate::domain::delivery::State;
use crate::domain::id::{SourceName, TenantId};
use crate::telemetry::lasting::{self, Count};
use crate::telemetry::{Handles, metric};

/// The counters that an event moves on its way.
#[derive(Default)]
pub(super) struct Counts {
    ingest: Handles<(TenantId, SourceName, &'static str), Counter>,
    attempts: Handles<(TenantId, &'static str), Counter>,
    deliveries: Handles<(TenantId, &'static str), Arc<Count>>,
}

impl Counts {
    /// A request to a source; none: it is not there. What a stranger puts into the path must not become a series.
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

    /// An attempt that ended so.
    pub(super) fn attempt(&self, tenant: &TenantId, outcome: &Outcome) {
        let outcome = outcome.class();
        let new = || counter!(metric::ATTEMPTS, "tenant" => tenant.to_string(), "outcome" => outcome);
        self.attempts.of(&(tenant.clone(), outcome), new).increment(1);
    }

    /// A delivery that came to rest.
    pub(super) fn delivery(&self, tenant: &TenantId, state: State) {
        let state = state.as_str();
        let new = || lasting::count(metric::DELIVERIES, format!("tenant=\"{tenant}\",state=\"{state}\""));
        if !self.deliveries.of(&(tenant.clone(), state), new).add(1) {
            new().add(1);
        }
    }
}
