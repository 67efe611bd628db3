//! The layers of DESIGN.md, kept true: this reads the sources and needs no host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use setgate_tests::place;

/// The crates below the host, and the crates of Setgate that each may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("base", &["domain"]),
    ("dialects", &["domain", "base"]),
    ("egress", &["domain", "base"]),
    ("ledger", &["domain", "base"]),
    ("sandbox", &["domain", "base"]),
    ("jose", &["domain"]),
];

/// The modules of `host/src`, and the other modules that each may import.
fn may_import(module: &str) -> Option<&'static [&'static str]> {
    Some(match module {
        "traces" => &[],
        "pipeline" => &["traces"],
        "control" => &["pipeline"],
        "http" => &["pipeline", "control"],
        "config" => &["traces", "pipeline", "control", "http"],
        "app" => &["config", "traces", "pipeline", "control", "http"],
        "cli" | "fuzzing" => &["config", "traces", "pipeline", "control", "http", "app"],
        "demo" => &["config", "http", "app", "cli"],
        "commands" => &["cli", "demo"],
        "main" | "lib" => &["commands"],
        _ => return None,
    })
}

/// Libraries that only some files of `host/src` may name.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("hyper_util::client", &["cli/client.rs", "traces/"]),
    ("prost", &["traces/"]),
    ("axum", &["http/", "demo/receiver.rs"]),
    ("hmac", &["demo/receiver.rs"]),
    ("sha2", &["demo/receiver.rs", "demo/signed.rs"]),
    ("ed25519_dalek", &["demo/receiver.rs", "demo/signed.rs"]),
    ("rsa", &["demo/signed.rs"]),
];

/// The crates that are pure, and what each may name of [`NOT_PURE`].
const PURE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    // Keys and some signatures are made of random numbers.
    ("jose", &["rand"]),
];

/// Libraries and parts of the standard library that pure crates may not name.
const NOT_PURE: &[&str] = &[
    "tokio",
    "hyper",
    "getrandom",
    "rand",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
];

/// Crates whose modules still import each other in circles. Only ever removed from.
const WITH_CIRCLES: &[&str] = &["host/crates/dialects/src"];

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
        return vec![format!("host/src/{}: `may_import` has no module `{module}`", file.path)];
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

fn forbidden_libraries(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in file.code() {
        for (name, places) in LIBRARIES {
            if names(line, name) && !places.iter().any(|place| file.path.starts_with(place)) {
                let places = places.join(", ");
                faults.push(format!("host/src/{}:{number}: `{name}` is for {places} only", file.path));
            }
        }
    }
    faults
}

fn impurities(owner: &str, allowed: &[&str], file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in file.code() {
        for name in NOT_PURE.iter().filter(|name| !allowed.contains(name) && names(line, name)) {
            faults.push(format!("host/crates/{owner}/src/{}:{number}: the crate is pure, without `{name}`", file.path));
        }
    }
    faults
}

/// Dependencies on other crates of Setgate that a manifest may not have. Those of its tests count too.
fn forbidden_dependencies(name: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
        return vec![format!("host/crates/{name}: `CRATES` has no such crate")];
    };
    let others = manifest.lines().filter_map(|line| line.strip_prefix("setgate-"));
    let others = others.map(|rest| rest.split(['.', ' ', '=']).next().unwrap_or_default());
    let forbidden = others.filter(|other| !allowed.contains(other));
    forbidden.map(|other| format!("host/crates/{name}: may not depend on `{other}`")).collect()
}

fn too_long(file: &File, lines_max: usize) -> Option<String> {
    let lines = file.text.lines().count();
    (lines > lines_max)
        .then(|| format!("{}: {lines} lines, {lines_max} are allowed: look for the second idea", file.path))
}

