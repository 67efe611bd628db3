//! The events of a run and their expected outcome. Both are functions of the seed and the event's number, so that a
//! receiver can check any delivery.

use serde_json::{Value, json};

use super::random::Random;
use crate::signature::hmac_hex;

/// The secret of the redacting filter.
pub const SALT: &str = "salt-of-the-crash-suite";
/// The types of events, with equal shares.
pub const TYPES: [&str; 3] = ["session-revoked", "credential-change", "assurance-level-change"];
/// The type that the selecting filter drops.
pub const DROPPED_TYPE: usize = 1;

/// Tenant and name of the sources.
pub const SOURCES: [(&str, &str); 4] = [("acme", "idp"), ("acme", "bulk"), ("globex", "idp"), ("globex", "rare")];

/// The source whose events are signed SETs, as an index in [`SOURCES`].
pub const SIGNED_SOURCE: usize = 3;
/// `iss` of all events.
pub const ISSUER: &str = "https://idp.example.com/";
/// `aud` of all events, and of the SETs that the host signs.
pub const AUDIENCE: &str = "https://sp.example.com/caep";

/// Behaviour of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Accepts everything at once.
    Prompt,
    /// Accepts everything after a delay.
    Slow,
    /// Accepts a delivery at the first, second or third attempt.
    Flaky,
    /// Accepts nothing.
    Refusing,
}

/// The final state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It arrives.
    Delivered,
    /// A filter drops it.
    Dropped,
    /// Its receiver never accepts it.
    Dead,
}

/// The way of a subscription's deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A webhook with a signature in its headers.
    Webhook,
    /// A signed SET, pushed.
    Push,
    /// A signed SET, fetched by the receiver.
    Poll,
}

/// A subscription of the run.
#[derive(Debug)]
pub struct Target {
    /// Its name in the output.
    pub name: &'static str,
    /// Its tenant.
    pub tenant: &'static str,
    /// Its sources, as indices in [`SOURCES`].
    pub sources: &'static [usize],
    /// The way of its deliveries.
    pub way: Way,
    /// Behaviour of its receiver. One that polls accepts everything.
    pub behaviour: Behaviour,
    /// Its filter.
    pub filter: Option<&'static str>,
    /// The intervals between attempts, in seconds.
    pub retry: &'static [u32],
}

/// Long enough that neither a flaky receiver nor kills turn a delivery into a dead letter.
const PATIENT: &[u32] = &[1; 25];

/// All subscriptions.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "plain",
        tenant: "acme",
        sources: &[0, 1],
        way: Way::Webhook,
        behaviour: Behaviour::Prompt,
        filter: None,
        retry: PATIENT,
    },
    Target {
        name: "redacted",
        tenant: "acme",
        sources: &[0],
        way: Way::Webhook,
        behaviour: Behaviour::Prompt,
        filter: Some("redact-claims"),
        retry: PATIENT,
    },
    Target {
        name: "slow",
        tenant: "acme",
        sources: &[1],
        way: Way::Webhook,
        behaviour: Behaviour::Slow,
        filter: None,
        retry: PATIENT,
    },
    Target {
        name: "selected",
        tenant: "globex",
        sources: &[2, 3],
        way: Way::Webhook,
        behaviour: Behaviour::Prompt,
        filter: Some("drop-by-type"),
        retry: PATIENT,
    },
    Target {
        name: "flaky",
        tenant: "globex",
        sources: &[2, 3],
        way: Way::Webhook,
        behaviour: Behaviour::Flaky,
        filter: None,
        retry: PATIENT,
    },
    Target {
        name: "refusing",
        tenant: "globex",
        sources: &[3],
        way: Way::Webhook,
        behaviour: Behaviour::Refusing,
        filter: None,
        retry: &[1],
    },
    Target {
        name: "pushed",
        tenant: "acme",
        sources: &[1],
        way: Way::Push,
        behaviour: Behaviour::Flaky,
        filter: Some("redact-claims"),
        retry: PATIENT,
    },
    Target {
        name: "polled",
        tenant: "globex",
        sources: &[2, 3],
        way: Way::Poll,
        behaviour: Behaviour::Prompt,
        filter: Some("drop-by-type"),
        retry: PATIENT,
    },
];

impl Target {
    /// The chain in the form of the API.
    pub fn chain(&self) -> Value {
        match self.filter {
            Some("redact-claims") => {
                json!([{"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": SALT}}])
            }
            Some(name) => json!([{"filter": name, "grants": ["config"], "config": {"drop": [uri(DROPPED_TYPE)]}}]),
            None => json!([]),
        }
    }

    /// The expected final state of an event's delivery.
    pub fn end_of(&self, event: &Sent) -> End {
        match (self.filter, self.behaviour) {
            (Some("drop-by-type"), _) if event.kind == DROPPED_TYPE => End::Dropped,
            (_, Behaviour::Refusing) => End::Dead,
            _ => End::Delivered,
        }
    }

    /// The claims that must arrive at this subscription.
    pub fn claims_of(&self, event: &Sent) -> Value {
        let mut claims = event.claims();
        if self.filter == Some("redact-claims") {
            let hash = &hmac_hex(SALT, event.email().as_bytes())[..32];
            claims["sub_id"] = json!({"format": "opaque", "id": format!("hmac:{hash}")});
        }
        claims
    }
}

/// A sent event.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Its number, which is part of its `jti`.
    pub number: u64,
    /// Its source, as an index in [`SOURCES`].
    pub source: usize,
    /// Its type, as an index in [`TYPES`].
    pub kind: usize,
    padding: usize,
}

impl Sent {
    /// The event with that number in the run with that seed.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed, number.wrapping_add(1 << 32));
        let source = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3][random.below(10) as usize];
        let kind = random.below(TYPES.len() as u64) as usize;
        // Mostly small ones, as in practice; some large ones, so that the log grows and checkpoints happen.
        let padding = if random.below(8) == 0 { random.below(24_000) } else { random.below(1_500) } as usize;
        Self { number, source, kind, padding }
    }

    /// The number in a `jti` or `txn`.
    pub fn number_of(id: &str) -> Option<u64> {
        id.strip_prefix("crash-")?.parse().ok()
    }

    fn email(&self) -> String {
        format!("user{}@example.com", self.number % 97)
    }

    /// Its claims.
    pub fn claims(&self) -> Value {
        let words = "lorem ".repeat(self.padding / 6);
        json!({
            "iss": ISSUER,
            "jti": format!("crash-{}", self.number),
            "txn": format!("crash-{}", self.number),
            "iat": 1_615_305_159,
            "aud": AUDIENCE,
            "sub_id": {"format": "email", "email": self.email()},
            "events": {uri(self.kind): {"event_timestamp": 1_615_304_991, "reason_admin": {"en": words}}},
        })
    }
}

fn uri(kind: usize) -> String {
    format!("https://schemas.openid.net/secevent/caep/event-type/{}", TYPES[kind])
}
