//! Settings. Each has a usable default, a TOML file overrides the defaults, and environment variables override both.
//!
//! `SETGATE_<SECTION>__<KEY>` sets `<key>` in `[<section>]`, for example `SETGATE_LISTEN__ADDRESS=0.0.0.0:8080`. Every
//! limit's name ends in its unit. `docs/reference/config.md` lists all settings; a test compares it with the types
//! below.

mod address;
mod environment;
mod listen;
mod log_level;
mod read;
#[cfg(test)]
mod reference;
mod sandbox;
mod settings;
#[cfg(test)]
mod shares;
mod traces;

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use setgate_domain::filter::FAULT_WINDOW_CALLS;
use setgate_domain::page::PAGE_BYTES_MAX;
use setgate_domain::tenant::Quota;

pub use address::{Address, NotAnAddress};
pub use listen::{ClientAddress, Listen, Listener};
pub use sandbox::Sandbox;
pub use setgate_base::telemetry::LogFormat;
pub use setgate_egress::{Bypass, Proxy, ProxyError};
pub use settings::{Change, Settings};

/// The configuration file that is read from the current directory if no other is given.
pub const FILE: &str = "setgate.toml";
pub use traces::Traces;

/// Upper bound of `ingest.json_depth_max`. The output of filters is validated with the same depth.
const JSON_DEPTH_MAX: usize = 64;

/// Lower bound of `data.ledger_bytes_max`: schema, keys and undelivered events must fit.
const LEDGER_BYTES_MIN: u64 = 8 << 20;

/// The settings could not be read. The message names file, key and value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read.
    #[error(
        "cannot read the configuration file {path}: {source}; give another with --config, or none to use the defaults"
    )]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Unknown keys or invalid values; one message each.
    #[error("the configuration is not valid:{}", listed(.0))]
    Invalid(Vec<String>),
}

impl Error {
    fn invalid(faults: impl IntoIterator<Item = String>) -> Self {
        Self::Invalid(faults.into_iter().collect())
    }
}

/// One indented line per message.
fn listed(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// All settings of a host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listeners, TLS, connection limits and request limits.
    pub listen: Listen,
    /// Storage: data directory, retention, disk limits and commits.
    pub data: Data,
    /// Limits of event ingest.
    pub ingest: Ingest,
    /// Default quota of a tenant. A tenant's own quota overrides it.
    pub quota: Quota,
    /// Filter execution: instances, memory, compilation and limits of uploads.
    pub sandbox: Sandbox,
    /// Backtests and shadow runs of new filter versions.
    pub rollout: Rollout,
    /// Delivery: concurrency, circuit breaker and endpoint verification.
    pub delivery: Delivery,
    /// Redrive, replay, statistics and live tails.
    pub history: History,
    /// Outgoing connections to receivers.
    pub egress: Egress,
    /// Format and level of the log.
    pub log: Log,
    /// Export of OpenTelemetry spans.
    pub traces: Traces,
}

