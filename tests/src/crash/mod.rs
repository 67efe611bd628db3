//! The crash suite: kills a real host under load repeatedly, and compares its ledger and deliveries with an external
//! record of accepted events. `docs/reference/crash.md` describes a run and its last line.

pub mod copy;
pub mod first;
pub mod kill;
pub mod load;
pub mod powercut;
pub mod random;
pub mod receivers;
pub mod record;
pub mod report;
pub mod senders;
pub mod signed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use setgate_jose::JwkSet;

use copy::Copy;
use kill::Plan;
use load::{AUDIENCE, SIGNED_SOURCE, SOURCES, TARGETS, Way};
use powercut::PowerCut;
use random::Random;
use receivers::Receivers;
use record::Record;
use report::{PHASES, Summary};
use senders::Senders;
use signed::{PUBLIC_URL, Polling, SignedSource};

use crate::host::Host;
use crate::source::Seed;

/// Retention (seconds) while the host is being killed. No process runs for that long, so any event removed by retention
/// has ended in an earlier copy.
const RETENTION_S: i64 = 10;
/// Deliveries created together with their event: one less than the events of one source need, so that these are left to
/// the fan-out loop.
const INLINE_FANOUT_MAX: usize = 2;
/// Small enough that kills hit the writing, merging and cleaning of dedupe runs.
const DEDUPE_RUN_EVENTS: usize = 16;
/// Time limit (seconds) for the remaining deliveries at the end.
const DRAIN_S: u64 = 300;
/// Consecutive starts without progress after which the remaining deliveries count as stuck.
const DRAIN_STARTS: usize = 5;

/// Options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of kills.
    pub kills: usize,
    /// Seed of the load, the kills and the writes undone by power cuts. Everything except the exact timing is
    /// repeatable.
    pub seed: u64,
    /// Cut the power instead of killing the process.
    pub power_cut: bool,
    /// Simulate a disk that acknowledges syncs without performing them. Ends with the first loss. Implies power cuts.
    pub no_fsync: bool,
    /// Number of syncs in a thousand that fail; their data is lost at the cut unless it is written again. Implies power
    /// cuts.
    pub sync_fails: u32,
    /// Number of concurrent senders.
    pub senders: u64,
    /// Maximum pause (ms) of a sender between two events.
    pub pause_ms: u64,
    /// Whether kills wait up to some seconds for a phase, or happen soon.
    pub aimed: bool,
}

impl Options {
    /// Options with defaults for the given number of kills.
    pub fn new(kills: usize, seed: u64) -> Self {
        Self { kills, seed, power_cut: false, no_fsync: false, sync_fails: 0, senders: 6, pause_ms: 25, aimed: true }
    }
}

/// Runs the suite; `tell` receives progress lines. Returns an error message if the run could not be completed.
pub async fn run(options: Options, mut tell: impl FnMut(String)) -> Result<Summary, String> {
    let record = Arc::new(Record::default());
    let receivers = Receivers::start(options.seed, &record).await;
    let mut host = Host::with()
        .config(&format!(
            "[data]\nretention_s = {RETENTION_S}\nretention_every_s = 1\ninline_fanout_max = {INLINE_FANOUT_MAX}\n\
             dedupe_run_events = {DEDUPE_RUN_EVENTS}\n\
             [server]\npublic_url = \"{PUBLIC_URL}\"\n\
             [delivery]\nbreaker_open_ms_max = 100\n\
             [log]\nlevel = \"info,setgate::app=debug\""
        ))
        .start()
        .await;
    let (sources, polling) = set_up(&host, &receivers, &record, options.seed).await;
    let stopped = host.terminate().await;
    if !stopped.success() {
        return Err(format!("after SIGTERM the host ended with {stopped}:\n{}", host.log()));
    }
    let cut = options.power_cut || options.no_fsync || options.sync_fails > 0;
    let cut = cut.then(|| PowerCut::build(&host.path(""), options.no_fsync)).transpose()?;
    let cut = cut.map(|cut| cut.with_failing_syncs(options.sync_fails));
    let senders = Senders::start(options.senders, options.pause_ms, options.seed, sources, &record);
    let mut run = Run {
        random: Random::new(options.seed, 1),
        summary: Summary { seed: options.seed, undone: cut.is_some().then_some((0, 0)), ..Summary::default() },
        cut,
        record,
        receivers,
        host,
        options,
        _polling: polling,
    };
    while run.summary.kills < run.options.kills {
        run.live_and_die(&senders).await?;
        if run.summary.kills.is_multiple_of(10) {
            tell(run.line());
        }
        if run.options.no_fsync && run.record.lost() > 0 {
            // A lost event never reaches its final state, so the run ends with the report of its loss.
            drop(senders);
            run.summary.totals = run.record.totals();
            run.summary.totals.lost = run.record.lost();
            return Ok(run.summary);
        }
    }
    run.drain(senders).await?;
    if !run.record.has_acknowledged() {
        run.record.fault("the receiver that polls acknowledged nothing".to_owned());
    }
    run.summary.totals = run.record.totals();
    Ok(run.summary)
}

