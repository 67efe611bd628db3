//! A quiet neighbour: another tenant with a real filter and a steady trickle of events, whatever happens around it.
//!
//! Events are sent on a schedule that waits for nobody (an open loop), and how long each took is counted from the time
//! at which it was due to be sent. So a host that stands still for a second shows in every event of that second, not
//! only in the one that was being sent.

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

/// Time between two events.
const PACE: Duration = Duration::from_millis(50);
/// How long an event may take to arrive before it counts as lost.
const ARRIVAL: Duration = Duration::from_secs(60);
/// How often the sender tries where it is not answered 202, as any sender of a webhook does.
const TRIES: usize = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// What goes on around the neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Quiet,
    /// An attack.
    Attack,
    /// Setting up and looking.
    Between,
}

/// The neighbour, living on.
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
    /// The sender gave up.
    refused: Option<String>,
}

/// How the neighbour fared.
#[derive(Debug, Clone, Default)]
pub struct Fared {
    /// Events it sent.
    pub sent: usize,
    /// What was lost, came twice or was not signed; each in words.
    pub losses: Vec<String>,
    /// Milliseconds from schedule to arrival, sorted: while nothing went on.
    pub quiet_ms: Vec<f64>,
    /// The same under attack.
    pub attack_ms: Vec<f64>,
}

impl Neighbour {
    /// Sets the tenant up and begins to send.
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

    /// Does something, and has all events that are due meanwhile belong to this phase.
    pub async fn during<T>(&self, phase: Phase, what: impl Future<Output = T>) -> T {
        self.book.phase.store(phase as u8, Ordering::Relaxed);
        let done = what.await;
        self.book.phase.store(Phase::Between as u8, Ordering::Relaxed);
        done
    }

    /// Waits until everything that was sent so far has arrived. Gives what is wrong, where something is.
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

    /// Ends the sending, waits for the last events and sums up.
    pub async fn move_out(self) -> Fared {
        self.book.leaving.store(true, Ordering::Relaxed);
        let Self { sending, .. } = &self;
        while !sending.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.lost_anything().await;
        self.fared(Instant::now())
    }

    /// How it fared with events that were due before `until`. What has not arrived counts as lost.
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
    /// The value below which that share of the sorted values lie; none where there are none.
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

    /// The 99th percentile under attack over that of quiet times; none where either has no events.
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
