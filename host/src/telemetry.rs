//! Logs, names of metrics and handles of their series. Log lines go to standard error, so that standard output stays the
//! program's own.

mod handles;
pub mod help;
pub mod lasting;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use handles::Handles;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{self, LogFormat};

/// Upper bounds of the buckets of the histograms that this module names. What has none would be a summary, which keeps three
/// quarters of a MiB for each series.
pub const BUCKETS: &[(&str, &[f64])] =
    &[(metric::ATTEMPT_SECONDS, ATTEMPT_SECONDS_BOUNDS), (metric::END_TO_END_SECONDS, END_TO_END_SECONDS_BOUNDS)];

/// From 1 ms to the longest that an attempt may take by default.
const ATTEMPT_SECONDS_BOUNDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From 1 ms to a day: retries may take that long.
const END_TO_END_SECONDS_BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0,
];

/// Every metric that Setgate exports, apart from those of the ledger and the sandbox, which name their own.
pub mod metric {
    /// Ingest requests, by `tenant`, `source` and `outcome` (`accepted`, `duplicate`, or an error's code).
    pub const INGEST: &str = "setgate_ingest_total";
    /// Deliveries that came to rest, by `tenant` and `state`.
    pub const DELIVERIES: &str = "setgate_deliveries_total";
    /// Attempts, by `tenant` and `outcome` (`1xx` ... `9xx`, or an error class).
    pub const ATTEMPTS: &str = "setgate_attempts_total";
    /// Seconds an attempt took.
    pub const ATTEMPT_SECONDS: &str = "setgate_attempt_seconds";
    /// Seconds from acceptance to a receiver's 2xx.
    pub const END_TO_END_SECONDS: &str = "setgate_end_to_end_seconds";
    /// Deliveries in flight.
    pub const IN_FLIGHT: &str = "setgate_deliveries_in_flight";
    /// Endpoints that are left alone because they fail or asked for time.
    pub const BREAKERS_OPEN: &str = "setgate_breakers_open";
    /// Breakers that opened, by `tenant`.
    pub const BREAKER_OPENED: &str = "setgate_breaker_opened_total";
    /// Subscriptions that the host itself paused, by `tenant` and `cause` (`gone`, `failing`, `receiver`).
    pub const DISABLED: &str = "setgate_subscriptions_disabled_total";
    /// Rollouts that ended, by `tenant` and `reason` (`promoted`, `ended`, `rolled_back`, or `faults`: the host's own).
    pub const ROLLOUTS_ENDED: &str = "setgate_rollouts_ended_total";
    /// Events that a shadow looked at, by `tenant` and `result` (`same`, `different`, `undecided`, `skipped`).
    pub const SHADOW_RUNS: &str = "setgate_shadow_runs_total";
    /// Deliveries put off because their tenant's fuel of the second was spent, by `tenant`.
    pub const PUT_OFF: &str = "setgate_deliveries_put_off_total";
    /// Deliveries made by replays, by `tenant`.
    pub const REPLAYED: &str = "setgate_replayed_total";
    /// Filters suspended because they kept faulting, by `tenant` and `filter`.
    pub const SUSPENSIONS: &str = "setgate_filter_suspensions_total";
    /// Keys of management requests that were not taken, by `reason` (`missing`, `unknown`, `ended`).
    pub const KEYS_DENIED: &str = "setgate_keys_denied_total";
    /// Attempts that were not made because this host was short of something, by `cause` (`descriptors`, `memory`, `ports`,
    /// `lookups`). Their deliveries stay due.
    pub const ATTEMPTS_PUT_BACK: &str = "setgate_attempts_put_back_total";
    /// Bytes of the ledger's file.
    pub const LEDGER_FILE_BYTES: &str = "setgate_ledger_file_bytes";
    /// Bytes of its WAL.
    pub const LEDGER_WAL_BYTES: &str = "setgate_ledger_wal_bytes";
    /// Bytes in memory of the index of dedupe keys.
    pub const LEDGER_DEDUPE_BYTES: &str = "setgate_ledger_dedupe_bytes";
    /// Bytes that a tenant has stored, by `tenant`.
    pub const STORED_BYTES: &str = "setgate_stored_bytes";
    /// Writes that wait for a commit.
    pub const LEDGER_WAITING: &str = "setgate_ledger_waiting";
    /// Events of the journal that are not fanned out yet.
    pub const LEDGER_BEHIND: &str = "setgate_ledger_behind_events";
    /// Spans that a collector took.
    pub const TRACE_SPANS_SENT: &str = "setgate_trace_spans_sent_total";
    /// Spans that no collector got, by `reason` (`queue`: too many waited; `collector`: it did not take them; `rejected`: of a
    /// request that it took; `shutdown`).
    pub const TRACE_SPANS_DROPPED: &str = "setgate_trace_spans_dropped_total";
    /// Connections that were closed at once, because their client had as many as it may.
    pub const CONNECTIONS_REFUSED: &str = "setgate_connections_refused_total";
    /// Management and ingest requests answered, by `route` and `status`.
    pub const HTTP_REQUESTS: &str = "setgate_http_requests_total";
    /// Times that the configuration was read again, by `outcome` (`applied`, `refused`).
    pub const RELOADS: &str = "setgate_reloads_total";
    /// 1 while what was last read again is not valid and the host runs with what it had.
    pub const RELOAD_REFUSED: &str = "setgate_reload_refused";
    /// Keys that were changed in the configuration and wait for a restart.
    pub const RELOAD_WAITING: &str = "setgate_reload_waiting_keys";
}

/// The process's log, once it was started: its level can be changed.
#[derive(Debug, Clone)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Reads a level, or directives, as `log.level` has them.
    ///
    /// # Errors
    /// In words, with the key and what was given.
    pub fn level(level: &str) -> Result<EnvFilter, String> {
        EnvFilter::try_new(level).map_err(|error| format!("`log.level` = `{level}`: {error}"))
    }

    /// Tells that much from now on.
    pub fn set(&self, level: EnvFilter) {
        // It fails where the log is gone, which lives as long as the process.
        let _gone = self.0.reload(level);
    }
}

/// Starts logging for the whole process. Where it was started before, what is given back changes nothing.
pub fn start(log: &config::Log) -> Result<Log, String> {
    let (filter, handle) = reload::Layer::new(Log::level(&log.level)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        // It would report to standard error that standard error cannot be written, and panic over it.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    let _already_started = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(Log(handle))
}

/// Keeps a line of the log from becoming a flood: it is due once in a while, and then says how often it was not.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    /// When it was last due, and how often it was not since.
    last: Mutex<Option<(Instant, u64)>>,
}

impl Seldom {
    /// Due at most once in `every`.
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// How often it was not due since it last was; none: it is not due now.
    pub fn due(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match &mut *last {
            Some((at, unsaid)) if now.duration_since(*at) < self.every => {
                *unsaid += 1;
                None
            }
            _ => Some(last.replace((now, 0)).map_or(0, |(_, unsaid)| unsaid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_named() {
        assert!(Log::level("info,setgate::pipeline=debug").is_ok());
        let said = Log::level("a=b=c").unwrap_err();
        assert!(said.contains("`log.level` = `a=b=c`"), "{said}");
    }

    #[test]
    fn what_is_said_seldom_says_what_was_left_out() {
        let (seldom, always) = (Seldom::new(Duration::from_secs(3_600)), Seldom::new(Duration::ZERO));
        assert_eq!((seldom.due(), seldom.due(), seldom.due()), (Some(0), None, None));
        assert_eq!((always.due(), always.due()), (Some(0), Some(0)));
    }
}
