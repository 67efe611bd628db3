//! The admission state of endpoints: slots, rate and circuit breaker. An endpoint is shared by all of a tenant's
//! subscriptions that send to it.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};

use crate::domain::breaker::{Breaker, BreakerBounds, Heard, Passage, Turn};
use crate::domain::endpoint::Origin;
use crate::domain::id::TenantId;
use crate::domain::pacing::Rate;
use crate::domain::time::Timestamp;

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

/// Whether a delivery may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may start, and has taken a slot. `probe` is set if it is the breaker's probe.
    Goes { probe: bool },
    /// Not before this time.
    At(Timestamp),
    /// Not before one that is under way has ended.
    Full,
}

#[derive(Default)]
struct Endpoint {
    in_flight: usize,
    breaker: Breaker,
    rate: Rate,
}

/// Every endpoint that there is something to remember about.
pub(super) struct Endpoints {
    per_endpoint_max: usize,
    breaker: BreakerBounds,
    known: HashMap<EndpointKey, Endpoint>,
}

impl Endpoints {
    pub(super) fn new(per_endpoint_max: usize, breaker: BreakerBounds) -> Self {
        Self { per_endpoint_max, breaker, known: HashMap::new() }
    }

    /// Other bounds, from now on.
    pub(super) fn bound(&mut self, per_endpoint_max: usize, breaker: BreakerBounds) {
        (self.per_endpoint_max, self.breaker) = (per_endpoint_max, breaker);
    }

    /// Takes a place where there is one.
    pub(super) fn enter(&mut self, key: &EndpointKey, route: &Route, now: Timestamp) -> Admission {
        let endpoint = self.known.entry(key.clone()).or_default();
        let probe = match endpoint.breaker.passage(now) {
            Passage::Free => false,
            Passage::Probe => true,
            Passage::Later(at) => return Admission::At(at),
            Passage::Probing => return Admission::Full,
        };
        let places =
            route.in_flight_max.map_or(self.per_endpoint_max, |own| self.per_endpoint_max.min(own.get().into()));
        if endpoint.in_flight >= places {
            return Admission::Full;
        }
        if let Some(per_second) = route.per_second {
            if let Some(at) = endpoint.rate.wait_until_ms(now.as_millis(), per_second) {
                return Admission::At(Timestamp::from_millis(at));
            }
            endpoint.rate.took(now.as_millis(), per_second);
        }
        if probe {
            endpoint.breaker.probe();
        }
        endpoint.in_flight += 1;
        Admission::Goes { probe }
    }

    /// Gives a place back, with what was heard of the endpoint, if anything.
    pub(super) fn leave(
        &mut self,
        key: &EndpointKey,
        probe: bool,
        heard: Option<Heard>,
        now: Timestamp,
    ) -> Option<Turn> {
        let endpoint = self.known.get_mut(key)?;
        endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        let turn = endpoint.breaker.heard(heard, probe, now, &self.breaker);
        if endpoint.in_flight == 0 && endpoint.breaker.is_fresh() && endpoint.rate.is_idle(now.as_millis()) {
            self.known.remove(key);
        }
        turn
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
