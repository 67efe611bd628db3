//! Builds the stages. The only place that knows which handles each of them gets.

use std::sync::Arc;

use super::settings::{Delivery, Ingest};
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_base::live::Live;
use setgate_dialects::Signer;
use setgate_domain::tenant::Quota;
use setgate_egress::Egress;
use setgate_ledger::Ledger;
use setgate_sandbox::Sandbox;

use super::accept::Acceptor;
use super::append::Appender;
use super::apply::Applier;
use super::attempt::Attempter;
use super::backtest::Backtester;
use super::canary::Canaries;
use super::chain::ChainRunner;
use super::data_plane::{DataPlane, Requeues, TestEventSender};
use super::deliver::Sender;
use super::dispatcher::{Dispatcher, Polled};
use super::due_queue::DueQueue;
use super::endpoint_verification::EndpointVerifier;
use super::endpoints::EndpointCache;
use super::fanout::Fanout;
use super::filter::FilterStage;
use super::issuer_keys::IssuerKeys;
use super::matching::Matcher;
use super::operational_event::OperationalEvents;
use super::plan::{PinnedPlans, Planner};
use super::poll::{Poller, Streams};
use super::prove::Prover;
use super::quotas::Quotas;
use super::readiness::Readiness;
use super::replay::Replayer;
use super::requeue::Requeuer;
use super::resume_held::ResumeHeld;
use super::reuse::IdleInstances;
use super::rollout_report::{RolloutReports, RolloutResults};
use super::seal::Sealer;
use super::settle::Settler;
use super::shadow::Shadows;
use super::sign::SetSigner;
use super::sources::{KeySets, PushReceiver};
use super::spans::Spans;
use super::suspension::{FaultCounters, Suspender};
use super::tables::TableCache;
use super::test_event::TestEvents;
use super::withdrawal::Withdrawals;
use crate::traces::Traces;

/// The components that the stages are built from.
pub(crate) struct Components {
    pub(crate) ledger: Ledger,
    pub(crate) sandbox: Sandbox,
    /// Signs requests to receivers.
    pub(crate) signer: Arc<Signer>,
    /// Decrypts the secrets of sources, endpoints and bindings.
    pub(crate) master: Arc<MasterKey>,
    pub(crate) egress: Egress,
    pub(crate) clock: Clock,
    pub(crate) ingest: Live<Ingest>,
    pub(crate) delivery: Live<Delivery>,
    pub(crate) default_quota: Live<Quota>,
    pub(crate) traces: Traces,
}

/// The stages that are used from outside.
pub(crate) struct Stages {
    /// For ingest.
    pub(crate) prover: Prover,
    /// For ingest.
    pub(crate) acceptor: Arc<Acceptor>,
    /// For signed SETs.
    pub(crate) pushes: PushReceiver,
    /// For health checks.
    pub(crate) readiness: Readiness,
    /// For the control plane.
    pub(crate) data_plane: DataPlane,
    /// Notifies the dispatcher.
    pub(crate) due: DueQueue,
    /// Loop A.
    pub(crate) fanout: Fanout,
    /// For receivers that poll.
    pub(crate) poller: Poller,
    /// Loop B.
    pub(crate) dispatcher: Dispatcher,
    /// Loop C.
    pub(crate) resume_held: ResumeHeld,
    /// Loop D.
    pub(crate) replayer: Replayer,
    /// Ends canaries.
    pub(crate) canaries: Arc<Canaries>,
}

