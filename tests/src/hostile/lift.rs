//! Lifts one limit at a time, to check that the suite detects escapes: the class that the limit protects against must
//! then be reported as escaped. Other limits remain, to protect the machine.

use serde_json::Value;

use super::Options;

/// A limit that can be lifted.
#[derive(Debug, Clone, Copy)]
pub struct Lift {
    /// Its name: of a setting in `[sandbox]`, or of a member of the quota.
    pub limit: &'static str,
    /// The class that then escapes.
    pub class: &'static str,
    /// The raised value.
    value: u64,
    /// The location of the setting.
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The quota of the attacker's tenant.
    Quota,
    /// `[sandbox]` of the host.
    Sandbox,
}

const fn quota(limit: &'static str, class: &'static str, value: u64) -> Lift {
    Lift { limit, class, value, place: Place::Quota }
}

const fn sandbox(limit: &'static str, class: &'static str, value: u64) -> Lift {
    Lift { limit, class, value, place: Place::Sandbox }
}

/// All limits that can be lifted, raised just far enough for their class to succeed.
pub const LIFTS: &[Lift] = &[
    // The time limit then ends the loop after a second, which is not the expected answer.
    quota("fuel_per_call", "endless-loop", u64::MAX >> 1),
    quota("memory_bytes_max", "memory-growth", 64 << 20),
    quota("table_elements_max", "table-growth", 20_000),
    quota("wall_ms_max", "cancel-in-host-call", 3_600_000),
    quota("output_bytes_max", "output-amplification", 8 << 20),
    quota("host_calls_max", "host-call-flood", 1_000_000),
    quota("log_bytes_max", "log-flood", 16 << 20),
    quota("filter_bytes_max", "oversize", 24 << 20),
    quota("fuel_per_second", "fuel-budget", 100_000_000_000),
    quota("documents_bytes_max", "heavy-documents", 1 << 30),
    quota("stored_bytes_max", "disk-flood", 1 << 40),
    quota("ingest_bytes_per_second", "byte-flood", 1 << 30),
    quota("patterns_bytes_max", "many-patterns", 1 << 30),
    sandbox("instances_per_tenant_max", "pool-exhaustion", super::arena::INSTANCES_MAX as u64),
    sandbox("compile_wall_ms_max", "compile-time", 120_000),
];

/// Finds the lift of that limit.
pub fn named(limit: &str) -> Option<&'static Lift> {
    LIFTS.iter().find(|lift| lift.limit == limit)
}

impl Lift {
    /// Options for a run of the affected class with this limit lifted.
    pub fn options(&'static self) -> Options {
        Options { classes: vec![self.class.to_owned()], short: true, lift: Some(self), progress: None }
    }

    /// Members of the attacker's quota.
    pub(super) fn quota(&self) -> Value {
        match self.place {
            Place::Quota if self.limit == "fuel_per_call" => {
                serde_json::json!({"fuel_per_call": self.value, "wall_ms_max": 1_000})
            }
            Place::Quota => serde_json::json!({self.limit: self.value}),
            Place::Sandbox => Value::Null,
        }
    }

    /// Lines of `[sandbox]`, with this limit replaced.
    pub(super) fn sandbox_over(&self, lines: &str) -> String {
        let own = format!("{} = ", self.limit);
        let mut lines: Vec<_> = lines.lines().filter(|line| !line.starts_with(&own)).map(str::to_owned).collect();
        if self.place == Place::Sandbox {
            lines.push(format!("{own}{}", self.value));
        }
        lines.join("\n")
    }
}
