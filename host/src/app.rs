//! The composition root: builds all components from the settings, starts them in order and stops them in order. The
//! only module that depends on all others; only the program depends on it.

mod data_folder;
mod exposition;
#[cfg(test)]
mod metric_tests;
mod reload;
mod settings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_base::live::Live;
use setgate_base::telemetry::{self, metric};
use setgate_dialects::Signer;
use setgate_domain::time::Timestamp;
use setgate_egress::Egress;
use setgate_ledger::{Deliveries, Ledger, Upkeep};
use setgate_sandbox::Sandbox;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::settings::CurrentSettings;
use crate::config::Config;
use crate::control::{self, ControlPlane};
use crate::http::body_budget::BodyBudget;
use crate::http::listener::interface::Interface;
use crate::http::listener::server::Server;
use crate::http::{self, AppState};
use crate::pipeline::{self, DueQueue, Stages};
use crate::traces::{Exporting, Traces};

/// Seconds after which an idle metric series is no longer exported, such as those of removed tenants and filters. Far
/// above the minute for which `telemetry` caches handles.
const SERIES_IDLE_S: u64 = 3_600;
/// Seconds between two upkeep runs of the metrics recorder, which buffers samples in memory until then.
const SERIES_UPKEEP_EVERY_S: u64 = 5;
/// Number of upkeep runs after which idle series are removed, even if `/metrics` is never requested.
const SERIES_UPKEEPS_PER_SWEEP: u32 = 120;
/// Interval of retention runs while the ledger or the disk is nearly full.
const PRESSED_EVERY: Duration = Duration::from_secs(5);
/// Label for deriving the key that authenticates compiled filters from the master key.
const ARTEFACT_KEY: &str = "compiled filters";

/// A bound listener.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The table that configures it: `listen`, `listen.operator`, `listen.tenant`.
    pub table: &'static str,
    /// Address and port.
    pub address: SocketAddr,
    /// Whether it uses TLS.
    pub tls: bool,
}

/// A running host.
pub struct Running {
    /// The main listener's address.
    pub address: SocketAddr,
    /// All its listeners, the main one first.
    pub listeners: Vec<Listening>,
    /// The operator's key if this was the first start: shown once and not stored.
    pub first_operator_key: Option<String>,
    settings: CurrentSettings,
    live: reload::Live,
    leaving: CancellationToken,
    stop: CancellationToken,
    parts: Vec<JoinHandle<()>>,
    ledger: Ledger,
    sandbox: Sandbox,
    exporting: Exporting,
}

/// Builds and starts a host.
pub async fn start(config: Config, compiler: Option<PathBuf>) -> anyhow::Result<Running> {
    start_with(config, compiler, false, |key| Ok(key.to_owned())).await
}