/// Builds the stages.
pub(crate) fn compose(components: Components) -> Stages {
    let Components { ledger, sandbox, signer, master, egress, clock, ingest, delivery, default_quota, traces } =
        components;
    let Ledger { events, deliveries, replays, plans, registry, blobs, history, usage, upkeep, .. } = ledger;
    let (due, new_due) = DueQueue::new();

    // Shared by several stages.
    let spans = Spans::new(traces);
    let quotas = Quotas::new(registry.clone(), default_quota.clone());
    let planner = Planner::new(registry.clone(), plans.clone(), sandbox.clone(), default_quota.clone());
    let pinned = Arc::new(PinnedPlans::new(planner.clone()));
    let matcher = Matcher::new(ingest.now().appends_queued_per_tenant_max());
    let (tables, applier) = (Arc::new(TableCache::new(blobs)), Applier::new());
    let chain = Arc::new(ChainRunner::new(
        sandbox.clone(),
        master.clone(),
        quotas.clone(),
        tables.clone(),
        applier.clone(),
        spans.clone(),
    ));
    let reports = Arc::new(RolloutReports::default());
    let canaries = Arc::new(Canaries::new(registry.clone(), clock.clone(), reports.clone()));
    let fault_counters = Arc::new(FaultCounters::default());
    let requeuer = Requeuer::new(registry.clone(), history.clone(), deliveries.clone(), planner.clone(), clock.clone());

    // Ingest and loop A.
    let prover = Prover::new(registry.clone(), master.clone(), clock.clone(), ingest.clone());
    let appender =
        Appender::new(registry.clone(), events.clone(), matcher.clone(), pinned.clone(), spans.clone(), &ingest.now());
    let acceptor =
        Acceptor::new(prover.clone(), appender, usage.clone(), quotas.clone(), clock.clone(), ingest, spans.clone());
    let acceptor = Arc::new(acceptor);
    let pushes = PushReceiver::new(
        registry.clone(),
        master.clone(),
        clock.clone(),
        KeySets::new(egress.clone(), clock.clone()),
        acceptor.clone(),
    );
    let fanout = Fanout {
        registry: registry.clone(),
        events: events.clone(),
        upkeep: upkeep.clone(),
        matcher: matcher.clone(),
        pinned: pinned.clone(),
        idle_instances: IdleInstances::new(registry.clone(), sandbox.clone(), planner.clone()),
        clock: clock.clone(),
        default_quota,
        spans: spans.clone(),
        due: due.clone(),
    };

    // Loop B.
    let settler = Arc::new(Settler::new(
        registry.clone(),
        deliveries.clone(),
        OperationalEvents::new(registry.clone(), events.clone(), clock.clone(), spans.clone()),
        clock.clone(),
        delivery.clone(),
    ));
    let filter = FilterStage {
        registry: registry.clone(),
        deliveries: deliveries.clone(),
        plans: plans.clone(),
        planner: planner.clone(),
        chain: chain.clone(),
        withdrawals: Withdrawals::new(registry.clone(), plans, deliveries.clone()),
        shadows: Shadows::new(
            registry.clone(),
            clock.clone(),
            reports.clone(),
            chain.clone(),
            tables,
            applier,
            quotas.clone(),
        ),
        canaries: canaries.clone(),
        suspender: Suspender::new(registry.clone(), clock.clone(), quotas.clone(), fault_counters.clone()),
        settler: settler.clone(),
        requeuer: requeuer.clone(),
        clock: clock.clone(),
    };
    let endpoints = EndpointCache::new(master.clone(), signer.clone());
    let issuer_keys = Arc::new(IssuerKeys::new(registry.clone(), master.clone(), clock.clone()));
    let attempter = Attempter::new(
        registry.clone(),
        filter,
        SetSigner::new(deliveries.clone(), issuer_keys, clock.clone()),
        Sealer::new(signer.clone(), clock.clone(), spans.clone()),
        Sender::new(egress.clone(), endpoints, clock.clone(), spans.clone()),
        settler,
    );
    let (attempter, streams) = (Arc::new(attempter), Streams::default());
    let poller = Poller::new(
        registry.clone(),
        deliveries.clone(),
        attempter.clone(),
        due.clone(),
        clock.clone(),
        streams.clone(),
    );
    let dispatcher = Dispatcher::new(
        registry.clone(),
        deliveries,
        usage.clone(),
        attempter,
        clock.clone(),
        delivery,
        (new_due, Polled::new(streams)),
    );

    // Loops C and D.
    let resume_held = ResumeHeld::new(
        registry.clone(),
        history.clone(),
        usage.clone(),
        requeuer.clone(),
        fault_counters,
        due.clone(),
    );
    let replayer = Replayer {
        registry: registry.clone(),
        replays,
        usage: usage.clone(),
        quotas,
        matcher: matcher.clone(),
        pinned,
        clock: clock.clone(),
        due: due.clone(),
    };

    // Operations on request.
    let test_events = TestEvents::new(registry.clone(), events.clone(), planner.clone(), clock.clone(), spans);
    let data_plane = DataPlane {
        requeues: Requeues { requeuer, due: due.clone() },
        test_events: TestEventSender { events: Arc::new(test_events), due: due.clone() },
        verifier: Arc::new(EndpointVerifier::new(master, signer, egress, clock.clone())),
        chain: chain.clone(),
        backtester: Arc::new(Backtester::new(registry.clone(), history, events, planner, matcher, chain)),
        rollouts: RolloutResults::new(registry, clock, reports),
        due: due.clone(),
    };
    let readiness = Readiness::new(usage, upkeep);
    Stages {
        prover,
        acceptor,
        pushes,
        readiness,
        data_plane,
        due,
        fanout,
        poller,
        dispatcher,
        resume_held,
        replayer,
        canaries,
    }
}
