//! The external record: accepted events, arrivals, and the expectations derived from them. It uses nothing from the
//! host's memory; the state of the ledger is read from a copy made after a kill.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::copy::Copy;
use super::load::{End, Sent, TARGETS};

/// Faults that are stored as messages; further ones are only counted.
const FAULTS_KEPT: usize = 20;

/// The record of a run, shared by senders, receivers and the loop of kills.
#[derive(Debug, Default)]
pub struct Record(Mutex<Book>);

/// The end of the last request of a delivery, as seen by its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Last {
    /// Not answered: it is being processed, or its sender disconnected.
    #[default]
    Unanswered,
    /// Answered with a 2xx.
    Taken,
    /// Answered with an error.
    Refused,
}

/// The arrivals with one `webhook-id`.
#[derive(Debug, Default)]
struct Arrivals {
    count: u64,
    taken: u64,
    refused: u64,
    last: Last,
    body: u64,
    /// Whether it was in flight at a kill since the last arrival, so that a duplicate is legitimate.
    excused: bool,
}

/// A delivery that must happen because its event was accepted.
#[derive(Debug)]
struct Promise {
    end: End,
    /// Whether the delivery has reached its expected state.
    kept: bool,
    lost: bool,
}

#[derive(Debug, Default)]
struct Book {
    /// The ids of the subscriptions without their prefix, in the order of [`TARGETS`].
    subscriptions: Vec<String>,
    accepted: BTreeSet<String>,
    /// Signed events that were answered 202, which has no event id, since the last copy.
    unnamed: Vec<Sent>,
    /// Deliveries whose acknowledgement by a polling receiver was answered.
    acknowledged: BTreeSet<String>,
    /// Accepted events with deliveries that have not reached their expected state.
    open: BTreeMap<String, Vec<String>>,
    promises: HashMap<String, Promise>,
    arrivals: HashMap<String, Arrivals>,
    duplicates: u64,
    misplaced: u64,
    faults: u64,
    said: Vec<String>,
    receiving: u64,
    taken: u64,
}

/// Differences between a copy of the ledger and the record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Deliveries that a receiver accepted but that are due in the ledger.
    pub taken_unsettled: usize,
    /// Deliveries that have not been filtered yet.
    pub unfiltered: usize,
    /// Deliveries that are lost according to this copy.
    pub lost: usize,
}

/// Totals of the record.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Events answered 202.
    pub accepted: usize,
    /// Deliveries that arrived as expected.
    pub delivered: usize,
    /// Deliveries dropped by a filter as expected.
    pub dropped: usize,
    /// Deliveries that became dead letters as expected.
    pub dead: usize,
    /// Deliveries of accepted events that do not exist anywhere.
    pub lost: usize,
    /// Duplicates that arrived after a 2xx.
    pub duplicates: u64,
    /// Duplicates that no kill explains.
    pub misplaced: u64,
    /// All other faults.
    pub faults: u64,
    /// Messages of the first faults.
    pub said: Vec<String>,
}

impl Record {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the ids of the subscriptions.
    pub fn subscribed(&self, ids: &[String]) {
        self.book().subscriptions = ids.iter().map(|id| body_of(id).to_owned()).collect();
    }

    /// Records that an event was answered 202.
    pub fn accepted(&self, event: &str, sent: &Sent) {
        self.book().accept(event, sent);
    }

    /// Records that a signed event was answered 202. The next copy shows its id.
    pub fn accepted_unnamed(&self, sent: &Sent) {
        self.book().unnamed.push(*sent);
    }

    /// Records that acknowledgements were answered.
    pub fn acknowledged(&self, ids: &[String]) {
        self.book().acknowledged.extend(ids.iter().cloned());
    }

    /// Whether a polling receiver acknowledged anything.
    pub fn has_acknowledged(&self) -> bool {
        !self.book().acknowledged.is_empty()
    }

    /// Records a complete request. Returns the number of earlier requests with the same id that were refused.
    pub fn arrived(&self, id: &str, body: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let digest = hasher.finish();
        let mut book = self.book();
        book.receiving += 1;
        let arrivals = book.arrivals.entry(id.to_owned()).or_default();
        let (first, same) = (arrivals.count == 0, arrivals.body == digest);
        let (again, excused) = (arrivals.taken > 0, arrivals.excused);
        arrivals.body = digest;
        arrivals.count += 1;
        arrivals.last = Last::Unanswered;
        arrivals.excused = false;
        let refused = arrivals.refused;
        if !first && !same {
            book.fault(format!("{id}: two copies with different bytes"));
        }
        if again {
            book.duplicates += 1;
            if !excused {
                book.misplaced += 1;
                book.fault(format!("{id}: a second copy after a 2xx, and no kill in between explains it"));
            }
        }
        refused
    }

    /// Records the end of a request: with a status, or because its sender disconnected.
    pub fn ended(&self, id: &str, status: Option<u16>) {
        let mut book = self.book();
        book.receiving -= 1;
        let Some(arrivals) = book.arrivals.get_mut(id) else { return };
        match status {
            Some(200..300) => {
                arrivals.last = Last::Taken;
                arrivals.taken += 1;
                book.taken += 1;
                if let Some(promise) = book.promises.get_mut(id) {
                    promise.kept |= promise.end == End::Delivered;
                }
            }
            Some(_) => {
                arrivals.last = Last::Refused;
                arrivals.refused += 1;
            }
            None => {}
        }
    }

