//! Tests that compare `docs/reference/shares.md`, the list of all shared limits, with the settings, the source and the
//! tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use setgate_domain::tenant::Quota;

use super::Config;

/// Constructors of resources shared between tenants. Every file that calls one of them outside its tests needs a row.
const POOLS: [&str; 8] = [
    "Semaphore::new(",
    "FairSemaphore::new(",
    "TenantSemaphores::new(",
    "Room::new(",
    "Slots::new(",
    ".max_capacity(options",
    ".max_capacity(bytes_max",
    "mpsc::channel(",
];

/// Files whose pools are listed under their users, or whose channels carry no work of tenants.
const MECHANISMS: [&str; 2] = ["base/fair/tenant_semaphores.rs", "ledger/integrity/damage.rs"];

/// A row of the table of limits.
struct Row {
    limit: String,
    files: Vec<String>,
    default: String,
    shares: Vec<String>,
    refused: String,
    test: String,
}

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(manifest().join("../docs/reference/shares.md")).unwrap()
}

/// The parts of the text between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows(page: &str) -> Vec<Row> {
    let table = page.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [limit, files, _unit, default, share, refused, test] = cells[..] else { panic!("seven cells: {line}") };
        let one = |cell: &str| quoted(cell).first().unwrap_or_else(|| panic!("`{cell}` in: {line}")).clone();
        Row {
            limit: one(limit),
            files: quoted(files),
            default: default.to_owned(),
            shares: quoted(share),
            refused: refused.to_owned(),
            test: one(test),
        }
    };
    table.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// Every numeric setting by name, with its default, and every numeric member of a tenant's quota.
fn settings() -> Vec<(String, Value)> {
    let Value::Object(sections) = serde_json::to_value(Config::default()).unwrap() else { panic!("an object") };
    let mut settings = Vec::new();
    for (section, keys) in sections {
        let Value::Object(keys) = keys else { continue };
        settings.extend(keys.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
    }
    let Value::Object(quota) = serde_json::to_value(Quota::default()).unwrap() else { panic!("an object") };
    settings.retain(|(key, _)| !key.starts_with("quota."));
    settings.extend(quota.into_iter().map(|(key, value)| (format!("quota.{key}"), value)));
    settings.retain(|(_, value)| value.is_number());
    settings
}

/// Parses `64 MiB`, `1 << 20` and `4_096`.
fn number(text: &str) -> Option<u64> {
    let text = text.trim().replace('_', "");
    if let Some((left, right)) = text.split_once("<<") {
        return Some(number(left)? << number(right)?);
    }
    if let Some((left, right)) = text.split_once('*') {
        return Some(number(left)? * number(right)?);
    }
    for (unit, shift) in [("KiB", 10), ("MiB", 20), ("GiB", 30)] {
        if let Some(count) = text.strip_suffix(unit) {
            return Some(number(count)? << shift);
        }
    }
    text.parse().ok()
}

/// The place of a source file or module as the page names it: `ledger/space.rs` is in the crate `ledger`, if there is
/// one, and otherwise in the host.
fn place(name: &str) -> PathBuf {
    let in_crate = name.split_once('/').map(|(first, rest)| (manifest().join("crates").join(first), rest));
    match in_crate {
        Some((folder, rest)) if folder.is_dir() => folder.join("src").join(rest),
        _ => manifest().join("src").join(name),
    }
}

fn source(file: &str) -> String {
    let path = place(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of a constant in one of the files.
fn constant(name: &str, files: &[String]) -> Option<u64> {
    let value_in = |text: String| {
        let (_, rest) = text.split_once(&format!("const {name}: "))?;
        number(rest.split_once('=')?.1.split_once(';')?.0)
    };
    files.iter().find_map(|file| value_in(source(file)))
}

/// Source files by their names on the page, without those that contain only tests.
fn sources() -> Vec<(String, PathBuf)> {
    let crates = std::fs::read_dir(manifest().join("crates")).unwrap().map(|entry| entry.unwrap());
    let crates = crates.map(|entry| (entry.file_name().to_string_lossy().into_owned() + "/", entry.path().join("src")));
    let roots = crates.chain([(String::new(), manifest().join("src"))]);
    roots
        .flat_map(|(prefix, root)| below(&root).into_iter().map(move |(file, path)| (prefix.clone() + &file, path)))
        .collect()
}

fn below(root: &Path) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.contains("tests") {
                files.push((path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), path));
            }
        }
    }
    files
}

