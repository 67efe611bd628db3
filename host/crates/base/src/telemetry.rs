//! Logging, metric names and cached metric handles. Log lines go to standard error; standard output is reserved for the
//! program's own output.

pub mod help;
mod metric_handle_cache;
pub mod persistent_counters;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use metric_handle_cache::MetricHandleCache;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use serde::{Deserialize, Serialize};

/// Bucket bounds of the histograms in this module. A histogram without bounds would be exported as a summary, which
/// needs 0.75 MiB of memory per series.
pub const BUCKETS: &[(&str, &[f64])] =
    &[(metric::ATTEMPT_SECONDS, ATTEMPT_SECONDS_BOUNDS), (metric::END_TO_END_SECONDS, END_TO_END_SECONDS_BOUNDS)];

/// From 1 ms to the longest attempt with default settings.
const ATTEMPT_SECONDS_BOUNDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From 1 ms to one day, because retries may take that long.
const END_TO_END_SECONDS_BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0,
];

/// All metrics that Setgate exports, except those of the ledger and the sandbox, which define their own.
pub mod metric {
    /// Ingest requests, by `tenant`, `source` and `outcome` (`accepted`, `duplicate`, or an error code).
    pub const INGEST: &str = "setgate_ingest_total";
    /// Fetches of the key sets of sources, by `tenant` and `outcome` (`fetched`, `failed`).
    pub const JWKS_FETCHES: &str = "setgate_jwks_fetches_total";
    /// Deliveries that reached a final or held state, by `tenant` and `state`.
    pub const DELIVERIES: &str = "setgate_deliveries_total";
    /// Attempts, by `tenant` and `outcome` (`1xx` ... `9xx`, or an error class).
    pub const ATTEMPTS: &str = "setgate_attempts_total";
    /// Duration of attempts in seconds.
    pub const ATTEMPT_SECONDS: &str = "setgate_attempt_seconds";
    /// Seconds from the acceptance of an event to a receiver's 2xx.
    pub const END_TO_END_SECONDS: &str = "setgate_end_to_end_seconds";
    /// Deliveries in flight.
    pub const IN_FLIGHT: &str = "setgate_deliveries_in_flight";
    /// Memory of the events and bodies of deliveries in flight, in bytes.
    pub const IN_FLIGHT_BYTES: &str = "setgate_deliveries_in_flight_bytes";
    /// Endpoints with an open circuit breaker, because they fail or requested a delay.
    pub const BREAKERS_OPEN: &str = "setgate_breakers_open";
    /// Circuit breakers that opened, by `tenant`.
    pub const BREAKER_OPENED: &str = "setgate_breaker_opened_total";
    /// Subscriptions that the host paused, by `tenant` and `cause` (`gone`, `failing`, `receiver`).
    pub const DISABLED: &str = "setgate_subscriptions_disabled_total";
    /// Rollouts that ended, by `tenant` and `reason` (`promoted`, `ended`, `rolled_back`, or `faults` if the host ended
    /// it).
    pub const ROLLOUTS_ENDED: &str = "setgate_rollouts_ended_total";
    /// Shadow runs, by `tenant` and `result` (`same`, `different`, `undecided`, `skipped`).
    pub const SHADOW_RUNS: &str = "setgate_shadow_runs_total";
    /// Deliveries postponed because their tenant's fuel for the second was used up, by `tenant`.
    pub const PUT_OFF: &str = "setgate_deliveries_put_off_total";
    /// Deliveries created by replays, by `tenant`.
    pub const REPLAYED: &str = "setgate_replayed_total";
    /// Filters suspended because they kept faulting, by `tenant` and `filter`.
    pub const SUSPENSIONS: &str = "setgate_filter_suspensions_total";
    /// Management requests with a rejected key, by `reason` (`missing`, `unknown`, `ended`).
    pub const KEYS_DENIED: &str = "setgate_keys_denied_total";
    /// Attempts that were not made because this host lacked a resource, by `cause` (`descriptors`, `memory`, `ports`,
    /// `lookups`). Their deliveries stay due.
    pub const ATTEMPTS_PUT_BACK: &str = "setgate_attempts_put_back_total";
    /// Size of the ledger file in bytes.
    pub const LEDGER_FILE_BYTES: &str = "setgate_ledger_file_bytes";
    /// Size of the ledger's WAL in bytes.
    pub const LEDGER_WAL_BYTES: &str = "setgate_ledger_wal_bytes";
    /// Memory of the deduplication index in bytes.
    pub const LEDGER_DEDUPE_BYTES: &str = "setgate_ledger_dedupe_bytes";
    /// Bytes stored, by `tenant`.
    pub const STORED_BYTES: &str = "setgate_stored_bytes";
    /// Writes queued for the next commit.
    pub const LEDGER_WAITING: &str = "setgate_ledger_waiting";
    /// Journal events that still need fan-out.
    pub const LEDGER_BEHIND: &str = "setgate_ledger_behind_events";
    /// Spans accepted by the collector.
    pub const TRACE_SPANS_SENT: &str = "setgate_trace_spans_sent_total";
    /// Spans that were lost, by `reason` (`queue`: the queue was full; `collector`: the collector did not accept them;
    /// `rejected`: the collector accepted the request but rejected the spans; `shutdown`).
    pub const TRACE_SPANS_DROPPED: &str = "setgate_trace_spans_dropped_total";
    /// Connections closed immediately, because their client had reached its limit.
    pub const CONNECTIONS_REFUSED: &str = "setgate_connections_refused_total";
    /// Management and ingest requests answered, by `route` and `status`.
    pub const HTTP_REQUESTS: &str = "setgate_http_requests_total";
    /// Configuration reloads, by `outcome` (`applied`, `refused`).
    pub const RELOADS: &str = "setgate_reloads_total";
    /// 1 while the last reloaded configuration is invalid and the host keeps running with the previous one.
    pub const RELOAD_REFUSED: &str = "setgate_reload_refused";
    /// Configuration keys that were changed and take effect after a restart.
    pub const RELOAD_WAITING: &str = "setgate_reload_waiting_keys";
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Handle of the process's log, by which its level can be changed.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Parses a level or filter directives, as in `log.level`.
    ///
    /// # Errors
    /// A message with the key and the given value.
    pub fn parse_level(level: &str) -> Result<EnvFilter, String> {
        EnvFilter::try_new(level).map_err(|error| format!("`log.level` = `{level}`: {error}"))
    }

