//! `setgate filter`: tries out a filter before it is uploaded, and reruns a host's delivery. Both run in a local
//! sandbox.

mod again;
mod bench;
mod cache;
mod outcome;
mod show;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use bytes::Bytes;
use clap::builder::PossibleValue;
use clap::{Parser, ValueEnum};
use setgate_base::clock::Clock;
use setgate_dialects::normalize::{NormalizeInput, normalize};
use setgate_dialects::{BodyForm, forms};
use setgate_domain::event::NewEvent;
use setgate_domain::filter::Grant;
use setgate_domain::id::{DeliveryId, EventId, SubscriptionId, TableName};
use setgate_domain::json::{JsonLimits, Object};
use setgate_domain::secret::Secret;
use setgate_domain::source::{Compat, Form, Proof, Source, TIMESTAMP_TOLERANCE_S_DEFAULT};
use setgate_domain::table::{self, Delimiter};
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_sandbox::{Call, CallResult, CompiledFilter, EventView, MemoryTables};

use crate::cli::out::say;

pub(crate) use bench::check;

use bench::Bench;
use outcome::{Called, Outcome};

/// Options of `filter run`.
#[derive(Debug, Parser)]
pub struct RunArgs {
    /// The component, a .wasm file.
    #[arg(required_unless_present = "delivery")]
    file: Option<PathBuf>,
    /// Events: files in the product's format, or directories of such files (`*.json`); may be given more than once.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "delivery")]
    event: Vec<PathBuf>,
    /// The form of the events, as configured for a source.
    #[arg(long, value_enum, default_value = "set", conflicts_with = "delivery")]
    form: FormName,
    /// The `iss` of the events, as configured for a source, if their form names no issuer.
    #[arg(long, value_name = "URL", conflicts_with = "delivery")]
    issuer: Option<String>,
    /// Print one line of JSON per event instead of text.
    #[arg(long, conflicts_with = "delivery")]
    json: bool,
    /// The binding's `config`: a JSON object, or @ and the name of a file with one.
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}", conflicts_with = "delivery")]
    config: String,
    /// A secret of the binding; may be given more than once. With --delivery, FILTER/NAME=VALUE applies to one filter
    /// only.
    #[arg(long, value_name = "NAME=VALUE")]
    secret: Vec<String>,
    /// A look-up table: JSON lines of {"key": ..., "value": ...}, or CSV with a header in a file that ends with .csv;
    /// may be given more than once.
    #[arg(long, value_name = "NAME=FILE", conflicts_with = "delivery")]
    table: Vec<String>,
    /// Column separator of CSV tables: `,`, `;`, `|` or `tab`.
    #[arg(long, conflicts_with = "delivery")]
    delimiter: Option<Delimiter>,
    /// Fuel for the call.
    #[arg(long, value_name = "UNITS", conflicts_with = "delivery")]
    fuel: Option<u64>,
    /// When the events were accepted (RFC 3339), which is the time of the filter's clock. Default: each event's `iat`.
    #[arg(long, value_name = "INSTANT", conflicts_with = "delivery")]
    accepted_at: Option<String>,
    #[command(flatten)]
    again: again::Args,
}

/// A source's form as a command line value.
#[derive(Debug, Clone, Copy)]
struct FormName(&'static BodyForm);

impl ValueEnum for FormName {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<FormName>> = LazyLock::new(|| forms().map(FormName).collect());
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name))
    }
}

