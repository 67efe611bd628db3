//! The `# HELP` texts of all metrics. An integration test compares the list with a host's export.

/// Name and description of every metric, except those of the sandbox, which describes its own.
pub const HELP: &[(&str, &str)] = &[
    ("process_cpu_seconds_total", "seconds of processor time, of user and system"),
    ("process_max_fds", "file descriptors that may be open"),
    ("process_open_fds", "file descriptors that are open"),
    ("process_resident_memory_bytes", "bytes of memory that are resident"),
    ("process_start_time_seconds", "when the process was started, in seconds since the epoch"),
    ("process_threads", "threads of the process"),
    ("process_virtual_memory_bytes", "bytes of address space"),
    ("setgate_attempt_seconds", "seconds an attempt took"),
    ("setgate_attempts_put_back_total", "attempts not made since the host was short of something, by `cause`"),
    ("setgate_attempts_total", "attempts, by `tenant` and `outcome` (1xx to 9xx, or a class of error)"),
    ("setgate_breaker_opened_total", "circuit breakers that opened, by `tenant`"),
    ("setgate_breakers_open", "endpoints that get no attempts for now, since they fail or asked for time"),
    ("setgate_build_info", "1; the labels say what is running"),
    ("setgate_clock_jumps_total", "jumps of the system's clock, by `direction` (ahead, back)"),
    ("setgate_clock_offset_seconds", "seconds by which the system's clock differs from the host's"),
    ("setgate_connections_refused_total", "connections that were refused or closed for want of a place"),
    ("setgate_deliveries_by_state", "deliveries that are due, held or dead now, by `tenant` and `state`"),
    ("setgate_deliveries_in_flight", "deliveries that are worked on"),
    ("setgate_deliveries_in_flight_bytes", "bytes of events and bodies of deliveries that are worked on"),
    ("setgate_deliveries_put_off_total", "deliveries put off since their tenant's fuel was spent, by `tenant`"),
    ("setgate_deliveries_total", "deliveries that came to rest, by `tenant` and `state`"),
    ("setgate_disk_free_bytes", "bytes free on the disk of the ledger"),
    ("setgate_end_to_end_seconds", "seconds from acceptance to a receiver's 2xx"),
    ("setgate_events_damaged_total", "events that cannot be read and were passed over"),
    ("setgate_filter_suspensions_total", "filters suspended since they kept faulting, by `tenant` and `filter`"),
    ("setgate_http_requests_total", "requests answered, by `route` and `status`"),
    ("setgate_ingest_total", "ingest requests, by `tenant`, `source` and `outcome`"),
    ("setgate_keys_denied_total", "keys that were not taken, by `reason` (missing, unknown, ended)"),
    ("setgate_ledger_batch_size", "requests of a commit"),
    ("setgate_ledger_behind_events", "accepted events that are not fanned out yet"),
    ("setgate_ledger_commit_failures_total", "batches that could not be committed"),
    ("setgate_ledger_commit_seconds", "seconds a batch took, its commit included"),
    ("setgate_ledger_damaged", "1 once damage was found in the ledger's files"),
    ("setgate_ledger_dedupe_bytes", "bytes in memory of the index of dedupe keys"),
    ("setgate_ledger_file_bytes", "bytes of the ledger's file"),
    ("setgate_ledger_retained_by_size_total", "events removed before their time for want of space"),
    ("setgate_ledger_short_of_space", "1 while ingest is refused for want of space"),
    ("setgate_ledger_used_bytes", "bytes of the ledger's file in use"),
    ("setgate_ledger_waiting", "writes that wait for a commit"),
    ("setgate_ledger_wal_bytes", "bytes of the ledger's WAL"),
    ("setgate_reload_refused", "1 while the configuration that was read last is not valid"),
    ("setgate_reload_waiting_keys", "changed settings that wait for a restart"),
    ("setgate_reloads_total", "times that the configuration was read again, by `outcome` (applied, refused)"),
    ("setgate_replayed_total", "deliveries made by replays, by `tenant`"),
    ("setgate_rollouts_ended_total", "rollouts that ended, by `tenant` and `reason`"),
    ("setgate_shadow_runs_total", "events that a shadow ran on, by `tenant` and `result`"),
    ("setgate_stored_bytes", "bytes that a tenant has stored, events, history, filters and tables, by `tenant`"),
    ("setgate_subscriptions_disabled_total", "subscriptions that the host paused, by `tenant` and `cause`"),
    ("setgate_trace_spans_dropped_total", "spans that no collector got, by `reason`"),
    ("setgate_trace_spans_sent_total", "spans that a collector took"),
];

/// The description of a metric.
pub fn help(name: &str) -> &'static str {
    HELP.iter().find(|(known, _)| *known == name).map_or("", |(_, help)| *help)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Every metric that has a meaning here or in the sandbox.
    fn described() -> BTreeSet<String> {
        let own = HELP.iter().map(|(name, _)| *name);
        own.chain(crate::sandbox::METRICS.iter().map(|(name, ..)| *name)).map(str::to_owned).collect()
    }

    fn manifest() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The names of all constants of the source such as `const INGEST: &str = "setgate_ingest_total";`.
    fn constants() -> BTreeSet<String> {
        let mut folders = vec![manifest().join("src")];
        let mut names = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(path).unwrap();
                    let values = text.match_indices(": &str = \"setgate_").map(|(at, found)| &text[at + found.len()..]);
                    names.extend(values.map(|rest| format!("setgate_{}", rest.split('"').next().unwrap_or_default())));
                }
            }
        }
        names
    }

    #[test]
    fn every_metric_of_the_source_has_a_meaning() {
        let (constants, described) = (constants(), described());
        assert!(constants.len() > 40, "{constants:?}");
        let missing: Vec<_> = constants.difference(&described).collect();
        assert!(missing.is_empty(), "give these a line in `HELP`: {missing:?}");
    }

    #[test]
    fn the_operators_page_documents_every_metric() {
        let page = std::fs::read_to_string(manifest().join("../docs/how-to/operations.md")).unwrap();
        let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).expect("a section Metrics");
        let row = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned());
        let rows: Vec<String> = section.lines().filter_map(row).collect();
        let documented: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(documented, described(), "rows of docs/how-to/operations.md, Metrics, and the metrics of the host");
        assert_eq!(rows.len(), documented.len(), "each once: {rows:?}");
    }
}