async fn set_up(
    host: &Host,
    receivers: &Receivers,
    record: &Arc<Record>,
    seed: u64,
) -> ((Vec<crate::source::Source>, SignedSource), Vec<Polling>) {
    let mut tenants = std::collections::BTreeMap::new();
    for (name, _) in SOURCES {
        if !tenants.contains_key(name) {
            // On a busy machine, a call may need more computing time than the default allows.
            let quota = json!({"wall_ms_max": 30_000, "filter_faults_max": 0});
            let tenant = host.tenant_with(name, json!({"quota": quota})).await;
            tenant.client.post(&tenant.path("/issuer-keys"), &json!({"algorithm": "EdDSA"})).await.expect(201);
            tenants.insert(name, tenant);
        }
    }
    let mut sources = Vec::new();
    let signed = SignedSource::new(host.operator());
    for (number, (tenant, source)) in SOURCES.into_iter().enumerate() {
        let tenant = &tenants[tenant];
        let path = tenant.path(&format!("/sources/{source}"));
        if number == SIGNED_SOURCE {
            tenant.client.put(&path, &signed.settings()).await.expect(201);
            sources.push(tenant.known_source(source, Seed::Open));
        } else {
            sources.push(tenant.source(source, Seed::Open).await);
        }
    }
    let (mut ids, mut polling) = (Vec::new(), Vec::new());
    for (place, target) in TARGETS.iter().enumerate() {
        let tenant = &tenants[target.tenant];
        if let Some(filter) = target.filter {
            tenant.filter(filter).await;
        }
        let names: Vec<_> = target.sources.iter().map(|source| SOURCES[*source].1).collect();
        if target.way == Way::Webhook {
            let asked = tenant.subscribe_url(&receivers.urls[place]).chain(target.chain()).retry(target.retry);
            // One subscription signs with a key pair.
            let asked = asked.with("sources", names.into()).signing("standard", target.name == "plain");
            let subscription = asked.create().await;
            receivers.trust(place, subscription.trust);
            ids.push(subscription.id);
            continue;
        }
        let mut asked = json!({"sources": names, "chain": target.chain(), "retry": target.retry, "format": "signed_set",
            "signed_set": {"audience": [AUDIENCE], "algorithm": "EdDSA"}});
        match target.way {
            Way::Poll => asked["poll"] = json!({}),
            _ => asked["endpoint"] = json!({"url": receivers.urls[place]}),
        }
        let made = tenant.client.post(&tenant.path("/subscriptions"), &asked).await.expect(201).json();
        let jwks = host.stranger().get(&format!("/t/{}/jwks.json", target.tenant)).await.expect(200);
        let keys = || JwkSet::parse(&jwks.body).expect("a JWKS");
        receivers.trust_keys(place, keys());
        if let Some(token) = made["poll_token"].as_str() {
            let path = made["poll"]["path"].as_str().expect("a path").to_owned();
            let to = (host.stranger(), path, token.to_owned());
            polling.push(Polling::start(&TARGETS[place], to, keys(), seed, record));
        }
        ids.push(made["id"].as_str().expect("an id").to_owned());
    }
    record.subscribed(&ids);
    ((sources, signed), polling)
}

struct Run {
    options: Options,
    random: Random,
    host: Host,
    receivers: Receivers,
    record: Arc<Record>,
    cut: Option<PowerCut>,
    summary: Summary,
    /// Receivers that poll for as long as the run lasts.
    _polling: Vec<Polling>,
}