/// The modules of a crate, or the files of a module, that import each other in circles: the strongly connected
/// components of more than one. An item that `lib.rs` re-exports belongs to the module that it comes from. Paths count
/// if they begin at the root of the crate, by `crate` or by as many `super` as lead there.
fn circles(files: &[File]) -> Vec<BTreeSet<&str>> {
    let modules: BTreeSet<&str> = files.iter().map(File::module).filter(|module| *module != "lib").collect();
    let origins = origins(files);
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_test() && file.module() != "lib") {
        let code: Vec<&str> = file.code().into_iter().map(|(_, line)| line).collect();
        let code = code.join(" ").replace(&"super::".repeat(file.depth()), "crate::");
        let names = reached(&code).into_iter().map(|name| origins.get(name).copied().unwrap_or(name));
        let imported = names.filter_map(|name| modules.get(name).copied());
        imports.entry(file.module()).or_default().extend(imported);
    }
    // A module is in a circle with those that it reaches and that reach it.
    let reachable = |from| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            let next = imports.get(module).into_iter().flatten().copied();
            open.extend(next.filter(|next| seen.insert(*next)));
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = modules.iter().map(|module| (*module, reachable(*module))).collect();
    let circle_of = |module: &str| -> BTreeSet<&str> {
        let both = reach[module].iter().copied().filter(|other| reach[other].contains(module));
        both.collect()
    };
    let found: BTreeSet<_> = modules.iter().map(|module| circle_of(module)).filter(|circle| circle.len() > 1).collect();
    found.into_iter().collect()
}

