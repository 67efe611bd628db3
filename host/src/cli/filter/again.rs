//! `setgate filter run --delivery`: reruns a delivery's recorded filter chain locally. Components, tables and settings
//! are downloaded from the host. Secrets must be given on the command line, since a host never returns them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Method;
use setgate_base::crypto::sha256;
use setgate_domain::chain::{Chain, ChainEnd, ChainResult, ChainStep, apply};
use setgate_domain::filter::Grant;
use setgate_domain::id::{DeliveryId, Digest, FilterName, TenantId};
use setgate_domain::reproduction::{RecordedStep, Reproduction, differences, irreproducible_reason};
use setgate_domain::secret::Secret;
use setgate_domain::set::SetToken;
use setgate_domain::table;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::FilterRun;
use setgate_sandbox::{Call, EventView, MemoryTables};

use super::bench::Bench;
use super::show::{difference, grouped};
use crate::cli::client::Client;
use crate::cli::connection::Connection;
use crate::cli::out::say;

/// Minimum time (ms) a call may take here: the recorded limit may be too short for a slower machine.
const WALL_MS_MIN: u64 = 60_000;

/// Options that select a recorded delivery.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rerun the chain of this delivery, as recorded by its host, and compare the results. The key needs read access.
    #[arg(long, value_name = "ID", conflicts_with_all = ["file", "event"])]
    delivery: Option<DeliveryId>,
    /// With --delivery: the tenant that owns it.
    // Not `requires`: the variable may be set for other commands.
    #[arg(long, env = "SETGATE_TENANT")]
    tenant: Option<TenantId>,
    #[command(flatten)]
    connection: Connection,
    /// With --delivery: run this component instead of the chain's filter of that name.
    #[arg(long, value_name = "FILTER=FILE", requires = "delivery")]
    replace: Vec<String>,
}

/// Reruns a delivery's chain. Succeeds if the result is the same, byte for byte.
pub(super) async fn run(args: Args, secrets: &[String]) -> anyhow::Result<ExitCode> {
    let (Some(delivery), Some(tenant)) = (args.delivery, args.tenant) else {
        bail!("--delivery requires --tenant, or the variable SETGATE_TENANT");
    };
    let host = Host { client: args.connection.with_key()?, api: format!("/api/v1/tenants/{tenant}") };
    let asked = host.get(&format!("/deliveries/{delivery}/reproduction")).await?;
    let mut kept: Reproduction = serde_json::from_slice(&asked).context("the host's record of the delivery")?;
    show_head(&kept);
    let secrets = Secrets::new(secrets, &kept.steps)?;

    let mut components = HashMap::new();
    for step in &kept.steps {
        let path = format!("/filters/{}/versions/{}", step.filter, step.digest);
        components.insert(step.digest, host.named(&path, step.digest).await?);
    }
    for (name, wasm) in replacements(&args.replace, &kept.steps)? {
        let digest = Digest(sha256(&wasm));
        say!("replaced  {name} by {digest}");
        kept.steps.iter_mut().filter(|step| step.filter == name).for_each(|step| step.digest = digest);
        components.insert(digest, wasm);
    }
    let mut tables = BTreeMap::new();
    for (name, digest) in &kept.tables {
        let rows = host.named(&format!("/tables/{name}/versions/{digest}"), *digest).await?;
        let rows = table::parse(&rows).map_err(|why| anyhow::anyhow!("the table `{name}`: {why}"))?;
        tables.insert(name.to_string(), rows);
    }

    let mut limits = kept.limits;
    limits.wall_ms_max = limits.wall_ms_max.max(WALL_MS_MIN);
    let bench = Bench::over(components, &limits)?;
    let ChainResult { end, runs } = chain(&bench, &kept, &secrets, Arc::new(MemoryTables(tables))).await;
    let here = bench.sandbox.engine_id();
    let engines: BTreeSet<_> = kept.runs.iter().filter_map(|run| run.engine.as_deref()).collect();
    for other in engines.into_iter().filter(|engine| *engine != here) {
        say!("engine    {here} here, {other} on record: fuel and the text of a trap may differ");
    }
    let claims = match &end {
        ChainEnd::Completed(claims) => Some(claims.as_ref().unwrap_or(&kept.event.set.text)),
        ChainEnd::Dropped(why) | ChainEnd::Held(why) | ChainEnd::Retry(why) => {
            say!("end       {why}");
            None
        }
    };
    let digest = claims.map(|text| Digest(sha256(text.as_bytes())));
    if let Some(digest) = digest {
        say!("claims    {digest}");
    }
    if let Some(reason) = kept.reason.or_else(|| irreproducible_reason(kept.steps.len(), None, &runs)) {
        say!("not reproducible: {reason}");
        return Ok(ExitCode::FAILURE);
    }
    let found = differences(&kept.runs, kept.claims, &runs, digest);
    if found.is_empty() {
        say!("reproduced byte for byte");
        return Ok(ExitCode::SUCCESS);
    }
    say!("different from the record:");
    found.iter().for_each(|difference| say!("  {difference}"));
    if let (Some(claims), true) = (claims, found.iter().any(|difference| difference.what == "claims")) {
        let recorded = host.get(&format!("/deliveries/{delivery}/claims")).await?;
        for line in difference(&serde_json::from_slice(&recorded)?, &serde_json::from_str(claims)?) {
            say!("  {line}");
        }
    }
    Ok(ExitCode::FAILURE)
}

