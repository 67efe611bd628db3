//! Logs and metric names. Log lines go to standard error, so that standard output stays the program's own.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{Log, LogFormat};

/// Every metric that Setgate exports, apart from those of the ledger and the sandbox, which name their own.
pub mod metric {
    /// Ingest requests, by `tenant`, `source` and `outcome` (`accepted`, `duplicate`, or an error's code).
    pub const INGEST: &str = "setgate_ingest_total";
    /// Deliveries that came to rest, by `tenant` and `state`.
    pub const DELIVERIES: &str = "setgate_deliveries_total";
    /// Attempts, by `tenant` and `outcome` (`2xx` ... `5xx`, or an error class).
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
    /// Filters suspended because they kept faulting, by `tenant` and `filter`.
    pub const SUSPENSIONS: &str = "setgate_filter_suspensions_total";
    /// Management and ingest requests answered, by `route` and `status`.
    pub const HTTP_REQUESTS: &str = "setgate_http_requests_total";
}

/// Starts logging for the whole process. Does nothing where it was started before.
pub fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.level).map_err(|e| format!("`log.level` = `{}`: {e}", log.level))?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::NONE).with_writer(std::io::stderr);
    let _already_started = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
