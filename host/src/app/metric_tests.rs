//! Every metric of the source is described, in `HELP` and on the page for operators.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use setgate_base::telemetry::help::HELP;

/// Every metric that has a meaning here or in the sandbox.
fn described() -> BTreeSet<String> {
    let own = HELP.iter().map(|(name, _)| *name);
    own.chain(setgate_sandbox::METRICS.iter().map(|(name, ..)| *name)).map(str::to_owned).collect()
}

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of all constants of the source such as `const INGEST: &str = "setgate_ingest_total";`.
fn constants() -> BTreeSet<String> {
    let mut folders = vec![manifest().join("src"), manifest().join("crates")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let values = text.match_indices(": &str = \"setgate_").map(|(at, found)| &text[at + found.len()..]);
                names.extend(values.map(|rest| format!("setgate_{}", rest.split('"').next().unwrap_or_default())));
            }
        }
    }
    names
}

#[test]
fn every_metric_of_the_source_has_a_meaning() {
    let (constants, described) = (constants(), described());
    assert!(constants.len() > 40, "{constants:?}");
    let missing: Vec<_> = constants.difference(&described).collect();
    assert!(missing.is_empty(), "give these a line in `HELP`: {missing:?}");
}

#[test]
fn the_operators_page_documents_every_metric() {
    let page = std::fs::read_to_string(manifest().join("../docs/how-to/operations.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).expect("a section Metrics");
    let row = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned());
    let rows: Vec<String> = section.lines().filter_map(row).collect();
    let documented: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(documented, described(), "rows of docs/how-to/operations.md, Metrics, and the metrics of the host");
    assert_eq!(rows.len(), documented.len(), "each once: {rows:?}");
}
