//! Records the steps of a chain that a shadow runs again.

use setgate_domain::rollout::Rollout;
use setgate_domain::set::SetToken;
use setgate_domain::verdict::{Fault, FilterRun, Verdict};

/// Records the input and result of each step whose filter has a shadow.
#[derive(Default)]
pub(super) struct Witness {
    /// The indexes of these steps in the chain, and their rollouts.
    watched: Vec<(usize, Rollout)>,
    seen: Vec<Seen>,
}

/// The input and the result of a step with a shadow.
pub(super) struct Seen {
    pub(super) place: usize,
    pub(super) rollout: Rollout,
    pub(super) before: SetToken,
    pub(super) decided: Result<Verdict, Fault>,
    pub(super) run: FilterRun,
}

impl Witness {
    /// `watched` has the indexes of the steps to record, and their rollouts.
    pub(super) fn new(watched: Vec<(usize, Rollout)>) -> Self {
        Self { watched, seen: Vec::new() }
    }

    pub(super) fn into_seen(self) -> Vec<Seen> {
        self.seen
    }

    /// Called for each step with its input and its decision.
    pub(super) fn see(&mut self, place: usize, before: &SetToken, decided: &Result<Verdict, Fault>, run: &FilterRun) {
        if let Some((_, rollout)) = self.watched.iter().find(|(watched, _)| *watched == place) {
            // A step whose reused instance faulted runs twice: the second result replaces the first.
            self.seen.retain(|seen| seen.place != place);
            let (rollout, before) = (rollout.clone(), before.clone());
            self.seen.push(Seen { place, rollout, before, decided: decided.clone(), run: run.clone() });
        }
    }
}
