//! Generates `docs/reference/config.md` from the settings types; a test compares the two. `UPDATE=1 cargo test
//! --workspace --lib config::` rewrites the page.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::Config;
use super::settings::is_live;

const HEAD: &str = "\
# Settings

A test generates this page from the types in `host/src/config`; `UPDATE=1 cargo test --workspace --lib config::` rewrites it.

Every setting has a default. `setgate serve` reads `setgate.toml` of the current folder if it exists, or the file that `--config`
(`SETGATE_CONFIG`) names. Environment variables override the file. An unknown key is an error, and so is an unknown variable that begins
with `SETGATE_`. All errors are reported at once, with file and line or the variable.

On SIGHUP the configuration is read again and checked as a whole. Keys with `reload` yes take effect at once, the others at the next
start; the log names both. An invalid configuration changes nothing. Certificates are always read again; whether a listener uses TLS is
fixed at the start. Values from the environment or the command line stay as they were. See
[Changing settings](../how-to/operations.md#changing-settings).

```toml
[listen]
address = \"0.0.0.0:8443\"
tls_certificate = \"/etc/setgate/chain.pem\"
tls_key = \"/etc/setgate/key.pem\"

[data]
dir = \"/var/lib/setgate\"
```
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

fn render() -> String {
    let settings = [
        include_str!("mod.rs"),
        include_str!("listen.rs"),
        include_str!("sandbox.rs"),
        include_str!("traces.rs"),
        include_str!("../../crates/domain/src/tenant.rs"),
    ]
    .concat();
    let defaults = serde_json::to_value(Config::default()).expect("settings are JSON");
    let mut text = HEAD.to_owned();
    for section in fields(&settings, "Config") {
        let name = &section.name;
        write!(text, "\n## [{name}]\n\n{}\n\n", section.meaning).expect("a string can be written to");
        rows(&mut text, name, &settings, &section.of_type, &defaults[name]);
        for field in fields(&settings, &section.of_type).iter().filter(|field| is_table(field)) {
            let table = format!("{name}.{}", field.name);
            write!(text, "\n## [{table}]\n\n{}\n\n", field.meaning).expect("a string can be written to");
            rows(&mut text, &table, &settings, "Listener", &Value::Null);
        }
    }
    text
}

#[test]
fn the_reference_is_that_of_the_types() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/config.md");
    let rendered = render();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &rendered).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == rendered,
        "docs/reference/config.md is old: `UPDATE=1 cargo test --workspace --lib config::` writes it anew"
    );
}

#[test]
fn every_default_has_a_meaning() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let rendered = render();
    for (section, keys) in defaults.as_object().unwrap() {
        for key in keys.as_object().unwrap().keys() {
            let variable = format!("`SETGATE_{}__{}", section.to_uppercase(), key.to_uppercase());
            let row = rendered.lines().find(|line| line.contains(&variable)).unwrap_or_else(|| panic!("{variable}"));
            assert!(!row.ends_with("|  |"), "{row}");
        }
    }
}
