//! The composition root: builds every part from the settings, starts them in order and stops them in order. The only
//! file that knows all; nothing imports it but the program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Control};
use crate::crypto::MasterKey;
use crate::egress::{self, Egress};
use crate::http::room::Room;
use crate::http::{self, Site};
use crate::ledger::{self, Ledger};
use crate::pipeline::dispatcher::{self, Dispatcher};
use crate::pipeline::{self, Pipeline, canary, fanout, release};
use crate::sandbox::{self, Sandbox};
use crate::signing::Signer;

/// Seconds after which a series that does not move is no longer exported: those of tenants and filters that are gone. Far
/// above the minute for which the sandbox keeps handles.
const SERIES_IDLE_S: u64 = 3_600;
/// Seconds between two rounds of taking up what was recorded: what is recorded waits in memory until then.
const SERIES_UPKEEP_EVERY_S: u64 = 5;
/// Rounds of upkeep after which idle series are let go of, also where nobody asks for `/metrics`.
const SERIES_UPKEEPS_PER_SWEEP: u32 = 120;
/// Label under which the key that authenticates compiled filters is derived from the master key.
const ARTEFACT_KEY: &str = "compiled filters";

/// A host that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// The operator's key, where this was the first start: shown once and kept nowhere.
    pub first_operator_key: Option<String>,
    stop: CancellationToken,
    parts: Vec<JoinHandle<()>>,
    ledger: Ledger,
    sandbox: Sandbox,
}

/// Builds and starts a host.
pub async fn start(config: Config, compiler: Option<PathBuf>) -> anyhow::Result<Running> {
    start_with(config, compiler, false, |key| Ok(key.to_owned())).await
}

