//! The API against its own description: schemathesis calls every operation of a live host's `/openapi.json` with data that
//! fits and data that does not, in chains and alone, and looks at each answer.
//!
//! The host has a tenant that owns one of everything, so that names and ids in paths are often real. What is looked for: no
//! 5xx, no status and no content type that is not in the document, bodies and headers as their schemas say, nothing
//! answered without a key, no method taken that is not there, bad data refused. Then the controls: the same over a
//! document from which something true was taken out has to fail, else the checks look at nothing.

pub mod clients;
mod control;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::{Everything, Host};
pub use control::CONTROLS;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `schemathesis`.
    pub program: PathBuf,
    /// Calls of each operation and phase at the most.
    pub examples: u32,
    /// The same seed makes the same calls.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations in the document.
    pub operations: usize,
    /// Of them, those that were answered with success at least once.
    pub succeeded: usize,
    /// The others.
    pub never: Vec<String>,
    /// Calls made.
    pub calls: usize,
    /// What is wrong, in words.
    pub faults: Vec<String>,
    /// Controls that found what was taken out, of all there are.
    pub controls: usize,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.controls == CONTROLS.len()
    }

    /// One line.
    pub fn summary(&self) -> String {
        format!(
            "operations={} succeeded={} calls={} faults={} controls={}/{}",
            self.operations,
            self.succeeded,
            self.calls,
            self.faults.len(),
            self.controls,
            CONTROLS.len()
        )
    }
}

/// Runs all of it against a host of its own.
pub async fn run(options: &Options) -> Report {
    // Far more of everything is made than anybody would by hand.
    let mut host = Host::with().config(QUOTA).start().await;
    let all = Everything::at(&host).await;
    let document = host.stranger().get("/openapi.json").await.expect(200).json();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).expect("a folder in a temporary one");
        place
    };
    let mut report = Report::default();
    // First, while everything is there that they look at.
    for control in CONTROLS {
        let place = place(control.name);
        settings::write(&host, &all, &place).await;
        if control.bites(options, &host, &document, &place).await {
            report.controls += 1;
        } else {
            report.faults.push(format!("the control `{}` found nothing: the check looks at nothing", control.name));
        }
    }
    let mut succeeded = BTreeSet::new();
    // What takes the ground from under the others comes last.
    for (name, which) in [("most", "--exclude-operation-id"), ("last", "--include-operation-id")] {
        let place = place(name);
        settings::write(&host, &all, &place).await;
        let examples = options.examples.to_string();
        let only = LAST.iter().flat_map(|id| [which, id]).chain(["--exclude-operation-id", ENDLESS]);
        let more: Vec<_> = ["--max-examples", &examples].into_iter().chain(only).collect();
        let ended = schemathesis(options, &host, &document, &place, &more).await;
        if !ended.good {
            report.faults.push(ended.said);
        }
        report.calls += count(&place, &mut succeeded);
    }
    for (method, path, id) in operations(&document) {
        report.operations += 1;
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let is_it = |called: &[String]| {
            let mut both = parts.iter().zip(called);
            called.len() == parts.len() && both.all(|(part, given)| part.starts_with('{') || part == given)
        };
        if succeeded.iter().any(|(how, called)| *how == method && is_it(called)) {
            report.succeeded += 1;
        } else {
            report.never.push(id);
        }
    }
    if host.is_listening() != Ok(true) || host.log().contains("panicked at") {
        report.faults.push(format!("the host did not come through it:\n{}", host.log()));
    }
    report
}

/// So that making things goes on to succeed.
const QUOTA: &str = "[quota]\nkeys_max = 100000\nsources_max = 100000\nsubscriptions_max = 100000\nfilters_max = 10000\n\
                     tables_max = 10000\n[history]\nreplays_per_tenant_max = 1000\n";

/// Operations that are called when all others have been: without its tenant, or its key, nothing else succeeds.
const LAST: [&str; 2] = ["removeTenant", "removeOperatorKey"];

/// A stream that ends when its client leaves, which schemathesis does not. `tests/it/tail.rs` reads it.
const ENDLESS: &str = "tailDeliveries";

/// How a run of schemathesis ended.
struct Ended {
    good: bool,
    said: String,
}

/// Runs it over a document against a host, with the settings in `folder`.
async fn schemathesis(options: &Options, host: &Host, document: &Value, folder: &Path, more: &[&str]) -> Ended {
    let file = folder.join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("a writable folder");
    let mut command = Command::new(&options.program);
    command
        .current_dir(folder)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", folder)
        .args(["--config-file", "schemathesis.toml", "run", "openapi.json", "--url", &host.base()])
        .args(["--checks", "all", "--exclude-checks", LEFT_OUT, "--continue-on-failure", "--no-shrink"])
        .args(["--generation-database", "none", "--warnings", "off"])
        .args(["--request-timeout", "30", "--report", "har", "--report-har-path", "calls.har", "--no-color"])
        .args(["--seed", &options.seed.to_string()])
        .args(more)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await;
    let output = output.unwrap_or_else(|error| panic!("{} cannot be started: {error}", options.program.display()));
    let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
    Ended { good: output.status.success(), said }
}

/// Checks that do not hold here, with the reason.
///
/// - `positive_data_acceptance`: what fits the schema need not fit the host: an endpoint that it may not send to, a source
///   that is not there.
/// - `ensure_resource_availability`: what was just made may be removed by a call that runs beside.
const LEFT_OUT: &str = "positive_data_acceptance,ensure_resource_availability";

/// Method, and the parts of a path.
type Called = (String, Vec<String>);

/// Notes what was answered with success, and gives how many calls there were.
fn count(folder: &Path, succeeded: &mut BTreeSet<Called>) -> usize {
    let har = std::fs::read(folder.join("calls.har")).unwrap_or_default();
    let har: Value = serde_json::from_slice(&har).unwrap_or_default();
    let entries = har["log"]["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    for entry in entries {
        let status = entry["response"]["status"].as_u64().unwrap_or_default();
        if (200..400).contains(&status) {
            let method = entry["request"]["method"].as_str().unwrap_or_default();
            let url = entry["request"]["url"].as_str().unwrap_or_default();
            let path = url.splitn(4, '/').nth(3).unwrap_or_default().split('?').next().unwrap_or_default();
            succeeded.insert((method.to_owned(), path.split('/').map(str::to_owned).collect()));
        }
    }
    entries.len()
}

/// Method, path and id of each operation.
fn operations(document: &Value) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let id = operation["operationId"].as_str().unwrap_or_default();
            found.push((method.to_ascii_uppercase(), path.clone(), id.to_owned()));
        }
    }
    found
}