/// `[data]`: storage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Directory of the ledger, the compiled filters and, by default, the master key. Created with mode 0700.
    pub dir: PathBuf,
    /// File of the master key that encrypts secrets at rest. Defaults to `<dir>/master.key`, which is created at the
    /// first start.
    pub master_key_file: Option<PathBuf>,
    /// How long (seconds) an event is retained once all its deliveries have ended. A duplicate event is recognised
    /// within this time.
    pub retention_s: u64,
    /// Interval (seconds) between two runs that delete expired data.
    pub retention_every_s: u64,
    /// Bytes of the ledger file in use. From nine tenths of it, the oldest ended events are removed before
    /// `retention_s`; if there are none left to remove, ingest is answered 503 once the limit is reached. The WAL
    /// (about 64 MiB) is not included. 0: unlimited.
    pub ledger_bytes_max: u64,
    /// How long (seconds) ended events are retained even if the ledger is nearly full. A duplicate event is recognised
    /// for at least as long.
    pub retention_min_s: u64,
    /// Free disk space (bytes) below which ingest and uploads are answered 503; deliveries continue. 0: unlimited.
    pub disk_free_bytes_min: u64,
    /// How long (ms) after the start the ledger file is checked for damage in the background, at most. 0: not checked.
    pub check_ms_max: u64,
    /// How long (seconds) the system clock must run steadily after a jump before the host adopts its time.
    pub clock_settle_s: u64,
    /// How long (days) audit log entries are retained.
    pub audit_retention_days: u64,
    /// Maximum number of events or settlements in one commit.
    pub batch_max: usize,
    /// Maximum time (microseconds) a busy writer delays a commit to batch more writes into it: half of the last
    /// commit's duration, for as long as many writes arrive. 0: no delay.
    pub gather_us_max: u64,
    /// Deliveries of an event that are created in the same commit as the event. An event with more is accepted first
    /// and fanned out afterwards. 0: all are created with it. One commit never creates more than 5000 of them.
    pub append_deliveries_max: usize,
    /// Maximum number of writes queued for commit; if the queue is full, ingest is answered 503.
    pub queue_max: usize,
    /// Bytes of events and new deliveries passed to the dispatcher in memory; anything beyond is read back from disk.
    /// 0: everything is.
    pub hot_bytes_max: usize,
    /// Number of events whose dedupe keys are buffered in memory (about 24 bytes each) before they are written to the
    /// dedupe index. A start reads that many rows.
    pub dedupe_run_events: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("setgate-data"),
            master_key_file: None,
            retention_s: 30 * 24 * 3600,
            retention_every_s: 60,
            ledger_bytes_max: 0,
            retention_min_s: 24 * 3600,
            disk_free_bytes_min: 256 << 20,
            check_ms_max: 10_000,
            clock_settle_s: 600,
            audit_retention_days: 400,
            batch_max: 512,
            gather_us_max: 3_000,
            append_deliveries_max: 64,
            queue_max: 8192,
            hot_bytes_max: 16 << 20,
            dedupe_run_events: 16_384,
        }
    }
}

/// `[ingest]`: limits of incoming events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Maximum size (bytes) of an event's body.
    pub body_bytes_max: usize,
    /// Maximum nesting depth of arrays and objects in an event.
    pub json_depth_max: usize,
    /// Events that are appended to the ledger concurrently; more are queued, and tenants take turns.
    pub appends_max: usize,
    /// The share of `appends_max` that one tenant may use.
    pub appends_per_tenant_max: usize,
    /// Events of one tenant that are queued for an append; further ones are answered 429.
    pub waiting_per_tenant_max: usize,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            json_depth_max: 64,
            appends_max: 512,
            appends_per_tenant_max: 256,
            waiting_per_tenant_max: 1024,
        }
    }
}

/// `[rollout]`: trials of new filter versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// Time limit (ms) of a backtest, which then returns its results so far. Capped at half of `listen.request_ms_max`.
    pub backtest_ms_max: u64,
    /// Concurrent shadow runs of one tenant; events that arrive while all are busy are skipped. 0: no shadow runs.
    pub shadow_in_flight_per_tenant_max: usize,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { backtest_ms_max: 20_000, shadow_in_flight_per_tenant_max: 2 }
    }
}

