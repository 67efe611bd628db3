//! Checks the layers of DESIGN.md in the sources; needs no host.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use setgate_tests::place;

/// Foundations: values, settings, time, log and metric names, digests and secrets, scheduling between tenants.
const L0: &[&str] = &["domain", "config", "clock", "telemetry", "crypto", "fair", "trust"];
/// The components at the edges of the process. They depend on the foundations and not on each other.
const L1: &[&str] = &["ledger", "sandbox", "signing", "egress", "traces"];

/// The modules that each module under `host/src` may import.
fn may_import(module: &str) -> Option<Vec<&'static str>> {
    Some(match module {
        "domain" => vec![],
        "config" | "clock" | "crypto" | "fair" | "trust" => vec!["domain"],
        "telemetry" => vec!["domain", "config"],
        "ledger" | "sandbox" | "signing" | "egress" | "traces" => L0.to_vec(),
        "pipeline" | "control" => [L0, L1].concat(),
        "http" => [L0, &["pipeline", "control"]].concat(),
        "app" => [L0, L1, &["pipeline", "control", "http"]].concat(),
        // The program's entry points, and the crate root.
        "cli" | "demo" | "main" | "lib" | "fuzzing" => {
            [L0, L1, &["pipeline", "control", "http", "app", "cli", "demo"]].concat()
        }
        _ => return None,
    })
}

/// Crates, and the directories or files of `host/src` that may use them.
const CRATES: &[(&str, &[&str])] = &[
    ("wasmtime", &["sandbox/"]),
    ("wasmtime_wasi", &["sandbox/"]),
    ("wasmparser", &["sandbox/", "fuzzing/"]),
    ("rusqlite", &["ledger/"]),
    ("hyper_util::client", &["egress/", "cli/client.rs", "traces/"]),
    ("prost", &["traces/"]),
    ("axum", &["http/", "demo/receiver.rs"]),
    ("hmac", &["crypto/", "signing/", "demo/receiver.rs"]),
    ("sha2", &["crypto/", "signing/", "demo/receiver.rs"]),
    ("chacha20poly1305", &["crypto/", "signing/"]),
    ("ed25519_dalek", &["crypto/", "signing/", "demo/receiver.rs"]),
];

/// Names that the domain, which is pure, may not use.
const NOT_PURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "getrandom",
    "rand",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
];

/// Meaningless words (DESIGN.md, "Vocabulary").
const EMPTY_WORDS: &[&str] = &[
    "message",
    "messages",
    "job",
    "jobs",
    "task",
    "tasks",
    "hook",
    "hooks",
    "handler",
    "handlers",
    "manager",
    "processor",
    "service",
    "services",
    "util",
    "utils",
    "common",
    "helper",
    "helpers",
];

const LINES_MAX: usize = 600;
const EXAMPLE_LINES_MAX: usize = 99;

/// A source file: its path below the repository's root or below `host/src`, and its text.
struct File {
    path: String,
    text: String,
}

/// All Rust files below a directory of the repository, with relative paths.
fn files(below: &str) -> Vec<File> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let root = place::root().join(below);
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
    paths.iter().map(|path| File { path: relative(path), text: std::fs::read_to_string(path).unwrap() }).collect()
}

impl File {
    /// The module of `host/src` that it belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// The depth of its module: 1 for `clock.rs` and `ledger/mod.rs`.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| matches!(part, "tests" | "tests.rs") || part.ends_with("_tests.rs"))
    }

    /// Its lines with their numbers, without comments and tests.
    fn code(&self) -> Vec<(usize, &str)> {
        let mut lines = Vec::new();
        let mut numbered = self.text.lines().enumerate();
        while let Some((number, line)) = numbered.next() {
            if line == "#[cfg(test)]" {
                // The item after the attribute: one line, or a block to its end.
                let item = numbered.by_ref().map(|(_, line)| line).find(|line| !line.starts_with("#["));
                if item.is_some_and(|item| !item.ends_with(';')) {
                    numbered.by_ref().map(|(_, line)| line).find(|line| *line == "}");
                }
            } else if !line.trim_start().starts_with("//") {
                lines.push((number + 1, line));
            }
        }
        lines
    }
}

/// The modules that a line of code uses by `crate::`, including groups.
fn reached(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with(is_word) || line[..at].ends_with('$') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut at_name = true;
                for (at, letter) in group.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_name = true,
                        letter if at_name && is_word(letter) => {
                            found.push(word(&group[at..]));
                            at_name = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn word(text: &str) -> &str {
    &text[..text.find(|letter| !is_word(letter)).unwrap_or(text.len())]
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Whether a line of code uses a crate or a path: `name::...`, or `use name...`.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        // `crate::http` is our module, `::http` is the crate.
        let own = before.ends_with("crate::") || before.ends_with("super::") || before.ends_with("self::");
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word) && !own;
        whole && (after.starts_with("::") || before.trim_end().ends_with("use"))
    })
}

