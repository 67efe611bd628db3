//! The `# HELP` texts of all metrics. An integration test compares the list with a host's export.

/// Name and description of every metric, except those of the sandbox, which describes its own.
pub const HELP: &[(&str, &str)] = &[
    ("process_cpu_seconds_total", "Total user and system CPU time in seconds."),
    ("process_max_fds", "Maximum number of open file descriptors."),
    ("process_open_fds", "Number of open file descriptors."),
    ("process_resident_memory_bytes", "Resident memory in bytes."),
    ("process_start_time_seconds", "Start time of the process in seconds since the Unix epoch."),
    ("process_threads", "Number of threads of the process."),
    ("process_virtual_memory_bytes", "Virtual memory in bytes."),
    ("setgate_attempt_seconds", "Duration of delivery attempts in seconds."),
    ("setgate_attempts_put_back_total", "Attempts that were not made because the host lacked a resource, by `cause`."),
    ("setgate_attempts_total", "Delivery attempts, by `tenant` and `outcome` (1xx to 9xx, or an error class)."),
    ("setgate_breaker_opened_total", "Circuit breaker openings, by `tenant`."),
    ("setgate_breakers_open", "Endpoints with an open circuit breaker, because they fail or sent `Retry-After`."),
    ("setgate_build_info", "Always 1; the labels have version and architecture."),
    ("setgate_clock_jumps_total", "Jumps of the system clock, by `direction` (ahead, back)."),
    ("setgate_clock_offset_seconds", "Difference between the system clock and the host's clock in seconds."),
    (
        "setgate_connections_refused_total",
        "Connections that were refused or closed because a connection limit was reached.",
    ),
    ("setgate_deliveries_by_state", "Current number of due, held and dead deliveries, by `tenant` and `state`."),
    ("setgate_deliveries_in_flight", "Deliveries in flight."),
    ("setgate_deliveries_in_flight_bytes", "Bytes of events and bodies of deliveries in flight."),
    (
        "setgate_deliveries_put_off_total",
        "Deliveries that were postponed because the tenant's fuel budget was used up, by `tenant`.",
    ),
    ("setgate_deliveries_total", "Deliveries that reached a final or held state, by `tenant` and `state`."),
    ("setgate_disk_free_bytes", "Free bytes on the disk of the ledger."),
    ("setgate_end_to_end_seconds", "Seconds from the acceptance of an event to a receiver's 2xx."),
    ("setgate_events_damaged_total", "Events that were skipped because they cannot be read."),
    ("setgate_filter_suspensions_total", "Filter suspensions because of repeated faults, by `tenant` and `filter`."),
    ("setgate_http_requests_total", "HTTP responses, by `route` and `status`."),
    ("setgate_ingest_total", "Ingest requests, by `tenant`, `source` and `outcome`."),
    ("setgate_keys_denied_total", "Rejected API keys, by `reason` (missing, unknown, ended)."),
    ("setgate_ledger_batch_size", "Write requests per group commit."),
    ("setgate_ledger_behind_events", "Accepted events that have not been fanned out yet."),
    ("setgate_ledger_commit_failures_total", "Group commits that failed."),
    ("setgate_ledger_commit_seconds", "Duration of group commits in seconds, including fsync."),
    ("setgate_ledger_damaged", "1 if damage was found in the ledger's files."),
    ("setgate_ledger_dedupe_bytes", "Memory of the deduplication index in bytes."),
    ("setgate_ledger_file_bytes", "Size of the ledger file in bytes."),
    (
        "setgate_ledger_retained_by_size_total",
        "Events that were removed before their retention time because of a lack of space.",
    ),
    ("setgate_ledger_short_of_space", "1 while ingest is refused because of a lack of space."),
    ("setgate_ledger_used_bytes", "Used bytes of the ledger file."),
    ("setgate_ledger_waiting", "Writes that are queued for a group commit."),
    ("setgate_ledger_wal_bytes", "Size of the ledger's write-ahead log (WAL) in bytes."),
    ("setgate_reload_refused", "1 if the last configuration reload was refused."),
    ("setgate_reload_waiting_keys", "Changed settings that require a restart."),
    ("setgate_reloads_total", "Configuration reloads, by `outcome` (applied, refused)."),
    ("setgate_replayed_total", "Deliveries created by replays, by `tenant`."),
    ("setgate_rollouts_ended_total", "Ended rollouts, by `tenant` and `reason`."),
    ("setgate_shadow_runs_total", "Shadow runs, by `tenant` and `result`."),
    ("setgate_stored_bytes", "Stored bytes (events, history, filters and tables), by `tenant`."),
    ("setgate_subscriptions_disabled_total", "Subscriptions that were paused by the host, by `tenant` and `cause`."),
    ("setgate_trace_spans_dropped_total", "Dropped trace spans, by `reason`."),
    ("setgate_trace_spans_sent_total", "Trace spans that were accepted by the collector."),
];

/// The description of a metric.
pub fn help(name: &str) -> &'static str {
    HELP.iter().find(|(known, _)| *known == name).map_or("", |(_, help)| *help)
}
