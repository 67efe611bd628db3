//! The senders of a run: each sends an event until it has an answer, however often the host dies meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::load::Sent;
use super::random::Random;
use super::record::Record;
use crate::source::Source;

/// Events under way (accepted, and not yet where they have to be) at which senders wait, so that a slow machine is not
/// drowned.
const OPEN_MAX: usize = 400;
/// Wait before an event is sent again, in milliseconds.
const AGAIN_MS: u64 = 15;

/// All senders of a run.
pub struct Senders {
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

struct Shared {
    seed: u64,
    sources: Vec<Source>,
    record: Arc<Record>,
    next: AtomicU64,
    stop: AtomicBool,
    unanswered: AtomicUsize,
}

impl Senders {
    /// Starts so many, each with a pause of up to `pause_ms` between two events.
    pub fn start(count: u64, pause_ms: u64, seed: u64, sources: Vec<Source>, record: &Arc<Record>) -> Self {
        let shared = Arc::new(Shared {
            seed,
            sources,
            record: record.clone(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            unanswered: AtomicUsize::new(0),
        });
        let mut running = JoinSet::new();
        for sender in 0..count {
            let shared = shared.clone();
            running.spawn(async move { shared.send(Random::new(seed, (2 << 32) + sender), pause_ms).await });
        }
        Self { shared, running }
    }

    /// Requests that wait for their answer.
    pub fn unanswered(&self) -> usize {
        self.shared.unanswered.load(Ordering::SeqCst)
    }

    /// Lets each sender finish with the event it is at; the host has to run.
    pub async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        while self.running.join_next().await.is_some() {}
    }
}

impl Shared {
    async fn send(&self, mut random: Random, pause_ms: u64) {
        while !self.stop.load(Ordering::SeqCst) {
            if self.record.open() >= OPEN_MAX {
                tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
                continue;
            }
            let sent = Sent::new(self.seed, self.next.fetch_add(1, Ordering::SeqCst));
            self.see_through(&sent).await;
            tokio::time::sleep(Duration::from_millis(random.below(pause_ms + 1))).await;
        }
    }

    async fn see_through(&self, sent: &Sent) {
        let body = sent.claims().to_string();
        loop {
            self.unanswered.fetch_add(1, Ordering::SeqCst);
            let answer = self.sources[sent.source].try_send(body.clone()).await;
            self.unanswered.fetch_sub(1, Ordering::SeqCst);
            match answer {
                Ok(answer) if answer.status == 202 => {
                    match answer.json()["event"].as_str() {
                        Some(event) => self.record.accepted(event, sent),
                        None => self.record.fault(format!("a 202 without an event: {}", answer.text())),
                    }
                    return;
                }
                // Too much at once, or on its way up: to be sent again, as any sender would.
                Ok(answer) if matches!(answer.status, 429 | 503) => {}
                Ok(answer) => {
                    let (status, text) = (answer.status, answer.text());
                    self.record.fault(format!("event {} was answered {status}: {text}", sent.number));
                    return;
                }
                // The host is dead; whether the event was accepted, nobody knows.
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
        }
    }
}