fn forbidden_imports(file: &File) -> Vec<String> {
    let module = file.module();
    let Some(allowed) = may_import(module) else {
        return vec![format!("host/src/{}: DESIGN.md has no module `{module}`", file.path)];
    };
    let mut faults = Vec::new();
    for (number, line) in file.code() {
        for other in reached(line) {
            let is_module = may_import(other).is_some();
            if is_module && other != module && !allowed.contains(&other) {
                faults.push(format!("host/src/{}:{number}: `{module}` may not import `{other}`", file.path));
            }
        }
        if line.contains("crate::{") && !line.contains('}') {
            faults.push(format!(
                "host/src/{}:{number}: a group over several lines: import each module by itself",
                file.path
            ));
        }
        if line.contains(&"super::".repeat(file.depth())) {
            faults.push(format!("host/src/{}:{number}: reaches the crate's root by `super`, say `crate::`", file.path));
        }
    }
    faults
}

fn forbidden_crates(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in file.code() {
        for (name, places) in CRATES {
            if names(line, name) && !places.iter().any(|place| file.path.starts_with(place)) {
                let places = places.join(", ");
                faults.push(format!("host/src/{}:{number}: `{name}` is for {places} only", file.path));
            }
        }
        for name in NOT_PURE {
            if file.module() == "domain" && names(line, name) {
                faults.push(format!("host/src/{}:{number}: the domain is pure, without `{name}`", file.path));
            }
        }
    }
    faults
}

fn bad_name_or_length(file: &File, lines_max: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = file.text.lines().count();
    if lines > lines_max {
        faults.push(format!("{}: {lines} lines, {lines_max} are allowed: look for the second idea", file.path));
    }
    let stem = file.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
    if let Some(word) = stem.split(['_', '-']).find(|word| EMPTY_WORDS.contains(word)) {
        faults.push(format!("{}: `{word}` says nothing, see the vocabulary of DESIGN.md", file.path));
    }
    faults
}

#[track_caller]
fn none_of(faults: Vec<String>) {
    let list = faults.iter().fold(String::new(), |mut list, fault| {
        writeln!(list, "  {fault}").expect("a string can be written to");
        list
    });
    assert!(faults.is_empty(), "{} lines break a rule:\n{list}", faults.len());
}

#[test]
fn each_module_imports_what_its_layer_may() {
    let files = files("host/src");
    none_of(files.iter().filter(|file| !file.is_test()).flat_map(forbidden_imports).collect());
}

#[test]
fn each_engine_is_known_in_one_place() {
    let files = files("host/src");
    none_of(files.iter().filter(|file| !file.is_test()).flat_map(forbidden_crates).collect());
}

#[test]
fn files_are_short_and_their_names_say_something() {
    let mut faults = Vec::new();
    for folder in ["host/src", "guest-sdk/src", "xtask/src", "tests"] {
        for mut file in files(folder) {
            file.path = format!("{folder}/{}", file.path);
            faults.extend(bad_name_or_length(&file, LINES_MAX));
        }
    }
    for mut file in files("example-filters") {
        file.path = format!("example-filters/{}", file.path);
        faults.extend(bad_name_or_length(&file, EXAMPLE_LINES_MAX));
    }
    none_of(faults);
}

#[test]
fn the_rules_find_what_they_forbid() {
    let check = |path: &str, text: &str| {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        forbidden_imports(&file).len() + forbidden_crates(&file).len() + bad_name_or_length(&file, 3).len()
    };
    for (path, text, faults) in [
        ("ledger/writer.rs", "use crate::domain::id::EventId;", 0),
        ("ledger/writer.rs", "use crate::{domain::{a, b}, sandbox};", 1),
        ("ledger/writer.rs", "use crate::{", 1),
        ("ledger/writer.rs", "let key = crate::signing::key();", 1),
        ("ledger/writer.rs", "use super::super::sandbox::Sandbox;", 1),
        ("ledger/mod.rs", "use super::sandbox::Sandbox;", 1),
        ("ledger/writer.rs", "super::a::b(super::c::d())", 0),
        ("ledger/writer.rs", "//! See [`x`](crate::sandbox::x).", 0),
        ("ledger/writer.rs", "#[cfg(test)]\nmod tests {\n    use crate::sandbox;\n    use super::super::x;\n}", 1),
        ("ledger/writer.rs", "#[cfg(test)]\nmod tests;\nuse crate::sandbox;", 1),
        ("http/ingest.rs", "use crate::ledger::Ledger;", 1),
        ("http/ingest.rs", "use axum::Router;\nuse crate::pipeline::Pipeline;", 0),
        ("pipeline/accept.rs", "use crate::control::Control;", 1),
        ("control/keys.rs", "use ::axum::Json;", 1),
        ("control/keys.rs", "let app = crate::app::start();", 1),
        ("domain/id.rs", "let at = std::time::SystemTime::now();", 1),
        ("domain/id.rs", "use rusqlite;", 1),
        ("elsewhere.rs", "", 1),
        ("ledger/utils.rs", "\n\n\n\n", 2),
    ] {
        // The length limit here is three lines, including tests.
        assert_eq!(check(path, text), faults, "{path}: {text:?}");
    }
}
