//! Settings: a usable default for each, a TOML file over that, environment variables over both.
//!
//! `SETGATE_<SECTION>__<KEY>` sets `<key>` in `[<section>]`, for example `SETGATE_LISTEN__ADDRESS=0.0.0.0:8080`.
//! Every limit ends in its unit and is listed in `docs/reference/config.md`, which a test compares with the types below.

mod address;
mod environment;
mod listen;
mod log_level;
mod proxy;
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

use crate::domain::page::PAGE_BYTES_MAX;
use crate::domain::tenant::Quota;

pub use address::{Address, NotAnAddress};
pub use listen::{ClientAddress, Listen, Listener};
pub use proxy::{Bypass, Error as ProxyError, Proxy};
pub use sandbox::Sandbox;
pub use settings::{Change, Settings};

/// The configuration file of the current folder, where no other is named.
pub const FILE: &str = "setgate.toml";
pub use traces::Traces;

/// Levels that `ingest.json_depth_max` can allow: what comes out of a filter is checked with as many.
const JSON_DEPTH_MAX: usize = 64;

/// Least bound of the ledger's size: tables, keys and what is under way have to fit.
const LEDGER_BYTES_MIN: u64 = 8 << 20;

/// What was wrong with the settings: file, key and value, in words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named file cannot be read.
    #[error(
        "cannot read the configuration file {path}: {source}; give another with --config, or none to use the defaults"
    )]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A key is unknown, or a value does not fit.
    #[error("the configuration is not valid:{}", listed(.0))]
    Invalid(Vec<String>),
}

impl Error {
    /// With all that is wrong.
    fn invalid(faults: impl IntoIterator<Item = String>) -> Self {
        Self::Invalid(faults.into_iter().collect())
    }
}

/// One line for each.
fn listed(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// All settings of a host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the host listens.
    pub listen: Listen,
    /// What is kept on disk.
    pub data: Data,
    /// What is taken in.
    pub ingest: Ingest,
    /// What a tenant may use where it has no quota of its own.
    pub quota: Quota,
    /// How filters run.
    pub sandbox: Sandbox,
    /// How versions of filters are tried.
    pub rollout: Rollout,
    /// How deliveries are driven.
    pub delivery: Delivery,
    /// What is asked of the history, and how long it is kept.
    pub history: History,
    /// How receivers are reached.
    pub egress: Egress,
    /// What is logged.
    pub log: Log,
    /// Where spans of events' lives are sent (OpenTelemetry).
    pub traces: Traces,
}

/// `[data]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Folder of the ledger, the compiled filters and, unless given otherwise, the master key. Made with mode 0700.
    pub dir: PathBuf,
    /// File of the master key that encrypts secrets at rest; `<dir>/master.key` where absent, made at first start.
    pub master_key_file: Option<PathBuf>,
    /// Seconds that events with all their deliveries at rest are kept, and within which a second copy of an event is
    /// known as one.
    pub retention_s: u64,
    /// Seconds between two rounds that delete what is past its time.
    pub retention_every_s: u64,
    /// Bytes of the ledger's file in use, from nine tenths of which the oldest events at rest are removed before
    /// `retention_s`; where there are none, ingest is answered 503 from here on. The WAL, some 64 MiB, comes on top. 0: no bound.
    pub ledger_bytes_max: u64,
    /// Seconds that events at rest are kept even then. A second copy of an event is known as one for at least as long.
    pub retention_min_s: u64,
    /// Bytes free on the disk below which ingest and uploads are answered 503, while deliveries go on. 0: no bound.
    pub disk_free_bytes_min: u64,
    /// Milliseconds after the start that the ledger's file is looked over for damage at the most, beside the work; 0: not at
    /// all.
    pub check_ms_max: u64,
    /// Seconds that the system's clock has to keep its new pace after a jump before the host follows it.
    pub clock_settle_s: u64,
    /// Days that entries of the audit log are kept.
    pub audit_retention_days: u64,
    /// Events or settlements that share one commit at the most.
    pub batch_max: usize,
    /// Microseconds that a busy writer waits for more to share a commit with, at the most: half of what the last commit took, and
    /// on while many come. 0: not at all.
    pub gather_us_max: u64,
    /// Deliveries of an event that are made together with it; one with more is accepted first and fanned out after. 0: all are. One
    /// commit makes no more than 5000 of them.
    pub append_deliveries_max: usize,
    /// Writes that wait for a commit at the most; beyond, ingest is answered 503.
    pub queue_max: usize,
    /// Bytes of events and new deliveries that are handed on in memory; what is beyond is read back from disk. 0: all is.
    pub hot_bytes_max: usize,
    /// Events whose dedupe keys are held in memory until they are written to the index of them, some 24 bytes each; a start reads
    /// that many rows.
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