impl Run {
    /// The life of one process: started, killed, and its ledger examined.
    async fn live_and_die(&mut self, senders: &Senders) -> Result<(), String> {
        if let Some(cut) = &self.cut {
            cut.prepare(&mut self.host, self.random.draw())?;
        }
        let plan = Plan::draw(&mut self.random, self.options.aimed);
        let from = self.host.logged();
        self.host.launch();
        let life = kill::wait(&plan, &mut self.host, senders, &self.record, from).await?;
        let (unanswered, receiving) = (senders.unanswered(), self.record.receiving());
        let undone = self.kill().await?;
        let round = self.host.last_logged(from, &["retention run started", "retention run finished"]);
        let in_retention = round.is_some_and(|line| line.contains("retention run started"));
        let checkpointing = undone
            .map_or_else(|| copy::is_checkpointing(&self.ledger(), life.recovered), |undone| undone.checkpointing);
        if !self.receivers.are_left_alone().await {
            self.record.fault("a receiver's connection stayed open after the host was killed".to_owned());
        }
        self.summary.kills += 1;
        let number = self.summary.kills;
        let folder = self.ledger();
        let copy = tokio::task::spawn_blocking(move || Copy::read(&folder, RETENTION_S * 1_000)).await;
        let copy = copy.map_err(|error| error.to_string())?.map_err(|error| format!("kill {number}: {error}"))?;
        for damage in &copy.damage {
            self.record.fault(format!("kill {number}: {damage}"));
        }
        let shown = self.record.compare(&copy, number);
        let hit = [
            life.listened && unanswered > 0,
            copy.behind_cursor > 0,
            shown.unfiltered > 0,
            life.listened && receiving > 0,
            shown.taken_unsettled > 0,
            checkpointing,
            in_retention && copy.past > 0,
            !life.listened,
        ];
        for (phase, hit) in PHASES.into_iter().zip(hit) {
            *self.summary.phases.entry(phase).or_default() += usize::from(hit);
        }
        if let (Some(undone), Some(sum)) = (undone, &mut self.summary.undone) {
            *sum = (sum.0 + undone.undone, sum.1 + undone.pending);
        }
        Ok(())
    }

    async fn kill(&mut self) -> Result<Option<powercut::Undone>, String> {
        let undone = match &self.cut {
            None => {
                self.host.kill9().await;
                None
            }
            Some(cut) => {
                let pipe = cut.cut().map_err(|error| format!("the power cannot be cut: {error}"))?;
                let status = self.host.ended().await;
                drop(pipe);
                if std::os::unix::process::ExitStatusExt::signal(&status) != Some(9) {
                    return Err(format!("the power was cut, and the host ended with {status}:\n{}", self.host.log()));
                }
                Some(cut.report()?)
            }
        };
        self.host.read_to_the_end().await;
        Ok(undone)
    }

    /// Checks the ledger with the operator's command.
    async fn check(&self) -> Result<(), String> {
        let mut check = Host::command(&self.host.path(""));
        let output =
            check.args(["admin", "check", "--data", "data"]).output().await.map_err(|error| error.to_string())?;
        if !output.status.success() {
            self.record.fault(format!("`admin check` at the end: {}", String::from_utf8_lossy(&output.stdout)));
        }
        Ok(())
    }

    /// Lets all deliveries end on a host with long retention, and compares the results.
    async fn drain(&mut self, senders: Senders) -> Result<(), String> {
        self.host.set_env("SETGATE_DATA__RETENTION_S", "864000");
        if self.cut.take().is_some() {
            self.host.set_env("LD_PRELOAD", "");
        }
        self.host.start_again().await;
        senders.stop().await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(DRAIN_S);
        let (mut due, mut starts) = (usize::MAX, 0);
        // Refused deliveries die one by one, as fast as the circuit breaker allows probes. As long as their number
        // falls, they are not stuck.
        while starts < DRAIN_STARTS && tokio::time::Instant::now() < deadline {
            // Dropped and dead deliveries are only visible in the ledger; the rest finishes soon.
            let mut unchanged = 0;
            let mut before = usize::MAX;
            while unchanged < 15 && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let open = self.record.open();
                unchanged = if open == before && self.record.receiving() == 0 { unchanged + 1 } else { 0 };
                before = open;
            }
            let stopped = self.host.terminate().await;
            if !stopped.success() {
                return Err(format!("after SIGTERM the host ended with {stopped}:\n{}", self.host.log()));
            }
            let copy = Copy::read(&self.ledger(), RETENTION_S * 1_000)?;
            for damage in &copy.damage {
                self.record.fault(format!("at the end: {damage}"));
            }
            self.record.compare(&copy, self.summary.kills);
            if copy.behind_cursor == 0 && copy.due.is_empty() {
                self.check().await?;
                return Ok(());
            }
            let left = copy.due.len();
            starts = if left < due { 0 } else { starts + 1 };
            due = left;
            self.host.start_again().await;
        }
        Err(format!("{due} deliveries are due for ever"))
    }

    fn ledger(&self) -> PathBuf {
        self.host.data().join("ledger")
    }

    fn line(&self) -> String {
        let totals = self.record.totals();
        format!(
            "{:>4} kills: {} accepted, {} delivered, {} under way, {} copies; {}",
            self.summary.kills,
            totals.accepted,
            totals.delivered,
            self.record.open(),
            totals.duplicates,
            self.summary.phases()
        )
    }
}