/// The same. `keep` is given the operator's key, where one is made, before it is durable: at first start, and where
/// `another_key` asks for one. It gives back the key that it keeps, which may be one of a first start that was broken off.
pub async fn start_with(
    config: Config,
    compiler: Option<PathBuf>,
    another_key: bool,
    keep: impl FnOnce(&str) -> anyhow::Result<String> + Send,
) -> anyhow::Result<Running> {
    // First come, first kept: a second host in one process (tests) shares the recorder.
    let recorded = metrics_handle();
    let metrics = Arc::new(move || recorded.render());
    let clock = Clock::system();
    let dir = config.data.dir.clone();
    private_folder(&dir).with_context(|| format!("the data folder {}", dir.display()))?;
    let key_file = config.data.master_key_file.clone().unwrap_or_else(|| dir.join("master.key"));
    let master = Arc::new(MasterKey::load_or_create(&key_file)?);

    let retention_ms = i64::try_from(config.data.retention_s).unwrap_or(i64::MAX).saturating_mul(1_000);
    let retention_every = Duration::from_secs(config.data.retention_every_s);
    let ledger = Ledger::open(
        ledger::Options {
            retention_ms,
            batch_max: config.data.batch_max,
            queue_max: config.data.queue_max,
            ..ledger::Options::new(dir.join("ledger"))
        },
        clock.clone(),
    )
    .context("the ledger cannot be opened")?;

    check_master_key(&ledger, &master, &key_file).await?;

    let wasm = ledger.clone();
    let components: sandbox::Components = Arc::new(move |digest| {
        let ledger = wasm.clone();
        async move { ledger.blob(&digest).await.ok().flatten() }.boxed()
    });
    let defaults = sandbox::Options::new(dir.join("compiled"), *master.derive(ARTEFACT_KEY), components);
    let settings = &config.sandbox;
    let turns_max = if settings.turns_max == 0 { defaults.turns_max } else { settings.turns_max };
    let sandbox = Sandbox::new(sandbox::Options {
        compiler,
        instances_max: settings.instances_max,
        instances_per_tenant_max: settings.instances_per_tenant_max,
        turns_max,
        guest_threads: match settings.guest_threads {
            0 => turns_max.saturating_mul(sandbox::GUEST_THREADS_PER_TURN),
            threads => threads,
        },
        fuel_slice: settings.fuel_slice,
        memory_bytes_max: settings.memory_bytes_max,
        stack_bytes_max: settings.stack_bytes_max,
        table_elements_max: settings.table_elements_max,
        keep_resident_bytes: settings.keep_resident_bytes,
        loaded_bytes_max: settings.loaded_bytes_max,
        cache_bytes_max: settings.cache_bytes_max,
        compiles_max: settings.compiles_max,
        compiles_waiting_per_tenant_max: settings.compiles_waiting_per_tenant_max,
        compile_wall_ms_max: settings.compile_wall_ms_max,
        compile_cpu_seconds_max: settings.compile_cpu_seconds_max,
        compile_memory_bytes_max: settings.compile_memory_bytes_max,
        caps: sandbox::Caps {
            modules_max: settings.filter_modules_max,
            instances_max: settings.filter_instances_max,
            functions_max: settings.filter_functions_max,
            function_bytes_max: settings.filter_function_bytes_max,
            locals_max: settings.filter_locals_max,
            blocks_max: settings.filter_blocks_max,
            types_max: settings.filter_types_max,
            nesting_max: settings.filter_nesting_max,
            imports_max: settings.filter_imports_max,
            exports_max: settings.filter_exports_max,
            links_max: settings.filter_links_max,
            globals_max: settings.filter_globals_max,
            memories_max: settings.filter_memories_max,
            tables_max: settings.filter_tables_max,
            segments_max: settings.filter_segments_max,
        },
        ..defaults
    })
    .context("the sandbox cannot be started")?;

    let server = http::server::Server::bind(config.listen.clone()).await?;
    let (address, tls) = (server.address()?, server.is_tls());
    let settings = &config.egress;
    let egress = Egress::new(
        egress::Options {
            allow: settings.allow.clone(),
            allow_http: settings.allow_http,
            ca_files: settings.ca_files.clone(),
            connect_ms_max: settings.connect_ms_max,
            response_ms_max: settings.response_ms_max,
            response_bytes_max: settings.response_bytes_max,
            response_bytes_kept: settings.response_bytes_kept,
            idle_per_host_max: settings.idle_per_host_max,
            idle_ms_max: settings.idle_ms_max,
        },
        clock.clone(),
        vec![address],
    )
    .context("egress cannot be started")?;

    let signer = Arc::new(Signer::new(master.clone()));
    let pipeline = Pipeline::new(pipeline::Parts::new(
        ledger.clone(),
        sandbox.clone(),
        signer.clone(),
        master.clone(),
        egress,
        clock.clone(),
        &config,
    ));
    let (dispatcher, tell_due) = Dispatcher::new(pipeline.clone(), config.delivery.clone());
    let (told, chains) = (tell_due.clone(), pipeline.clone());
    let (pinning, ear) = (pipeline.clone(), tell_due.clone());
    let control = Control::new(control::Parts {
        ledger: ledger.clone(),
        sandbox: sandbox.clone(),
        master,
        signer,
        clock: clock.clone(),
        quota: config.quota.clone(),
        allow_http: config.egress.allow_http,
        tell_due: Arc::new(move |deliveries| {
            let told = told.clone();
            async move { told.due(deliveries).await }.boxed()
        }),
        on_trial: on_trial(&pipeline),
        run_again: Arc::new(move |plan, event, delivery| {
            let chains = chains.clone();
            async move { chains.run_chain(&plan, &event, delivery).await }.boxed()
        }),
        pin_anew: Arc::new(move |tenant, id| {
            let (pinning, ear) = (pinning.clone(), ear.clone());
            // By itself: whoever asked may hang up, and then the row would be due without anybody who knows.
            let doing = tokio::spawn(async move {
                let due = pinning.pin_anew(&tenant, id).await?;
                let found = due.is_some();
                ear.due(due.into_iter().collect()).await;
                Ok(found)
            });
            async move { doing.await.unwrap_or(Err(ledger::Error::Closed)) }.boxed()
        }),
    });
    let first_operator_key = control.operator_key(another_key, keep).await?.map(|key| key.key);

    let stop = CancellationToken::new();
    let site = Site::new(http::Parts {
        pipeline: pipeline.clone(),
        control,
        ingest_body_bytes_max: config.ingest.body_bytes_max,
        filter_bytes_max: usize::try_from(config.quota.filter_bytes_max).unwrap_or(usize::MAX),
        table_bytes_max: usize::try_from(config.quota.table_bytes_max).unwrap_or(usize::MAX),
        events: Room::new(
            config.listen.bodies_bytes_max,
            config.listen.bodies_bytes_per_tenant_max,
            "listen.bodies_bytes_per_tenant_max",
        ),
        uploads: Room::new(
            config.listen.uploads_bytes_max,
            config.listen.uploads_bytes_per_tenant_max,
            "listen.uploads_bytes_per_tenant_max",
        ),
        request_ms_max: config.listen.request_ms_max,
        metrics_open: config.listen.metrics_open.unwrap_or(address.ip().is_loopback()),
        metrics,
        stopping: stop.clone(),
    });
    let held_ms_max = i64::try_from(config.delivery.held_hours_max).unwrap_or(i64::MAX).saturating_mul(3_600_000);
    let parts = vec![
        tokio::spawn(server.run(site, stop.clone())),
        tokio::spawn(fanout::run(pipeline.clone(), tell_due.clone(), stop.clone())),
        tokio::spawn(canary::run(pipeline.clone(), stop.clone())),
        tokio::spawn(release::run(pipeline, tell_due.clone(), stop.clone())),
        tokio::spawn(dispatcher.run(stop.clone())),
        tokio::spawn(retain(ledger.clone(), tell_due, clock, retention_every, held_ms_max, stop.clone())),
        tokio::spawn(keep_series(recorded, stop.clone())),
    ];
    info!(%address, tls, data = %dir.display(), "setgate listens");
    Ok(Running { address, tls, first_operator_key, stop, parts, ledger, sandbox })
}