/// `[ingest]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Bytes of one event's body.
    pub body_bytes_max: usize,
    /// Levels of arrays and objects in one event.
    pub json_depth_max: usize,
    /// Events handed to the ledger at once; more wait, and tenants take turns.
    pub appends_max: usize,
    /// Of them, one tenant's.
    pub appends_per_tenant_max: usize,
    /// Events of one tenant that wait for that; one more is answered 429.
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

/// `[rollout]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// Milliseconds of one backtest; it answers with what it has then. Never more than half of
    /// `listen.request_ms_max`.
    pub backtest_ms_max: u64,
    /// Shadow runs of one tenant at once; an event that comes while there are as many is left out. 0: none is run.
    pub shadow_in_flight_per_tenant_max: usize,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { backtest_ms_max: 20_000, shadow_in_flight_per_tenant_max: 2 }
    }
}

/// `[delivery]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Deliveries worked on at once.
    pub in_flight_max: usize,
    /// Of them, one tenant's.
    pub in_flight_per_tenant_max: usize,
    /// Of them, to one endpoint (scheme, host and port) of one tenant.
    pub in_flight_per_endpoint_max: usize,
    /// Deliveries of one subscription held ready in memory; the others wait on disk.
    pub window_max: usize,
    /// Milliseconds that deliveries in flight may take to finish when the host stops; then they are released.
    pub drain_ms_max: u64,
    /// Hours a held delivery waits for a person before it becomes a dead letter.
    pub held_hours_max: u64,
    /// Failures of an endpoint in a row after which it is left alone for a while; 0: never.
    pub breaker_failures_max: u32,
    /// Milliseconds that it is left alone the first time; each probe that fails doubles them.
    pub breaker_open_ms: u64,
    /// Milliseconds that it is left alone at the most.
    pub breaker_open_ms_max: u64,
    /// Seconds for which a receiver can ask, by `Retry-After`, that its endpoint be left alone; a longer wish holds for
    /// the delivery that was answered so, up to a week.
    pub throttle_s_max: u64,
    /// Seconds without any success after which a subscription is paused, where it does not say; 0: never.
    pub disable_after_s: u64,
    /// Whether a subscription sends nothing before its endpoint was verified. Those that are there go on.
    pub require_verified_endpoints: bool,
    /// Tests and verifications of one subscription in a minute; one more is answered 429.
    pub tests_per_minute_max: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            in_flight_max: 256,
            in_flight_per_tenant_max: 64,
            in_flight_per_endpoint_max: 16,
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

/// `[history]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Deliveries that one request redrives at the most; its answer says where to go on.
    pub redrive_deliveries_max: usize,
    /// Milliseconds after which such a request answers with what it has done. Never more than half of
    /// `listen.request_ms_max`.
    pub redrive_ms_max: u64,
    /// Seconds that statistics are kept.
    pub statistics_retention_s: u64,
    /// Replays of one tenant that run at once.
    pub replays_per_tenant_max: usize,
    /// Deliveries a second that a replay may be asked to make.
    pub replay_per_second_max: u32,
    /// Seconds that a live tail can go back.
    pub tail_retention_s: u64,
    /// Live tails open at once; one more is answered 429.
    pub tails_max: usize,
    /// Of them, one tenant's; one more is answered 429.
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
    /// The same with answers that come before their requests are given up.
    pub fn within(&self, request_ms_max: u64) -> Self {
        Self { redrive_ms_max: self.redrive_ms_max.min(request_ms_max / 2), ..self.clone() }
    }
}

