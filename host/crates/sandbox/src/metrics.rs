//! Metrics of the sandbox, by tenant and filter if tenants multiply them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use setgate_base::telemetry::MetricHandleCache;
use setgate_domain::id::{FilterName, TenantId};
use setgate_domain::verdict::{Fault, FilterRun};

use super::scheduler::SliceStats;

/// All metrics of this module: name, kind and description.
pub const METRICS: &[(&str, &str, &str)] = &[
    (
        CALLS,
        "counter",
        "Filter calls, by `tenant`, `filter`, `verdict` (pass, patch, replace, drop, fault) and `fault` (its kind, or none).",
    ),
    (FUEL, "counter", "Fuel used by filter calls, by `tenant` and `filter`."),
    (
        SECONDS,
        "histogram",
        "Seconds from the request of a filter call to its verdict, including queue time, by `tenant` and `filter`.",
    ),
    (MEMORY, "histogram", "Peak linear memory of a filter call in bytes, by `tenant` and `filter`."),
    (WAITED, "histogram", "Queue time of filter calls in seconds, by `tenant` and `for` (budget, slot, turns)."),
    (WAITING, "gauge", "Queued filter calls and compiles, by `for` (budget, slot, compile)."),
    (RUNNING, "gauge", "Filter calls that hold an instance slot."),
    (REUSED, "counter", "Filter calls in a reused instance, by `tenant` and `filter`."),
    (INSTANCES_IDLE, "gauge", "Instances in the idle pool."),
    (
        INSTANCES_EVICTED,
        "counter",
        "Instances that were not returned to the idle pool or were evicted from it, by `why` (events, fault, idle, slot, per_tenant, instances, memory, changed).",
    ),
    (LOADS, "counter", "Filters loaded into memory, by `from` (disk, compiler)."),
    (UPLOADS, "counter", "Filter uploads, by `result` (taken, or the reason of the rejection)."),
];
const CALLS: &str = "setgate_filter_calls_total";
const FUEL: &str = "setgate_filter_fuel_total";
const SECONDS: &str = "setgate_filter_seconds";
const MEMORY: &str = "setgate_filter_memory_bytes";
const WAITED: &str = "setgate_filter_waited_seconds";
const WAITING: &str = "setgate_filter_waiting";
const RUNNING: &str = "setgate_filter_calls_running";
const REUSED: &str = "setgate_filter_reused_calls_total";
pub(super) const INSTANCES_IDLE: &str = "setgate_filter_instances_kept";
pub(super) const INSTANCES_EVICTED: &str = "setgate_filter_instances_kept_ended_total";
pub(super) const LOADS: &str = "setgate_filter_loads_total";
pub(super) const UPLOADS: &str = "setgate_filter_uploads_total";

/// Seconds from 0.1 ms to 10 s.
const SECONDS_BOUNDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 10.0];
/// Bytes from 256 KiB to 128 MiB.
const MEMORY_BOUNDS: &[f64] =
    &[262_144.0, 1_048_576.0, 2_097_152.0, 4_194_304.0, 16_777_216.0, 33_554_432.0, 134_217_728.0];

/// The histograms with a series for each tenant, and the upper bounds of their buckets. A recorder stores only the
/// count of each bucket. A summary with quantiles would store every value with a precision of one in ten thousand: up
/// to 256 KiB, three times over, for each series of each tenant.
pub const BUCKETS: &[(&str, &[f64])] = &[(SECONDS, SECONDS_BOUNDS), (MEMORY, MEMORY_BOUNDS), (WAITED, SECONDS_BOUNDS)];

/// How long a call waited before and between its slices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WaitTimes {
    /// For the tenant's fuel budget, or behind other calls of the tenant that wait for it.
    pub(super) budget: Duration,
    /// For a pool slot.
    pub(super) slot: Duration,
    /// For turns on the CPU.
    pub(super) turns: SliceStats,
}

/// The series of recently called filters, and the gauges.
pub(super) struct Metrics {
    filters: MetricHandleCache<(TenantId, FilterName), Arc<FilterMetrics>>,
    running: Gauge,
    waiting_budget: Gauge,
    waiting_slot: Gauge,
}

/// The series of one filter.
struct FilterMetrics {
    /// By verdict and fault. Created on first use.
    calls: MetricHandleCache<(&'static str, &'static str), Counter>,
    /// Created by the first call in a reused instance, because most filters never reuse instances.
    reused: OnceLock<Counter>,
    fuel: Counter,
    seconds: Histogram,
    memory: Histogram,
    waited_budget: Histogram,
    waited_slot: Histogram,
    waited_turns: Histogram,
}

/// Increments a gauge until dropped.
pub(super) struct GaugeGuard(Gauge);

impl Metrics {
    /// Call this only after the metrics recorder is installed.
    pub(super) fn new() -> Self {
        Self {
            filters: MetricHandleCache::default(),
            running: gauge!(RUNNING),
            waiting_budget: gauge!(WAITING, "for" => "budget"),
            waiting_slot: gauge!(WAITING, "for" => "slot"),
        }
    }

    /// Records a call that ended.
    pub(super) fn record(&self, tenant: &TenantId, run: &FilterRun, waited: &WaitTimes) {
        let filter = (tenant.clone(), run.filter.clone());
        let handles = self.filters.get_or_create(&filter, || Arc::new(FilterMetrics::new(tenant, &run.filter)));
        let verdict = run.verdict.map_or("fault", |verdict| verdict.as_str());
        let fault = run.fault.as_ref().map_or("none", Fault::kind);
        handles.count(tenant, &run.filter, (verdict, fault));
        if run.is_reused() {
            let new = || counter!(REUSED, "tenant" => tenant.to_string(), "filter" => run.filter.to_string());
            handles.reused.get_or_init(new).increment(1);
        }
        handles.fuel.increment(run.fuel);
        handles.seconds.record(Duration::from_micros(run.elapsed_us));
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
        handles.memory.record(run.memory_bytes as f64);
        handles.waited_budget.record(waited.budget);
        handles.waited_slot.record(waited.slot);
        handles.waited_turns.record(waited.turns.waited);
    }

