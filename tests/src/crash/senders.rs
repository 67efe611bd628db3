//! The senders of a run: each retries an event until it is answered, however often the host is killed meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::load::{SIGNED_SOURCE, Sent};
use super::random::Random;
use super::record::Record;
use super::signed::SignedSource;
use crate::source::Source;

/// Number of accepted events that have not reached their expected state at which senders pause, so that a slow machine
/// is not overloaded.
const OPEN_MAX: usize = 400;
/// Pause (ms) before an event is retried.
const AGAIN_MS: u64 = 15;

/// All senders of a run.
pub struct Senders {
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

struct Shared {
    seed: u64,
    sources: Vec<Source>,
    signed: SignedSource,
    record: Arc<Record>,
    next: AtomicU64,
    stop: AtomicBool,
    unanswered: AtomicUsize,
}

impl Senders {
    /// Starts `count` senders, each with a random pause of up to `pause_ms` between two events.
    pub fn start(
        count: u64,
        pause_ms: u64,
        seed: u64,
        (sources, signed): (Vec<Source>, SignedSource),
        record: &Arc<Record>,
    ) -> Self {
        let shared = Arc::new(Shared {
            seed,
            sources,
            signed,
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

    /// Number of requests that have not been answered yet.
    pub fn unanswered(&self) -> usize {
        self.shared.unanswered.load(Ordering::SeqCst)
    }

    /// Stops the senders after each has finished its current event; the host must be running.
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

    async fn see_through_signed(&self, sent: &Sent) {
        let token = self.signed.sign(&sent.claims().to_string());
        loop {
            self.unanswered.fetch_add(1, Ordering::SeqCst);
            let answer = self.signed.try_send(&token).await;
            self.unanswered.fetch_sub(1, Ordering::SeqCst);
            match answer {
                Ok((202, text)) => {
                    if !text.is_empty() {
                        self.record.fault(format!("a 202 with a body: {text}"));
                    }
                    self.record.accepted_unnamed(sent);
                    return;
                }
                Ok((429 | 503, _)) | Err(_) => {}
                Ok((status, text)) => {
                    self.record.fault(format!("the signed event {} was answered {status}: {text}", sent.number));
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
        }
    }

    async fn see_through(&self, sent: &Sent) {
        if sent.source == SIGNED_SOURCE {
            return self.see_through_signed(sent).await;
        }
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
                // Overloaded or starting: retried, as by any sender.
                Ok(answer) if matches!(answer.status, 429 | 503) => {}
                Ok(answer) => {
                    let (status, text) = (answer.status, answer.text());
                    self.record.fault(format!("event {} was answered {status}: {text}", sent.number));
                    return;
                }
                // The host is dead, so it is unknown whether the event was accepted.
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
        }
    }
}