/// `[egress]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Networks that deliveries may go to although they are private, such as `["10.0.0.0/8"]`. Everything that is
    /// not on the public internet is refused otherwise.
    pub allow: Vec<IpNet>,
    /// Whether `http://` endpoints may be used.
    pub allow_http: bool,
    /// PEM files of certificate authorities to trust besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Milliseconds to connect, TLS included.
    pub connect_ms_max: u32,
    /// Milliseconds of an attempt until the head of the answer is there, connecting included.
    pub head_ms_max: u32,
    /// Milliseconds for one attempt as a whole, to the end of the answer.
    pub response_ms_max: u32,
    /// Bytes of an answer read at the most; the connection is closed beyond.
    pub response_bytes_max: usize,
    /// Bytes of an answer kept in the history.
    pub response_bytes_kept: usize,
    /// Headers of an answer kept in the history.
    pub response_headers_kept: usize,
    /// Bytes of their names and values kept in the history.
    pub response_header_bytes_kept: usize,
    /// Unused connections kept for each receiver.
    pub idle_per_host_max: usize,
    /// Milliseconds an unused connection is kept.
    pub idle_ms_max: u32,
    /// Pools of connections kept: one for each tenant and each `tls` of an endpoint. The one that has rested for longest
    /// makes room.
    pub clients_max: u64,
    /// Milliseconds between two questions to an HTTP/2 connection, whether it lives, while attempts wait on it.
    pub ping_every_ms: u32,
    /// Milliseconds the answer to that may take; then the attempts on it have failed, and others get a new one.
    pub ping_ms_max: u32,
    /// The site's HTTP proxy, `http://host:port` or `http://user:password@host:port`: every endpoint is reached through it,
    /// by `CONNECT`, and TLS runs through the tunnel. With a password, set it by the environment variable.
    pub proxy: Option<Proxy>,
    /// Hosts that are reached without the proxy, such as `["idp.example", ".internal.example", "10.0.0.0/8"]`: a name,
    /// all names below one, or endpoints given by an address.
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

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`, to standard error.
    pub format: LogFormat,
    /// Level, or directives such as `info,setgate::pipeline=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Defaults, then the file, then the environment. Without `file`, `setgate.toml` of the current folder is taken
    /// where there is one.
    ///
    /// # Errors
    /// With all that is wrong, each with its place.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let implied = Path::new(FILE);
        let file = file.or_else(|| implied.exists().then_some(implied));
        let text = |path: &Path| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|source| Error::File { path: path.to_owned(), source })?;
            // An editor's byte order mark is no part of it.
            Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        };
        read::read(file.map(|path| Ok((path, text(path)?))).transpose()?)
    }

    /// What is wrong with settings that each can be read: limits of 0, and what does not go together.
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
        // A page, and the start of another.
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
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let config = load("[listen]\naddress = \"0.0.0.0:9000\"\n[quota]\nfuel_per_call = 7\n").unwrap();
        let marked = load("\u{feff}[listen]\naddress = \"0.0.0.0:9000\"\n").unwrap();
        assert_eq!(marked.listen.address.port(), 9000, "a byte order mark is no part of it");
        assert_eq!(config.listen.address.port(), 9000);
        assert_eq!(config.quota.fuel_per_call, 7);
        assert_eq!(config.ingest.body_bytes_max, 1 << 20);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("[listen]\nadress = \"x\"\n", "adress"),
            ("[listen]\naddress = 7\n", "listen.address"),
            ("[delivery]\nwindow_max = 0\n", "delivery.window_max"),
            ("[data]\nretention_s = 0\n", "data.retention_s"),
            ("[data]\nretention_every_s = 0\n", "data.retention_every_s"),
            ("[data]\nledger_bytes_max = 1000\n", "data.ledger_bytes_max"),
            ("[data]\naudit_retention_days = 0\n", "data.audit_retention_days"),
            ("[listen]\ntls_key = \"k.pem\"\n", "listen.tls_certificate"),
            ("[listen.tenant]\naddress = \"127.0.0.1:1\"\ntls_key = \"k.pem\"\n", "listen.tenant.tls_certificate"),
            ("[listen.operator]\naddress = \"127.0.0.1:1\"\nclient_ca = \"ca.pem\"\n", "listen.operator.client_ca"),
            ("[listen.operator]\ntls_key = \"k.pem\"\n", "address"),
            ("[listen.operator]\naddress = \"127.0.0.1:8080\"\n", "listen.operator.address"),
            ("[listen]\nbodies_bytes_max = 1000\n", "listen.bodies_bytes_per_tenant_max"),
            ("[listen]\nbodies_bytes_per_tenant_max = 1000\n", "ingest.body_bytes_max"),
            ("[listen]\nuploads_bytes_per_tenant_max = 1000\n", "quota.filter_bytes_max"),
            ("[ingest]\njson_depth_max = 65\n", "ingest.json_depth_max"),
            ("[traces]\nsample_ratio = 1.5\n", "traces.sample_ratio"),
            ("[traces]\nendpoint = \"collector:4318\"\n", "traces.endpoint"),
            ("[traces]\nendpoint = \"http://me:hush@collector:4318\"\n", "traces.headers"),
            ("[traces]\nqueue_spans_max = 0\n", "traces.queue_spans_max"),
            ("[log]\nlevel = \"inof\"\n", "did you mean `info`?"),
            ("[listen]\naddress = \"8080\"\n", "127.0.0.1:8080"),
            ("[listen.operator]\ntls_certificate = \"c\"\n", "listen.operator.address"),
            ("listen = 7\n", "is a table"),
            ("[lsiten]\naddress = \"127.0.0.1:1\"\n", "did you mean `[listen]`?"),
            ("address = \"127.0.0.1:1\"\n", "did you mean `listen.address`?"),
            ("[data]\nbody_bytes_max = 7\n", "did you mean `ingest.body_bytes_max`?"),
            (
                "[listen.operator]\naddress = \"127.0.0.1:1\"\ntls_kye = \"k\"\n",
                "did you mean `listen.operator.tls_key`?",
            ),
            ("[listen\n", "TOML parse error"),
        ] {
            let said = load(text).unwrap_err().to_string();
            assert!(said.contains(expected), "{text}: {said}");
        }
        assert!(load("[listen]\naddress = \"localhost:0\"\n").is_ok());
        let missing = Config::load(Some(Path::new("/nowhere/setgate.toml"))).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/setgate.toml"));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_line() {
        let text = "# settings\n[listen]\nadress = \"x\"\nconnections_max = \"many\"\n\n[delivery]\nwindow_max = 0\n\
                    [data]\nbatch_max = -1\n[log]\nlevel = \"inof\"\n[egress]\nallow = [\"everywhere\"]\n\
                    [listen.tenant]\naddress = 1\n";
        let said = load(text).unwrap_err().to_string();
        for expected in [
            "line 3: `listen.adress` is no setting; did you mean `listen.address`?",
            "line 4: `listen.connections_max`: invalid type: found string \"many\"",
            "`delivery.window_max` is 0",
            "line 9: `data.batch_max`: ",
            "`log.level` `inof` is no level; did you mean `info`?",
            "line 13: `egress.allow`: ",
            "line 15: `listen.tenant.address`: ",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert_eq!(said.lines().count(), 8, "a line for each, and nothing that follows from another: {said}");
    }
}