/// `[delivery]`: dispatching of deliveries.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Maximum number of deliveries in flight.
    pub in_flight_max: usize,
    /// The share of `in_flight_max` that one tenant may use.
    pub in_flight_per_tenant_max: usize,
    /// The share of `in_flight_max` that one endpoint (scheme, host and port) of a tenant may use.
    pub in_flight_per_endpoint_max: usize,
    /// Maximum memory (bytes) of deliveries in flight: the event as accepted and as a SET, and the body sent.
    pub in_flight_bytes_max: u64,
    /// The share of `in_flight_bytes_max` that one tenant may use, half of it for one endpoint. A tenant with no delivery
    /// in flight can always start one of any size.
    pub in_flight_bytes_per_tenant_max: u64,
    /// Pending deliveries of one subscription held in memory; the rest stays on disk.
    pub window_max: usize,
    /// How long (ms) deliveries in flight may take to finish when the host stops; the remaining ones are then released.
    pub drain_ms_max: u64,
    /// How long (hours) a held delivery is retained for manual action before it becomes a dead letter.
    pub held_hours_max: u64,
    /// Consecutive failures of an endpoint that open its circuit breaker. 0: the breaker never opens.
    pub breaker_failures_max: u32,
    /// How long (ms) the circuit breaker stays open the first time; each failed probe doubles the time.
    pub breaker_open_ms: u64,
    /// Maximum time (ms) that the circuit breaker stays open between probes.
    pub breaker_open_ms_max: u64,
    /// Maximum time (seconds) for which a `Retry-After` answer pauses the whole endpoint. A longer one, up to a week,
    /// applies only to the delivery that received it.
    pub throttle_s_max: u64,
    /// Seconds without any success after which a subscription is paused, unless the subscription sets its own limit. 0:
    /// never.
    pub disable_after_s: u64,
    /// Whether a new subscription sends nothing until its endpoint is verified. Existing subscriptions are not
    /// affected.
    pub require_verified_endpoints: bool,
    /// Test events and verifications of one subscription per minute; further ones are answered 429.
    pub tests_per_minute_max: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            in_flight_max: 256,
            in_flight_per_tenant_max: 64,
            in_flight_per_endpoint_max: 16,
            in_flight_bytes_max: 128 << 20,
            in_flight_bytes_per_tenant_max: 32 << 20,
            window_max: 512,
            drain_ms_max: 20_000,
            held_hours_max: 24 * 14,
            breaker_failures_max: 10,
            breaker_open_ms: 1_000,
            breaker_open_ms_max: 60_000,
            throttle_s_max: 3_600,
            disable_after_s: 5 * 24 * 3600,
            require_verified_endpoints: false,
            tests_per_minute_max: 10,
        }
    }
}

/// `[history]`: redrive, replay, statistics and live tails.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Maximum number of deliveries per redrive request; the answer contains a cursor for the next request.
    pub redrive_deliveries_max: usize,
    /// Time limit (ms) of a redrive request, which then answers with its progress. Capped at half of
    /// `listen.request_ms_max`.
    pub redrive_ms_max: u64,
    /// How long (seconds) statistics are retained.
    pub statistics_retention_s: u64,
    /// Maximum number of concurrent replays of one tenant.
    pub replays_per_tenant_max: usize,
    /// Upper bound of the rate (deliveries per second) that a replay can request.
    pub replay_per_second_max: u32,
    /// How far back (seconds) a live tail can start.
    pub tail_retention_s: u64,
    /// Maximum number of open live tails; further ones are answered 429.
    pub tails_max: usize,
    /// The share of `tails_max` that one tenant may use; further ones are answered 429.
    pub tails_per_tenant_max: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            redrive_deliveries_max: 10_000,
            redrive_ms_max: 20_000,
            statistics_retention_s: 7 * 24 * 3600,
            replays_per_tenant_max: 4,
            replay_per_second_max: 1_000,
            tail_retention_s: 3_600,
            tails_max: 256,
            tails_per_tenant_max: 16,
        }
    }
}

impl History {
    /// These settings with `redrive_ms_max` lowered, so that a redrive answers before its request times out.
    pub fn within(&self, request_ms_max: u64) -> Self {
        Self { redrive_ms_max: self.redrive_ms_max.min(request_ms_max / 2), ..self.clone() }
    }
}