    pub(super) fn running(&self) -> GaugeGuard {
        GaugeGuard::in_gauge(self.running.clone())
    }

    pub(super) fn waiting_for_budget(&self) -> GaugeGuard {
        GaugeGuard::in_gauge(self.waiting_budget.clone())
    }

    pub(super) fn waiting_for_slot(&self) -> GaugeGuard {
        GaugeGuard::in_gauge(self.waiting_slot.clone())
    }
}

impl FilterMetrics {
    fn new(tenant: &TenantId, filter: &FilterName) -> Self {
        let (tenant, filter) = (|| tenant.to_string(), || filter.to_string());
        Self {
            calls: MetricHandleCache::default(),
            reused: OnceLock::new(),
            fuel: counter!(FUEL, "tenant" => tenant(), "filter" => filter()),
            seconds: histogram!(SECONDS, "tenant" => tenant(), "filter" => filter()),
            memory: histogram!(MEMORY, "tenant" => tenant(), "filter" => filter()),
            waited_budget: histogram!(WAITED, "tenant" => tenant(), "for" => "budget"),
            waited_slot: histogram!(WAITED, "tenant" => tenant(), "for" => "slot"),
            waited_turns: histogram!(WAITED, "tenant" => tenant(), "for" => "turns"),
        }
    }

    fn count(&self, tenant: &TenantId, filter: &FilterName, (verdict, fault): (&'static str, &'static str)) {
        let new = || {
            let (tenant, filter) = (tenant.to_string(), filter.to_string());
            counter!(CALLS, "tenant" => tenant, "filter" => filter, "verdict" => verdict, "fault" => fault)
        };
        self.calls.get_or_create(&(verdict, fault), new).increment(1);
    }
}

impl GaugeGuard {
    fn in_gauge(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }

    /// Counts a compile that waits.
    pub(super) fn waiting_for_compile() -> Self {
        Self::in_gauge(gauge!(WAITING, "for" => "compile"))
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::id::Digest;
    use setgate_domain::verdict::VerdictKind;

    fn ran(filter: &str, verdict: Option<VerdictKind>, fault: Option<Fault>) -> FilterRun {
        let (fuel, memory_bytes, elapsed_us) = (7, 65_536, 5);
        let not_called = FilterRun::not_called(filter.parse().unwrap(), Digest([0; 32]));
        FilterRun { verdict, fault, fuel, memory_bytes, elapsed_us, ..not_called }
    }

    #[test]
    fn calls_are_counted_by_tenant_and_filter() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::new();
            let waited = WaitTimes { budget: Duration::from_secs(3), ..WaitTimes::default() };
            let (acme, other) = ("acme".parse().unwrap(), "other".parse().unwrap());
            metrics.record(&acme, &ran("redact", Some(VerdictKind::Pass), None), &waited);
            metrics.record(&acme, &ran("redact", Some(VerdictKind::Pass), None), &waited);
            metrics.record(&acme, &ran("redact", None, Some(Fault::Fuel { limit: 1, function: None })), &waited);
            metrics.record(&other, &ran("redact", None, Some(Fault::Fuel { limit: 1, function: None })), &waited);
            for events in [1, 2, 3] {
                let nth = FilterRun { instance_events: Some(events), ..ran("script", Some(VerdictKind::Pass), None) };
                metrics.record(&other, &nth, &waited);
            }
            super::super::idle_pool::count_eviction(super::super::idle_pool::EvictionReason::Idle);
            drop(metrics.waiting_for_slot());
            let _waits = (metrics.waiting_for_budget(), metrics.running());
            recorder.handle().render()
        });
        for line in [
            r#"setgate_filter_calls_total{tenant="acme",filter="redact",verdict="pass",fault="none"} 2"#,
            r#"setgate_filter_calls_total{tenant="acme",filter="redact",verdict="fault",fault="fuel"} 1"#,
            r#"setgate_filter_calls_total{tenant="other",filter="redact",verdict="fault",fault="fuel"} 1"#,
            r#"setgate_filter_fuel_total{tenant="acme",filter="redact"} 21"#,
            r#"setgate_filter_memory_bytes_count{tenant="acme",filter="redact"} 3"#,
            r#"setgate_filter_seconds_count{tenant="other",filter="redact"} 1"#,
            r#"setgate_filter_waited_seconds_sum{tenant="acme",for="budget"} 9"#,
            r#"setgate_filter_reused_calls_total{tenant="other",filter="script"} 2"#,
            r#"setgate_filter_instances_kept_ended_total{why="idle"} 1"#,
            r#"setgate_filter_waiting{for="budget"} 1"#,
            r#"setgate_filter_waiting{for="slot"} 0"#,
            "setgate_filter_calls_running 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(METRICS.iter().any(|(known, ..)| *known == name), "`{name}` is missing in METRICS");
        }
    }

    #[test]
    fn per_tenant_histograms_have_buckets() {
        let of_tenants = METRICS.iter().filter(|(_, kind, says)| *kind == "histogram" && says.contains("by `tenant`"));
        let of_tenants: Vec<_> = of_tenants.map(|(name, ..)| *name).collect();
        assert_eq!(of_tenants, BUCKETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (name, bounds) in BUCKETS {
            assert!(bounds.is_sorted_by(|one, next| one < next), "{name}");
        }
    }
}
