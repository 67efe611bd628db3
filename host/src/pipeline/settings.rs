//! The settings of the pipeline: `[ingest]` and `[delivery]`.

use serde::{Deserialize, Serialize};

/// Limits of event ingest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Maximum size (bytes) of an event's body.
    pub body_bytes_max: usize,
    /// Events that are appended to the ledger concurrently, half of them of one tenant. More are queued, and tenants
    /// take turns; twice as many of one tenant may be queued, and further ones are answered 429.
    pub appends_max: usize,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { body_bytes_max: 1 << 20, appends_max: 512 }
    }
}

impl Ingest {
    /// The share of `appends_max` that one tenant may use.
    pub fn appends_per_tenant_max(&self) -> usize {
        (self.appends_max / 2).max(1)
    }

    /// Events of one tenant that may be queued for an append.
    pub fn appends_queued_per_tenant_max(&self) -> usize {
        self.appends_max.saturating_mul(2)
    }

    /// Messages for values that parse but are not usable.
    pub(crate) fn faults(&self) -> Vec<String> {
        let not_zero = [("body_bytes_max", self.body_bytes_max), ("appends_max", self.appends_max)];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        zeros.map(|(key, _)| format!("`ingest.{key}` is 0; it has to be at least 1")).collect()
    }
}

/// Delivery: concurrency, circuit breaker and endpoint verification.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Maximum number of deliveries in flight.
    pub in_flight_max: usize,
    /// The share of `in_flight_max` that one tenant may use.
    pub in_flight_per_tenant_max: usize,
    /// The share of `in_flight_max` that one endpoint (scheme, host and port) of a tenant may use.
    pub in_flight_per_endpoint_max: usize,
    /// Maximum memory (bytes) of deliveries in flight: the event as accepted and as a SET, and the body sent. A quarter
    /// of it is the share of one tenant, an eighth that of one endpoint. A tenant with no delivery in flight can always
    /// start one of any size.
    pub in_flight_bytes_max: u64,
    /// How long (ms) deliveries in flight may take to finish when the host stops; the remaining ones are then released.
    pub drain_ms_max: u64,
    /// How long (seconds) a held delivery is retained for manual action before it becomes a dead letter.
    pub held_retention_s: u64,
    /// Consecutive failures of an endpoint that open its circuit breaker. 0: the breaker never opens.
    pub breaker_failures_max: u32,
    /// Maximum time (ms) that the circuit breaker stays open between probes. It begins with one second, and each failed
    /// probe doubles the time.
    pub breaker_open_ms_max: u64,
    /// Seconds without any success after which a subscription is paused, unless the subscription sets its own limit. 0:
    /// never.
    pub pause_after_s: u64,
    /// Whether a new subscription sends nothing until its endpoint is verified. Existing subscriptions are not
    /// affected.
    pub require_verified_endpoints: bool,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            in_flight_max: 256,
            in_flight_per_tenant_max: 64,
            in_flight_per_endpoint_max: 16,
            in_flight_bytes_max: 128 << 20,
            drain_ms_max: 20_000,
            held_retention_s: 14 * 24 * 3600,
            breaker_failures_max: 10,
            breaker_open_ms_max: 60_000,
            pause_after_s: 5 * 24 * 3600,
            require_verified_endpoints: false,
        }
    }
}

impl Delivery {
    /// The share of `in_flight_bytes_max` that one tenant may use.
    pub fn in_flight_bytes_per_tenant_max(&self) -> u64 {
        (self.in_flight_bytes_max / 4).max(1)
    }

    /// Messages for values that parse but are not usable.
    pub(crate) fn faults(&self) -> Vec<String> {
        let not_zero = [
            ("in_flight_max", self.in_flight_max as u64),
            ("in_flight_per_tenant_max", self.in_flight_per_tenant_max as u64),
            ("in_flight_per_endpoint_max", self.in_flight_per_endpoint_max as u64),
            ("in_flight_bytes_max", self.in_flight_bytes_max),
        ];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        zeros.map(|(key, _)| format!("`delivery.{key}` is 0; it has to be at least 1")).collect()
    }
}
