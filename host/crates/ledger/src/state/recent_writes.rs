//! A cache of recent writes that are about to be read: events until they are fanned out, and their deliveries until
//! they are first worked on. An event thus gets from its 202 to its receiver without being read back from disk.
//!
//! The file is authoritative: a cache miss is read from it. A delivery is cached only while its row is unchanged since
//! the insertion. A request that may change rows it does not list clears all deliveries ([`ChangedRows::Unknown`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use setgate_domain::delivery::{DeliverySeq, DueDelivery, State};
use setgate_domain::event::{Event, EventSeq};

use crate::Content;

/// Approximate overhead of an event beside its texts, in bytes.
const EVENT_BYTES: usize = 512;
/// Approximate size of a delivery, in bytes.
const DELIVERY_BYTES: usize = 256;
/// Number of stale entries in `insertion_order` at which they are removed.
const STALE_KEYS_MAX: usize = 1_024;

/// The rows of existing deliveries that a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangedRows {
    /// Only the rows it lists ([`Effects::touched`](crate::commit::effects::Effects::touched)).
    Listed,
    /// Any row.
    Unknown,
}

/// Events and deliveries in memory, within a limit in bytes. The oldest are evicted first.
pub(crate) struct RecentWrites {
    bytes_max: usize,
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    /// Events not yet fanned out, in order.
    pending_events: VecDeque<Arc<Event>>,
    /// Deliveries that have not been loaded yet.
    deliveries: HashMap<DeliverySeq, DueDelivery>,
    /// The events of those deliveries, each with the number of deliveries that refer to it.
    events: HashMap<EventSeq, (Arc<Event>, usize)>,
    /// Keys of `deliveries` in insertion order, oldest first; may contain keys that have been removed.
    insertion_order: VecDeque<DeliverySeq>,
    bytes: usize,
}

impl RecentWrites {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, cached: Mutex::default() }
    }

    /// The events after `after`. `None` if they are not cached and must be read from the file.
    pub(crate) fn events_after(&self, after: EventSeq, limit: usize) -> Option<Vec<Arc<Event>>> {
        let cached = self.lock();
        let first = cached.pending_events.iter().position(|event| event.seq > after)?;
        // A gap in the sequence may be an evicted event.
        let in_a_row =
            (after.0 + 1..).zip(cached.pending_events.range(first..)).take_while(|(next, event)| event.seq.0 == *next);
        let found: Vec<_> = in_a_row.take(limit).map(|(_, event)| event.clone()).collect();
        (!found.is_empty()).then_some(found)
    }

    /// Removes and returns a delivery's content. `None` if it is not cached and must be read from the file.
    pub(crate) fn take_content(&self, seq: DeliverySeq) -> Option<Content> {
        let (due, event) = self.lock().remove(seq)?;
        Some(Content {
            event,
            claims: None,
            filtered: false,
            state: State::Due,
            attempts: 0,
            due_at: due.due_at,
            filter_tries: 0,
            plan: due.plan,
            attempts_before: 0,
            blocked: false,
        })
    }

    /// Adds a committed batch: the events it appended, the deliveries it inserted or changed, and the fan-out cursor.
    pub(crate) fn add_batch(
        &self,
        appended: Vec<Arc<Event>>,
        inserted: Vec<DueDelivery>,
        touched: &[DeliverySeq],
        fanout_cursor: EventSeq,
        rows: ChangedRows,
    ) {
        let mut cached = self.lock();
        for seq in touched {
            cached.remove(*seq);
        }
        for event in appended {
            cached.bytes += weight(&event);
            cached.pending_events.push_back(event);
        }
        if rows == ChangedRows::Unknown {
            cached.clear_deliveries();
        } else {
            for due in inserted {
                cached.insert(due);
            }
        }
        while let Some(event) = cached.pending_events.pop_front_if(|event| event.seq <= fanout_cursor) {
            cached.bytes = cached.bytes.saturating_sub(weight(&event));
        }
        cached.evict_beyond(self.bytes_max);
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        // A poisoned lock is safe to use: a miss is read from the file, and `evict_beyond` corrects the byte count.
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cached {
    /// Caches a delivery if its event is in `pending_events`.
    fn insert(&mut self, due: DueDelivery) {
        let place = self.pending_events.binary_search_by_key(&due.event, |event| event.seq);
        let Some(event) = place.ok().and_then(|place| self.pending_events.get(place)) else { return };
        let (_, deliveries) = self.events.entry(due.event).or_insert_with(|| {
            self.bytes += weight(event);
            (event.clone(), 0)
        });
        *deliveries += 1;
        self.bytes += DELIVERY_BYTES;
        self.insertion_order.push_back(due.seq);
        self.deliveries.insert(due.seq, due);
    }

    /// Removes a delivery, if it is cached.
    fn remove(&mut self, seq: DeliverySeq) -> Option<(DueDelivery, Arc<Event>)> {
        let due = self.deliveries.remove(&seq)?;
        let (event, deliveries) = self.events.get_mut(&due.event)?;
        let event = event.clone();
        *deliveries -= 1;
        let was_last = *deliveries == 0;
        self.bytes = self.bytes.saturating_sub(DELIVERY_BYTES);
        if was_last {
            self.events.remove(&due.event);
            self.bytes = self.bytes.saturating_sub(weight(&event));
        }
        Some((due, event))
    }

    fn clear_deliveries(&mut self) {
        let of_events: usize = self.events.values().map(|(event, _)| weight(event)).sum();
        self.bytes = self.bytes.saturating_sub(of_events + self.deliveries.len() * DELIVERY_BYTES);
        self.events.clear();
        self.deliveries.clear();
        self.insertion_order.clear();
    }

    fn evict_beyond(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            if let Some(seq) = self.insertion_order.pop_front() {
                self.remove(seq);
            } else if let Some(event) = self.pending_events.pop_front() {
                self.bytes = self.bytes.saturating_sub(weight(&event));
            } else {
                self.bytes = 0;
            }
        }
        // Removes the keys of deliveries that have been loaded since.
        if self.insertion_order.len() > 2 * self.deliveries.len() + STALE_KEYS_MAX {
            self.insertion_order.retain(|seq| self.deliveries.contains_key(seq));
        }
    }
}