/// The host with the record.
struct Host {
    client: Client,
    api: String,
}

impl Host {
    async fn get(&self, below: &str) -> anyhow::Result<Bytes> {
        self.client.succeed(Method::GET, &format!("{}{below}", self.api), &[], "").await
    }

    /// Downloads bytes and verifies their digest.
    async fn named(&self, below: &str, digest: Digest) -> anyhow::Result<Bytes> {
        let bytes = self.get(below).await?;
        if Digest(sha256(&bytes)) != digest {
            bail!(
                "GET {}: the digest of the response does not match",
                self.client.url(&format!("{}{below}", self.api))
            );
        }
        Ok(bytes)
    }
}

/// The given secrets, per step.
#[derive(Debug)]
struct Secrets(Vec<BTreeMap<String, Secret>>);

impl Secrets {
    /// Selects for each step the secrets of its binding. A missing one is an error, because the result would not be
    /// comparable.
    fn new(given: &[String], steps: &[RecordedStep]) -> anyhow::Result<Self> {
        let mut by_name = BTreeMap::new();
        for pair in given {
            let (name, value) = pair.split_once('=').context("--secret must be NAME=VALUE")?;
            by_name.insert(name, value);
        }
        let of_step = |step: &RecordedStep| {
            // A host decrypts secrets only for a filter that may read them.
            let wanted = step.secrets.iter().filter(|_| step.grants.contains(&Grant::Config));
            let find = |name: &String| {
                let own = format!("{}/{name}", step.filter);
                let value = by_name.get(own.as_str()).or_else(|| by_name.get(name.as_str()));
                let value = value.with_context(|| {
                    format!("the filter `{}` has a secret `{name}`: give it as --secret {own}=VALUE", step.filter)
                })?;
                Ok((name.clone(), Secret::new((*value).to_owned())))
            };
            wanted.map(find).collect::<anyhow::Result<_>>()
        };
        steps.iter().map(of_step).collect::<anyhow::Result<_>>().map(Self)
    }
}

fn replacements(given: &[String], steps: &[RecordedStep]) -> anyhow::Result<Vec<(FilterName, Bytes)>> {
    let read = |pair: &String| {
        let (name, file) = pair.split_once('=').context("--replace must be FILTER=FILE")?;
        let name: FilterName = name.parse()?;
        if !steps.iter().any(|step| step.filter == name) {
            bail!("--replace {pair}: the chain has no filter `{name}`");
        }
        let wasm = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
        Ok((name, wasm.into()))
    };
    given.iter().map(read).collect()
}