impl Running {
    /// Stops in order: no new requests, work in flight finishes or is released, then the ledger is closed.
    pub async fn stop(self) {
        info!("stopping");
        self.stop.cancel();
        for part in self.parts {
            if let Err(error) = part.await {
                error!(%error, "a part ended badly");
            }
        }
        self.sandbox.shutdown();
        self.ledger.shutdown().await;
        info!("stopped");
    }
}

fn on_trial(pipeline: &Pipeline) -> control::rollouts::OnTrial {
    let (runs, shows, told) = (pipeline.clone(), pipeline.clone(), pipeline.clone());
    control::rollouts::OnTrial {
        backtest: Arc::new(move |ask| {
            let pipeline = runs.clone();
            async move { pipeline.backtest(ask).await }.boxed()
        }),
        report: Arc::new(move |tenant, filter| shows.trial(tenant, filter)),
        ended: Arc::new(move |tenant, filter| told.rollout_ended(tenant, filter)),
    }
}

/// Makes a folder for this user alone, where it is not there.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A ledger belongs to one master key. Another one, from a lost file most likely, would leave every secret shut.
async fn check_master_key(ledger: &Ledger, master: &MasterKey, file: &Path) -> anyhow::Result<()> {
    let here = master.fingerprint();
    match ledger.meta_get("master key").await? {
        None => Ok(ledger.meta_put("master key", here.as_bytes()).await?),
        Some(known) if known == here.as_bytes() => Ok(()),
        Some(known) => anyhow::bail!(
            "{} holds the master key {here}, and this ledger was made with {}: put the right file back",
            file.display(),
            String::from_utf8_lossy(&known)
        ),
    }
}

async fn retain(
    ledger: Ledger,
    tell_due: dispatcher::Handle,
    clock: Clock,
    every: Duration,
    held_ms_max: i64,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        tracing::debug!("retention begins");
        let now = clock.now();
        match ledger.expire_held(now.plus_millis(-held_ms_max), now).await {
            Ok(expired) => tell_due.due(expired.freed).await,
            Err(error) => error!(%error, "held deliveries could not be expired; it is tried again"),
        }
        match ledger.retain(now).await {
            Ok(removed) => tracing::debug!(?removed, "retention ends"),
            Err(error) => error!(%error, "retention failed; it is tried again"),
        }
    }
}

/// Takes up what was recorded, and lets go of series that do not move.
async fn keep_series(recorded: &'static PrometheusHandle, stop: CancellationToken) {
    loop {
        for _ in 0..SERIES_UPKEEPS_PER_SWEEP {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(SERIES_UPKEEP_EVERY_S)) => recorded.run_upkeep(),
            }
        }
        // The exporter looks for idle series where it renders, and only there.
        drop(recorded.render());
    }
}

fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    HANDLE.get_or_init(|| {
        // Gauges stand still where all is well, and have no labels of tenants.
        let mask = MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM;
        let recorder =
            PrometheusBuilder::new().idle_timeout(mask, Some(Duration::from_secs(SERIES_IDLE_S))).build_recorder();
        let handle = recorder.handle();
        let _another_is_installed = metrics::set_global_recorder(recorder);
        handle
    })
}
