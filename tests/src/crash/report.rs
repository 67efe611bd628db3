//! The summary of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::record::Totals;

/// Phases of a host in which it can be killed. One kill can hit several.
pub const PHASES: [&str; 8] = ["append", "fan-out", "filter", "send", "settle", "checkpoint", "retention", "recovery"];

/// The result of a completed run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The seed that repeats it.
    pub seed: u64,
    /// Number of kills.
    pub kills: usize,
    /// Outcome of the accepted events.
    pub totals: Totals,
    /// Number of kills that hit each of [`PHASES`].
    pub phases: BTreeMap<&'static str, usize>,
    /// Writes undone by power cuts, and number of writes that were not synced.
    pub undone: Option<(u64, u64)>,
}

impl Summary {
    /// Whether there were no faults, regardless of losses.
    pub fn is_sound(&self) -> bool {
        self.totals.faults == 0 && self.totals.misplaced == 0
    }

    /// The phases that no kill hit.
    pub fn missed(&self) -> Vec<&'static str> {
        PHASES.into_iter().filter(|phase| self.phases.get(phase).is_none_or(|kills| *kills == 0)).collect()
    }

    /// Kills by phase on one line.
    pub fn phases(&self) -> String {
        let words = PHASES.map(|phase| format!("{phase}={}", self.phases.get(phase).copied().unwrap_or_default()));
        words.join(" ")
    }

    /// Everything as JSON.
    pub fn json(&self) -> Value {
        let Totals { accepted, delivered, dropped, dead, lost, duplicates, misplaced, faults, said } = &self.totals;
        json!({
            "seed": self.seed, "kills": self.kills, "accepted": accepted, "delivered": delivered, "dropped": dropped,
            "dead": dead, "lost": lost, "duplicates": duplicates, "duplicates_unexplained": misplaced,
            "faults": faults, "said": said, "phases": self.phases,
            "writes_undone": self.undone.map(|(undone, _)| undone),
            "writes_pending": self.undone.map(|(_, pending)| pending),
        })
    }
}

/// The summary on one line: accepted events, then deliveries.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { accepted, delivered, dropped, dead, lost, duplicates, .. } = &self.totals;
        write!(
            f,
            "kills={} accepted={accepted} delivered={delivered} dropped={dropped} dead={dead} lost={lost} \
             duplicates={duplicates}",
            self.kills
        )
    }
}
