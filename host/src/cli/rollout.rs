//! `setgate filter upload | list | activate | rollback | backtest | shadow | canary | rollout | promote | end`: manages
//! a tenant's filters on a running host through its API.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use setgate_domain::id::{Digest, FilterName, SourceName, SubscriptionId, TenantId};

use super::client::Client;
use super::connection::Connection;
use crate::cli::out::{self, say};

/// The subcommands that manage filters on a host.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Upload a component as the newest version of a filter, and activate it.
    Upload {
        /// The filter; created if there is none of that name.
        name: FilterName,
        /// The component, a .wasm file.
        file: PathBuf,
        /// Do not activate it, but leave it for a backtest, a shadow run or a canary.
        #[arg(long)]
        no_activate: bool,
        #[command(flatten)]
        at: At,
    },
    /// List the tenant's filters with their versions.
    List {
        #[command(flatten)]
        at: At,
    },
    /// Activate a version for new deliveries.
    Activate {
        /// The filter.
        name: FilterName,
        /// The version, `sha256:...`.
        digest: Digest,
        #[command(flatten)]
        at: At,
    },
    /// Activate the previously active version again. This ends a rollout.
    Rollback {
        /// The filter.
        name: FilterName,
        #[command(flatten)]
        at: At,
    },
    /// Run stored events through the active version and another one, and show the differences. Nothing is stored or
    /// sent.
    Backtest {
        /// The filter.
        name: FilterName,
        /// The version to try, `sha256:...`.
        digest: Digest,
        /// Events of each subscription, newest first.
        #[arg(long, default_value_t = 100)]
        events: usize,
        /// Only this subscription.
        #[arg(long)]
        subscription: Option<SubscriptionId>,
        /// Only events of this source.
        #[arg(long)]
        source: Option<SourceName>,
        #[command(flatten)]
        at: At,
    },
    /// Run a version beside the active one on live events; its verdicts are counted and discarded.
    Shadow {
        /// The filter.
        name: FilterName,
        /// The candidate, `sha256:...`.
        digest: Digest,
        #[command(flatten)]
        at: At,
    },
    /// Run a version for a share of the subjects; it is rolled back if it faults too often.
    Canary {
        /// The filter.
        name: FilterName,
        /// The candidate, `sha256:...`.
        digest: Digest,
        /// The share of subjects, 0 to 100.
        #[arg(long)]
        percent: f64,
        /// Percentage of its calls that may fault. The host's default: 5.
        #[arg(long)]
        faults_percent_max: Option<f64>,
        /// Calls before faults are evaluated. The host's default: 20.
        #[arg(long)]
        calls_min: Option<u64>,
        #[command(flatten)]
        at: At,
    },
    /// Show a filter's rollout and its results so far.
    Rollout {
        /// The filter.
        name: FilterName,
        #[command(flatten)]
        at: At,
    },
    /// Make the candidate of a rollout the active version.
    Promote {
        /// The filter.
        name: FilterName,
        #[command(flatten)]
        at: At,
    },
    /// End a rollout: the active version stays active.
    End {
        /// The filter.
        name: FilterName,
        #[command(flatten)]
        at: At,
    },
}

// Host, tenant and output options. Not a doc comment: clap would use it as the command's own description.
#[derive(Debug, Args)]
pub(crate) struct At {
    #[command(flatten)]
    connection: Connection,
    /// The tenant.
    #[arg(long, env = "SETGATE_TENANT")]
    tenant: TenantId,
    /// Print the host's answer unchanged.
    #[arg(long)]
    json: bool,
}

/// Sends the request and prints the answer.
pub(crate) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let post = |below: &str, body: Value| (Method::POST, below.to_owned(), Some(body));
    let (at, name, (method, below, body), show): (_, _, _, fn(&Value)) = match command {
        Command::Upload { name, file, no_activate, at } => {
            let wasm = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let query = if no_activate { "?activate=false" } else { "" };
            let path = format!("{}/{name}{query}", at.filters());
            let answer = at.client()?.upload(&path, "application/wasm", wasm.into()).await?;
            at.print(&answer, show_filter)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::List { at } => (at, None, (Method::GET, String::new(), None), show_list),
        Command::Activate { name, digest, at } => {
            (at, Some(name), post("/activate", json!({"digest": digest})), show_filter)
        }
        Command::Rollback { name, at } => (at, Some(name), post("/rollback", json!({})), show_filter),
        Command::Backtest { name, digest, events, subscription, source, at } => {
            let mut body = json!({"digest": digest, "events": events});
            insert(&mut body, "subscription", json!(subscription));
            insert(&mut body, "source", json!(source));
            (at, Some(name), post("/backtest", body), show_backtest)
        }
        Command::Shadow { name, digest, at } => {
            let body = json!({"digest": digest, "mode": "shadow"});
            (at, Some(name), (Method::PUT, "/rollout".to_owned(), Some(body)), show_rollout)
        }
        Command::Canary { name, digest, percent, faults_percent_max, calls_min, at } => {
            let mut body = json!({"digest": digest, "mode": "canary", "percent": percent});
            insert(&mut body, "faults_percent_max", json!(faults_percent_max));
            insert(&mut body, "calls_min", json!(calls_min));
            (at, Some(name), (Method::PUT, "/rollout".to_owned(), Some(body)), show_rollout)
        }
        Command::Rollout { name, at } => (at, Some(name), (Method::GET, "/rollout".to_owned(), None), show_rollout),
        Command::Promote { name, at } => (at, Some(name), post("/rollout/promote", json!({})), show_rollout),
        Command::End { name, at } => (at, Some(name), (Method::DELETE, "/rollout".to_owned(), None), show_rollout),
    };
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    let answer = at.client()?.json(method, &format!("{}{name}{below}", at.filters()), body.as_ref()).await?;
    at.print(&answer, show)?;
    Ok(ExitCode::SUCCESS)
}

