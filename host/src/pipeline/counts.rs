//! What is counted for each event, by labels of which there can be many.

use metrics::{Counter, counter};

use crate::domain::attempt::Outcome;
use crate::domain::delivery::State;
use crate::domain::id::{SourceName, TenantId};
use crate::telemetry::{Handles, metric};

/// The counters that an event moves on its way.
#[derive(Default)]
pub(super) struct Counts {
    ingest: Handles<(TenantId, SourceName, &'static str), Counter>,
    attempts: Handles<(TenantId, &'static str), Counter>,
    deliveries: Handles<(TenantId, &'static str), Counter>,
}

impl Counts {
    /// A request to a source that is there.
    pub(super) fn ingest(&self, tenant: &TenantId, source: &SourceName, outcome: &'static str) {
        let new = || counter!(metric::INGEST, "tenant" => tenant.to_string(), "source" => source.to_string(), "outcome" => outcome);
        self.ingest.of(&(tenant.clone(), source.clone(), outcome), new).increment(1);
    }

    /// An attempt that ended so.
    pub(super) fn attempt(&self, tenant: &TenantId, outcome: &Outcome) {
        let outcome = label(outcome);
        let new = || counter!(metric::ATTEMPTS, "tenant" => tenant.to_string(), "outcome" => outcome);
        self.attempts.of(&(tenant.clone(), outcome), new).increment(1);
    }

    /// A delivery that came to rest.
    pub(super) fn delivery(&self, tenant: &TenantId, state: State) {
        let state = state.as_str();
        let new = || counter!(metric::DELIVERIES, "tenant" => tenant.to_string(), "state" => state);
        self.deliveries.of(&(tenant.clone(), state), new).increment(1);
    }
}

/// The class of a status (RFC 9110 section 15), or of an error.
fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { status, .. } => match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
        Outcome::Failed { class, .. } => class.as_str(),
    }
}
