//! The contents of `/metrics`: the recorder's series without those of removed objects, counters used by alerts with
//! their initial zeros, counts of deliveries by state, process metrics and build information.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::{Resource, getrlimit};
use setgate_base::telemetry::{help, metric, persistent_counters};
use setgate_domain::id::TenantId;
use setgate_ledger::{Registry, Snapshot, Usage};

use crate::traces::DROP_REASONS;

/// States that alerts use: their counters must exist before the first delivery.
const ALERTED: [&str; 2] = ["held", "dead"];

/// Renders the metrics.
pub(super) struct Exposition {
    registry: Registry,
    usage: Usage,
    recorded: &'static PrometheusHandle,
    /// Tenants whose zeros were exported.
    shown: Mutex<HashSet<TenantId>>,
}

impl Exposition {
    pub(super) fn new(registry: Registry, usage: Usage, recorded: &'static PrometheusHandle) -> Self {
        Self { registry, usage, recorded, shown: Mutex::default() }
    }

    /// The current metrics as text.
    pub(super) async fn text(&self) -> String {
        super::record_stats(&self.usage.stats());
        let by_state = self.usage.deliveries_by_state().await.unwrap_or_default();
        let snapshot = self.registry.snapshot();
        let recorded = self.recorded.render();
        let mut text = String::with_capacity(recorded.len());
        for line in recorded.lines().filter(|line| line.starts_with('#') || is_there(line, &snapshot)) {
            text.push_str(line);
            text.push('\n');
        }
        self.counters(&mut text, &snapshot);
        let states = by_state.iter().filter(|(tenant, _)| snapshot.tenants.contains_key(tenant));
        let states = states.flat_map(|(tenant, counts)| {
            let lines = counts.iter().zip(["due", "held", "dead"]);
            lines.map(move |(count, state)| (format!("tenant=\"{tenant}\",state=\"{state}\""), count.to_string()))
        });
        family(&mut text, "setgate_deliveries_by_state", "gauge", states);
        let stored = self.usage.stored_by_tenant();
        let stored = stored.iter().filter(|(tenant, _)| snapshot.tenants.contains_key(tenant));
        let stored = stored.map(|(tenant, bytes)| (format!("tenant=\"{tenant}\""), bytes.to_string()));
        family(&mut text, metric::STORED_BYTES, "gauge", stored);
        process(&mut text);
        let build = format!("version=\"{}\",arch=\"{}\"", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        family(&mut text, "setgate_build_info", "gauge", [(build, "1".to_owned())]);
        text
    }

    /// Adds the counters used by alerts. A tenant's counters start with its first subscription, a filter's with the
    /// filter. A counter that has increased before its zero was ever exported is exported as 0 once, because Prometheus
    /// would not see the increase otherwise.
    fn counters(&self, text: &mut String, snapshot: &Snapshot) {
        let mut counters = persistent_counters::values(|labels| is_there(labels, snapshot));
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashSet::new();
        begin(&mut counters, setgate_ledger::COMMIT_FAILURES, String::new());
        for reason in DROP_REASONS {
            begin(&mut counters, metric::TRACE_SPANS_DROPPED, format!("reason=\"{reason}\""));
        }
        for (tenant, view) in &snapshot.tenants {
            for filter in view.filters.keys() {
                begin(&mut counters, metric::SUSPENSIONS, format!("tenant=\"{tenant}\",filter=\"{filter}\""));
            }
            if view.subscriptions.is_empty() && !shown.contains(tenant) {
                continue;
            }
            for state in ALERTED {
                let value = begin(&mut counters, metric::DELIVERIES, format!("tenant=\"{tenant}\",state=\"{state}\""));
                if !shown.contains(tenant) {
                    *value = 0;
                }
            }
            now.insert(tenant.clone());
        }
        *shown = now;
        let mut families = BTreeMap::<_, Vec<_>>::new();
        for ((metric, labels), value) in counters {
            families.entry(metric).or_default().push((labels, value.to_string()));
        }
        for (metric, series) in families {
            family(text, metric, "counter", series);
        }
    }
}

/// Returns a counter, inserting 0 if it does not exist.
fn begin<'a>(
    counters: &'a mut BTreeMap<(&'static str, String), u64>,
    metric: &'static str,
    labels: String,
) -> &'a mut u64 {
    counters.entry((metric, labels)).or_insert(0)
}

/// Registers the description of every metric, and sets gauges that must exist from the start.
pub(super) fn describe() {
    let own = setgate_sandbox::METRICS.iter().map(|(name, _, help)| (*name, *help));
    for (name, help) in help::HELP.iter().copied().chain(own) {
        // The recorder stores descriptions by name only, regardless of the kind.
        metrics::describe_counter!(name, help);
    }
    // Used by alerts, but otherwise only set by a reload.
    metrics::gauge!(metric::RELOAD_REFUSED).set(0.0);
    metrics::gauge!(metric::RELOAD_WAITING).set(0.0);
}

/// Whether the tenant, source and filter in a line's labels exist.
fn is_there(line: &str, snapshot: &Snapshot) -> bool {
    let tenant = match label(line, "tenant") {
        None | Some("") => return true,
        Some(tenant) => tenant,
    };
    let Some(view) = tenant.parse().ok().and_then(|tenant: TenantId| snapshot.tenant(&tenant)) else { return false };
    let source = label(line, "source")
        .is_none_or(|source| source.parse().is_ok_and(|source| view.sources.contains_key(&source)));
    let filter = label(line, "filter")
        .is_none_or(|filter| filter.parse().is_ok_and(|filter| view.filters.contains_key(&filter)));
    source && filter
}

/// The value of a label. The labels that are looked up contain names, and so no quotes.
fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("{name}=\"");
    let at = line.match_indices(&begin).map(|(at, _)| at).find(|at| *at == 0 || line[..*at].ends_with(['{', ',']))?;
    line[at + begin.len()..].split('"').next()
}

fn family(text: &mut String, name: &str, kind: &str, series: impl IntoIterator<Item = (String, String)>) {
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return;
    }
    let write = || -> std::fmt::Result {
        writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", help::help(name))?;
        for (labels, value) in series {
            match labels.is_empty() {
                true => writeln!(text, "{name} {value}")?,
                false => writeln!(text, "{name}{{{labels}}} {value}")?,
            }
        }
        writeln!(text)
    };
    write().expect("a string can be written to");
}

/// Process metrics from proc(5), named as in Prometheus' own client libraries.
#[expect(clippy::cast_precision_loss, reason = "seconds and counts are far below 2^52")]
fn process(text: &mut String) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name in parentheses may contain any character, so parsing starts after it, at field 3.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let seconds = |count: u64| count as f64 / ticks;
    let booted = read("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let started = field(22).zip(booted).map(|(since, booted)| booted + seconds(since));
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
    let resident = field(24).map(|pages| pages * rustix::param::page_size() as u64);
    let as_text = |value: Option<u64>| value.map(|value| value.to_string());
    for (name, kind, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            field(14).zip(field(15)).map(|(user, system)| seconds(user + system).to_string()),
        ),
        ("process_resident_memory_bytes", "gauge", as_text(resident)),
        ("process_virtual_memory_bytes", "gauge", as_text(field(23))),
        ("process_threads", "gauge", as_text(field(20))),
        ("process_start_time_seconds", "gauge", started.map(|seconds| seconds.to_string())),
        ("process_open_fds", "gauge", as_text(open.map(|open| open as u64))),
        ("process_max_fds", "gauge", as_text(getrlimit(Resource::Nofile).current)),
    ] {
        family(text, name, kind, value.map(|value| (String::new(), value)));
    }
}