async fn chain(bench: &Bench, kept: &Reproduction, secrets: &Secrets, tables: Arc<MemoryTables>) -> ChainResult {
    let mut chain = Chain::new(&kept.event.set);
    for ((at, step), secrets) in (1..).zip(&kept.steps).zip(&secrets.0) {
        let call = Call {
            digest: step.digest,
            filter: step.filter.clone(),
            event: view(kept, chain.claims()),
            config: step.config.as_str().into(),
            secrets: secrets.clone(),
            grants: step.grants.clone(),
            tables: tables.clone(),
            quota: bench.quota.clone(),
            reuse: None,
        };
        let ran = bench.sandbox.run(call).await;
        let of = ChainStep { filter: &step.filter, on_fault: step.on_fault };
        let bytes_max = kept.limits.output_bytes_max;
        let applied = ran.verdict.and_then(|verdict| apply(chain.claims(), verdict, bytes_max, &ran.redactor));
        let end = chain.step(of, applied, ran.run);
        if let Some(run) = chain.last() {
            show_step(at, run);
        }
        if let Some(end) = end {
            return chain.end_with(end);
        }
    }
    chain.complete()
}

/// The event as the host passed it to the filters.
fn view(kept: &Reproduction, claims: &SetToken) -> EventView {
    let event = &kept.event;
    EventView {
        id: event.id,
        issuer: claims.issuer.clone(),
        issued_at: claims.issued_at,
        accepted_at: Timestamp::from_millis(event.accepted_at_ms),
        types: claims.types.clone(),
        subject: event.subject.clone(),
        tenant: event.tenant.clone(),
        source: event.source.clone(),
        subscription: event.delivery.subscription,
        delivery: event.delivery,
        claims: claims.text.clone(),
    }
}

fn show_head(kept: &Reproduction) {
    say!("delivery  {}", kept.event.delivery);
    say!("event     {} accepted {}", kept.event.id, Timestamp::from_millis(kept.event.accepted_at_ms));
    if !kept.limits_pinned {
        say!("limits    the tenant's current limits: the delivery is older than the record of limits");
    }
}

fn show_step(at: usize, run: &FilterRun) {
    let verdict = match (&run.verdict, &run.fault) {
        (Some(verdict), _) => verdict.as_str().to_owned(),
        (None, Some(fault)) => format!("fault {}", fault.kind()),
        (None, None) => "no verdict".to_owned(),
    };
    let (fuel, memory) = (grouped(run.fuel), grouped(run.memory_bytes >> 10));
    say!("step {at:<4} {} {verdict}, fuel {fuel}, memory {memory} KiB, {}", run.filter, run.digest);
    for line in &run.log {
        say!("  log     {:5?} {}", line.level, line.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::verdict::FaultPolicy;

    fn step(filter: &str, secrets: &[&str], grants: &[Grant]) -> RecordedStep {
        RecordedStep {
            filter: filter.parse().unwrap(),
            digest: Digest([1; 32]),
            config: "{}".into(),
            secrets: secrets.iter().map(ToString::to_string).collect(),
            grants: grants.iter().copied().collect(),
            on_fault: FaultPolicy::Hold,
            reuse: None,
        }
    }

    #[test]
    fn each_step_gets_its_own_secrets_and_a_missing_one_is_named() {
        let steps = [
            step("one", &["salt"], &[Grant::Config]),
            step("two", &["salt"], &[Grant::Config]),
            step("three", &["x"], &[]),
        ];
        let given = ["salt=a=b".to_owned(), "two/salt=c".to_owned()];
        let secrets = Secrets::new(&given, &steps).unwrap().0;
        let value = |step: usize| secrets[step].get("salt").map(|secret| secret.expose().to_owned());
        assert_eq!((value(0), value(1), secrets[2].len()), (Some("a=b".into()), Some("c".into()), 0));
        let error = Secrets::new(&given[1..], &steps).unwrap_err().to_string();
        assert!(error.contains("`one`") && error.contains("--secret one/salt="), "{error}");
    }
}