/// `[egress]`: connections to receivers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Private networks that deliveries may be sent to, such as `["10.0.0.0/8"]`. All other addresses outside the
    /// public internet are refused.
    pub allow: Vec<IpNet>,
    /// Whether `http://` endpoints are allowed.
    pub allow_http: bool,
    /// PEM files of certificate authorities to trust in addition to those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Connect timeout (ms), including TLS.
    pub connect_ms_max: u32,
    /// Timeout (ms) of an attempt until the response head has arrived, including the connect.
    pub head_ms_max: u32,
    /// Timeout (ms) of a whole attempt, until the response body has been read.
    pub response_ms_max: u32,
    /// Maximum bytes read from a response; if it is longer, the connection is closed.
    pub response_bytes_max: usize,
    /// Bytes of the response body stored in the history.
    pub response_bytes_kept: usize,
    /// Number of response headers stored in the history.
    pub response_headers_kept: usize,
    /// Total bytes of response header names and values stored in the history.
    pub response_header_bytes_kept: usize,
    /// Maximum number of idle connections per receiver.
    pub idle_per_host_max: usize,
    /// How long (ms) an idle connection is kept open.
    pub idle_ms_max: u32,
    /// Maximum number of connection pools, one for each tenant and each `tls` setting of an endpoint. If the limit is
    /// reached, the pool that has been idle longest is evicted.
    pub clients_max: u64,
    /// Interval (ms) of HTTP/2 keep-alive pings on a connection with pending attempts.
    pub ping_every_ms: u32,
    /// Timeout (ms) of a keep-alive ping. If it expires, the pending attempts on the connection fail and later ones use
    /// a new connection.
    pub ping_ms_max: u32,
    /// HTTP proxy of the site, `http://host:port` or `http://user:password@host:port`. Every endpoint is reached
    /// through it by `CONNECT`, with TLS inside the tunnel. If the URL contains a password, set it by the environment
    /// variable.
    pub proxy: Option<Proxy>,
    /// Hosts that are reached without the proxy, such as `["idp.example", ".internal.example", "10.0.0.0/8"]`: a name,
    /// all names below a domain, or a network of addresses. A network matches only endpoints whose URL contains an
    /// address.
    pub proxy_bypass: Vec<Bypass>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_http: false,
            ca_files: Vec::new(),
            connect_ms_max: 5_000,
            head_ms_max: 15_000,
            response_ms_max: 20_000,
            response_bytes_max: 64 << 10,
            response_bytes_kept: 2 << 10,
            response_headers_kept: 32,
            response_header_bytes_kept: 2 << 10,
            idle_per_host_max: 32,
            idle_ms_max: 30_000,
            clients_max: 1_024,
            ping_every_ms: 5_000,
            ping_ms_max: 5_000,
            proxy: None,
            proxy_bypass: Vec::new(),
        }
    }
}

/// `[log]`: format and level of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Format of the log on standard error: `text` or `json`.
    pub format: LogFormat,
    /// Level, or directives such as `info,setgate::pipeline=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