fn weight(event: &Event) -> usize {
    event.set.text.len() + event.original.len() + EVENT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, attempt, block_on, event, new_delivery, open, open_at, tenant, with_events};
    use crate::{FanOut, Ledger, Options, RedriveOutcome};
    use setgate_base::clock::Clock;
    use setgate_domain::delivery::{Redrive, Settlement, Step};

    fn is_cached(ledger: &Ledger, seq: DeliverySeq) -> bool {
        ledger.store.shared().recent_writes.lock().deliveries.contains_key(&seq)
    }

    /// Appends events 1 to `count` with one delivery each.
    async fn fanned_out(ledger: &Ledger, count: u64) -> Vec<DueDelivery> {
        let plan = with_events(ledger, count).await;
        let deliveries = (1..=count).map(|n| new_delivery(n, 1, plan)).collect();
        ledger.events.fan_out(FanOut { through: EventSeq(count.cast_signed()), deliveries }).await.unwrap()
    }

    #[test]
    fn cached_delivery_equals_its_row() {
        block_on(async {
            let (folder, ledger) = open();
            let due = fanned_out(&ledger, 2).await;
            assert!(is_cached(&ledger, due[0].seq) && is_cached(&ledger, due[1].seq));
            let cached = ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap();
            assert!(!is_cached(&ledger, due[0].seq), "it is removed when it is loaded");
            let read = ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap();
            assert_eq!(format!("{cached:?}"), format!("{read:?}"));
            ledger.shutdown().await;
            let ledger = open_at(&folder);
            assert_eq!(
                format!("{cached:?}"),
                format!("{:?}", ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap())
            );
        });
    }

    #[test]
    fn events_are_cached_until_they_are_fanned_out() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 3).await;
            let seqs = |events: Vec<Arc<Event>>| events.iter().map(|event| event.seq.0).collect::<Vec<_>>();
            let cached = |after| ledger.store.shared().recent_writes.events_after(EventSeq(after), 10).map(seqs);
            assert_eq!(cached(0), Some(vec![1, 2, 3]));
            let read = ledger.events.events_after(EventSeq(0), 10).await.unwrap();
            assert_eq!(format!("{read:?}"), format!("{:?}", ledger.events.next_events(10).await.unwrap()));
            let deliveries = vec![new_delivery(1, 1, plan)];
            ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            assert_eq!(
                (cached(0), cached(2)),
                (None, Some(vec![3])),
                "those that were fanned out are read from the file"
            );
            assert_eq!(seqs(ledger.events.next_events(10).await.unwrap()), [3]);
        });
    }

    #[test]
    fn changed_row_is_read_from_the_file() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = fanned_out(&ledger, 2).await;
            let attempt = attempt(1, 500);
            let dead = Step::Dead { attempt: Some(attempt), reason: "given up".into() };
            ledger.deliveries.settle(Settlement::new(due[0].seq, NOW, dead)).await.unwrap();
            // A manual decision may change any row.
            let again = ledger.deliveries.redrive(&due[0].tenant, due[0].id, Redrive::Again, NOW).await.unwrap();
            assert!(matches!(again, Some(RedriveOutcome::Due(_))));
            assert!(!is_cached(&ledger, due[0].seq) && !is_cached(&ledger, due[1].seq));
            assert_eq!(ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap().attempts, 1);
        });
    }

    #[test]
    fn ordered_delivery_is_not_cached() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let mut ordered = new_delivery(1, 1, plan);
            ordered.order_key = Some(7);
            let due = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries: vec![ordered] }).await.unwrap();
            assert!(!is_cached(&ledger, due[0].seq));
        });
    }

    #[test]
    fn event_of_several_deliveries_is_cached_once() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 0).await;
            let deliveries = (1..=3).map(|n| new_delivery(1, n, plan)).collect();
            ledger.events.append_with(event(1), deliveries).await.unwrap();
            let due = ledger.deliveries.take_new().due;
            let bytes = || ledger.store.shared().recent_writes.lock().bytes;
            let of_event = event(1).set.text.len() + event(1).original.len() + EVENT_BYTES;
            for left in [3, 2, 1] {
                assert_eq!(bytes(), of_event + left * DELIVERY_BYTES);
                let seq = due[3 - left].seq;
                assert!(is_cached(&ledger, seq));
                assert_eq!(ledger.deliveries.load(&tenant().id, seq).await.unwrap().unwrap().event.id, event(1).id);
            }
            let cached = ledger.store.shared().recent_writes.lock();
            assert!(cached.bytes == 0 && cached.events.is_empty() && cached.pending_events.is_empty());
        });
    }

    #[test]
    fn cache_stays_within_its_bytes_and_evicts_the_oldest() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let one = event(1).set.text.len() + event(1).original.len() + EVENT_BYTES + DELIVERY_BYTES;
            let room = 3 * one;
            let options = Options { recent_writes_bytes_max: room, ..Options::new(folder.path()) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            let due = fanned_out(&ledger, 5).await;
            let cached: Vec<bool> = due.iter().map(|due| is_cached(&ledger, due.seq)).collect();
            assert!(!cached[0] && ledger.store.shared().recent_writes.lock().bytes <= room, "{cached:?}");
            for delivery in &due {
                assert_eq!(
                    ledger.deliveries.load(&tenant().id, delivery.seq).await.unwrap().unwrap().event.seq,
                    delivery.event
                );
            }
            assert_eq!(ledger.events.next_events(10).await.unwrap().len(), 0);
            // With a limit of 0 everything is read from the file.
            let options = Options { recent_writes_bytes_max: 0, ..Options::new(folder.path().join("none")) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            let due = fanned_out(&ledger, 2).await;
            assert!(!is_cached(&ledger, due[1].seq));
            assert_eq!(ledger.deliveries.load(&tenant().id, due[1].seq).await.unwrap().unwrap().event.id, event(2).id);
        });
    }
}