impl At {
    fn client(&self) -> anyhow::Result<Client> {
        self.connection.with_key()
    }

    fn filters(&self) -> String {
        format!("/api/v1/tenants/{}/filters", self.tenant)
    }

    fn print(&self, answer: &Value, show: fn(&Value)) -> anyhow::Result<()> {
        if self.json {
            out::json(answer)?;
        } else {
            show(answer);
        }
        Ok(())
    }
}

/// Adds a member if it has a value.
fn insert(body: &mut Value, member: &str, value: Value) {
    if !value.is_null() {
        body[member] = value;
    }
}

/// A value of the answer as text, without the quotes of a string.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn show_list(answer: &Value) {
    for filter in items(&answer["items"]) {
        show_filter(filter);
    }
}

fn show_filter(filter: &Value) {
    say!("{}", text(&filter["name"]));
    for version in items(&filter["versions"]) {
        let state = if version["active"] == true {
            "active".to_owned()
        } else if filter["rollout"]["digest"] == version["digest"] {
            mode(&filter["rollout"])
        } else if version["withdrawn"].is_string() {
            "withdrawn".to_owned()
        } else {
            "-".to_owned()
        };
        let (digest, uploaded_at) = (text(&version["digest"]), text(&version["uploaded_at"]));
        say!("  {digest}  {state:<12}  {:>9} bytes  {uploaded_at}", text(&version["size_bytes"]));
    }
}

fn mode(rollout: &Value) -> String {
    match &rollout["percent"] {
        Value::Null => text(&rollout["mode"]),
        percent => format!("{} {percent}%", text(&rollout["mode"])),
    }
}

fn show_rollout(answer: &Value) {
    say!("filter     {}", text(&answer["filter"]));
    say!("active     {}", text(&answer["active"]));
    let rollout = &answer["rollout"];
    if rollout.is_null() {
        say!("rollout    none");
    } else {
        say!("candidate  {}", text(&rollout["digest"]));
        say!("rollout    {} since {}", mode(rollout), text(&rollout["started_at"]));
    }
    let report = &answer["report"];
    if let Some(canary) = report.get("canary") {
        let limit = format!("{}% may fault, from {} calls", rollout["faults_percent_max"], rollout["calls_min"]);
        say!("calls      {}, {} faulted; {limit}", canary["calls"], canary["faults"]);
    }
    if let Some(shadow) = report.get("shadow") {
        let count = |name: &str| text(&shadow[name]);
        say!("compared   {}: {} same, {} different", count("runs"), count("same"), count("different"));
        say!("skipped    {} (limits), {} undecided", count("skipped"), count("undecided"));
        for version in ["active", "candidate"] {
            let cost = &shadow[version];
            say!(
                "{version:<9}  {} faults, {} fuel, {} us",
                text(&cost["faults"]),
                text(&cost["fuel"]),
                text(&cost["time_us"])
            );
        }
        items(&shadow["samples"]).for_each(show_difference);
    }
    if let Some(since) = report["counted_since"].as_str() {
        say!("counted    since {since}");
    }
    let last = &answer["last_rollout"];
    if !last.is_null() {
        let (digest, at) = (text(&last["digest"]), text(&last["at"]));
        say!("last       {} of {digest} ended at {at}: {}", mode(last), text(&last["reason"]));
        say!("           {} calls, {} faults", last["calls"], last["faults"]);
    }
}

fn show_backtest(report: &Value) {
    let count = |name: &str| text(&report[name]);
    say!("filter     {}", count("filter"));
    say!(
        "events     {} over {} subscriptions: {} unchanged, {} changed",
        count("events"),
        count("subscriptions"),
        count("unchanged"),
        count("changed")
    );
    if report["complete"] != true {
        say!("           stopped at the time limit before all events were run");
    }
    for version in ["active", "candidate"] {
        let calls = &report[version];
        say!("{version:<9}  {}", text(&calls["digest"]));
        say!("           {} calls, {} faults", calls["calls"], calls["faults"]);
        for (member, unit) in [("fuel", "fuel"), ("time_us", "us")] {
            let spread = &calls[member];
            say!("           {unit:<4} {} total, {} median, {} max", spread["sum"], spread["p50"], spread["max"]);
        }
    }
    items(&report["changes"]).for_each(show_difference);
    let listed = items(&report["changes"]).count() as u64;
    let more = report["changed"].as_u64().unwrap_or(0).saturating_sub(listed);
    if more > 0 {
        say!("and {more} more with differences");
    }
}

fn show_difference(difference: &Value) {
    say!("{} {}", text(&difference["event"]), text(&difference["subscription"]));
    for version in ["active", "candidate"] {
        say!("  {version:<9} {}", said(&difference[version]));
    }
    for line in items(&difference["claims"]) {
        say!("    {}", text(line));
    }
}

fn said(said: &Value) -> String {
    let mut words = vec![match &said["verdict"] {
        Value::String(verdict) => verdict.clone(),
        _ if said["fault"].is_object() => format!("fault {}", said["fault"]),
        _ => "not reached".to_owned(),
    }];
    if let Some(reason) = said["reason"].as_str() {
        words.push(format!("({reason})"));
    }
    if let Some(end) = said["end"].as_str() {
        words.push(format!("-> {end}"));
    }
    words.join(" ")
}
