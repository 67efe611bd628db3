//! Tests the API against its own description: schemathesis calls every operation in a live host's `/openapi.json` with
//! valid and invalid data, in chains and individually, and checks each answer.
//!
//! The host has a tenant that owns one of everything, so that names and ids in paths are often real. Checked are: no
//! 5xx, no undocumented status or content type, bodies and headers that match their schemas, no access without a key,
//! no undocumented methods, and refusal of invalid data. Then the controls: the same checks must fail for a document
//! from which a correct statement was removed, which proves that they check anything.

pub mod clients;
mod control;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{Everything, Host};
pub use control::CONTROLS;

/// Options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of the program `schemathesis`.
    pub program: PathBuf,
    /// Maximum number of calls of each operation per phase.
    pub examples: u32,
    /// The same seed makes the same calls.
    pub seed: u64,
}

/// The results.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations in the document.
    pub operations: usize,
    /// Operations that succeeded at least once.
    pub succeeded: usize,
    /// Operations that never succeeded.
    pub never: Vec<String>,
    /// Number of calls.
    pub calls: usize,
    /// Error messages.
    pub faults: Vec<String>,
    /// Number of controls that were detected.
    pub controls: usize,
}

impl Report {
    /// Whether there are no errors and all controls were detected.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.controls == CONTROLS.len()
    }

    /// A summary on one line.
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

/// Runs all checks on a new host.
pub async fn run(options: &Options) -> Report {
    let mut host = Host::with().config(SETTINGS).start().await;
    let all = Everything::at(&host).await;
    let change = json!({"quota": quota()}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let tenant = format!("/api/v1/tenants/{}", all.tenant.name);
    host.operator().send(Method::PATCH, &tenant, &headers, change).await.expect(200);
    let document = host.stranger().get("/openapi.json").await.expect(200).json();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).expect("a folder in a temporary one");
        place
    };
    let mut report = Report::default();
    // First, while the resources that they read still exist.
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
    // Operations that make the others fail come last.
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
        report.faults.push(format!("the host did not survive it:\n{}", host.log()));
    }
    report
}

/// The run creates far more replays than a user would. Without a public URL there are no issuer keys.
const SETTINGS: &str = "[history]\nreplays_per_tenant_max = 1000\n[server]\npublic_url = \"https://edge.example\"\n";

/// High quotas, so that creating resources keeps succeeding.
fn quota() -> Value {
    json!({"keys_max": 100_000, "sources_max": 100_000, "subscriptions_max": 100_000, "filters_max": 10_000,
        "tables_max": 10_000})
}

/// Operations that are called last: without its tenant or its key, nothing else succeeds.
const LAST: [&str; 2] = ["removeTenant", "removeOperatorKey"];

/// A stream that ends only if its client disconnects, which schemathesis does not do. `tests/it/tail.rs` tests it.
const ENDLESS: &str = "tailDeliveries";

/// The result of a schemathesis run.
struct Ended {
    good: bool,
    said: String,
}

/// Runs it with a document on a host, with the settings in `folder`.
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

/// Checks that do not apply, with the reason.
///
/// - `positive_data_acceptance`: data that matches the schema may still be refused, such as a forbidden endpoint or a
///   source that does not exist.
/// - `ensure_resource_availability`: a new resource may be removed by a concurrent call.
const LEFT_OUT: &str = "positive_data_acceptance,ensure_resource_availability";

/// Method, and the segments of a path.
type Called = (String, Vec<String>);

/// Records the operations that succeeded, and returns the number of calls.
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
