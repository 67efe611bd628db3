//! Generates `docs/reference/config.md` and `deploy/config.defaults.toml` from the settings types; tests compare them.
//! `UPDATE=1 cargo test --workspace --lib config::` rewrites both, and is the only way to change them.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::Config;
use super::change::is_live;

/// Maximum number of keys, including those of `[listen.operator]` and `[listen.tenant]`. A new setting needs a reason in
/// a decision record: a limit that no operator has a reason to change is a constant.
const KEYS_MAX: usize = 81;
/// Number of keys of each table.
const KEYS: [(&str, usize); 13] = [
    ("listen", 13),
    ("listen.operator", 4),
    ("listen.tenant", 4),
    ("server", 1),
    ("data", 11),
    ("ingest", 2),
    ("quota", 10),
    ("sandbox", 9),
    ("delivery", 10),
    ("history", 1),
    ("egress", 8),
    ("log", 2),
    ("traces", 6),
];

/// The source files of the sections, and the names of their structs.
const SOURCES: [(&str, &str, &str); 11] = [
    ("listen", include_str!("../http/listener/settings.rs"), "Listen"),
    ("server", include_str!("../control/public_url.rs"), "Server"),
    ("data", include_str!("../../crates/ledger/src/settings.rs"), "Settings"),
    ("ingest", include_str!("../pipeline/settings.rs"), "Ingest"),
    ("quota", include_str!("../../crates/domain/src/tenant.rs"), "DefaultQuota"),
    ("sandbox", include_str!("../../crates/sandbox/src/settings.rs"), "Settings"),
    ("delivery", include_str!("../pipeline/settings.rs"), "Delivery"),
    ("history", include_str!("../control/replays.rs"), "Settings"),
    ("egress", include_str!("../../crates/egress/src/settings.rs"), "Settings"),
    ("log", include_str!("log.rs"), "Log"),
    ("traces", include_str!("../traces/settings.rs"), "Settings"),
];

const PAGE: &str = "docs/reference/config.md";
const PAGE_HEAD: &str = "\
# Settings

A test generates this page from the settings types; `UPDATE=1 cargo test --workspace --lib config::` rewrites it.

Every setting has a default. `setgate serve` reads the file that `--config` (`SETGATE_CONFIG`) names, or else `setgate.toml` in the
current directory if it exists. Environment variables override the file. An unknown key is an error, and so is an unknown variable that
begins with `SETGATE_`. All errors are reported at once, each with its file and line or its variable. `setgate config check FILE` reports
them without starting a host. `deploy/config.defaults.toml` has every key with its default, ready to copy.