    /// Records a fault.
    pub fn fault(&self, what: String) {
        self.book().fault(what);
    }

    /// Number of requests that receivers are processing.
    pub fn receiving(&self) -> u64 {
        self.book().receiving
    }

    /// Number of requests that receivers have accepted.
    pub fn taken(&self) -> u64 {
        self.book().taken
    }

    /// Number of accepted events with deliveries that have not reached their expected state. Forgets all others.
    pub fn open(&self) -> usize {
        let mut book = self.book();
        let Book { open, promises, unnamed, .. } = &mut *book;
        open.retain(|_, ids| ids.iter().any(|id| !promises[id].kept));
        open.len() + unnamed.len()
    }

    /// Compares the record with a copy made after a kill or at the end. `number` identifies the kill in messages.
    pub fn compare(&self, copy: &Copy, number: usize) -> Shown {
        let mut shown = Shown::default();
        let mut book = self.book();
        for sent in std::mem::take(&mut book.unnamed) {
            let jti = format!("crash-{}", sent.number);
            match copy.events_by_jti.get(&jti) {
                Some(event) => book.accept(event, &sent),
                None => {
                    book.promises.insert(jti, Promise { end: End::Delivered, kept: false, lost: true });
                    shown.lost += 1;
                }
            }
        }
        for (id, due) in &copy.due {
            if book.acknowledged.contains(id) {
                book.fault(format!("{id} is due, although its acknowledgement was answered"));
            }
            let filters = book.subscriptions.iter().position(|subscription| id.contains(subscription.as_str()));
            let filters = filters.is_some_and(|place| TARGETS[place].filter.is_some());
            shown.unfiltered += usize::from(filters && !due.filtered);
            if let Some(arrivals) = book.arrivals.get_mut(id) {
                arrivals.excused |= arrivals.last != Last::Refused;
                shown.taken_unsettled += usize::from(arrivals.last == Last::Taken);
            }
        }
        for (id, end) in &copy.at_rest {
            let Some(promise) = book.promises.get_mut(id) else { continue };
            match end {
                Some(end) if *end == promise.end => promise.kept |= promise.end != End::Delivered,
                other => {
                    let wanted = promise.end;
                    book.fault(format!("{id} ended as {other:?}, and was to end as {wanted:?}"));
                }
            }
        }
        let Book { open, promises, .. } = &mut *book;
        open.retain(|event, ids| {
            ids.retain(|id| !promises[id].kept);
            if ids.is_empty() {
                return false;
            }
            // Retention removes only events whose deliveries have ended, and so have reached their expected state.
            if !copy.events.contains(event) {
                for id in ids.drain(..) {
                    promises.get_mut(&id).expect("it was promised").lost = true;
                    shown.lost += 1;
                }
            }
            !ids.is_empty()
        });
        if shown.lost > 0 {
            book.said.push(format!("kill {number}: {} accepted deliveries are gone", shown.lost));
        }
        shown
    }

    /// The totals after all deliveries have ended: those that have not reached their expected state are lost.
    pub fn totals(&self) -> Totals {
        let book = self.book();
        let kept = |end: End| book.promises.values().filter(|promise| promise.end == end && promise.kept).count();
        Totals {
            accepted: book.accepted.len(),
            delivered: kept(End::Delivered),
            dropped: kept(End::Dropped),
            dead: kept(End::Dead),
            lost: book.promises.values().filter(|promise| !promise.kept).count(),
            duplicates: book.duplicates,
            misplaced: book.misplaced,
            faults: book.faults,
            said: book.said.clone(),
        }
    }

    /// Deliveries known to be lost before the end.
    pub fn lost(&self) -> usize {
        self.book().promises.values().filter(|promise| promise.lost).count()
    }
}

impl Book {
    fn accept(&mut self, event: &str, sent: &Sent) {
        if !self.accepted.insert(event.to_owned()) {
            return;
        }
        let matching = TARGETS.iter().enumerate().filter(|(_, target)| target.sources.contains(&sent.source));
        let promised: Vec<_> = matching
            .map(|(place, target)| {
                (format!("dlv_{}_{}_0", body_of(event), self.subscriptions[place]), target.end_of(sent))
            })
            .collect();
        for (id, end) in &promised {
            let kept = *end == End::Delivered && self.arrivals.get(id).is_some_and(|arrivals| arrivals.taken > 0);
            self.promises.insert(id.clone(), Promise { end: *end, kept, lost: false });
        }
        self.open.insert(event.to_owned(), promised.into_iter().map(|(id, _)| id).collect());
    }

    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.said.len() < FAULTS_KEPT {
            self.said.push(what);
        }
    }
}

/// An id without its prefix.
fn body_of(id: &str) -> &str {
    id.split_once('_').map_or(id, |(_, body)| body)
}
