//! The alert rules of `deploy/`, run by Prometheus' own `promtool` over the series of a scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use setgate_tests::{Host, place};
use tokio::process::Command;

/// Minutes of unchanged samples before a change.
const MINUTES_BEFORE: usize = 30;

/// Values by series, each series as `/metrics` writes it.
pub(super) type Scrape = BTreeMap<String, String>;

/// The samples of a series after those of the scrape.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// A gauge has this value.
    To(&'static str),
    /// A counter has counted once more.
    Once,
    /// A counter rises by so many each minute.
    PerMinute(u32),
}

/// Samples of one host, and the alerts that have to fire at some minutes of them.
pub(super) struct Case {
    name: String,
    /// By series, in the notation of `promtool`: one sample for each minute.
    samples: BTreeMap<String, String>,
    expected: Vec<(usize, Vec<String>)>,
}

impl Case {
    /// A host whose series stay as they are for so many minutes: no alert may fire.
    pub(super) fn steady(name: &str, scrape: &Scrape, minutes: usize) -> Self {
        let steady = |(series, value): (&String, &String)| (series.clone(), format!("{value}+0x{minutes}"));
        let mut samples: BTreeMap<_, _> = scrape.iter().map(steady).collect();
        // Made by Prometheus for each target.
        samples.insert("up".to_owned(), format!("1+0x{minutes}"));
        Self { name: name.to_owned(), samples, expected: vec![(minutes, Vec::new())] }
    }

    /// The same host, on which some series change after [`MINUTES_BEFORE`]. `expected` has minutes since then, with the alerts
    /// that fire at that time.
    ///
    /// # Panics
    /// If the scrape has no series of such a name.
    pub(super) fn changed(
        name: &str,
        scrape: &Scrape,
        changes: &[(String, Change)],
        expected: &[(usize, &[&str])],
    ) -> Self {
        let last = expected.iter().map(|(minute, _)| *minute).max().unwrap_or_default();
        let mut case = Self::steady(name, scrape, MINUTES_BEFORE + last);
        for (series, change) in changes {
            let value = if series == "up" { Some("1") } else { scrape.get(series).map(String::as_str) };
            let value = value.unwrap_or_else(|| panic!("{name}: the host exports no {series}"));
            let after = match change {
                Change::To(value) => format!("{value}+0x{last}"),
                Change::Once => format!("{}+0x{last}", value.parse::<f64>().unwrap() + 1.0),
                Change::PerMinute(count) => format!("{value}+{count}x{last}"),
            };
            case.samples.insert(series.clone(), format!("{value}+0x{} {after}", MINUTES_BEFORE - 1));
        }
        let at = |(minute, firing): &(usize, &[&str])| {
            (MINUTES_BEFORE + minute, firing.iter().map(ToString::to_string).collect())
        };
        case.expected = expected.iter().map(at).collect();
        case.expected.push((MINUTES_BEFORE - 1, Vec::new()));
        case
    }

    /// A host that was scraped twice: the first samples for [`MINUTES_BEFORE`], then the second. The alerts fire 3 minutes later.
    pub(super) fn between(name: &str, before: &Scrape, after: &Scrape, firing: &[&str]) -> Self {
        let mut case = Self::changed(name, after, &[], &[(3, firing)]);
        for (series, last) in after {
            // A series that did not exist has no samples, as in Prometheus.
            let first = before.get(series);
            let first =
                first.map_or(format!("_x{MINUTES_BEFORE}"), |first| format!("{first}+0x{}", MINUTES_BEFORE - 1));
            case.samples.insert(series.clone(), format!("{first} {last}+0x3"));
        }
        case
    }
}

/// The program; `None` if it is not installed and not required.
pub(super) async fn promtool(story: &str) -> Option<PathBuf> {
    let unpacked = place::target_dir().join("promtool/usr/bin/promtool");
    for program in [PathBuf::from("promtool"), unpacked] {
        let version =
            Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if version.is_ok_and(|status| status.success()) {
            return Some(program);
        }
    }
    let required = ["SETGATE_REQUIRE_INTEROP", "SETGATE_REQUIRE_PROMTOOL"].into_iter().any(place::is_on);
    assert!(!required, "promtool is required and not installed: `cargo xtask test` provides it");
    place::skip(story, "promtool is not installed");
    None
}

pub(super) fn file() -> PathBuf {
    place::root().join("deploy/prometheus/setgate.rules.yml")
}

/// The alerts of the file.
pub(super) fn alerts() -> BTreeSet<String> {
    let text = std::fs::read_to_string(file()).unwrap();
    text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

/// The series that a host exports.
pub(super) async fn scrape(host: &Host) -> Scrape {
    let text = host.operator().get("/metrics").await.expect(200).text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Runs the rules over the cases; the error is the report of `promtool`.
pub(super) async fn check(promtool: &Path, cases: &[Case]) -> Result<(), String> {
    let mut text = format!("rule_files: [\"{}\"]\nevaluation_interval: 1m\ntests:\n", file().display());
    for case in cases {
        case.write(&mut text).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yml");
    std::fs::write(&file, text).unwrap();
    let ended = Command::new(promtool).args(["test", "rules"]).arg(&file).output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    if ended.status.success() { Ok(()) } else { Err(said) }
}

impl Case {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "- name: '{}'\n  interval: 1m\n  input_series:", self.name)?;
        for (series, values) in &self.samples {
            writeln!(text, "  - series: '{}'\n    values: '{values}'", stored(series))?;
        }
        writeln!(text, "  promql_expr_test:")?;
        for (minute, firing) in &self.expected {
            let expr = "count by (alertname) (ALERTS{alertstate=\"firing\"})";
            writeln!(text, "  - expr: '{expr}'\n    eval_time: {minute}m\n    exp_samples:")?;
            for alert in firing {
                writeln!(text, "    - labels: '{{alertname=\"{alert}\"}}'\n      value: 1")?;
            }
        }
        Ok(())
    }
}

/// A series as Prometheus stores it: with the labels of its target.
fn stored(series: &str) -> String {
    let target = "instance=\"gate\",job=\"setgate\"";
    match series.strip_suffix('}') {
        Some(labelled) => format!("{labelled},{target}}}"),
        None => format!("{series}{{{target}}}"),
    }
}