/// Whether the test `module::name` exists, and is one: in `tests/it` for `it::`, otherwise in the host's source.
fn exists(test: &str) -> bool {
    let (module, name) = test.rsplit_once("::").unwrap();
    let (in_stories, module) = match module.strip_prefix("it::") {
        Some(module) => (true, module),
        None => (false, module),
    };
    let module = module.replace("::", "/");
    let inline = module.strip_suffix("/tests").unwrap_or(&module);
    let names = [
        format!("{module}.rs"),
        format!("{module}/mod.rs"),
        format!("{inline}.rs"),
        format!("{inline}/mod.rs"),
        format!("{inline}/lib.rs"),
    ];
    let file = |name: &String| if in_stories { manifest().join("../tests/it").join(name) } else { place(name) };
    let has = |text: String| {
        let before = text.split_once(&format!("fn {name}(")).map(|(before, _)| before);
        let attributes = before.and_then(|before| before.rsplit("\n\n").next()).unwrap_or_default();
        attributes.contains("#[test]") || attributes.contains("#[tokio::test")
    };
    names.iter().any(|name| std::fs::read_to_string(file(name)).is_ok_and(has))
}

#[test]
fn every_listed_limit_exists_with_its_default_and_its_share() {
    let settings = settings();
    let value_of = |name: &str, files: &[String]| match settings.iter().find(|(key, _)| key == name) {
        Some((_, value)) => value.as_u64(),
        None => constant(name, files),
    };
    for row in rows(&page()) {
        let Row { limit, files, default, shares, refused, .. } = &row;
        let value = value_of(limit, files);
        assert!(value.is_some(), "`{limit}` is neither a numeric setting nor a constant of {files:?}");
        assert_eq!(value, number(default), "the default of `{limit}`");
        for share in shares {
            assert!(value_of(share, files).is_some(), "the share `{share}` of `{limit}` does not exist");
        }
        assert!(!refused.is_empty(), "who is refused first when `{limit}` is used up?");
    }
}

#[test]
fn every_limit_has_a_test_in_which_it_fires() {
    for row in rows(&page()) {
        assert!(exists(&row.test), "`{}`, named for `{}`, does not exist", row.test, row.limit);
    }
}

#[test]
fn every_numeric_setting_is_a_shared_limit_a_share_or_named_as_neither() {
    let page = page();
    let named: BTreeSet<String> = quoted(&page).into_iter().collect();
    let is_named = |key: &String| {
        named.contains(key) || named.iter().any(|name| name.strip_suffix('*').is_some_and(|head| key.starts_with(head)))
    };
    let missing: Vec<_> = settings().into_iter().map(|(key, _)| key).filter(|key| !is_named(key)).collect();
    assert!(
        missing.is_empty(),
        "docs/reference/shares.md does not name {missing:?}: a limit for all tenants gets a row with its share of a \
         tenant; any other goes to the list of settings that are not shared"
    );
}

#[test]
fn every_pool_of_the_source_has_a_row() {
    let listed: BTreeSet<String> = rows(&page()).into_iter().flat_map(|row| row.files).collect();
    for (file, path) in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let Some(pool) = POOLS.iter().find(|pool| code.contains(**pool)) else { continue };
        let known = listed.contains(&file) || MECHANISMS.contains(&file.as_str()) || file == "config/shares.rs";
        assert!(known, "{file} makes a pool with `{pool}...)`: give it a row in docs/reference/shares.md");
    }
    for file in &listed {
        assert!(place(file).is_file(), "docs/reference/shares.md names {file}, which does not exist");
    }
}