/// Runs a filter over events and prints the results, or reruns the chain of a delivery.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let file = match &args.file {
        Some(file) if !args.event.is_empty() => file,
        _ => return again::run(args.again, &args.secret).await,
    };
    let mut bench = Bench::new()?;
    if let Some(fuel) = args.fuel {
        bench.quota.fuel_per_call = fuel;
        bench.quota.fuel_per_event_byte = 0;
    }
    let desk = Desk {
        source: source(args.form.0.form, args.issuer.clone())?,
        accepted_at: args.accepted_at.as_deref().map(instant).transpose()?,
        config: config(&args.config)?.into(),
        secrets: secrets(&args.secret)?,
        tables: Arc::new(tables(&args.table, args.delimiter)?),
    };
    let events = outcome::files(&args.event)?;
    let compiled = match bench.take_in(file).await? {
        Ok(compiled) => compiled,
        Err(why) => {
            outcome::say_not_taken(file, &why, args.json)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let (mut kinds, mut all_good) = (Vec::new(), true);
    for (number, file) in (0..).zip(&events) {
        let outcome = desk.try_out(&bench, &compiled, file, number).await?;
        kinds.push(outcome.kind());
        all_good &= outcome.is_good();
        if args.json {
            outcome.say_json(file, &bench.quota)?;
            continue;
        }
        if events.len() > 1 {
            if number > 0 {
                say!("");
            }
            say!("event     {}", file.display());
        }
        outcome.say(&compiled, &bench.quota)?;
    }
    if events.len() > 1 && !args.json {
        say!("");
        say!("{}", outcome::summary(&kinds));
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything passed to the filter along with each event.
struct Desk {
    source: Source,
    accepted_at: Option<Timestamp>,
    config: Arc<str>,
    secrets: BTreeMap<String, Secret>,
    tables: Arc<MemoryTables>,
}

impl Desk {
    /// Ingests an event as a host does and calls the filter with it. `number` makes the event's id unique.
    async fn try_out(
        &self,
        bench: &Bench,
        compiled: &CompiledFilter,
        file: &Path,
        number: u128,
    ) -> anyhow::Result<Outcome> {
        let body = Bytes::from(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
        let taken_at = self.accepted_at.unwrap_or_else(|| Clock::system().now());
        let inbound = NormalizeInput { body: &body, content_type: None, delivery_id: None };
        let id = |at| EventId::new(at, number);
        let normalized = normalize(&self.source, inbound, taken_at, id(taken_at), JsonLimits::default());
        let mut event = match normalized {
            Ok(event) => event,
            Err(why) => return Ok(Outcome::Refused(why)),
        };
        if self.accepted_at.is_none() {
            // Deterministic, so that a run can be repeated byte for byte.
            event.accepted_at = Timestamp::from_millis(event.set.issued_at.saturating_mul(1_000));
            event.id = id(event.accepted_at);
        }
        let call = Call {
            digest: compiled.digest,
            filter: "local".parse()?,
            event: self.view(&event),
            config: self.config.clone(),
            secrets: self.secrets.clone(),
            grants: Grant::ALL.into(),
            tables: self.tables.clone(),
            quota: bench.quota.clone(),
            reuse: None,
        };
        let CallResult { verdict, run, redactor, .. } = bench.sandbox.run(call).await;
        Ok(Outcome::Called(Box::new(Called::new(event, verdict, run, &bench.quota, &redactor))))
    }

    fn view(&self, event: &NewEvent) -> EventView {
        let subscription = SubscriptionId::new(event.accepted_at, 0);
        EventView {
            id: event.id,
            issuer: event.set.issuer.clone(),
            issued_at: event.set.issued_at,
            accepted_at: event.accepted_at,
            types: event.set.types.clone(),
            subject: event.subject.clone(),
            tenant: event.tenant.clone(),
            source: event.source.clone(),
            subscription,
            delivery: DeliveryId { event: event.id, subscription, run: 0 },
            claims: event.set.text.clone(),
        }
    }
}

/// A source of that form without proofs.
fn source(form: Form, issuer: Option<String>) -> anyhow::Result<Source> {
    Ok(Source {
        tenant: "local".parse()?,
        name: "local".parse()?,
        form,
        proofs: vec![Proof::Open],
        issuer,
        issuers_allowed: Vec::new(),
        websub_topics: Vec::new(),
        timestamp_tolerance_s: TIMESTAMP_TOLERANCE_S_DEFAULT,
        allow_sha1: false,
        allow_plain_event_names: false,
        replace_lone_surrogates: false,
        compat: Compat::default(),
        created_at: Timestamp::from_millis(0),
    })
}

fn instant(text: &str) -> anyhow::Result<Timestamp> {
    Timestamp::parse(text).with_context(|| format!("`{text}` is not an RFC 3339 timestamp"))
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
        let (name, value) = pair.split_once('=').context("--secret must be NAME=VALUE")?;
        Ok((name.to_owned(), Secret::new(value.to_owned())))
    };
    given.iter().map(parse).collect()
}

fn tables(given: &[String], delimiter: Option<Delimiter>) -> anyhow::Result<MemoryTables> {
    let mut tables = BTreeMap::<String, HashMap<String, Arc<str>>>::new();
    for pair in given {
        let (name, file) = pair.split_once('=').context("--table must be NAME=FILE")?;
        let name: TableName = name.parse()?;
        let path = Path::new(file);
        let mut text = std::fs::read(path).with_context(|| format!("cannot read {file}"))?;
        let wrong = |why: String| anyhow::anyhow!("{file}: {why}");
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            text = table::from_csv(&text, delimiter, Quota::default().table_bytes_max).map_err(wrong)?;
        }
        let rows = table::parse(&text).map_err(wrong)?;
        tables.insert(name.to_string(), rows);
    }
    Ok(MemoryTables(tables))
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
