//! The admission state of endpoints: slots, rate and circuit breaker. An endpoint is shared by all of a tenant's
//! subscriptions that send to it.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};

use setgate_domain::breaker::{Admission, Breaker, BreakerSettings, Signal, Transition};
use setgate_domain::endpoint::Origin;
use setgate_domain::id::TenantId;
use setgate_domain::pacing::RateLimiter;
use setgate_domain::time::Timestamp;

/// An endpoint belongs to a tenant.
pub(in crate::pipeline) type EndpointKey = (TenantId, Origin);

/// The endpoint of a lane, and the limits of its subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pipeline) struct Route {
    pub(in crate::pipeline) origin: Origin,
    pub(in crate::pipeline) per_second: Option<NonZeroU32>,
    pub(in crate::pipeline) in_flight_max: Option<NonZeroU16>,
}

impl Route {
    /// A route without limits of the subscription.
    pub(in crate::pipeline) fn to(origin: Origin) -> Self {
        Self { origin, per_second: None, in_flight_max: None }
    }
}

/// The answer to a request for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The delivery may start and holds the slot. `probe` is set if it is the breaker's probe.
    Taken { probe: bool },
    /// Not before this time.
    NotBefore(Timestamp),
    /// Not before a delivery in flight ends.
    NoneFree,
    /// The endpoint admits it, but its bytes do not fit.
    NoBytes,
}

/// The limits of one endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndpointBounds {
    pub(super) in_flight_max: usize,
    /// In bytes. A single delivery may exceed it.
    pub(super) bytes_max: u64,
}

#[derive(Default)]
struct Endpoint {
    in_flight: usize,
    bytes: u64,
    breaker: Breaker,
    rate: RateLimiter,
}

/// All endpoints with state.
pub(super) struct Endpoints {
    bounds: EndpointBounds,
    breaker: BreakerSettings,
    known: HashMap<EndpointKey, Endpoint>,
}

impl Endpoints {
    pub(super) fn new(bounds: EndpointBounds, breaker: BreakerSettings) -> Self {
        Self { bounds, breaker, known: HashMap::new() }
    }

    /// Changes the limits.
    pub(super) fn bound(&mut self, bounds: EndpointBounds, breaker: BreakerSettings) {
        (self.bounds, self.breaker) = (bounds, breaker);
    }

    /// Takes a slot for a delivery of that many bytes if one is free. `fits` says whether the bytes fit into the limits
    /// of its tenant and of the host.
    pub(super) fn enter(
        &mut self,
        key: &EndpointKey,
        route: &Route,
        (bytes, fits): (u64, bool),
        now: Timestamp,
    ) -> Slot {
        let endpoint = self.known.entry(key.clone()).or_default();
        let probe = match endpoint.breaker.admission(now) {
            Admission::Allowed => false,
            Admission::Probe => true,
            Admission::NotBefore(at) => return Slot::NotBefore(at),
            Admission::Probing => return Slot::NoneFree,
        };
        let EndpointBounds { in_flight_max, bytes_max } = self.bounds;
        let places = route.in_flight_max.map_or(in_flight_max, |own| in_flight_max.min(own.get().into()));
        // A delivery above the endpoint's limit waits for its tenant's other deliveries instead: if it waited here,
        // smaller ones could overtake it forever.
        let is_heavy = bytes <= bytes_max && endpoint.bytes.saturating_add(bytes) > bytes_max;
        if endpoint.in_flight >= places || is_heavy {
            return Slot::NoneFree;
        }
        let wait_until = route.per_second.and_then(|rate| endpoint.rate.next_at_ms(now.as_millis(), rate));
        if let Some(at) = wait_until {
            return Slot::NotBefore(Timestamp::from_millis(at));
        }
        if !fits {
            return Slot::NoBytes;
        }
        if let Some(per_second) = route.per_second {
            endpoint.rate.record(now.as_millis(), per_second);
        }
        if probe {
            endpoint.breaker.probe();
        }
        endpoint.in_flight += 1;
        endpoint.bytes += bytes;
        Slot::Taken { probe }
    }

    /// Reserves additional bytes for a delivery in flight. Returns false without a change if they exceed the endpoint's
    /// limit.
    pub(super) fn grow(&mut self, key: &EndpointKey, before: u64, bytes: u64) -> bool {
        let Some(endpoint) = self.known.get_mut(key) else { return true };
        let others = endpoint.bytes.saturating_sub(before);
        if others > 0 && others.saturating_add(bytes) > self.bounds.bytes_max {
            return false;
        }
        endpoint.bytes = others + bytes;
        true
    }

    /// Releases a slot and its bytes. `signal` is the signal about the endpoint, if there is one.
    pub(super) fn leave(
        &mut self,
        key: &EndpointKey,
        bytes: u64,
        (probe, signal): (bool, Option<Signal>),
        now: Timestamp,
    ) -> Option<Transition> {
        let endpoint = self.known.get_mut(key)?;
        endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        endpoint.bytes = endpoint.bytes.saturating_sub(bytes);
        let transition = endpoint.breaker.record(signal, probe, now, &self.breaker);
        if endpoint.in_flight == 0 && endpoint.breaker.is_initial() && endpoint.rate.is_idle(now.as_millis()) {
            self.known.remove(key);
        }
        transition
    }

    /// Drops the state of endpoints without deliveries in flight that `wanted` rejects.
    pub(super) fn keep(&mut self, wanted: impl Fn(&EndpointKey) -> bool) {
        self.known.retain(|key, endpoint| endpoint.in_flight > 0 || wanted(key));
    }

    /// Number of endpoints with an open breaker.
    pub(super) fn open(&self) -> usize {
        self.known.values().filter(|endpoint| endpoint.breaker.is_open()).count()
    }
}
