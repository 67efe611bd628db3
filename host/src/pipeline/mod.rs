//! The data plane: the path of an event. Each stage is one file and takes the type that the previous stage returned.
//! Everything specific to a product or signature scheme is in [`setgate_dialects`], including `normalize` as a whole.
//!
//! ```text
//! ingest    prove      authenticates the request as coming from the source      -> Proven
//!           decode     decompresses the body                                    -> bytes
//!           normalize  turns any accepted form into a SET                       -> NewEvent
//!           fanout     finds matching subscriptions (matching), pins chains (plan) -> NewDelivery
//!           accept     ==append_with: event, outbox rows and cursor durable, then 202== -> Receipt, DueDelivery
//!
//! loop A    fanout     the same for events appended without their deliveries    -> DueDelivery
//!                      ==fan_out: outbox rows and cursor, one transaction==
//!
//! loop B    dispatcher due deliveries, fair between tenants and endpoints (lane)-> DueDelivery
//!           filter     runs the chain in the sandbox, once per delivery         -> Filtered
//!                      ==settle: changed bytes are stored before the first send==
//!           seal       builds the body and signs it for each attempt            -> Sealed
//!           deliver    one HTTP request to the receiver                         -> Attempt
//!           settle     decides the next state; ==settle==                       -> delivered | due again | dead
//!
//! loop C    resume_held resumes deliveries held by a filter's faults, after the tenant has decided
//!                      ==rerun: due again, with a newly pinned chain==          -> DueDelivery
//!
//! loop D    replay     sends past events again to one subscription, rate-limited -> DueDelivery
//! manual    test_event a test event with its only delivery                      -> DueDelivery
//!           endpoint_verification  posts a challenge; control stores the result
//!
//! trials    canary     some subjects run a candidate (plan); ends if it faults too often
//!           shadow     runs a candidate after the chain; counted, never sent
//!           backtest   runs stored events through two versions; reported, never stored
//! ```
//!
//! Control calls these stages through data_plane. No transaction and no lock is held while a guest or a receiver is
//! running. Every transaction is idempotent.

pub mod accept;
mod apply;
mod backtest;
mod canary;
mod chain;
mod data_plane;
pub mod decode;
pub mod deliver;
pub mod dispatcher;
mod endpoint_verification;
mod endpoints;
pub mod fanout;
pub mod filter;
mod lane;
mod matching;
mod metrics;
mod next;
mod operational_event;
mod plan;
pub mod prove;
mod quotas;
pub mod replay;
pub mod resume_held;
mod reuse;
mod rollout_report;
pub mod seal;
mod settle;
mod shadow;
mod spans;
mod suspension;
mod tables;
mod test_event;
mod withdrawal;
mod witness;

use std::sync::Arc;

use setgate_base::clock::Clock;
use setgate_base::fair::{ByteRateLimiter, FairLimits, FairSemaphore};
use setgate_dialects::Signer;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::subscription::Subscription;
use setgate_egress::Egress;
use setgate_ledger::{Ledger, Versioned};
use setgate_sandbox::Sandbox;

use crate::config::Settings;
use crate::traces::Traces;

pub use data_plane::DataPlane;

/// The state shared by all stages. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline(Arc<Parts>);

/// The components of a pipeline.
pub struct Parts {
    /// All durable state.
    pub ledger: Ledger,
    /// Runs filters.
    pub sandbox: Sandbox,
    /// Signs requests to receivers.
    pub signer: Arc<Signer>,
    /// Decrypts the secrets of sources and of bindings.
    pub master: Arc<setgate_base::crypto::MasterKey>,
    /// HTTP client for receivers.
    pub egress: Egress,
    /// Wall and monotonic time.
    pub clock: Clock,
    /// The current configuration, which can change at run time.
    pub settings: Settings,
    /// Quotas of the tenants.
    quotas: quotas::Quotas,
    /// Makes plans of current chains.
    planner: plan::Planner,
    /// Cache of the current plans.
    pinned: plan::PinnedPlans,
    /// Admits appends to the ledger, so that one tenant's burst does not delay the other tenants.
    pub(crate) appends: FairSemaphore,
    /// Matches events with subscriptions.
    matcher: matching::Matcher,
    /// Ingest rate of each tenant, in bytes of bodies.
    ingest_rate: ByteRateLimiter,
    /// Limit for a tenant's events in the queue of `appends`.
    pub(crate) appends_waiting_max: usize,
    /// Cache of decrypted endpoints.
    endpoints: endpoints::EndpointCache,
    /// Runs chains.
    chain: Arc<chain::ChainRunner>,
    /// The results of rollouts.
    rollouts: rollout_report::Rollouts,
    /// Ends canaries that fault too often.
    pub(crate) canaries: Arc<canary::Canaries>,
    /// Runs shadows.
    shadows: shadow::Shadows,
    /// Replaces withdrawn versions.
    withdrawals: withdrawal::Withdrawals,
    /// Runs backtests.
    backtester: backtest::Backtester,
    /// Suspends versions that fault too often.
    suspender: suspension::Suspender,
    /// Fault counters of filters.
    fault_counters: Arc<suspension::FaultCounters>,
    /// Evicts idle instances.
    idle_instances: reuse::IdleInstances,
    ingest_counter: metrics::IngestCounter,
    attempt_counter: metrics::AttemptCounter,
    delivery_counter: metrics::DeliveryCounter,
    /// Creates spans if tracing is enabled.
    spans: spans::Spans,
}