SIGHUP makes the host read the configuration again and check it as a whole. If it is invalid, nothing changes. Otherwise keys with `yes`
in the column reload take effect at once, and the others at the next start; the log names both. Certificates are always read again;
whether a listener uses TLS is fixed at the start. Command line options continue to override the file. See
[Changing settings](../how-to/operations.md#changing-settings).

A limit that is not listed here is a constant next to the code that applies it. [Shared limits](shares.md) lists those that tenants share,
and [Changes before 0.1](changes-before-0.1.md#removed-settings) those that were settings.

```toml
[listen]
address = \"0.0.0.0:8443\"
tls_certificate = \"/etc/setgate/chain.pem\"
tls_key = \"/etc/setgate/key.pem\"

[data]
dir = \"/var/lib/setgate\"
```
";

const DEFAULTS: &str = "deploy/config.defaults.toml";
const DEFAULTS_HEAD: &str = "\
# Every setting of Setgate with its default. Generated; docs/reference/config.md explains each setting in full.
# Copy the lines to change into setgate.toml, and check that file with `setgate config check setgate.toml`.
";

/// A field of a struct, as written in the source.
struct Field {
    name: String,
    of_type: String,
    meaning: String,
}

/// The fields of a struct with their documentation.
fn fields(source: &str, name: &str) -> Vec<Field> {
    let begin = source.find(&format!("pub struct {name} {{")).unwrap_or_else(|| panic!("no struct {name}"));
    let mut fields = Vec::new();
    let mut meaning = Vec::new();
    for line in source[begin..].lines().skip(1).map(str::trim).take_while(|line| *line != "}") {
        if let Some(text) = line.strip_prefix("///") {
            meaning.push(text.trim());
        } else if let Some((name, of_type)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")) {
            let (name, of_type) = (name.to_owned(), of_type.trim_end_matches(',').to_owned());
            fields.push(Field { name, of_type, meaning: std::mem::take(&mut meaning).join(" ") });
        }
    }
    fields
}

/// Writes a table's rows. `defaults` holds its default values, `Null` if the table is absent by default.
fn rows(text: &mut String, table: &str, source: &str, of_type: &str, defaults: &Value) {
    writeln!(text, "| key | environment variable | default | reload | meaning |\n|---|---|---|---|---|")
        .expect("a string");
    for field in fields(source, of_type) {
        let mut variable = format!("SETGATE_{}__{}", table.replace('.', "__"), field.name).to_uppercase();
        if is_table(&field) {
            variable += "__*";
        }
        let default = match &defaults[&field.name] {
            Value::Null if field.of_type.starts_with("Option<") => "not set".to_owned(),
            Value::Null => "to be given".to_owned(),
            value => format!("`{value}`"),
        };
        let reload = if is_live(&format!("{table}.{}", field.name)) { "yes" } else { "no" };
        writeln!(text, "| `{}` | `{variable}` | {default} | {reload} | {} |", field.name, field.meaning)
            .expect("a string");
    }
}

fn is_table(field: &Field) -> bool {
    field.of_type == "Option<Listener>"
}

/// The tables in order, each with its meaning, source, struct and default values (`Null` if it is absent by default).
fn tables() -> Vec<(String, String, &'static str, &'static str, Value)> {
    let defaults = serde_json::to_value(Config::default()).expect("settings are JSON");
    let mut tables = Vec::new();
    for section in fields(include_str!("mod.rs"), "Config") {
        let name = &section.name;
        let (_, source, of_type) = SOURCES.iter().find(|(table, ..)| table == name).unwrap_or_else(|| panic!("{name}"));
        tables.push((name.clone(), section.meaning, *source, *of_type, defaults[name].clone()));
        for field in fields(source, of_type).into_iter().filter(is_table) {
            let table = format!("{name}.{}", field.name);
            tables.push((table, field.meaning, *source, "Listener", Value::Null));
        }
    }
    tables
}

fn page() -> String {
    let mut text = PAGE_HEAD.to_owned();
    for (table, meaning, source, of_type, defaults) in tables() {
        write!(text, "\n## [{table}]\n\n{meaning}\n\n").expect("a string can be written to");
        rows(&mut text, &table, source, of_type, &defaults);
    }
    text
}

/// The first sentence of a text.
fn sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

fn defaults() -> String {
    let mut text = DEFAULTS_HEAD.to_owned();
    for (table, meaning, source, of_type, defaults) in tables() {
        let is_absent = if defaults.is_null() { "#" } else { "" };
        write!(text, "\n# {meaning}\n{is_absent}[{table}]\n").expect("a string can be written to");
        for field in fields(source, of_type).iter().filter(|field| !is_table(field)) {
            let (default, note) = match &defaults[&field.name] {
                Value::Null => (EMPTY.to_owned(), " Not set."),
                value => (value.to_string(), ""),
            };
            let (key, about) = (&field.name, sentence(&field.meaning));
            write!(text, "# {about}{note}\n#{key} = {default}\n").expect("a string can be written to");
        }
    }
    text
}

/// Stands for a value that is not set.
const EMPTY: &str = "\"\"";

#[test]
fn the_files_are_those_of_the_types() {
    for (name, rendered) in [(PAGE, page()), (DEFAULTS, defaults())] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &rendered).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(written == rendered, "{name} is old: `UPDATE=1 cargo test --workspace --lib config::` rewrites it");
    }
}

#[test]
fn every_key_has_a_meaning() {
    for (table, _, source, of_type, _) in tables() {
        for Field { name, meaning, .. } in fields(source, of_type) {
            assert!(meaning.ends_with('.'), "`{table}.{name}`: {meaning}");
        }
    }
}

#[test]
fn there_are_as_many_keys_as_decided() {
    let counted: Vec<_> = tables()
        .into_iter()
        .map(|(table, _, source, of_type, _)| {
            let keys = fields(source, of_type).iter().filter(|field| !is_table(field)).count();
            (table, keys)
        })
        .collect();
    assert_eq!(counted, KEYS.map(|(table, keys)| (table.to_owned(), keys)));
    assert!(counted.iter().map(|(_, keys)| keys).sum::<usize>() <= KEYS_MAX);
    // The types and the source that is parsed here agree.
    let known = super::read::known().into_keys().filter(|key| key != "listen.operator" && key != "listen.tenant");
    assert_eq!(known.count(), counted.iter().map(|(_, keys)| keys).sum::<usize>());
}

#[test]
fn the_defaults_are_the_defaults() {
    // Uncommented, except for values that are not set.
    let given: String = defaults()
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with([' ', '['])).or(Some(line)))
        .filter(|line| !line.starts_with('#') && !line.ends_with(&format!("= {EMPTY}")))
        .map(|line| format!("{line}\n"))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &given).unwrap();
    let read = Config::load(Some(file.path())).unwrap_or_else(|error| panic!("{error}\n{given}"));
    let in_json = |config: &Config| serde_json::to_value(config).unwrap();
    assert_eq!(in_json(&read), in_json(&Config::default()), "{given}");
    assert!(given.lines().filter(|line| line.contains(" = ")).count() > KEYS_MAX / 2, "{given}");
}
