//! The time of a kill: at a random time, before the host listens, or in a phase that is visible from outside.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::copy;
use super::random::Random;
use super::record::Record;
use super::senders::Senders;
use crate::host::Host;

/// Maximum time (ms) a process waits for its phase.
const LIFE_MS_MAX: u64 = 4_000;
/// Time limit (seconds) until a process listens.
const START_S_MAX: u64 = 90;

/// The time of a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Milliseconds after it listens.
    After(u64),
    /// Milliseconds after its start, whether it listens or not.
    Early(u64),
    /// While an event is being answered, plus a number of microseconds.
    Append(u64),
    /// While a receiver processes a request, plus a number of microseconds.
    Send(u64),
    /// After a receiver answered a request, plus a number of microseconds.
    Settle(u64),
    /// While a checkpoint is in progress.
    Checkpoint,
    /// After the start of a retention run, plus a number of microseconds.
    Retention(u64),
}

impl Plan {
    /// Draws the next plan. Unless it is `aimed`, the process is killed after at most half a second.
    pub fn draw(random: &mut Random, aimed: bool) -> Self {
        let kind = random.below(20);
        let soon_us = random.below(4_000);
        match kind {
            0..=2 => Self::After(random.below(30)),
            3..=6 => Self::After(random.below(if aimed { 1_500 } else { 500 })),
            // Mostly short times: on an idle machine a host listens soon.
            7..=9 => {
                let most = 8 << random.below(6);
                Self::Early(random.below(most))
            }
            10 => Self::Append(soon_us),
            11 => Self::Send(soon_us),
            12..=13 => Self::Settle(soon_us),
            14..=16 if aimed => Self::Checkpoint,
            17..=19 if aimed => Self::Retention(random.below(3) * soon_us),
            _ => Self::After(random.below(300)),
        }
    }
}

/// State of a process that is about to be killed.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Whether it listened.
    pub listened: bool,
    /// The content of the WAL's index when it started to listen.
    pub recovered: Option<(u32, u32)>,
}

/// Waits for the time of the kill. An error if the process ended by itself.
pub async fn wait(
    plan: &Plan,
    host: &mut Host,
    senders: &Senders,
    record: &Record,
    log_from: usize,
) -> Result<Life, String> {
    let began = Instant::now();
    let early = match plan {
        Plan::Early(ms) => Some(Duration::from_millis(*ms)),
        _ => None,
    };
    while !host.is_listening()? {
        if early.is_some_and(|early| began.elapsed() >= early) {
            return Ok(Life { listened: false, recovered: None });
        }
        if began.elapsed() > Duration::from_secs(START_S_MAX) {
            return Err(format!("the host does not listen after {START_S_MAX} s:\n{}", host.log()));
        }
        sleep(Duration::from_millis(1)).await;
    }
    let life = Duration::from_millis(LIFE_MS_MAX);
    let began = Instant::now();
    let ledger = host.data().join("ledger");
    let recovered = copy::checkpoint(&ledger);
    let ends = Ok(Life { listened: true, recovered });
    let taken = record.taken();
    let (pause, then_us) = match plan {
        Plan::After(ms) => {
            sleep(Duration::from_millis(*ms)).await;
            return ends;
        }
        Plan::Early(_) => return ends,
        Plan::Append(us) | Plan::Send(us) | Plan::Settle(us) => (Duration::from_millis(1), *us),
        Plan::Checkpoint => (Duration::from_millis(1), 0),
        Plan::Retention(us) => (Duration::from_millis(1), *us),
    };
    // A process that has just started still processes leftovers of the previous one; the plan waits for new work.
    let seen = |host: &Host| match plan {
        Plan::Append(_) => senders.unanswered() > 0,
        Plan::Send(_) => record.receiving() > 0,
        Plan::Settle(_) => record.taken() > taken,
        Plan::Checkpoint => copy::is_checkpointing(&ledger, recovered),
        Plan::Retention(_) => {
            began.elapsed() > Duration::from_millis(900)
                && host
                    .last_logged(log_from, &["retention run "])
                    .is_some_and(|line| line.contains("retention run started"))
        }
        Plan::After(_) | Plan::Early(_) => true,
    };
    while !seen(host) && began.elapsed() < life {
        sleep(pause).await;
    }
    sleep(Duration::from_micros(then_us)).await;
    ends
}