impl Parts {
    /// Assembles the parts that `app` has built.
    pub fn new(
        ledger: Ledger,
        sandbox: Sandbox,
        signer: Arc<Signer>,
        master: Arc<setgate_base::crypto::MasterKey>,
        egress: Egress,
        clock: Clock,
        settings: Settings,
        traces: Traces,
    ) -> Self {
        let config = settings.now();
        let ingest = &config.ingest;
        let appends = FairSemaphore::new(FairLimits {
            permits: ingest.appends_max,
            per_tenant_max: ingest.appends_per_tenant_max(),
            reserve_for_idle_tenants: false,
            queued_per_tenant_max: ingest.appends_queued_per_tenant_max(),
            estimated_cost: 1,
        });
        let registry = ledger.registry.clone();
        let (quotas, spans) = (quotas::Quotas::new(registry.clone(), settings.clone()), spans::Spans::new(traces));
        let planner = plan::Planner::new(registry.clone(), ledger.plans.clone(), sandbox.clone(), settings.clone());
        let matcher = matching::Matcher::new(ingest.appends_queued_per_tenant_max());
        let (tables, applier) = (Arc::new(tables::TableCache::new(ledger.blobs.clone())), apply::Applier::new());
        let chain = Arc::new(chain::ChainRunner::new(
            sandbox.clone(),
            master.clone(),
            quotas.clone(),
            tables.clone(),
            applier.clone(),
            spans.clone(),
        ));
        let reports = Arc::new(rollout_report::RolloutReports::default());
        let fault_counters = Arc::new(suspension::FaultCounters::default());
        Self {
            rollouts: rollout_report::Rollouts::new(registry.clone(), clock.clone(), reports.clone()),
            canaries: Arc::new(canary::Canaries::new(registry.clone(), clock.clone(), reports.clone())),
            shadows: shadow::Shadows::new(
                (registry.clone(), clock.clone()),
                reports,
                chain.clone(),
                tables,
                applier,
                quotas.clone(),
            ),
            withdrawals: withdrawal::Withdrawals::new(
                registry.clone(),
                ledger.plans.clone(),
                ledger.deliveries.clone(),
            ),
            backtester: backtest::Backtester::new(
                (registry.clone(), ledger.history.clone(), ledger.events.clone()),
                settings.clone(),
                planner.clone(),
                matcher.clone(),
                chain.clone(),
            ),
            suspender: suspension::Suspender::new(
                registry.clone(),
                clock.clone(),
                quotas.clone(),
                fault_counters.clone(),
            ),
            fault_counters,
            idle_instances: reuse::IdleInstances::new(registry, sandbox.clone(), planner.clone()),
            chain,
            quotas,
            pinned: plan::PinnedPlans::new(planner.clone()),
            planner,
            endpoints: endpoints::EndpointCache::new(master.clone(), signer.clone()),
            ledger,
            sandbox,
            signer,
            master,
            egress,
            clock,
            appends,
            ingest_rate: ByteRateLimiter::default(),
            matcher,
            appends_waiting_max: ingest.appends_queued_per_tenant_max(),
            settings: settings.clone(),
            ingest_counter: metrics::IngestCounter::default(),
            attempt_counter: metrics::AttemptCounter::default(),
            delivery_counter: metrics::DeliveryCounter::default(),
            spans,
        }
    }
}

impl Pipeline {
    /// Wraps the parts in a cheap handle.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The reason why no event can be accepted at present. `None` if the ledger can be read, has space, and its last
    /// commit succeeded.
    pub async fn why_not_ready(&self) -> Option<String> {
        let stats = self.ledger.usage.stats();
        if !stats.open {
            return Some("the ledger is closed: see the host's log".to_owned());
        }
        if let Some(cause) = stats.failing {
            return Some(format!("the ledger cannot write, {}: see the host's log", cause.as_str()));
        }
        if let Some(shortage) = self.ledger.usage.shortage() {
            return Some(format!("{}: {shortage}", shortage.code()));
        }
        let reads = self.ledger.upkeep.meta_get("ready").await;
        reads.err().map(|_| "the ledger cannot be read: see the host's log".to_owned())
    }

    /// The current subscription. `None` if it was removed.
    fn subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Option<Arc<Versioned<Subscription>>> {
        self.ledger.registry.snapshot().tenant(tenant)?.subscriptions.get(&id).cloned()
    }
}

impl std::ops::Deref for Pipeline {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
