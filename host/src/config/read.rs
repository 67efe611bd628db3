//! Reads the configuration. Each value is validated separately, so that all errors are reported at once, each with its
//! location.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use figment::providers::{Env, Format as _, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider as _};
use serde_json::Value as Json;
use setgate_domain::nearest::nearest;

use super::environment::{self, PREFIX, variable};
use super::{Config, Error};

/// Tables below a section. Every other key below a section is a single setting, even if its value is a table.
const TABLES: [&str; 2] = ["listen.operator", "listen.tenant"];
/// Placeholder for the address of such a table while its other settings are validated.
const ANY_ADDRESS: &str = "127.0.0.1:0";

/// A configured value and its location.
struct Given {
    key: String,
    value: Value,
    place: Place,
}

/// The location of a configured value.
#[derive(Clone)]
enum Place {
    File(String, Option<usize>),
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, None) => f.write_str(file),
            Self::File(file, Some(line)) => write!(f, "{file}, line {line}"),
            Self::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

/// Reads the settings: the defaults, overridden by the file, overridden by the environment.
pub(super) fn read(file: Option<(&Path, String)>) -> Result<Config, Error> {
    let mut faults = Vec::new();
    let mut given = BTreeMap::new();
    if let Some((path, text)) = file {
        let name = path.display().to_string();
        // Editors on Windows write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        match Toml::string(text).data() {
            Ok(data) => {
                let lines = lines(text);
                let place = |key: &str| Place::File(name.clone(), lines.get(key).copied());
                collect(&dict(data), "", &place, &mut given, &mut faults);
            }
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    from_environment(&mut given, &mut faults);
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    let mut wrong = Vec::new();
    for Given { key, value, place } in given.into_values() {
        match tried(&key, &value) {
            Ok(()) => figment = figment.merge((key.as_str(), value)),
            Err(says) => {
                faults.push(format!("{place}: `{key}`: {says}"));
                wrong.push(key);
            }
        }
    }
    for table in TABLES {
        let address = format!("{table}.address");
        if figment.contains(table) && !figment.contains(&address) && !figment.find_value(table).is_ok_and(is_nothing) {
            if !wrong.contains(&address) {
                faults.push(format!("`{address}` has to be given: a listener of its own needs one"));
            }
            figment = figment.merge((address.as_str(), ANY_ADDRESS));
            wrong.push(address);
        }
    }
    let config: Config = match figment.extract() {
        Ok(config) => config,
        Err(error) => {
            faults.extend(error.into_iter().map(|error| error.to_string()));
            return Err(Error::invalid(faults));
        }
    };
    // A value that is invalid by itself was not applied: skip messages about its combination with others.
    let of_wrong = |fault: &String| wrong.iter().any(|key| fault.contains(&format!("`{key}`")));
    faults.extend(config.faults().into_iter().filter(|fault| !of_wrong(fault)));
    if faults.is_empty() { Ok(config) } else { Err(Error::invalid(faults)) }
}

fn from_environment(given: &mut BTreeMap<String, Given>, faults: &mut Vec<String>) {
    // Variables without `__`, such as the master key, are no settings: secrets stay out of everything that can be
    // displayed.
    let sets = |name: &str| name.contains("__") && !name.starts_with('_');
    match Env::prefixed(PREFIX).filter(move |key| sets(key.as_str())).split("__").data() {
        Ok(data) => collect(&dict(data), "", &|key| Place::Variable(variable(key)), given, faults),
        Err(error) => faults.push(error.to_string()),
    }
    let keys: Vec<String> = known().into_keys().collect();
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let Some(begin) = name.get(..PREFIX.len()).filter(|begin| begin.eq_ignore_ascii_case(PREFIX)) else { continue };
        if !sets(&name[begin.len()..]) {
            faults.extend(environment::fault(&name, &value, &keys));
        }
    }
}