impl Config {
    /// Reads the settings: defaults, then the file, then the environment. If `file` is `None`, `setgate.toml` in the
    /// current directory is read if it exists.
    ///
    /// # Errors
    /// Returns every invalid setting with its location.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let implied = Path::new(FILE);
        let file = file.or_else(|| implied.exists().then_some(implied));
        let text = |path: &Path| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|source| Error::File { path: path.to_owned(), source })?;
            // Some editors write a byte order mark.
            Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        };
        read::read(file.map(|path| Ok((path, text(path)?))).transpose()?)
    }

    /// Checks values that parse but are not usable: limits of 0, and combinations that contradict each other.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let not_zero = [
            ("listen.connections_max", self.listen.connections_max),
            ("listen.connections_per_peer_max", self.listen.connections_per_peer_max),
            ("listen.idle_ms_max", usize::try_from(self.listen.idle_ms_max).unwrap_or(usize::MAX)),
            ("listen.bodies_bytes_max", self.listen.bodies_bytes_max as usize),
            ("data.retention_s", usize::try_from(self.data.retention_s).unwrap_or(usize::MAX)),
            ("data.retention_every_s", usize::try_from(self.data.retention_every_s).unwrap_or(usize::MAX)),
            ("data.audit_retention_days", usize::try_from(self.data.audit_retention_days).unwrap_or(usize::MAX)),
            ("data.batch_max", self.data.batch_max),
            ("data.queue_max", self.data.queue_max),
            ("data.dedupe_run_events", self.data.dedupe_run_events),
            ("ingest.body_bytes_max", self.ingest.body_bytes_max),
            ("ingest.json_depth_max", self.ingest.json_depth_max),
            ("ingest.appends_max", self.ingest.appends_max),
            ("ingest.appends_per_tenant_max", self.ingest.appends_per_tenant_max),
            ("sandbox.instances_max", self.sandbox.instances_max as usize),
            ("sandbox.instances_per_tenant_max", self.sandbox.instances_per_tenant_max as usize),
            ("sandbox.stack_bytes_max", self.sandbox.stack_bytes_max),
            ("delivery.in_flight_max", self.delivery.in_flight_max),
            ("delivery.in_flight_per_tenant_max", self.delivery.in_flight_per_tenant_max),
            ("delivery.in_flight_per_endpoint_max", self.delivery.in_flight_per_endpoint_max),
            ("delivery.in_flight_bytes_max", self.delivery.in_flight_bytes_max as usize),
            ("delivery.in_flight_bytes_per_tenant_max", self.delivery.in_flight_bytes_per_tenant_max as usize),
            ("delivery.window_max", self.delivery.window_max),
            ("history.redrive_deliveries_max", self.history.redrive_deliveries_max),
            ("history.replay_per_second_max", self.history.replay_per_second_max as usize),
        ];
        let zeros = not_zero.iter().filter(|(_, value)| *value == 0);
        faults.extend(zeros.map(|(key, _)| format!("`{key}` is 0; it has to be at least 1")));
        let Listen {
            bodies_bytes_max,
            bodies_bytes_per_tenant_max,
            uploads_bytes_max,
            uploads_bytes_per_tenant_max,
            responses_bytes_max,
            responses_bytes_per_tenant_max,
            ..
        } = self.listen;
        for (key, bytes, room, limit) in [
            ("ingest.body_bytes_max", self.ingest.body_bytes_max as u64, "bodies", bodies_bytes_per_tenant_max),
            ("quota.filter_bytes_max", self.quota.filter_bytes_max, "uploads", uploads_bytes_per_tenant_max),
            ("quota.table_bytes_max", self.quota.table_bytes_max, "uploads", uploads_bytes_per_tenant_max),
        ] {
            if bytes > u64::from(limit) {
                faults.push(format!(
                    "`{key}` is more than `listen.{room}_bytes_per_tenant_max`: such a body would never be taken"
                ));
            }
        }
        // A tenant's own quota above these gets a warning in the response; the host's would silently be another value.
        for (key, wanted, most) in [
            ("memory_bytes_max", self.quota.memory_bytes_max, self.sandbox.memory_bytes_max),
            ("table_elements_max", self.quota.table_elements_max, self.sandbox.table_elements_max),
        ] {
            if wanted > most {
                faults.push(format!(
                    "`quota.{key}` is {wanted}, which is more than `sandbox.{key}` ({most}) allows any tenant: lower it, or \
                     raise that"
                ));
            }
        }
        if self.quota.filter_faults_max > FAULT_WINDOW_CALLS {
            faults.push(format!(
                "`quota.filter_faults_max` is more than {FAULT_WINDOW_CALLS}, the number of calls that are counted; 0 never \
                 suspends a filter"
            ));
        }
        // Room for one page and the start of another.
        if (responses_bytes_per_tenant_max as usize) < 2 * PAGE_BYTES_MAX {
            faults.push(format!(
                "`listen.responses_bytes_per_tenant_max` is less than {}, which two pages of a list take",
                2 * PAGE_BYTES_MAX
            ));
        }
        for (room, share, all) in [
            ("bodies", bodies_bytes_per_tenant_max, bodies_bytes_max),
            ("uploads", uploads_bytes_per_tenant_max, uploads_bytes_max),
            ("responses", responses_bytes_per_tenant_max, responses_bytes_max),
        ] {
            if share > all {
                faults.push(format!(
                    "`listen.{room}_bytes_per_tenant_max` is more than `listen.{room}_bytes_max`, which it is a share of"
                ));
            }
        }
        if self.delivery.in_flight_bytes_per_tenant_max > self.delivery.in_flight_bytes_max {
            faults.push(
                "`delivery.in_flight_bytes_per_tenant_max` is more than `delivery.in_flight_bytes_max`, which it is a share of"
                    .to_owned(),
            );
        }
        if self.data.ledger_bytes_max != 0 && self.data.ledger_bytes_max < LEDGER_BYTES_MIN {
            faults.push(format!(
                "`data.ledger_bytes_max` is less than {LEDGER_BYTES_MIN}: the ledger itself takes some of it; 0 is no bound"
            ));
        }
        if self.ingest.json_depth_max > JSON_DEPTH_MAX {
            faults.push(format!(
                "`ingest.json_depth_max` is more than {JSON_DEPTH_MAX}, which is what filters' outputs are held to"
            ));
        }
        faults.extend(log_level::fault(&self.log.level).map(|fault| format!("`log.level` {fault}")));
        faults.extend(self.traces.faults());
        faults.extend(self.listen.faults());
        faults
    }
}

#[cfg(test)]
mod tests;