    /// Changes the level.
    pub fn set_level(&self, level: EnvFilter) {
        // Fails only if the subscriber no longer exists, but it exists until the process ends.
        let _gone = self.0.reload(level);
    }
}

/// Initialises logging for the whole process. After the first call, the returned handle has no effect.
pub fn init(format: LogFormat, level: &str) -> Result<LogHandle, String> {
    let (filter, handle) = reload::Layer::new(LogHandle::parse_level(level)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        // Otherwise, if standard error cannot be written, the layer would report that to standard error and panic.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    let _already_started = match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(LogHandle(handle))
}

/// Rate limit for a log line. An allowed line reports how many were suppressed before it.
#[derive(Debug)]
pub struct LogThrottle {
    every: Duration,
    /// The time of the last allowed line, and the number of lines suppressed since.
    last: Mutex<Option<(Instant, u64)>>,
}

impl LogThrottle {
    /// Allows one line per `every`.
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// The number of lines suppressed since the last allowed one. `None` if this line is to be suppressed.
    pub fn allow(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match &mut *last {
            Some((at, suppressed)) if now.duration_since(*at) < self.every => {
                *suppressed += 1;
                None
            }
            _ => Some(last.replace((now, 0)).map_or(0, |(_, suppressed)| suppressed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_log_level_is_reported() {
        assert!(LogHandle::parse_level("info,setgate::pipeline=debug").is_ok());
        let said = LogHandle::parse_level("a=b=c").unwrap_err();
        assert!(said.contains("`log.level` = `a=b=c`"), "{said}");
    }

    #[test]
    fn throttled_log_reports_suppressed_count() {
        let (seldom, always) = (LogThrottle::new(Duration::from_secs(3_600)), LogThrottle::new(Duration::ZERO));
        assert_eq!((seldom.allow(), seldom.allow(), seldom.allow()), (Some(0), None, None));
        assert_eq!((always.allow(), always.allow()), (Some(0), Some(0)));
    }
}
