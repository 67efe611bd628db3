//! A cache of recent writes that are about to be read: events until they are fanned out, and their deliveries until
//! they are first worked on. An event thus gets from its 202 to its receiver without being read back from disk.
//!
//! The file is authoritative: a cache miss is read from it. A delivery is cached only while its row is unchanged since
//! the insertion. A request that may change rows it does not list clears all deliveries ([`Rows::Any`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use setgate_domain::delivery::{DeliverySeq, DueDelivery, State};
use setgate_domain::event::{Event, EventSeq};

use crate::Content;

/// Approximate overhead of an event beside its texts, in bytes.
const EVENT_BYTES: usize = 512;
/// Approximate size of a delivery, in bytes.
const DELIVERY_BYTES: usize = 256;
/// Number of stale entries in `age` at which they are removed.
const AGE_SPARE: usize = 1_024;

/// The rows of existing deliveries that a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Only the rows it lists ([`Effects::touched`](crate::commit::effects::Effects::touched)).
    Named,
    /// Any row.
    Any,
}

/// Events and deliveries in memory, within a limit in bytes. The oldest are evicted first.
pub(crate) struct Hot {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Events not yet fanned out, in order.
    news: VecDeque<Arc<Event>>,
    /// Deliveries that have not been loaded yet.
    made: HashMap<DeliverySeq, DueDelivery>,
    /// The events of those deliveries, each with the number of deliveries that refer to it.
    events: HashMap<EventSeq, (Arc<Event>, usize)>,
    /// Keys of `made` in insertion order, oldest first; may contain keys that have been removed.
    age: VecDeque<DeliverySeq>,
    bytes: usize,
}

impl Hot {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    /// The events after `after`. `None` if they are not cached and must be read from the file.
    pub(crate) fn news(&self, after: EventSeq, limit: usize) -> Option<Vec<Arc<Event>>> {
        let held = self.lock();
        let first = held.news.iter().position(|event| event.seq > after)?;
        // A gap in the sequence may be an evicted event.
        let in_a_row = (after.0 + 1..).zip(held.news.range(first..)).take_while(|(next, event)| event.seq.0 == *next);
        let found: Vec<_> = in_a_row.take(limit).map(|(_, event)| event.clone()).collect();
        (!found.is_empty()).then_some(found)
    }

    /// Removes and returns a delivery's content. `None` if it is not cached and must be read from the file.
    pub(crate) fn content(&self, seq: DeliverySeq) -> Option<Content> {
        let (due, event) = self.lock().take(seq)?;
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
    pub(crate) fn take_in(
        &self,
        news: Vec<Arc<Event>>,
        made: Vec<DueDelivery>,
        touched: &[DeliverySeq],
        through: EventSeq,
        rows: Rows,
    ) {
        let mut held = self.lock();
        for seq in touched {
            held.take(*seq);
        }
        for event in news {
            held.bytes += weight(&event);
            held.news.push_back(event);
        }
        if rows == Rows::Any {
            held.forget_deliveries();
        } else {
            for due in made {
                held.keep(due);
            }
        }
        while let Some(event) = held.news.pop_front_if(|event| event.seq <= through) {
            held.bytes = held.bytes.saturating_sub(weight(&event));
        }
        held.keep_within(self.bytes_max);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // A poisoned lock is safe to use: a miss is read from the file, and `keep_within` corrects the byte count.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Caches a delivery if its event is in `news`.
    fn keep(&mut self, due: DueDelivery) {
        let place = self.news.binary_search_by_key(&due.event, |event| event.seq);
        let Some(event) = place.ok().and_then(|place| self.news.get(place)) else { return };
        let (_, deliveries) = self.events.entry(due.event).or_insert_with(|| {
            self.bytes += weight(event);
            (event.clone(), 0)
        });
        *deliveries += 1;
        self.bytes += DELIVERY_BYTES;
        self.age.push_back(due.seq);
        self.made.insert(due.seq, due);
    }

    /// Removes a delivery, if it is cached.
    fn take(&mut self, seq: DeliverySeq) -> Option<(DueDelivery, Arc<Event>)> {
        let due = self.made.remove(&seq)?;
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

    fn forget_deliveries(&mut self) {
        let of_events: usize = self.events.values().map(|(event, _)| weight(event)).sum();
        self.bytes = self.bytes.saturating_sub(of_events + self.made.len() * DELIVERY_BYTES);
        self.events.clear();
        self.made.clear();
        self.age.clear();
    }

    fn keep_within(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            if let Some(seq) = self.age.pop_front() {
                self.take(seq);
            } else if let Some(event) = self.news.pop_front() {
                self.bytes = self.bytes.saturating_sub(weight(&event));
            } else {
                self.bytes = 0;
            }
        }
        // Removes the keys of deliveries that have been loaded since.
        if self.age.len() > 2 * self.made.len() + AGE_SPARE {
            self.age.retain(|seq| self.made.contains_key(seq));
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

    fn is_hot(ledger: &Ledger, seq: DeliverySeq) -> bool {
        ledger.store.shared().hot.lock().made.contains_key(&seq)
    }

    /// Appends events 1 to `count` with one delivery each.
    async fn fanned_out(ledger: &Ledger, count: u64) -> Vec<DueDelivery> {
        let plan = with_events(ledger, count).await;
        let deliveries = (1..=count).map(|n| new_delivery(n, 1, plan)).collect();
        ledger.events.fan_out(FanOut { through: EventSeq(count.cast_signed()), deliveries }).await.unwrap()
    }

    #[test]
    fn what_is_handed_over_is_what_the_file_says() {
        block_on(async {
            let (folder, ledger) = open();
            let due = fanned_out(&ledger, 2).await;
            assert!(is_hot(&ledger, due[0].seq) && is_hot(&ledger, due[1].seq));
            let hot = ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap();
            assert!(!is_hot(&ledger, due[0].seq), "it is handed over once");
            let read = ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap();
            assert_eq!(format!("{hot:?}"), format!("{read:?}"));
            ledger.shutdown().await;
            let ledger = open_at(&folder);
            assert_eq!(
                format!("{hot:?}"),
                format!("{:?}", ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap())
            );
        });
    }

    #[test]
    fn events_are_news_until_they_are_fanned_out() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 3).await;
            let seqs = |events: Vec<Arc<Event>>| events.iter().map(|event| event.seq.0).collect::<Vec<_>>();
            let hot = |after| ledger.store.shared().hot.news(EventSeq(after), 10).map(seqs);
            assert_eq!(hot(0), Some(vec![1, 2, 3]));
            let read = ledger.events.events_after(EventSeq(0), 10).await.unwrap();
            assert_eq!(format!("{read:?}"), format!("{:?}", ledger.events.next_events(10).await.unwrap()));
            let deliveries = vec![new_delivery(1, 1, plan)];
            ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            assert_eq!((hot(0), hot(2)), (None, Some(vec![3])), "of what has left, the file knows");
            assert_eq!(seqs(ledger.events.next_events(10).await.unwrap()), [3]);
        });
    }

