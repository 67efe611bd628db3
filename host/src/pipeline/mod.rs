//! The data plane: the whole path of an event, one file a stage, each taking the type that the last one made.
//!
//! ```text
//! ingest    prove      the source shows that the request is its own             -> Proven
//!           decode     a body that comes compressed                             -> bytes
//!           normalize  any accepted form becomes a SET                          -> NewEvent
//!           fanout     the subscriptions that want it (matching), chain pinned (plan) -> NewDelivery
//!           accept     ==append_with: event, outbox rows and cursor durable, then 202== -> Receipt, DueDelivery
//!
//! loop A    fanout     the same for events that were left without deliveries    -> DueDelivery
//!                      ==fan_out: outbox rows and cursor, one batch==
//!
//! loop B    dispatcher due deliveries, fair between tenants and endpoints (lane)-> DueDelivery
//!           filter     the chain in the sandbox, once per delivery              -> Filtered
//!                      ==settle: bytes that are not the journal's are kept before the first send==
//!           seal       body and signature, anew for each attempt                -> Sealed
//!           deliver    one exchange with the receiver                           -> Attempt
//!           settle     what the attempt means; ==settle==                       -> delivered | due again | dead
//!
//! loop C    release    what a filter's faults held, once its tenant has decided about that filter
//!                      ==rerun: due again, the chain pinned anew==              -> DueDelivery
//!
//! loop D    replay     past events once more for one subscription, at a rate            -> DueDelivery
//! by hand   ping       a test event and its one delivery                            -> DueDelivery
//!           challenge  whether an endpoint knows what it is asked; stored by control
//!
//! beside    canary     some subjects run a candidate (plan); ended where it faults too often
//!           shadow     a candidate runs after the chain has: counted, never sent
//!           backtest   stored events once more, with two versions: answered, never stored
//! ```
//!
//! No transaction and no lock is held while a guest or a receiver is at work. Every transaction may be run again.

pub mod accept;
mod apply;
pub mod backtest;
pub mod canary;
mod challenge;
mod counts;
pub mod decode;
pub mod deliver;
pub mod dispatcher;
mod endpoints;
pub mod fanout;
pub mod filter;
mod health;
mod lane;
mod matching;
pub mod normalize;
mod notice;
mod ping;
mod plan;
pub mod prove;
pub mod release;
pub mod replay;
mod reuse;
pub mod seal;
mod settle;
mod shadow;
mod spans;
mod tables;
mod trial;

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::domain::id::{FilterName, SubscriptionId, TenantId};
use crate::domain::rollout::TrialReport;
use crate::domain::subscription::Subscription;
use crate::egress::Egress;
use crate::fair::{Bounds, ByteRate, Gate};
use crate::ledger::{Ledger, Versioned};
use crate::sandbox::Sandbox;
use crate::signing::Signer;
use crate::traces::Traces;

/// What every stage works with. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline(Arc<Parts>);

/// The parts a pipeline is made of.
pub struct Parts {
    /// All durable state.
    pub ledger: Ledger,
    /// Where filters run.
    pub sandbox: Sandbox,
    /// Signs what is sent.
    pub signer: Arc<Signer>,
    /// Opens sources' secrets and those of bindings.
    pub master: Arc<crate::crypto::MasterKey>,
    /// Reaches receivers.
    pub egress: Egress,
    /// Tells the time.
    pub clock: Clock,
    /// What the operator has set, as it is now.
    pub settings: Settings,
    /// Tables of plans in force, parsed.
    pub(crate) tables: tables::Store,
    /// Plans that events meet.
    pub(crate) pinned: plan::Pinned,
    /// Turns at the ledger, so that one tenant's flood does not stand before everybody's next event.
    pub(crate) appends: Gate,
    /// Turns at large matches of events and patterns.
    matches: Gate,
    /// Bytes of bodies that tenants have sent.
    ingest_rate: ByteRate,
    /// Events of one tenant that wait for such a turn.
    pub(crate) appends_waiting_max: usize,
    /// Endpoints whose secrets are open.
    endpoints: endpoints::Opened,
    /// Turns at applying large verdicts.
    large: Gate,
    /// What rollouts have shown.
    trials: trial::Trials,
    /// Versions whose trial may have to be ended, or has.
    pending: canary::Pending,
    /// Shadow runs under way.
    shadows: Arc<shadow::InFlight>,
    /// Backtests under way.
    backtests: backtest::Running,
    /// Faults of filters, counted.
    pub(crate) health: health::Health,
    /// Counters that each event moves.
    counts: counts::Counts,
    /// Makes spans, where they are wanted.
    traces: Traces,
}

