//! `setgate filter`: what a filter's author tries out before uploading. Runs in a sandbox of its own, no host needed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::Value;

use crate::crypto;
use crate::domain::filter::Grant;
use crate::domain::id::{DeliveryId, EventId, SubscriptionId, TableName};
use crate::domain::json::{JsonLimits, Object};
use crate::domain::secret::Secret;
use crate::domain::set::{Applied, SetToken, apply};
use crate::domain::tenant::Quota;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{FilterRun, Verdict};
use crate::domain::{subject, table};
use crate::sandbox::{Call, Compiled, EventView, MemoryTables, Options, Ran, Sandbox};

/// Options of `filter run`.
#[derive(Debug, Parser)]
pub struct RunArgs {
    /// The component, a .wasm file.
    file: PathBuf,
    /// The event: a file with the claims of a SET, as JSON.
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// The binding's `config`: a JSON object, or @ and a file with one.
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}")]
    config: String,
    /// A secret of the binding; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE")]
    secret: Vec<String>,
    /// A table for look-ups: JSON lines of {"key": ..., "value": ...}; may be given more than once.
    #[arg(long, value_name = "NAME=FILE")]
    table: Vec<String>,
    /// Fuel for the call.
    #[arg(long, value_name = "UNITS")]
    fuel: Option<u64>,
    /// When the event was accepted (RFC 3339): where the filter's clock stands still. Default: the SET's `iat`.
    #[arg(long, value_name = "INSTANT")]
    accepted_at: Option<String>,
}

/// Says whether a host with the default quota would take a filter.
pub async fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let bench = Bench::new()?;
    let Some(compiled) = bench.take_in(file).await? else { return Ok(ExitCode::FAILURE) };
    println!("{}: a host would take this filter", file.display());
    println!("digest    {}", compiled.digest);
    println!("size      {} bytes", grouped(compiled.size_bytes));
    println!("needs     {}", needs(&compiled));
    println!("compiled  in {} ms", grouped(compiled.compile_ms));
    Ok(ExitCode::SUCCESS)
}

