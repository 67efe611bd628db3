//! Reports of measurements: a table, JSON, and a comparison with another run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// `quick`, `default` or `full`.
    pub(crate) mode: String,
    /// Duration in seconds.
    pub(crate) seconds: f64,
    pub(crate) targets: Vec<Target>,
    pub(crate) figures: Vec<Figure>,
}

/// One figure: the median of its rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The section of the run: `filter`, `path`, `ledger`, `scale`, `fairness`, `jose`.
    pub(crate) section: String,
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
    /// The result of each round, in order.
    pub(crate) rounds: Vec<f64>,
}

/// One row of the table of targets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// `None` if this run does not measure it; `note` gives the reason.
    pub(crate) value: Option<f64>,
    pub(crate) unit: String,
    /// Such as `<= 1.15`.
    pub(crate) target: String,
    /// `None` if it was not measured.
    pub(crate) met: Option<bool>,
    /// The reference of a relative value, from the same run: the baseline's own figure in its own unit.
    pub(crate) baseline: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// The bound of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// Collects figures and targets during a run.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) figures: Vec<Figure>,
    pub(crate) targets: Vec<Target>,
}

impl Sheet {
    /// Adds a figure and returns its median.
    pub(crate) fn figure(&mut self, section: &str, name: &str, unit: &str, rounds: &[f64]) -> f64 {
        let value = median(rounds);
        self.figures.push(Figure {
            section: section.to_owned(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            value,
            rounds: rounds.to_vec(),
        });
        value
    }

    /// Adds a row to the table of targets.
    pub(crate) fn target(&mut self, name: &str, unit: &str, bound: Bound, value: f64, baseline: Option<f64>) {
        let met = match bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        };
        self.row(name, unit, bound, Some(value), Some(met), baseline, None);
    }

    /// Marks the last row as met for a reason other than its bound.
    pub(crate) fn met_otherwise(&mut self, why: String) {
        if let Some(target) = self.targets.last_mut() {
            target.met = Some(true);
            target.note = Some(why);
        }
    }

    /// Adds a row that this run does not measure.
    pub(crate) fn unmeasured(&mut self, name: &str, unit: &str, bound: Bound, why: &str) {
        self.row(name, unit, bound, None, None, None, Some(why.to_owned()));
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of a table")]
    fn row(
        &mut self,
        name: &str,
        unit: &str,
        bound: Bound,
        value: Option<f64>,
        met: Option<bool>,
        baseline: Option<f64>,
        note: Option<String>,
    ) {
        let target = match bound {
            Bound::AtMost(most) => format!("<= {most}"),
            Bound::AtLeast(least) => format!(">= {least}"),
        };
        let (name, unit) = (name.to_owned(), unit.to_owned());
        self.targets.push(Target { name, value, unit, target, met, baseline, note });
    }
}

/// The median; for an even count, the mean of the two middle values.
pub(crate) fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

impl Report {
    /// The tables as text.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        let mut section = "";
        for figure in &self.figures {
            if figure.section != section {
                section = &figure.section;
                let _ = write!(text, "\n{section}\n");
            }
            let spread = match (
                figure.rounds.iter().copied().reduce(f64::min),
                figure.rounds.iter().copied().reduce(f64::max),
            ) {
                (Some(least), Some(most)) if figure.rounds.len() > 1 => {
                    format!("   {} to {}", number(least), number(most))
                }
                _ => String::new(),
            };
            let _ = writeln!(text, "  {:<72} {:>12} {:<10}{spread}", figure.name, number(figure.value), figure.unit);
        }
        text.push_str("\ntargets\n");
        for target in &self.targets {
            let value = target.value.map_or_else(|| "-".to_owned(), number);
            let met = match target.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            let note = target.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
            let bound = format!("{} {}", target.target, target.unit);
            let _ = writeln!(text, "  {:<72} {value:>12} {bound:<22} {met}{note}", target.name);
        }
        text
    }

    /// Compares every figure that both runs have.
    pub(crate) fn since(&self, old: &Report) -> String {
        let mut text = String::new();
        if old.machine != self.machine {
            let _ = writeln!(
                text,
                "measured on another machine, or another build of it:\n  then {}\n  now  {}",
                old.machine, self.machine
            );
        }
        let before: BTreeMap<_, _> =
            old.figures.iter().map(|figure| ((&figure.section, &figure.name), figure)).collect();
        let _ = writeln!(text, "  {:<82} {:>12} {:>12} {:>8}", "", "then", "now", "now/then");
        for figure in &self.figures {
            let Some(then) = before.get(&(&figure.section, &figure.name)) else { continue };
            let name = format!("{}: {} ({})", figure.section, figure.name, figure.unit);
            let ratio = figure.value / then.value;
            let _ = writeln!(text, "  {name:<82} {:>12} {:>12} {ratio:>8.2}", number(then.value), number(figure.value));
        }
        text
    }
}

/// Formats about three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(value: f64) -> Report {
        let mut sheet = Sheet::default();
        sheet.figure("path", "cost", "us", &[value, value + 2.0, value + 1.0]);
        sheet.target("ratio", "", Bound::AtMost(1.15), value / 10.0, Some(10.0));
        sheet.unmeasured("long row", "", Bound::AtLeast(2.0), "needs --full");
        let Sheet { figures, targets } = sheet;
        Report { machine: Machine::default(), mode: "default".into(), seconds: 1.0, targets, figures }
    }

    #[test]
    fn the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_target_is_met_or_missed_or_not_measured() {
        let met: Vec<_> = report(11.0).targets.iter().map(|target| target.met).collect();
        assert_eq!(met, [Some(true), None]);
        assert_eq!(report(12.0).targets[0].met, Some(false));
        let text = report(12.0).table();
        assert!(text.contains("MISSED") && text.contains("not measured: needs --full"), "{text}");
    }

    #[test]
    fn two_runs_are_compared_by_what_both_have() {
        let text = report(20.0).since(&report(9.0));
        assert!(text.contains("path: cost (us)") && text.contains("2.10"), "{text}");
        let json = serde_json::to_string(&report(1.0)).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap().targets.len(), 2);
    }
}
