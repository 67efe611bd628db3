//! The usual opening of a story.
//!
//! A story borrows it, so that the host runs until the story ends, even if the story does not name it:
//!
//! ```no_run
//! # async fn story() {
//! # use setgate_tests::{World, event};
//! let World { source, receiver, subscription, .. } = &World::with().retry(&[2, 2]).start().await;
//! source.accept(event::set("one")).await;
//! subscription.verify(&receiver.received(1).await[0]).unwrap();
//! # }
//! ```

use serde_json::{Map, Value, json};

use crate::host::{self, Host};
use crate::receiver::Receiver;
use crate::source::{Seed, Source};
use crate::tenant::{Subscription, Tenant};

/// A host whose tenant `acme` has a source and a subscription.
pub struct World {
    /// The host.
    pub host: Host,
    /// The tenant.
    pub acme: Tenant,
    /// Its source; `idp`, of plain SETs, unless the story says otherwise.
    pub source: Source,
    /// The receiver of the subscription; it answers 204.
    pub receiver: Receiver,
    /// Its subscription, to all events.
    pub subscription: Subscription,
}

impl World {
    /// Starts it with the usual settings.
    pub async fn start() -> Self {
        Self::with().start().await
    }

    /// Starts describing a variation.
    pub fn with() -> Opening {
        Opening {
            host: Host::with(),
            source: ("idp".to_owned(), Seed::Set),
            filters: Vec::new(),
            subscription: Map::new(),
        }
    }
}

/// A host whose tenant `acme` has a source, for stories that create their own subscriptions, or none.
pub struct Ingest {
    /// The host.
    pub host: Host,
    /// The tenant.
    pub acme: Tenant,
    /// Its source; `idp`, of plain SETs, unless the story says otherwise.
    pub source: Source,
}

impl Ingest {
    /// Starts it with the usual settings.
    pub async fn start() -> Self {
        World::with().start_ingest().await
    }
}

/// A [`World`] that has not been started yet.
pub struct Opening {
    host: host::Options,
    source: (String, Seed),
    filters: Vec<String>,
    subscription: Map<String, Value>,
}

impl Opening {
    /// Appends to the host's configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.host = self.host.config(toml);
        self
    }

    /// Sets an environment variable of the host.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.host = self.host.env(name, value);
        self
    }

    /// Replaces the source.
    pub fn source(mut self, name: &str, seed: Seed) -> Self {
        self.source = (name.to_owned(), seed);
        self
    }

    /// Uploads an example filter under its own name.
    pub fn filter(mut self, name: &str) -> Self {
        self.filters.push(name.to_owned());
        self
    }

    /// The filters of the subscription, in order.
    pub fn chain(self, chain: Value) -> Self {
        self.subscription("chain", chain)
    }

    /// The intervals between the subscription's attempts, in seconds.
    pub fn retry(self, waits: &[u32]) -> Self {
        self.subscription("retry", json!(waits))
    }

    /// The signature scheme of deliveries.
    pub fn signing(self, scheme: &str, ed25519: bool) -> Self {
        self.subscription("signing", json!({"scheme": scheme, "ed25519": ed25519}))
    }

    /// Sets any member of the subscription.
    pub fn subscription(mut self, member: &str, value: Value) -> Self {
        self.subscription.insert(member.to_owned(), value);
        self
    }

    /// Starts the host and the receiver, and creates the tenant with its resources.
    pub async fn start(mut self) -> World {
        let members = std::mem::take(&mut self.subscription);
        let Ingest { host, acme, source } = self.start_ingest().await;
        let receiver = Receiver::start().await;
        let mut subscription = acme.subscribe(&receiver);
        for (member, value) in members {
            subscription = subscription.with(&member, value);
        }
        let subscription = subscription.create().await;
        World { host, acme, source, receiver, subscription }
    }

    /// Starts it without a receiver and a subscription.
    pub async fn start_ingest(self) -> Ingest {
        assert!(self.subscription.is_empty(), "there is no subscription to set members of");
        let host = self.host.start().await;
        let acme = host.tenant("acme").await;
        let (name, seed) = self.source;
        let source = acme.source(&name, seed).await;
        for filter in &self.filters {
            acme.filter(filter).await;
        }
        Ingest { host, acme, source }
    }
}
