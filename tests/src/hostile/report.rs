//! The report of the suite as text and JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Class;
use super::neighbour::Fared;
use super::trial::Observed;

/// Target for the neighbour's 99th percentile during attacks, as a multiple of that of quiet times.
pub const RATIO_MAX: f64 = 2.0;
/// Characters of a tenant's error message in the table.
const TOLD_CHARS: usize = 160;

/// The result of a class.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The class.
    pub class: Class,
    /// The observation.
    pub observed: Observed,
    /// The reasons for which it counts as escaped; empty if it is contained.
    pub escaped: Vec<String>,
    /// Its duration.
    pub took: Duration,
    /// Growth of the host's memory during the attack, in MiB; negative if it shrank.
    pub growth_mib: f64,
}

/// The difference between two amounts of memory (bytes), in MiB.
pub(super) fn growth_mib(before: u64, after: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    mib(after) - mib(before)
}

/// The results of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The classes, in order.
    pub shown: Vec<Shown>,
    /// The results of the neighbour.
    pub neighbour: Fared,
    /// Memory of the host's process (bytes) before the first attack.
    pub rss_before: u64,
    /// Memory of the host's process (bytes) after the last attack.
    pub rss_after: u64,
    /// Whether the host is still the same process.
    pub same_process: bool,
}

impl Report {
    /// The classes that escaped.
    pub fn escaped(&self) -> Vec<&Shown> {
        self.shown.iter().filter(|shown| !shown.escaped.is_empty()).collect()
    }

    /// Whether everything was contained and nothing lost. Latency is not considered.
    pub fn is_good(&self) -> bool {
        self.escaped().is_empty() && self.neighbour.losses.is_empty() && self.same_process
    }

    /// Describes escapes and losses.
    pub fn complaints(&self) -> String {
        let mut text = String::new();
        for shown in self.escaped() {
            let _ = writeln!(text, "{}: {}; told: {}", shown.class.name, shown.escaped.join("; "), shown.observed.told);
        }
        for loss in &self.neighbour.losses {
            let _ = writeln!(text, "neighbour: {loss}");
        }
        if !self.same_process {
            text.push_str("the host has restarted or ended\n");
        }
        text
    }

    /// The table of classes.
    pub fn table(&self) -> String {
        let name_width = self.shown.iter().map(|shown| shown.class.name.len()).max().unwrap_or(0);
        let answer_width = self.shown.iter().map(|shown| shown.observed.answer_words().len()).max().unwrap_or(0);
        let mut text = format!(
            "{:<9} {:<name_width$} {:<9} {:<answer_width$} tried, and what the tenant is told\n",
            "stage", "class", "result", "answered by"
        );
        for Shown { class, observed, escaped, .. } in &self.shown {
            let result = if escaped.is_empty() { "contained" } else { "ESCAPED" };
            let _ = writeln!(
                text,
                "{:<9} {:<name_width$} {result:<9} {:<answer_width$} {}",
                class.stage.as_str(),
                class.name,
                observed.answer_words(),
                class.tried
            );
            let indent = 9 + name_width + 9 + answer_width + 4;
            let _ = writeln!(text, "{:indent$}\"{}\"", "", cut(&observed.told));
            for why in escaped {
                let _ = writeln!(text, "{:indent$}! {why}", "");
            }
        }
        text
    }

    /// The neighbour's results in two lines.
    pub fn neighbour_lines(&self) -> String {
        let of = |sorted: &[f64]| {
            let show =
                |share| Fared::percentile(sorted, share).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
            format!("{} events, median {}, p99 {}", sorted.len(), show(0.5), show(0.99))
        };
        let Fared { sent, losses, quiet_ms, attack_ms } = &self.neighbour;
        format!(
            "neighbour: {sent} events sent, {} lost, doubled or unsigned; from schedule to arrival\n  quiet:        {}\n  under attack: {}",
            losses.len(),
            of(quiet_ms),
            of(attack_ms)
        )
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let (classes, escaped) = (self.shown.len(), self.escaped().len());
        let ratio = self.neighbour.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        format!(
            "hostile guests: {classes} classes, {} contained, {escaped} escaped; neighbour p99 ratio {ratio}; host rss growth {:.1} MiB",
            classes - escaped,
            self.growth_mib()
        )
    }

    /// Growth of the host's memory over all attacks, in MiB.
    pub fn growth_mib(&self) -> f64 {
        growth_mib(self.rss_before, self.rss_after)
    }

    /// The report as a JSON object.
    pub fn json(&self) -> Value {
        let classes: Vec<_> = self
            .shown
            .iter()
            .map(|Shown { class, observed, escaped, took, growth_mib }| {
                json!({
                    "class": class.name,
                    "stage": class.stage.as_str(),
                    "tried": class.tried,
                    "contained": escaped.is_empty(),
                    "escaped": escaped,
                    "answered_by": observed.by,
                    "limit": observed.limit,
                    "told": observed.told,
                    "seconds": took.as_secs_f64(),
                    "rss_growth_mib": growth_mib,
                })
            })
            .collect();
        let p99 = |sorted: &[f64]| Fared::percentile(sorted, 0.99);
        json!({
            "classes": classes,
            "contained": self.shown.len() - self.escaped().len(),
            "escaped": self.escaped().len(),
            "neighbour": {
                "sent": self.neighbour.sent,
                "losses": self.neighbour.losses,
                "p99_ms_quiet": p99(&self.neighbour.quiet_ms),
                "p99_ms_attack": p99(&self.neighbour.attack_ms),
                "p99_ratio": self.neighbour.ratio(),
            },
            "rss_growth_mib": self.growth_mib(),
            "same_process": self.same_process,
        })
    }
}

fn cut(text: &str) -> String {
    let line = text.replace('\n', " ");
    if line.chars().count() <= TOLD_CHARS {
        return line;
    }
    line.chars().take(TOLD_CHARS).chain("...".chars()).collect()
}