impl Parts {
    /// From what `app` built.
    pub fn new(
        ledger: Ledger,
        sandbox: Sandbox,
        signer: Arc<Signer>,
        master: Arc<crate::crypto::MasterKey>,
        egress: Egress,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let config = settings.now();
        let config::Config { ingest, sandbox: of_sandbox, rollout, .. } = &**config;
        let appends = Gate::new(Bounds {
            places: ingest.appends_max,
            per_tenant_max: ingest.appends_per_tenant_max,
            leaves_free: false,
            waiting_per_tenant_max: ingest.waiting_per_tenant_max,
            cost: 1,
        });
        Self {
            ledger,
            sandbox,
            signer,
            master,
            egress,
            clock,
            pinned: plan::Pinned::default(),
            tables: tables::Store::new(of_sandbox.tables_bytes_max, of_sandbox.tables_in_use_bytes_max),
            appends,
            ingest_rate: ByteRate::default(),
            matches: matching::gate(ingest.waiting_per_tenant_max),
            large: Gate::new(Bounds {
                places: apply::LARGE_MAX,
                per_tenant_max: apply::LARGE_MAX,
                leaves_free: false,
                // Who delivers bounds what it has in flight.
                waiting_per_tenant_max: usize::MAX,
                cost: 1,
            }),
            appends_waiting_max: ingest.waiting_per_tenant_max,
            endpoints: endpoints::Opened::default(),
            trials: trial::Trials::default(),
            pending: canary::Pending::default(),
            shadows: shadow::InFlight::new(rollout.shadow_in_flight_per_tenant_max),
            backtests: backtest::Running::default(),
            health: health::Health::default(),
            settings: settings.clone(),
            counts: counts::Counts::default(),
            traces: Traces::default(),
        }
    }

    /// With spans of what it does.
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }
}

impl Pipeline {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Why no event can be taken in just now, in words; none: the ledger takes writes, as far as its last commit tells,
    /// has room, and can be read.
    pub async fn why_not_ready(&self) -> Option<String> {
        let stats = self.ledger.stats();
        if !stats.open {
            return Some("the ledger is closed: see the host's log".to_owned());
        }
        if let Some(cause) = stats.failing {
            return Some(format!("the ledger cannot write, {}: see the host's log", cause.as_str()));
        }
        if let Some(shortage) = self.ledger.shortage() {
            return Some(format!("{}: {shortage}", shortage.code()));
        }
        let reads = self.ledger.meta_get("ready").await;
        reads.err().map(|_| "the ledger cannot be read: see the host's log".to_owned())
    }

    /// What the rollout of a filter has shown so far; none where there is none.
    pub fn trial(&self, tenant: &TenantId, filter: &FilterName) -> Option<TrialReport> {
        let snapshot = self.ledger.snapshot();
        let rollout = snapshot.tenant(tenant)?.filters.get(filter)?.value.rollout.as_ref()?;
        Some(self.trials.report(tenant, filter, rollout, self.clock.now()))
    }

    /// A subscription as it is now; none where it was removed.
    fn subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Option<Arc<Versioned<Subscription>>> {
        self.ledger.snapshot().tenant(tenant)?.subscriptions.get(&id).cloned()
    }
}

impl std::ops::Deref for Pipeline {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
