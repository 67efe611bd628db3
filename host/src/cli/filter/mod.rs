//! `setgate filter`: what a filter's author tries out before uploading, and a host's delivery run again. Both in a
//! sandbox of its own.

mod again;
mod bench;
mod show;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::cli::out::say;
use crate::domain::filter::Grant;
use crate::domain::id::{DeliveryId, EventId, SubscriptionId, TableName};
use crate::domain::json::{JsonLimits, Object};
use crate::domain::secret::Secret;
use crate::domain::set::SetToken;
use crate::domain::time::Timestamp;
use crate::domain::{subject, table};
use crate::sandbox::{Call, EventView, MemoryTables, Ran};

pub(super) use bench::check;

use bench::Bench;
use show::{show_cost, show_effect};

/// Options of `filter run`.
#[derive(Debug, Parser)]
pub struct RunArgs {
    /// The component, a .wasm file.
    #[arg(required_unless_present = "delivery")]
    file: Option<PathBuf>,
    /// The event: a file with the claims of a SET, as JSON.
    #[arg(long, value_name = "FILE", required_unless_present = "delivery")]
    event: Option<PathBuf>,
    /// The binding's `config`: a JSON object, or @ and a file with one.
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}", conflicts_with = "delivery")]
    config: String,
    /// A secret of the binding; may be given more than once. With --delivery, FILTER/NAME=VALUE is for one filter only.
    #[arg(long, value_name = "NAME=VALUE")]
    secret: Vec<String>,
    /// A table for look-ups: JSON lines of {"key": ..., "value": ...}; may be given more than once.
    #[arg(long, value_name = "NAME=FILE", conflicts_with = "delivery")]
    table: Vec<String>,
    /// Fuel for the call.
    #[arg(long, value_name = "UNITS", conflicts_with = "delivery")]
    fuel: Option<u64>,
    /// When the event was accepted (RFC 3339): where the filter's clock stands still. Default: the SET's `iat`.
    #[arg(long, value_name = "INSTANT", conflicts_with = "delivery")]
    accepted_at: Option<String>,
    #[command(flatten)]
    again: again::Args,
}

/// Runs a filter once and shows what came of it, or the chain of a delivery once more.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let (file, event) = match (&args.file, &args.event) {
        (Some(file), Some(event)) => (file, event),
        _ => return again::run(args.again, &args.secret).await,
    };
    let mut bench = Bench::new()?;
    if let Some(fuel) = args.fuel {
        bench.quota.fuel_per_call = fuel;
        bench.quota.fuel_per_event_byte = 0;
    }
    let before = SetToken::parse(read_text(event)?, JsonLimits::default())
        .with_context(|| format!("{} is not a SET", event.display()))?;
    let view = event_view(&before, args.accepted_at.as_deref())?;
    let config = config(&args.config)?;
    let (secrets, tables) = (secrets(&args.secret)?, tables(&args.table)?);
    let Some(compiled) = bench.take_in(file).await? else { return Ok(ExitCode::FAILURE) };
    let call = Call {
        digest: compiled.digest,
        filter: "local".parse()?,
        event: view,
        config: config.into(),
        secrets,
        grants: Grant::ALL.into(),
        tables: Arc::new(tables),
        quota: bench.quota.clone(),
        keep: None,
    };
    let Ran { verdict, run, .. } = bench.sandbox.run(call).await;
    let quota = &bench.quota;
    match verdict {
        Ok(verdict) => {
            say!("verdict   {}", verdict.kind().as_str());
            show_cost(&run, &compiled, quota);
            show_effect(&before, verdict, quota)
        }
        Err(fault) => {
            say!("fault     {}: it {fault}", fault.kind());
            show_cost(&run, &compiled, quota);
            Ok(ExitCode::FAILURE)
        }
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
