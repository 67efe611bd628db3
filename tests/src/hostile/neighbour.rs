//! A quiet neighbour: another tenant with a real filter and a steady, low rate of events during all attacks.
//!
//! Events are sent on a fixed schedule (an open loop), and latency is measured from the time at which an event was due.
//! So if the host stalls for a second, all events of that second show it, not only the one that was being sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use crate::event;
use crate::host::Host;
use crate::receiver::Receiver;
use crate::source::{Seed, Source};
use crate::tenant::Subscription;

/// Interval of events.
const PACE: Duration = Duration::from_millis(50);
/// Time limit for an event to arrive before it counts as lost.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Number of attempts of the sender if it is not answered 202; any webhook sender retries.
const TRIES: usize = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// The activity around the neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// None.
    Quiet,
    /// An attack.
    Attack,
    /// Set-up and checks.
    Between,
}

/// The running neighbour.
pub struct Neighbour {
    book: Arc<Book>,
    receiver: Receiver,
    subscription: Subscription,
    sending: JoinHandle<()>,
}

struct Book {
    sent: Mutex<Vec<Sent>>,
    phase: AtomicU8,
    leaving: AtomicBool,
}

/// One event.
#[derive(Debug, Clone)]
struct Sent {
    jti: String,
    due: Instant,
    phase: Phase,
    /// The delivery's id, once the event was accepted.
    delivery: Option<String>,
    /// The last error, if the sender gave up.
    refused: Option<String>,
}

/// The results of the neighbour.
#[derive(Debug, Clone, Default)]
pub struct Fared {
    /// Number of events it sent.
    pub sent: usize,
    /// Messages about events that were lost, duplicated or not signed.
    pub losses: Vec<String>,
    /// Sorted milliseconds from schedule to arrival during quiet times.
    pub quiet_ms: Vec<f64>,
    /// The same during attacks.
    pub attack_ms: Vec<f64>,
}

impl Neighbour {
    /// Creates the tenant and starts to send.
    pub async fn move_in(host: &Host) -> Self {
        let tenant = host.tenant("neighbour").await;
        let source = tenant.source("idp", Seed::Set).await;
        tenant.filter("drop-by-type").await;
        let receiver = Receiver::start().await;
        let chain =
            json!([{"filter": "drop-by-type", "grants": ["config"], "config": {"drop": ["nothing-of-that-name"]}}]);
        let subscription = tenant.subscribe(&receiver).chain(chain).create().await;
        let book = Arc::new(Book {
            sent: Mutex::default(),
            phase: AtomicU8::new(Phase::Between as u8),
            leaving: AtomicBool::new(false),
        });
        let sending = tokio::spawn(send(book.clone(), source, subscription.delivery_of_any()));
        Self { book, receiver, subscription, sending }
    }

    /// Runs `what`, and assigns all events that become due meanwhile to this phase.
    pub async fn during<T>(&self, phase: Phase, what: impl Future<Output = T>) -> T {
        self.book.phase.store(phase as u8, Ordering::Relaxed);
        let done = what.await;
        self.book.phase.store(Phase::Between as u8, Ordering::Relaxed);
        done
    }

    /// Waits until all events sent so far have arrived. Returns messages about losses.
    pub async fn lost_anything(&self) -> Vec<String> {
        let until = Instant::now();
        loop {
            let fared = self.fared(until);
            if fared.losses.is_empty() || until.elapsed() > ARRIVAL {
                return fared.losses.into_iter().take(3).map(|loss| format!("the neighbour: {loss}")).collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops sending, waits for the last events and returns the results.
    pub async fn move_out(self) -> Fared {
        self.book.leaving.store(true, Ordering::Relaxed);
        let Self { sending, .. } = &self;
        while !sending.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.lost_anything().await;
        self.fared(Instant::now())
    }

    /// The results for events that were due before `until`. Events that have not arrived count as lost.
    fn fared(&self, until: Instant) -> Fared {
        let mut arrivals: HashMap<String, Vec<Instant>> = HashMap::new();
        let mut fared = Fared::default();
        for received in self.receiver.all() {
            arrivals.entry(received.id().to_owned()).or_default().push(received.at);
            if let Err(why) = self.subscription.verify(&received) {
                fared.losses.push(format!("{} is not signed well: {why}", received.id()));
            }
        }
        for sent in lock(&self.book.sent).iter().filter(|sent| sent.due < until) {
            fared.sent += 1;
            if let Some(why) = &sent.refused {
                fared.losses.push(format!("{} was not accepted: {why}", sent.jti));
                continue;
            }
            let arrived = sent.delivery.as_ref().and_then(|id| arrivals.get(id)).map_or(&[][..], Vec::as_slice);
            let [at] = arrived else {
                fared.losses.push(format!("{} arrived {} times", sent.jti, arrived.len()));
                continue;
            };
            let took_ms = at.saturating_duration_since(sent.due).as_secs_f64() * 1e3;
            match sent.phase {
                Phase::Quiet => fared.quiet_ms.push(took_ms),
                Phase::Attack => fared.attack_ms.push(took_ms),
                Phase::Between => {}
            }
        }
        fared.quiet_ms.sort_by(f64::total_cmp);
        fared.attack_ms.sort_by(f64::total_cmp);
        fared
    }
}

impl Fared {
    /// The value at that percentile of sorted values. `None` if there are no values.
    pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// The 99th percentile during attacks divided by that of quiet times. `None` if there are no events of one kind.
    pub fn ratio(&self) -> Option<f64> {
        Some(Self::percentile(&self.attack_ms, 0.99)? / Self::percentile(&self.quiet_ms, 0.99)?)
    }
}

impl Book {
    fn phase_now(&self) -> Phase {
        let phase = self.phase.load(Ordering::Relaxed);
        [Phase::Quiet, Phase::Attack].into_iter().find(|known| *known as u8 == phase).unwrap_or(Phase::Between)
    }
}

async fn send(book: Arc<Book>, source: Source, delivery_of: impl Fn(&str) -> String + Clone + Send + 'static) {
    let began = Instant::now();
    let mut under_way = JoinSet::new();
    for number in 0_u32.. {
        let due = began + PACE * number;
        tokio::time::sleep_until(due.into()).await;
        if book.leaving.load(Ordering::Relaxed) {
            break;
        }
        let jti = format!("quiet-{number}");
        let (index, phase) = (number as usize, book.phase_now());
        lock(&book.sent).push(Sent { jti: jti.clone(), due, phase, delivery: None, refused: None });
        let (book, source, delivery_of) = (book.clone(), source.clone(), delivery_of.clone());
        under_way.spawn(async move {
            let accepted = accepted(&source, &jti).await;
            let sent = &mut lock(&book.sent)[index];
            match accepted {
                Ok(event) => sent.delivery = Some(delivery_of(&event)),
                Err(why) => sent.refused = Some(why),
            }
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
}

async fn accepted(source: &Source, jti: &str) -> Result<String, String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match source.try_send(event::set(jti)).await {
            Ok(answer) if answer.status == 202 => {
                return Ok(answer.json()["event"].as_str().unwrap_or_default().to_owned());
            }
            Ok(answer) => last = format!("{}: {}", answer.status, answer.text()),
            Err(why) => last = why,
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    Err(last)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
