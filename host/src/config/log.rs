//! `[log]`. Validates `log.level`: a level, or directives. `EnvFilter` takes any word that is not a level for a module name and
//! would then log nothing else; here such a word is an error.

use serde::{Deserialize, Serialize};
use setgate_base::telemetry::LogFormat;
use setgate_domain::nearest::nearest;
use tracing_subscriber::EnvFilter;

/// Format and level of the log.
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

impl Log {
    pub(super) fn faults(&self) -> Vec<String> {
        fault(&self.level).map(|fault| format!("`log.level` {fault}")).into_iter().collect()
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The parts of this program that log: modules of the host, and crates below it. A test holds them against `lib.rs` and
/// `host/crates`.
const PARTS: [&str; 16] = [
    "setgate::app",
    "setgate::cli",
    "setgate::commands",
    "setgate::config",
    "setgate::control",
    "setgate::demo",
    "setgate::http",
    "setgate::pipeline",
    "setgate::traces",
    "setgate_base",
    "setgate_dialects",
    "setgate_domain",
    "setgate_egress",
    "setgate_jose",
    "setgate_ledger",
    "setgate_sandbox",
];

/// An error message if the level or directives are invalid.
fn fault(given: &str) -> Option<String> {
    let directives = || given.split(',').map(str::trim);
    if directives().all(str::is_empty) {
        return Some(format!("is empty: give one of {}", LEVELS.join(", ")));
    }
    directives().find_map(fault_of).or_else(|| EnvFilter::try_new(given).err().map(|error| error.to_string()))
}

fn fault_of(directive: &str) -> Option<String> {
    if directive.is_empty() {
        return None;
    }
    // The level follows the first `=` after the bracket of a span.
    let after = directive.rfind(']').map_or(0, |at| at + 1);
    let (target, level) = match directive[after..].find('=') {
        Some(at) => (&directive[..after + at], Some(directive[after + at + 1..].trim())),
        None => (directive, None),
    };
    let is_level = |word: &str| {
        LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
    };
    match level {
        Some(level) if is_level(level) => part_fault(target.trim()),
        Some(level) => Some(no_level(level)),
        None if is_level(target) => None,
        None if target.starts_with("setgate") || target.contains('[') => part_fault(target),
        None => Some(no_level(target)),
    }
}

fn no_level(word: &str) -> String {
    let meant = match word.to_ascii_lowercase().as_str() {
        "warning" => Some("warn"),
        "verbose" | "all" => Some("trace"),
        "none" | "silent" | "quiet" => Some("off"),
        "fatal" | "critical" => Some("error"),
        other => nearest(other, LEVELS),
    };
    let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    format!(
        "`{word}` is no level{meant} Give one of {}, or directives such as `info,setgate::pipeline=debug`",
        LEVELS.join(", ")
    )
}

/// What is wrong with a target, if it is meant for a part of this program.
fn part_fault(target: &str) -> Option<String> {
    let path = target.split('[').next().unwrap_or_default().trim();
    if path == "setgate" || !path.starts_with("setgate") {
        return None;
    }
    let is_below = |part: &str| path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    if PARTS.into_iter().any(is_below) {
        return None;
    }
    // `setgate::ledger`: it is a crate of its own.
    let as_crate = path.replacen("::", "_", 1);
    let part = if PARTS.contains(&as_crate.as_str()) { Some(as_crate.as_str()) } else { nearest(path, PARTS) };
    let meant = part.map(|part| format!("; did you mean `{part}`?")).unwrap_or_default();
    Some(format!("`{path}` is no part of this program{meant}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn levels_and_directives_are_known_or_named() {
        for good in [
            "info",
            "WARN",
            "off",
            "3",
            "info,setgate::pipeline=debug",
            "setgate=trace",
            "info,setgate_ledger=debug",
            "setgate_egress::lookups=debug",
            "warn,hyper=debug",
            "setgate",
            "setgate[{tenant=acme}]=debug",
            "info,[span]=trace",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, says) in [
            ("inof", "did you mean `info`?"),
            ("warning", "did you mean `warn`?"),
            ("verbose", "did you mean `trace`?"),
            ("loud", "`loud` is no level"),
            ("info,setgate::pipeline=debgu", "did you mean `debug`?"),
            ("info,setgate::pipline=debug", "did you mean `setgate::pipeline`?"),
            ("info,setgate::ledger=debug", "did you mean `setgate_ledger`?"),
            ("info,setgate_legder=debug", "did you mean `setgate_ledger`?"),
            ("debug,noisy", "`noisy` is no level"),
            ("", "is empty"),
            (" , ", "is empty"),
            ("a=b=c", "is no level"),
        ] {
            let said = fault(bad).unwrap_or_default();
            assert!(said.contains(says), "{bad}: {said}");
        }
    }

    #[test]
    fn the_parts_are_those_of_the_program() {
        let host = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lib = std::fs::read_to_string(host.join("src/lib.rs")).unwrap();
        let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let modules = modules.filter(|module| *module != "fuzzing").map(|module| format!("setgate::{module}"));
        let crates = std::fs::read_dir(host.join("crates")).unwrap();
        let crates = crates.map(|entry| format!("setgate_{}", entry.unwrap().file_name().to_string_lossy()));
        let mut found: Vec<String> = modules.chain(crates).collect();
        found.sort();
        assert_eq!(found, PARTS);
    }
}