/// The items that `lib.rs` re-exports, with their modules.
fn origins(files: &[File]) -> BTreeMap<&str, &str> {
    let mut origins = BTreeMap::new();
    let Some(lib) = files.iter().find(|file| file.path == "lib.rs") else { return origins };
    for statement in lib.text.split(';') {
        let Some((_, path)) = statement.rsplit_once("pub use ") else { continue };
        let path = path.trim_start_matches("crate::");
        let items = path.split_once('{').map_or_else(|| path.rsplit("::").next(), |(_, items)| Some(items));
        let items = items.unwrap_or_default().split(|letter| !is_word(letter));
        origins.extend(items.filter(|item| !item.is_empty()).map(|item| (item, word(path))));
    }
    origins
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
fn modules_import_lower_layers_only() {
    let files = files("host/src");
    none_of(files.iter().filter(|file| !file.is_test()).flat_map(forbidden_imports).collect());
}

#[test]
fn each_library_is_named_in_one_place() {
    let files = files("host/src");
    none_of(files.iter().filter(|file| !file.is_test()).flat_map(forbidden_libraries).collect());
}

#[test]
fn pure_crates_are_pure() {
    let mut faults = Vec::new();
    for (owner, allowed) in PURE {
        let files = files(&format!("host/crates/{owner}/src"));
        faults.extend(files.iter().filter(|file| !file.is_test()).flat_map(|file| impurities(owner, allowed, file)));
    }
    none_of(faults);
}

#[test]
fn crates_depend_on_lower_layers_only() {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(place::root().join("host/crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        faults.extend(forbidden_dependencies(&name, &manifest));
        found.push(name);
    }
    none_of(faults);
    assert_eq!(found.len(), CRATES.len(), "{found:?}");
}

#[test]
fn modules_have_no_import_circles() {
    let mut crates: Vec<String> = CRATES.iter().map(|(name, _)| format!("host/crates/{name}/src")).collect();
    crates.extend(["host/src", "host/src/pipeline", "host/src/control"].map(str::to_owned));
    let mut faults = Vec::new();
    for folder in &crates {
        let files = files(folder);
        let circles = circles(&files);
        match WITH_CIRCLES.contains(&folder.as_str()) {
            true if circles.is_empty() => faults.push(format!("{folder}: has no circles, remove it from the list")),
            true => {}
            false => faults.extend(circles.iter().map(|circle| format!("{folder}: {circle:?} import each other"))),
        }
    }
    none_of(faults);
}

#[test]
fn circles_are_detected() {
    let check = |files: &[(&str, &str)]| {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        let files: Vec<File> = files.iter().map(file).collect();
        circles(&files).iter().map(|circle| circle.iter().copied().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let lib = ("lib.rs", "mod a;\npub use a::x::{One, Two};\npub use b::Three;");
    assert!(check(&[lib, ("a/x.rs", "use crate::b::y;"), ("b.rs", "use crate::c;"), ("c.rs", "")]).is_empty());
    assert_eq!(check(&[lib, ("a/x.rs", "use crate::b::y;"), ("b.rs", "use crate::{\n    Two,\n};")]), ["a b"]);
    assert_eq!(check(&[("a.rs", "crate::b::y()"), ("b.rs", "crate::c::z()"), ("c.rs", "crate::a::x()")]), ["a b c"]);
    assert_eq!(check(&[("a.rs", "use super::b::y;"), ("b/x.rs", "use super::super::a;")]), ["a b"]);
    assert!(check(&[("a.rs", "use super::b::y;"), ("b/x.rs", "use super::a;"), ("b/mod.rs", "")]).is_empty());
    let in_test = "#[cfg(test)]\nmod tests {\n    use crate::a;\n}";
    assert!(check(&[lib, ("a.rs", "use crate::b::y;"), ("b.rs", in_test)]).is_empty());
}

#[test]
fn files_are_short() {
    let mut faults = Vec::new();
    for (folder, lines_max) in [
        ("host/src", LINES_MAX),
        ("host/crates", LINES_MAX),
        ("guest-sdk/src", LINES_MAX),
        ("xtask/src", LINES_MAX),
        ("tests", LINES_MAX),
        ("example-filters", EXAMPLE_LINES_MAX),
    ] {
        for mut file in files(folder) {
            file.path = format!("{folder}/{}", file.path);
            faults.extend(too_long(&file, lines_max));
        }
    }
    none_of(faults);
}

#[test]
fn violations_are_detected() {
    let check = |path: &str, text: &str| {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        forbidden_imports(&file).len() + forbidden_libraries(&file).len() + usize::from(too_long(&file, 3).is_some())
    };
    for (path, text, faults) in [
        ("config/mod.rs", "use crate::traces::Settings;", 0),
        ("pipeline/otlp.rs", "use crate::{traces::{a, b}, control};", 1),
        ("traces/otlp.rs", "use crate::{", 1),
        ("traces/otlp.rs", "let key = crate::control::key();", 1),
        ("traces/otlp.rs", "use super::super::control::ControlPlane;", 1),
        ("traces/mod.rs", "use super::control::ControlPlane;", 1),
        ("traces/otlp.rs", "super::a::b(super::c::d())", 0),
        ("traces/otlp.rs", "//! See [`x`](crate::control::x).", 0),
        ("traces/otlp.rs", "#[cfg(test)]\nmod tests {\n    use crate::control;\n    use super::super::x;\n}", 1),
        ("traces/otlp.rs", "#[cfg(test)]\nmod tests;\nuse crate::control;", 1),
        ("http/ingest.rs", "use crate::traces::Traces;", 1),
        ("http/ingest.rs", "use axum::Router;\nuse crate::pipeline::accept::Acceptor;", 0),
        ("pipeline/accept.rs", "use crate::control::ControlPlane;", 1),
        ("control/keys.rs", "use ::axum::Json;", 1),
        ("control/keys.rs", "let app = crate::app::start();", 1),
        ("elsewhere.rs", "", 1),
        ("http/long.rs", "\n\n\n\n", 1),
    ] {
        // The length limit here is three lines, including tests.
        assert_eq!(check(path, text), faults, "{path}: {text:?}");
    }
    for (text, faults) in [("let at = std::time::SystemTime::now();", 1), ("use tokio;", 1), ("use std::fmt;", 0)] {
        let file = File { path: "id.rs".to_owned(), text: text.to_owned() };
        assert_eq!(impurities("domain", &[], &file).len(), faults, "{text}");
        assert_eq!(impurities("domain", &["std::time::SystemTime", "tokio"], &file), [""; 0], "{text}");
    }
    let manifest = "[dependencies]\nsetgate-base.workspace = true\nsetgate-egress = { path = \"../egress\" }\n";
    assert_eq!(forbidden_dependencies("ledger", manifest), ["host/crates/ledger: may not depend on `egress`"]);
    assert_eq!(forbidden_dependencies("domain", manifest).len(), 2);
    assert_eq!(forbidden_dependencies("elsewhere", "").len(), 1);
}