/// Runs a filter once and shows what came of it.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut bench = Bench::new()?;
    if let Some(fuel) = args.fuel {
        bench.quota.fuel_per_call = fuel;
    }
    let before = SetToken::parse(read_text(&args.event)?, JsonLimits::default())
        .with_context(|| format!("{} is not a SET", args.event.display()))?;
    let event = event_view(&before, args.accepted_at.as_deref())?;
    let config = config(&args.config)?;
    let (secrets, tables) = (secrets(&args.secret)?, tables(&args.table)?);
    let Some(compiled) = bench.take_in(&args.file).await? else { return Ok(ExitCode::FAILURE) };
    let call = Call {
        digest: compiled.digest,
        filter: "local".parse()?,
        event,
        config: config.into(),
        secrets,
        grants: Grant::ALL.into(),
        tables: Arc::new(tables),
        quota: bench.quota.clone(),
    };
    let Ran { verdict, run } = bench.sandbox.run(call).await;
    let quota = &bench.quota;
    match verdict {
        Ok(verdict) => {
            println!("verdict   {}", verdict.kind().as_str());
            show_cost(&run, &compiled, quota);
            show_effect(&before, verdict, quota)
        }
        Err(fault) => {
            println!("fault     {}: it {fault}", fault.kind());
            show_cost(&run, &compiled, quota);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A sandbox for one filter, with a folder that goes with it.
struct Bench {
    sandbox: Sandbox,
    quota: Quota,
    dir: PathBuf,
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("setgate-filter-{:032x}", crypto::random_u128()));
        let nowhere = Arc::new(|_| -> futures_util::future::BoxFuture<'static, _> { Box::pin(async { None }) });
        let mut options = Options::new(dir.clone(), crypto::random_bytes(), nowhere);
        options.instances_max = 1;
        options.guest_threads = 1;
        Ok(Self { sandbox: Sandbox::new(options)?, quota: Quota::default(), dir })
    }

    /// Takes the filter in as a host would; says why where it would not.
    async fn take_in(&self, file: &Path) -> anyhow::Result<Option<Compiled>> {
        let wasm = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        match self.sandbox.compile(&"local".parse()?, wasm.into(), &self.quota).await {
            Ok(compiled) => Ok(Some(compiled)),
            Err(why) => {
                println!("{}: a host would not take this filter: {}", file.display(), why.kind());
                println!("  {why}");
                Ok(None)
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.sandbox.shutdown();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn event_view(set: &SetToken, accepted_at: Option<&str>) -> anyhow::Result<EventView> {
    let accepted_at = match accepted_at {
        Some(text) => Timestamp::parse(text).with_context(|| format!("`{text}` is not an RFC 3339 instant"))?,
        None => Timestamp::from_millis(set.issued_at.saturating_mul(1_000)),
    };
    // The ids are the same every time, so that a run can be repeated to the byte.
    let (id, subscription) = (EventId::new(accepted_at, 0), SubscriptionId::new(accepted_at, 0));
    Ok(EventView {
        id,
        issuer: set.issuer.clone(),
        issued_at: set.issued_at,
        accepted_at,
        types: set.types.clone(),
        subject: subject::set(&Object::parse(&set.text)?).map(|subject| subject.as_str().to_owned()),
        tenant: "local".parse()?,
        source: "local".parse()?,
        subscription,
        delivery: DeliveryId { event: id, subscription, run: 0 },
        claims: set.text.clone(),
    })
}

fn config(given: &str) -> anyhow::Result<String> {
    let text = match given.strip_prefix('@') {
        Some(file) => read_text(Path::new(file))?,
        None => given.to_owned(),
    };
    Object::parse(&text).context("--config is not a JSON object")?;
    Ok(text)
}

fn secrets(given: &[String]) -> anyhow::Result<BTreeMap<String, Secret>> {
    let parse = |pair: &String| {
        let (name, value) = pair.split_once('=').context("--secret is NAME=VALUE")?;
        Ok((name.to_owned(), Secret::new(value.to_owned())))
    };
    given.iter().map(parse).collect()
}

fn tables(given: &[String]) -> anyhow::Result<MemoryTables> {
    let mut tables = BTreeMap::<String, HashMap<String, Arc<str>>>::new();
    for pair in given {
        let (name, file) = pair.split_once('=').context("--table is NAME=FILE")?;
        let name: TableName = name.parse()?;
        let rows = match table::parse(read_text(Path::new(file))?.as_bytes()) {
            Ok(rows) => rows,
            Err(why) => bail!("{file}: {why}"),
        };
        tables.insert(name.to_string(), rows);
    }
    Ok(MemoryTables(tables))
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn show_cost(run: &FilterRun, compiled: &Compiled, quota: &Quota) {
    println!("fuel      {} of {}", grouped(run.fuel), grouped(quota.fuel_per_call));
    println!("memory    {} KiB of {}", grouped(run.memory_bytes >> 10), grouped(quota.memory_bytes_max >> 10));
    println!("time      {} us", grouped(run.elapsed_us));
    println!("needs     {}", needs(compiled));
    for line in &run.log {
        println!("log       {:5?} {}", line.level, line.text);
    }
}

/// Does to the SET what a host would, and shows what is different then.
fn show_effect(before: &SetToken, verdict: Verdict, quota: &Quota) -> anyhow::Result<ExitCode> {
    match apply(before, verdict, quota.output_bytes_max) {
        Ok(Applied::Unchanged) => println!("claims    unchanged"),
        Ok(Applied::Dropped(reason)) => println!("reason    {reason}"),
        Ok(Applied::Changed(after)) => {
            println!("claims");
            for line in difference(&serde_json::from_str(&before.text)?, &serde_json::from_str(&after.text)?) {
                println!("  {line}");
            }
        }
        Err(fault) => {
            println!("fault     {}: it {fault}", fault.kind());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Members that are gone (`-`), new (`+`) or both, each with its JSON pointer (RFC 6901).
fn difference(before: &Value, after: &Value) -> Vec<String> {
    fn walk(at: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<String>) {
        match (before, after) {
            (before, after) if before == after => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                let added = new.keys().filter(|key| !old.contains_key(*key));
                for key in old.keys().chain(added) {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    walk(&at, old.get(key), new.get(key), lines);
                }
            }
            (before, after) => {
                lines.extend(before.map(|value| format!("- {at} {value}")));
                lines.extend(after.map(|value| format!("+ {at} {value}")));
            }
        }
    }
    let mut lines = Vec::new();
    walk("", Some(before), Some(after), &mut lines);
    lines
}

fn needs(compiled: &Compiled) -> String {
    let names: Vec<_> = compiled.needs.iter().map(|grant| grant.as_str()).collect();
    if names.is_empty() { "no grants".to_owned() } else { names.join(", ") }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_difference_names_each_member_by_its_pointer() {
        let before = json!({"a": 1, "b": {"x/y": 1, "z": [1]}, "c": 1});
        let after = json!({"a": 1, "b": {"x/y": 2, "z": [1]}, "d": null});
        assert_eq!(difference(&before, &after), ["- /b/x~1y 1", "+ /b/x~1y 2", "- /c 1", "+ /d null"]);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 50_000_000].map(grouped), ["0", "999", "1,000", "50,000,000"]);
    }
}