/// Collects the settings of a table. An unknown key is reported together with the closest known name.
fn collect(
    table: &Dict,
    below: &str,
    place: &impl Fn(&str) -> Place,
    given: &mut BTreeMap<String, Given>,
    faults: &mut Vec<String>,
) {
    let known = known();
    for (name, value) in table {
        let key = if below.is_empty() { name.clone() } else { format!("{below}.{name}") };
        let is_table =
            TABLES.contains(&key.as_str()) || known.keys().any(|known| known.split('.').next() == Some(&key));
        match value {
            Value::Dict(_, table) if is_table => collect(table, &key, place, given, faults),
            _ if is_table => {
                faults.push(format!("{}: `{key}` is a table, and no value can be given to it", place(&key)))
            }
            _ if known.contains_key(&key) => {
                given.insert(key.clone(), Given { place: place(&key), value: value.clone(), key });
            }
            Value::Dict(_, table) if below.is_empty() => {
                let sections: Vec<_> = known.keys().filter_map(|known| known.split('.').next()).collect();
                let meant = nearest(name, sections).map(|meant| format!("; did you mean `[{meant}]`?"));
                let keys: Vec<_> = table.keys().map(String::as_str).collect();
                faults.push(format!(
                    "{}: there is no section `[{key}]` (it holds {}){}",
                    place(&key),
                    keys.join(", "),
                    meant.unwrap_or_default()
                ));
            }
            _ => {
                let meant = meant(&key, name, &known).map(|meant| format!("; did you mean `{meant}`?"));
                faults.push(format!("{}: `{key}` is no setting{}", place(&key), meant.unwrap_or_default()));
            }
        }
    }
}

/// The most likely intended setting: the same name in another table, a similar name in the same table, or the most
/// similar key overall.
fn meant<'a>(key: &str, name: &str, known: &'a BTreeMap<String, Json>) -> Option<&'a str> {
    let parts = |known: &'a str| known.rsplit_once('.').unwrap_or(("", known));
    let table = key.rsplit_once('.').map_or("", |(table, _)| table);
    let keys = || known.keys().map(String::as_str);
    let elsewhere = || keys().find(|known| parts(known).1 == name);
    let beside = || {
        let beside = nearest(name, keys().map(parts).filter(|(of, _)| *of == table).map(|(_, name)| name))?;
        keys().find(|known| parts(known) == (table, beside))
    };
    elsewhere().or_else(beside).or_else(|| nearest(key, keys()))
}

/// Validates one value on top of the defaults.
fn tried(key: &str, value: &Value) -> Result<(), String> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(table) = TABLES.iter().find(|table| key.starts_with(&format!("{table}."))) {
        figment = figment.merge((&*format!("{table}.address"), ANY_ADDRESS));
    }
    match figment.merge((key, value.clone())).extract::<Config>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.into_iter().map(|error| error.kind.to_string()).collect::<Vec<_>>().join("; ")),
    }
}

fn is_nothing(value: Value) -> bool {
    matches!(value, Value::Empty(..))
}

fn dict(mut data: figment::value::Map<Profile, Dict>) -> Dict {
    data.remove(&Profile::Default).unwrap_or_default()
}

/// Every setting by its key, such as `listen.operator.address`.
pub(super) fn known() -> BTreeMap<String, Json> {
    let mut config = Config::default();
    config.listen.operator = Some(config.listen.main());
    config.listen.tenant = Some(config.listen.main());
    let mut keys = BTreeMap::new();
    let sections = serde_json::to_value(&config).unwrap_or_default();
    for (section, settings) in sections.as_object().into_iter().flatten() {
        for (name, value) in settings.as_object().into_iter().flatten() {
            let key = format!("{section}.{name}");
            match value.as_object().filter(|_| TABLES.contains(&key.as_str())) {
                Some(table) => keys.extend(table.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone()))),
                None => {
                    keys.insert(key, value.clone());
                }
            }
        }
    }
    keys
}

/// Line numbers of each key and table in a valid TOML file.
fn lines(text: &str) -> BTreeMap<String, usize> {
    fn walk(
        table: &dyn toml_edit::TableLike,
        below: &str,
        line: &impl Fn(usize) -> usize,
        lines: &mut BTreeMap<String, usize>,
    ) {
        for (name, item) in table.iter() {
            let key = if below.is_empty() { name.to_owned() } else { format!("{below}.{name}") };
            let span = table.get_key_value(name).and_then(|(key, item)| key.span().or_else(|| item.span()));
            if let Some(span) = span {
                lines.entry(key.clone()).or_insert(line(span.start));
            }
            if let Some(table) = item.as_table_like() {
                walk(table, &key, line, lines);
            }
        }
    }
    let mut lines = BTreeMap::new();
    if let Ok(document) = toml_edit::ImDocument::parse(text) {
        let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        walk(document.as_table(), "", &line, &mut lines);
    }
    lines
}