/// As [`start`], with control over a newly created operator key. `keep` receives the key before it is durable: at the
/// first start, and if `another_key` requests one. It returns the key to store, which may be an earlier one of a first
/// start that was interrupted.
pub async fn start_with(
    config: Config,
    compiler: Option<PathBuf>,
    another_key: bool,
    keep: impl FnOnce(&str) -> anyhow::Result<String> + Send,
) -> anyhow::Result<Running> {
    // The first call installs the recorder; a second host in the same process (tests) shares it.
    let recorded = metrics_handle();
    let clock = Clock::with_settle_time(Duration::from_secs(config.data.clock_settle_s));
    let dir = config.data.dir.clone();
    let key_file = config.data.master_key_file.clone().unwrap_or_else(|| dir.join("master.key"));
    let master = Arc::new(data_folder::master_key(&dir, &key_file)?);

    let ledger = Ledger::open(ledger_options(&config), clock.clone()).context("the ledger cannot be opened")?;

    check_master_key(&ledger.upkeep, &master, &key_file).await?;
    let exposition = Arc::new(exposition::Exposition::new(ledger.registry.clone(), ledger.usage.clone(), recorded));
    let metrics: http::Metrics = Arc::new(move || {
        let exposition = Arc::clone(&exposition);
        async move { exposition.text().await }.boxed()
    });

    let wasm = ledger.blobs.clone();
    let components: setgate_sandbox::ComponentSource = Arc::new(move |tenant, digest| {
        let (blobs, tenant) = (wasm.clone(), tenant.clone());
        async move { blobs.get(&tenant, &digest).await.ok().flatten() }.boxed()
    });
    let (cache, key) = (dir.join("compiled"), *master.derive(ARTEFACT_KEY));
    let options = setgate_sandbox::Options::of(&config.sandbox, cache, key, components);
    let sandbox =
        Sandbox::new(setgate_sandbox::Options { compiler, ..options }).context("the sandbox cannot be started")?;

    let servers = Server::bind_all(&config.listen).await?;
    let listeners = servers
        .iter()
        .map(|server| Ok(Listening { table: server.table(), address: server.address()?, tls: server.tls().is_some() }))
        .collect::<std::io::Result<Vec<_>>>()?;
    let address = listeners.first().context("there is a main listener")?.address;
    let metrics_on_loopback = servers
        .iter()
        .zip(&listeners)
        .all(|(server, listening)| !server.serves(Interface::Operator) || listening.address.ip().is_loopback());
    let own = listeners.iter().map(|listening| listening.address).collect();
    let egress = Egress::new((&config.egress).into(), clock.clone(), own).context("egress cannot be started")?;

    let settings = CurrentSettings::new(config.clone());
    let signer = Arc::new(Signer::new(master.clone()));
    let (traces, exporting) = traces(&config.traces, &clock)?;
    let stages = pipeline::compose(pipeline::Components {
        ledger: ledger.clone(),
        sandbox: sandbox.clone(),
        signer: signer.clone(),
        master: master.clone(),
        egress: egress.clone(),
        clock: clock.clone(),
        ingest: settings.ingest.clone(),
        delivery: settings.delivery.clone(),
        default_quota: settings.default_quota.clone(),
        traces,
    });
    let Stages {
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
    } = stages;
    let control = ControlPlane::new(control::Components {
        ledger: ledger.clone(),
        sandbox: sandbox.clone(),
        master,
        signer,
        egress: egress.clone(),
        clock: clock.clone(),
        default_quota: settings.default_quota.clone(),
        delivery: settings.delivery.clone(),
        replays: settings.replays.clone(),
        server: settings.server.clone(),
        data_plane,
    });
    let first_operator_key = control.keys.create_at_start(another_key, keep).await?.map(|key| key.key);

    let (leaving, stop) = (CancellationToken::new(), CancellationToken::new());
    let state = Arc::new(AppState {
        prover,
        acceptor,
        poller,
        pushes,
        readiness,
        control,
        listen: settings.listen.clone(),
        ingest: settings.ingest.clone(),
        events: BodyBudget::for_events(&config.listen),
        uploads: BodyBudget::for_uploads(),
        responses: BodyBudget::for_responses(),
        in_progress: http::InProgress::default(),
        reads: http::ReadLimiter::default(),
        tails: http::Slots::for_tails(),
        polls: http::Slots::for_polls(),
        metrics_on_loopback,
        metrics,
        stopping: leaving.clone(),
    });
    let mut parts = vec![
        tokio::spawn(fanout.run(stop.clone())),
        tokio::spawn(canaries.run(stop.clone())),
        tokio::spawn(resume_held.run(stop.clone())),
        tokio::spawn(replayer.run(stop.clone())),
        tokio::spawn(dispatcher.run(stop.clone())),
        tokio::spawn(retain(
            ledger.upkeep.clone(),
            ledger.deliveries.clone(),
            due,
            clock,
            settings.config.clone(),
            stop.clone(),
        )),
        tokio::spawn(check_integrity(ledger.upkeep.clone())),
        tokio::spawn(expire_series(recorded, stop.clone())),
    ];
    let listening = servers.iter().filter_map(|server| Some((server.table(), server.tls()?.clone()))).collect();
    let live = reload::Live { egress, listening };
    parts.extend(servers.into_iter().map(|server| {
        let routes = http::router(state.clone(), server.interfaces().to_vec());
        tokio::spawn(server.serve(routes, stop.clone()))
    }));
    for Listening { table, address, tls } in &listeners {
        info!(%address, tls, listener = table, data = %dir.display(), "listening");
    }
    Ok(Running {
        address,
        listeners,
        first_operator_key,
        settings,
        live,
        leaving,
        stop,
        parts,
        ledger,
        sandbox,
        exporting,
    })
}

impl Running {
    /// How long requests are still served after [`leave`](Self::leave).
    pub fn shutdown_delay(&self) -> Duration {
        Duration::from_millis(self.settings.listen.now().shutdown_delay_ms)
    }

    /// Makes `/readyz` report that the host is shutting down. Requests are still served.
    pub fn leave(&self) {
        info!("shutdown requested: /readyz reports 503");
        self.leaving.cancel();
    }

    /// Stops in order: no new requests, work in flight finishes or is released, then the ledger is closed.
    pub async fn stop(self) {
        info!("stopping");
        self.leaving.cancel();
        self.stop.cancel();
        for part in self.parts {
            if let Err(error) = part.await {
                error!(%error, "background task failed");
            }
        }
        self.sandbox.shutdown();
        self.ledger.shutdown().await;
        self.exporting.finish().await;
        info!("stopped");
    }
}

/// The span recorder and its exporter; both are no-ops if no collector is configured.
fn traces(settings: &crate::traces::Settings, clock: &Clock) -> anyhow::Result<(Traces, Exporting)> {
    if settings.endpoint.is_none() {
        return Ok(Default::default());
    }
    let tls = setgate_egress::operator_tls_config(&settings.ca_files).context("`traces.ca_files`")?;
    Ok(Traces::start(settings, clock.clone(), tls)?)
}

/// Converts seconds to milliseconds, saturating.
fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
}

