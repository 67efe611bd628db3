//! Validates `log.level`: a level, or directives. `EnvFilter` takes any word that is not a level for a module name and
//! would then log nothing else; here such a word is an error.

use tracing_subscriber::EnvFilter;

use crate::domain::nearest::nearest;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The modules of this crate that log. A test compares them with `lib.rs`.
const MODULES: [&str; 15] = [
    "app",
    "cli",
    "clock",
    "config",
    "control",
    "crypto",
    "demo",
    "egress",
    "http",
    "ledger",
    "pipeline",
    "sandbox",
    "signing",
    "telemetry",
    "traces",
];

/// An error message if the level or directives are invalid.
pub(super) fn fault(given: &str) -> Option<String> {
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
        Some(level) if is_level(level) => module_fault(target.trim()),
        Some(level) => Some(no_level(level)),
        None if is_level(target) => None,
        None if target == "setgate" || target.starts_with("setgate::") || target.contains('[') => module_fault(target),
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

/// An error message if the target is in this crate and its module does not exist.
fn module_fault(target: &str) -> Option<String> {
    let path = target.split('[').next().unwrap_or_default().trim();
    let module = path.strip_prefix("setgate::")?.split("::").next().unwrap_or_default();
    if MODULES.contains(&module) {
        return None;
    }
    let meant = nearest(module, MODULES).map(|meant| format!("; did you mean `setgate::{meant}`?")).unwrap_or_default();
    Some(format!("`{path}` is no module of this program{meant}"))
}

#[cfg(test)]
mod tests {
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
    fn the_modules_are_those_of_the_program() {
        for module in MODULES {
            assert!(include_str!("../lib.rs").contains(&format!("mod {module};")), "there is no module {module}");
        }
        for line in include_str!("../lib.rs").lines() {
            let module = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'));
            let silent = ["domain", "fuzzing"];
            if let Some(module) = module.filter(|module| !silent.contains(module)) {
                assert!(MODULES.contains(&module), "MODULES lacks {module}");
            }
        }
    }
}
