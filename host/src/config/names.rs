//! A test that settings named in sources and documentation exist.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use setgate_domain::tenant::Quota;

use super::Config;

/// Files and folders of the repository that are searched.
const SEARCHED: [&str; 9] =
    ["README.md", "CHANGELOG.md", "bench", "deploy", "docs", "example-filters", "guest-sdk", "host", "xtask"];
/// History, which names former settings, and tests, which name wrong ones.
const SKIPPED: [&str; 6] =
    ["docs/decisions", "docs/reference/changes-before-0.1.md", "names.rs", "target", "tests", "tests.rs"];
/// Names that look like a setting and are none.
const OTHERS: [&str; 2] = [
    // A member of an event.
    "data.id",
    // A column of the ledger.
    "delivery.filtered",
];

/// All settings and tables of settings, and all members of a tenant's quota.
fn settings() -> BTreeSet<String> {
    fn add(names: &mut BTreeSet<String>, table: &str, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let name = if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
            add(names, &name, value);
            names.insert(name);
        }
    }
    let mut config = Config::default();
    config.listen.operator = Some(config.listen.main());
    config.listen.tenant = Some(config.listen.main());
    let mut names = BTreeSet::new();
    add(&mut names, "", &serde_json::to_value(config).unwrap());
    add(&mut names, "quota", &serde_json::to_value(Quota::default()).unwrap());
    names
}

/// The names in backticks that begin with a section, and are no setting.
fn unknown<'t>(text: &'t str, settings: &BTreeSet<String>) -> Vec<&'t str> {
    let is_key = |name: &&str| {
        let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'));
        let section = name.split_once('.').map(|(section, _)| section);
        letters && !name.ends_with('.') && section.is_some_and(|section| settings.contains(section))
    };
    let names = text.split('`').filter(is_key);
    names.filter(|name| !settings.contains(*name) && !OTHERS.contains(name)).collect()
}

/// The text of a file without the tests of a module.
fn searched(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn every_setting_that_a_text_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let settings = settings();
    let mut open: Vec<_> = SEARCHED.iter().map(|name| root.join(name)).collect();
    let (mut files, mut faults) = (0, Vec::new());
    while let Some(path) = open.pop() {
        if SKIPPED.iter().any(|skipped| path.ends_with(skipped)) {
            continue;
        }
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        files += 1;
        for name in unknown(&searched(&path), &settings) {
            faults.push(format!("{}: `{name}`", path.display()));
        }
    }
    assert!(files > 300, "{files} files were searched");
    assert!(faults.is_empty(), "these are no settings:\n{}", faults.join("\n"));
}

#[test]
fn unknown_settings_are_found() {
    let settings = settings();
    let text = "`listen.adress`, `listen.address`, `listen.operator.client_ca`, `quota.keys_max`, `traces.queue_max`, \
                listen.no, `elsewhere.no`, `listen.*`, `data.id`";
    assert_eq!(unknown(text, &settings), ["listen.adress", "traces.queue_max"]);
}