    #[test]
    fn a_row_that_was_changed_is_read_anew() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = fanned_out(&ledger, 2).await;
            let attempt = attempt(1, 500);
            let dead = Step::Dead { attempt: Some(attempt), reason: "given up".into() };
            ledger.deliveries.settle(Settlement::new(due[0].seq, NOW, dead)).await.unwrap();
            // A manual decision may change any row.
            let again = ledger.deliveries.redrive(&due[0].tenant, due[0].id, Redrive::Again, NOW).await.unwrap();
            assert!(matches!(again, Some(RedriveOutcome::Due(_))));
            assert!(!is_hot(&ledger, due[0].seq) && !is_hot(&ledger, due[1].seq));
            assert_eq!(ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap().attempts, 1);
        });
    }

    #[test]
    fn what_may_have_to_wait_for_another_is_not_handed_over() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let mut ordered = new_delivery(1, 1, plan);
            ordered.order_key = Some(7);
            let due = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries: vec![ordered] }).await.unwrap();
            assert!(!is_hot(&ledger, due[0].seq));
        });
    }

    #[test]
    fn an_event_of_several_deliveries_is_held_once_and_as_long_as_one_of_them() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 0).await;
            let deliveries = (1..=3).map(|n| new_delivery(1, n, plan)).collect();
            ledger.events.append_with(event(1), deliveries).await.unwrap();
            let due = ledger.deliveries.take_new().due;
            let bytes = || ledger.store.shared().hot.lock().bytes;
            let of_event = event(1).set.text.len() + event(1).original.len() + EVENT_BYTES;
            for left in [3, 2, 1] {
                assert_eq!(bytes(), of_event + left * DELIVERY_BYTES);
                let seq = due[3 - left].seq;
                assert!(is_hot(&ledger, seq));
                assert_eq!(ledger.deliveries.load(&tenant().id, seq).await.unwrap().unwrap().event.id, event(1).id);
            }
            let held = ledger.store.shared().hot.lock();
            assert!(held.bytes == 0 && held.events.is_empty() && held.news.is_empty());
        });
    }

    #[test]
    fn it_stays_within_its_bytes_and_the_oldest_go_first() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let one = event(1).set.text.len() + event(1).original.len() + EVENT_BYTES + DELIVERY_BYTES;
            let room = 3 * one;
            let options = Options { hot_bytes_max: room, ..Options::new(folder.path()) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            let due = fanned_out(&ledger, 5).await;
            let hot: Vec<bool> = due.iter().map(|due| is_hot(&ledger, due.seq)).collect();
            assert!(!hot[0] && ledger.store.shared().hot.lock().bytes <= room, "{hot:?}");
            for delivery in &due {
                assert_eq!(
                    ledger.deliveries.load(&tenant().id, delivery.seq).await.unwrap().unwrap().event.seq,
                    delivery.event
                );
            }
            assert_eq!(ledger.events.next_events(10).await.unwrap().len(), 0);
            // With a limit of 0 everything is read from the file.
            let options = Options { hot_bytes_max: 0, ..Options::new(folder.path().join("none")) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            let due = fanned_out(&ledger, 2).await;
            assert!(!is_hot(&ledger, due[1].seq));
            assert_eq!(ledger.deliveries.load(&tenant().id, due[1].seq).await.unwrap().unwrap().event.id, event(2).id);
        });
    }
}