/// Creates a directory with mode 0700, if it does not exist.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Checks that the ledger belongs to this master key. With another one (most likely because the file was lost), no
/// secret could be decrypted.
async fn check_master_key(upkeep: &Upkeep, master: &MasterKey, file: &Path) -> anyhow::Result<()> {
    let here = master.fingerprint();
    match upkeep.meta_get("master key").await? {
        None => Ok(upkeep.meta_put("master key", here.as_bytes()).await?),
        Some(known) if known == here.as_bytes() => Ok(()),
        Some(known) => anyhow::bail!(
            "{} contains the master key {here}, but this ledger requires {}: put the right file back",
            file.display(),
            String::from_utf8_lossy(&known)
        ),
    }
}

fn ledger_options(config: &Config) -> setgate_ledger::Options {
    setgate_ledger::Options::of(&config.data, config.quota.clone())
}

async fn retain(
    upkeep: Upkeep,
    deliveries: Deliveries,
    due: DueQueue,
    clock: Clock,
    settings: Live<Config>,
    stop: CancellationToken,
) {
    let mut changes = settings.changes();
    loop {
        let config = settings.now().clone();
        let every = Duration::from_secs(config.data.retention_every_s);
        let held_ms_max = millis(config.delivery.held_retention_s);
        let audit_ms = millis(config.data.audit_retention_s);
        tracing::debug!("retention run started");
        let now = clock.now();
        match expire_held(&upkeep, &deliveries, &due, now, held_ms_max).await {
            Ok(()) => {}
            Err(error) if error.is_logged() => {}
            Err(error) => error!(%error, "held deliveries could not be expired; retrying"),
        }
        if let Err(error) = upkeep.retain_audit(now.plus_millis(-audit_ms)).await {
            error!(%error, "old audit log entries could not be removed; retrying");
        }
        match upkeep.retain(now).await {
            Ok(removed) => tracing::debug!(?removed, "retention run finished"),
            Err(error) if error.is_logged() => {}
            Err(error) => error!(%error, "retention failed; retrying"),
        }
        // Under pressure the next run starts soon, since the last one may not have freed enough.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
            _ = changes.changed() => {}
            () = async { tokio::join!(upkeep.space_pressure(), tokio::time::sleep(PRESSED_EVERY)); } => {}
        }
    }
}

/// Turns deliveries that were held for too long into dead letters.
async fn expire_held(
    upkeep: &Upkeep,
    deliveries: &Deliveries,
    due: &DueQueue,
    now: Timestamp,
    held_ms_max: i64,
) -> Result<(), setgate_ledger::Error> {
    let before = upkeep.uptime_cutoff(now, held_ms_max).await?;
    loop {
        let expired = deliveries.expire_held(before, now).await?;
        if expired.deliveries == 0 {
            return Ok(());
        }
        due.push(expired.unblocked).await;
    }
}

/// Checks the ledger file for damage once, in the background.
async fn check_integrity(upkeep: Upkeep) {
    match upkeep.check().await {
        Ok(setgate_ledger::QuickCheck::Sound) => info!("ledger file check passed"),
        Ok(setgate_ledger::QuickCheck::NotFinished) => {
            info!("ledger file check stopped at its time limit; the rest of the file was not checked");
        }
        Ok(setgate_ledger::QuickCheck::Damaged(faults)) => error!(
            ?faults,
            "ledger file is damaged: readable data is still processed, requests for unreadable data are answered 500. \
             Nothing was changed; restore a backup, see docs/how-to/storage.md"
        ),
        Err(error) => error!(%error, "ledger file check failed"),
    }
}

/// Runs the recorder's upkeep, and removes idle series.
async fn expire_series(recorded: &'static PrometheusHandle, stop: CancellationToken) {
    loop {
        for _ in 0..SERIES_UPKEEPS_PER_SWEEP {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(SERIES_UPKEEP_EVERY_S)) => recorded.run_upkeep(),
            }
        }
        // The exporter removes idle series only when it renders.
        drop(recorded.render());
    }
}

/// Sets the gauges of the ledger, on each request of `/metrics`.
#[expect(clippy::cast_precision_loss, reason = "sizes and counts far below 2^52")]
fn record_stats(stats: &setgate_ledger::Stats) {
    gauge!(metric::LEDGER_FILE_BYTES).set(stats.file_bytes as f64);
    gauge!(metric::LEDGER_WAL_BYTES).set(stats.wal_bytes as f64);
    gauge!(metric::LEDGER_DEDUPE_BYTES).set(stats.dedupe_bytes as f64);
    gauge!(metric::LEDGER_WAITING).set(stats.queue_depth as f64);
    gauge!(metric::LEDGER_BEHIND).set((stats.last.0 - stats.cursor.0) as f64);
}

fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    HANDLE.get_or_init(|| {
        // Gauges are excluded: they may be constant while all is well, and have no tenant labels.
        let mask = MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM;
        let mut builder = PrometheusBuilder::new().idle_timeout(mask, Some(Duration::from_secs(SERIES_IDLE_S)));
        for (name, bounds) in [setgate_sandbox::BUCKETS, setgate_ledger::BUCKETS, telemetry::BUCKETS].concat() {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
                .expect("every list of bounds has some");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let _another_is_installed = metrics::set_global_recorder(recorder);
        exposition::describe();
        handle
    })
}
