//! Inserts deliveries into the outbox: with their event, by `fan_out`, or as a further run.

use rusqlite::OptionalExtension;
use setgate_domain::delivery::{DeliverySeq, DueDelivery, NewDelivery, State};
use setgate_domain::event::EventSeq;
use setgate_domain::id::EventId;
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::commit::queue::Batch;
use crate::deliveries::fifo::is_blocked;
use crate::events::Events;
use crate::registry::plans::plan_row;
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::stored::DELIVERY_BYTES;

/// Maximum number of events after the cursor that an append checks for earlier events of its tenant. If there are more,
/// one is assumed to exist.
const PENDING_SCAN_MAX: i64 = 1_000;
/// Number of deliveries at which a caller should end a [`FanOut`] after its current event, because writing it delays
/// every other request. More are accepted, since all deliveries of one event must be in one call. It also limits the
/// deliveries that one batch inserts together with their events.
pub const FAN_OUT_DELIVERIES_MAX: usize = 5_000;

/// Deliveries of the next events of the journal, and the new cursor.
#[derive(Debug, Clone)]
pub struct FanOut {
    /// Last event examined, even if no subscription matched it.
    pub through: EventSeq,
    /// Deliveries of the events after the cursor up to `through`, all with `run` 0.
    pub deliveries: Vec<NewDelivery>,
}

impl Events {
    /// Inserts deliveries into the outbox and advances the cursor in one transaction. Returns the new deliveries,
    /// except for those blocked by an earlier delivery: they are returned once that one has ended.
    ///
    /// Idempotent: events at or before the cursor are skipped, and so is a delivery that already exists or has no
    /// event. [`Error::UnknownPlan`] if a plan must be interned again; then nothing is written.
    pub async fn fan_out(&self, fan_out: FanOut) -> Result<Vec<DueDelivery>, Error> {
        let now = self.0.clock().now();
        self.0.queue().write_named(move |batch| apply(batch, &fan_out, now)).await
    }
}

fn apply(batch: &mut Batch<'_>, fan_out: &FanOut, now: Timestamp) -> Result<Vec<DueDelivery>, Error> {
    let cursor = batch.fanout_cursor.position();
    if fan_out.through <= cursor {
        return Ok(Vec::new());
    }
    let mut made = Vec::with_capacity(fan_out.deliveries.len());
    for delivery in &fan_out.deliveries {
        if delivery.event > cursor && delivery.event <= fan_out.through {
            let new = insert(batch, delivery, now)?;
            if let Some(due) = new.as_ref().filter(|_| delivery.order_key.is_none()) {
                batch.effects.inserted(due);
            }
            made.extend(new);
        }
    }
    batch.fanout_cursor.advance_to(fan_out.through);
    Ok(made)
}

/// Inserts all deliveries of an event that was just appended, and queues them for the dispatcher. Returns false,
/// without any change, if they are left to the fan-out loop. See [`Events::append_with`](crate::Events::append_with).
pub(crate) fn insert_all(
    batch: &mut Batch<'_>,
    event: EventSeq,
    deliveries: &mut [NewDelivery],
    now: Timestamp,
) -> Result<bool, Error> {
    if batch.inserted_deliveries + deliveries.len() > FAN_OUT_DELIVERIES_MAX || breaks_order(batch, event, deliveries)?
    {
        return Ok(false);
    }
    let mut plans = Vec::with_capacity(deliveries.len());
    for delivery in &*deliveries {
        match plan_row(batch, &delivery.plan, now) {
            Ok(plan) => plans.push(plan),
            Err(Error::UnknownPlan(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    batch.inserted_deliveries += deliveries.len();
    for (delivery, plan) in deliveries.iter_mut().zip(plans) {
        delivery.event = event;
        let Some(due) = insert_row(batch, delivery, plan, now)? else { continue };
        if delivery.order_key.is_none() {
            batch.effects.inserted(&due);
        }
        batch.effects.notify_dispatcher(due);
    }
    Ok(true)
}

/// Whether the event has ordered deliveries while an earlier event of its tenant may not have been fanned out.
fn breaks_order(batch: &Batch<'_>, event: EventSeq, deliveries: &[NewDelivery]) -> Result<bool, Error> {
    let Some(ordered) = deliveries.iter().find(|delivery| delivery.order_key.is_some()) else { return Ok(false) };
    if !batch.fanout_cursor.has_pending() {
        return Ok(false);
    }
    let cursor = batch.fanout_cursor.position();
    if event.0 - cursor.0 > PENDING_SCAN_MAX {
        return Ok(true);
    }
    Ok(batch
        .conn
        .prepare_cached("SELECT 1 FROM event WHERE seq > ?1 AND seq < ?2 AND +tenant = ?3")?
        .exists(params![cursor, event, ordered.tenant])?)
}

/// Inserts a further run of a delivery and assigns the run number; the given `id.run` is ignored. `None` if its event
/// is gone.
pub(crate) fn insert_next_run(
    batch: &mut Batch<'_>,
    mut new: NewDelivery,
    now: Timestamp,
) -> Result<Option<DueDelivery>, Error> {
    let last: Option<u32> = batch
        .conn
        .prepare_cached("SELECT max(run) FROM delivery WHERE event_seq = ?1 AND subscription = ?2")?
        .query_row(params![new.event, new.id.subscription], |row| row.get(0))?;
    // Run 0 is reserved for the fan-out, even if it made no delivery.
    new.id.run = last.map_or(1, |run| run.saturating_add(1));
    let known_bytes: Option<i64> = batch
        .conn
        .prepare_cached("SELECT bytes FROM delivery WHERE event_seq = ?1 LIMIT 1")?
        .query_row(params![new.event], |row| row.get(0))
        .optional()?;
    new.bytes = known_bytes.unwrap_or(0).cast_unsigned();
    insert(batch, &new, now)
}

pub(crate) fn insert(batch: &mut Batch<'_>, new: &NewDelivery, now: Timestamp) -> Result<Option<DueDelivery>, Error> {
    if !event_exists(batch, new.event, new.id.event)? {
        return Ok(None);
    }
    let plan = plan_row(batch, &new.plan, now)?;
    insert_row(batch, new, plan, now)
}

/// Inserts the row; the event and the plan must exist. `None` if the delivery already exists, or is blocked by an
/// earlier one.
fn insert_row(
    batch: &mut Batch<'_>,
    new: &NewDelivery,
    plan: i64,
    now: Timestamp,
) -> Result<Option<DueDelivery>, Error> {
    let inserted = batch
        .statements
        .get(
            "INSERT INTO delivery (event_seq, event_id, subscription, run, tenant, state, due_at, plan, attempts,
                 attempts_before, filter_tries, filtered, created_at, updated_at, order_key, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, 0, 0, 0, 0, ?8, ?8, ?9, ?10)
             ON CONFLICT (event_seq, subscription, run) DO NOTHING",
        )?
        .execute(params![
            new.event,
            new.id.event,
            new.id.subscription,
            new.id.run,
            new.tenant,
            new.due_at,
            plan,
            now,
            new.order_key,
            new.bytes.cast_signed()
        ])?;
    if inserted == 0 {
        return Ok(None);
    }
    let seq = DeliverySeq(batch.conn.last_insert_rowid());
    batch.effects.count(&new.tenant, new.id.subscription, State::Due, 1);
    batch.effects.add_plan_ref(plan, 1);
    batch.effects.add_stored_bytes(&new.tenant, DELIVERY_BYTES);
    if new.order_key.is_some() && is_blocked(batch.conn, seq)? {
        return Ok(None);
    }
    Ok(Some(new.due(seq)))
}

fn event_exists(batch: &mut Batch<'_>, seq: EventSeq, id: EventId) -> Result<bool, Error> {
    let found = batch
        .statements
        .get("SELECT id FROM event WHERE seq = ?1")?
        .query_row(params![seq], |row| row.column::<EventId>(0))
        .optional()?;
    Ok(found == Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::UNUSED_RETENTION_MS;
    use crate::registry::plans::delete_unused;
    use crate::tests::{
        NOW, attempt, block_on, copy, due_one, event, in_one_batch, new_delivery, open, open_at, reopen, run,
        subscription, tenant, with_events,
    };
    use crate::{AppendOutcome, Appended, NewDue, Options};
    use setgate_base::clock::Clock;
    use setgate_domain::delivery::{Settlement, Step};
    use setgate_domain::id::Digest;

    #[test]
    fn fan_out_is_idempotent() {
        block_on(async {
            let (folder, ledger) = open();
            let plan = with_events(&ledger, 2).await;
            let fan_out = FanOut {
                through: EventSeq(2),
                deliveries: vec![new_delivery(1, 1, plan), new_delivery(1, 2, plan), new_delivery(2, 1, plan)],
            };
            assert_eq!(ledger.events.fan_out(fan_out.clone()).await.unwrap().len(), 3);
            assert_eq!(ledger.events.cursor(), EventSeq(2));
            assert_eq!(ledger.events.fan_out(fan_out.clone()).await.unwrap().len(), 0);
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(ledger.events.cursor(), EventSeq(2));
            assert_eq!(ledger.events.fan_out(fan_out.clone()).await.unwrap().len(), 0);
            assert_eq!(ledger.usage.backlog(&event(1).tenant), 3);
            let lanes = ledger.deliveries.due_summary().await.unwrap();
            assert_eq!(lanes.iter().map(|l| l.deliveries).collect::<Vec<_>>(), [2, 1]);
            assert_eq!(lanes[0].tenant, event(1).tenant);
        });
    }

    #[test]
    fn unknown_plan_does_not_move_cursor() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let unknown = Digest([7; 32]);
            let deliveries = vec![new_delivery(1, 1, plan), new_delivery(1, 2, unknown)];
            let refused = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await;
            assert!(matches!(refused, Err(Error::UnknownPlan(digest)) if digest == unknown));
            assert_eq!((ledger.events.cursor(), ledger.usage.backlog(&event(1).tenant)), (EventSeq(0), 0));
            assert!(ledger.deliveries.due_summary().await.unwrap().is_empty());
        });
    }

    fn is_made(ledger: &Ledger) -> Vec<(i64, u128)> {
        let NewDue { due, on_disk } = ledger.deliveries.take_new();
        assert!(on_disk.is_empty());
        due.iter().map(|due| (due.event.0, (0..9).find(|n| subscription(*n) == due.id.subscription).unwrap())).collect()
    }

    fn to(event: u64, subscriptions: impl IntoIterator<Item = u128>, plan: Digest) -> Vec<NewDelivery> {
        let of = |n| NewDelivery { event: EventSeq::default(), ..new_delivery(event, n, plan) };
        subscriptions.into_iter().map(of).collect()
    }

    #[test]
    fn append_with_is_one_transaction() {
        block_on(async {
            let (folder, ledger) = open();
            let plan = with_events(&ledger, 0).await;
            let taken = ledger.events.append_with(event(1), to(1, [1, 2], plan)).await.unwrap();
            assert_eq!(taken, AppendOutcome { appended: Appended::New(EventSeq(1)), fanned_out: true });
            assert_eq!(is_made(&ledger), [(1, 1), (1, 2)]);
            assert_eq!((ledger.events.cursor(), ledger.usage.backlog(&event(1).tenant)), (EventSeq(1), 2));
            assert!(!ledger.events.fanout_cursor().borrow().has_pending());
            // A duplicate inserts nothing, and is not reported to the dispatcher again.
            let again = ledger.events.append_with(event(1), to(1, [1, 2, 3], plan)).await.unwrap();
            assert_eq!(again, AppendOutcome { appended: Appended::Duplicate { id: event(1).id }, fanned_out: false });
            assert!(is_made(&ledger).is_empty());
            // No subscription matches: an empty list of deliveries is complete.
            assert!(ledger.events.append_with(event(2), vec![]).await.unwrap().fanned_out);
            let crashed = open_at(&copy(&folder));
            assert_eq!((crashed.events.cursor(), crashed.usage.backlog(&event(1).tenant)), (EventSeq(2), 2));
            assert_eq!(
                crashed.deliveries.due_summary().await.unwrap().iter().map(|lane| lane.deliveries).collect::<Vec<_>>(),
                [1, 1]
            );
        });
    }

    #[test]
    fn append_limits_inline_deliveries() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let options = Options { append_deliveries_max: 2, ..Options::new(folder.path()) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            let plan = with_events(&ledger, 0).await;
            assert!(ledger.events.append_with(event(1), to(1, [1, 2], plan)).await.unwrap().fanned_out);
            assert!(!ledger.events.append_with(event(2), to(2, [1, 2, 3], plan)).await.unwrap().fanned_out);
            // Later events still get their deliveries at once; the cursor stays at the event that was left.
            assert!(ledger.events.append_with(event(3), to(3, [1], plan)).await.unwrap().fanned_out);
            assert_eq!(is_made(&ledger), [(1, 1), (1, 2), (3, 1)]);
            assert_eq!(
                (ledger.events.cursor(), ledger.events.fanout_cursor().borrow().has_pending()),
                (EventSeq(1), true)
            );
            let left: Vec<_> = ledger.events.next_events(1).await.unwrap().iter().map(|event| event.seq.0).collect();
            assert_eq!(left, [2]);
            let deliveries = (1..=3).map(|n| new_delivery(2, n, plan)).collect();
            assert_eq!(ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap().len(), 3);
            assert_eq!(
                (ledger.events.cursor(), ledger.events.fanout_cursor().borrow().has_pending()),
                (EventSeq(3), false)
            );

            let options = Options { append_deliveries_max: 0, ..Options::new(folder.path().join("none")) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            let plan = with_events(&ledger, 0).await;
            assert!(ledger.events.append_with(event(1), vec![]).await.unwrap().fanned_out, "there is nothing to leave");
            assert!(!ledger.events.append_with(event(2), to(2, [1], plan)).await.unwrap().fanned_out);
        });
    }

    #[test]
    fn batch_limits_inline_deliveries() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let options = Options { append_deliveries_max: usize::MAX, ..Options::new(folder.path()) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            let plan = with_events(&ledger, 0).await;
            let most = FAN_OUT_DELIVERIES_MAX as u128;
            let (taken, other) = tokio::join!(
                ledger.events.append_with(event(1), to(1, 1..=most, plan)),
                ledger.events.append_with(event(2), to(2, [1], plan)),
            );
            // Whether both end up in one batch is up to the writer; the third append exceeds the limit in any case.
            assert!(taken.unwrap().fanned_out && other.is_ok());
            assert!(!ledger.events.append_with(event(3), to(3, 1..=most + 1, plan)).await.unwrap().fanned_out);
        });
    }

    #[test]
    fn unknown_plan_leaves_event_to_fan_out() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 0).await;
            let deliveries = [to(1, [1], plan), to(1, [2], Digest([7; 32]))].concat();
            let taken = ledger.events.append_with(event(1), deliveries).await.unwrap();
            assert_eq!(taken, AppendOutcome { appended: Appended::New(EventSeq(1)), fanned_out: false });
            assert_eq!((ledger.usage.backlog(&event(1).tenant), ledger.events.cursor()), (0, EventSeq(0)));
        });
    }

    #[test]
    fn ordered_event_waits_for_earlier_fan_out() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let ordered =
                |n| to(n, [1], plan).into_iter().map(|new| NewDelivery { order_key: Some(5), ..new }).collect();
            assert!(!ledger.events.append_with(event(2), ordered(2)).await.unwrap().fanned_out);
            let deliveries = (1..=2).map(|n| NewDelivery { order_key: Some(5), ..new_delivery(n, 1, plan) }).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(2), deliveries }).await.unwrap();
            assert_eq!(made.iter().map(|due| due.event.0).collect::<Vec<_>>(), [1], "the second one waits");
            // Nothing is left: the next event gets its delivery, blocked by the ones before it.
            assert!(ledger.events.append_with(event(3), ordered(3)).await.unwrap().fanned_out);
            assert!(is_made(&ledger).is_empty());
            assert_eq!(ledger.usage.backlog(&event(1).tenant), 3);
        });
    }

    #[test]
    fn due_is_ordered_and_resumes_after_position() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 4).await;
            let mut deliveries: Vec<_> = (1..=4).map(|n| new_delivery(n, 1, plan)).collect();
            for (delivery, wait_ms) in deliveries.iter_mut().zip([5, 0, 5, 50]) {
                delivery.due_at = NOW.plus_millis(wait_ms);
            }
            ledger.events.fan_out(FanOut { through: EventSeq(4), deliveries }).await.unwrap();
            let at = NOW.plus_millis(10);
            let due = ledger.deliveries.due(&tenant().id, subscription(1), at, None, 10).await.unwrap();
            assert_eq!(due.iter().map(|d| d.event.0).collect::<Vec<_>>(), [2, 1, 3]);
            let after = Some((due[1].due_at, due[1].seq));
            let rest = ledger.deliveries.due(&tenant().id, subscription(1), at, after, 10).await.unwrap();
            assert_eq!(rest.iter().map(|d| d.event.0).collect::<Vec<_>>(), [3]);
            let content = ledger.deliveries.load(&tenant().id, due[0].seq).await.unwrap().unwrap();
            assert_eq!((content.event.id, content.claims, content.filtered), (event(2).id, None, false));
        });
    }

    #[test]
    fn load_returns_current_state() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = due_one(&ledger).await;
            let settle = async |step: Step| {
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
                let now = ledger.deliveries.load(&tenant().id, due.seq).await.unwrap().unwrap();
                (now.state, now.attempts, now.due_at, now.filter_tries)
            };
            let (soon, later) = (NOW.plus_millis(10), NOW.plus_millis(20));
            let again = settle(Step::FilterRetry { runs: vec![run()], due_at: soon }).await;
            assert_eq!(again, (State::Due, 0, soon, 1));
            let retry = settle(Step::Retry { attempt: attempt(1, 500), due_at: later }).await;
            assert_eq!(retry, (State::Due, 1, later, 1));
            let (state, attempts, ..) = settle(Step::Delivered { attempt: attempt(2, 200) }).await;
            assert_eq!((state, attempts), (State::Delivered, 2));
        });
    }

    /// A plan that a sweep at `before` would delete, and a fan-out that is about to use it at `now`.
    struct Unused {
        _folder: tempfile::TempDir,
        ledger: Ledger,
        plan: Digest,
        now: Timestamp,
        before: Timestamp,
        fan_out: FanOut,
    }

    async fn unused() -> Unused {
        let (_folder, ledger) = open();
        let plan = with_events(&ledger, 1).await;
        let now = NOW.plus_millis(2 * UNUSED_RETENTION_MS);
        let before = now.plus_millis(-UNUSED_RETENTION_MS);
        let fan_out = FanOut { through: EventSeq(1), deliveries: vec![new_delivery(1, 1, plan)] };
        Unused { _folder, ledger, plan, now, before, fan_out }
    }

    #[test]
    fn plan_used_in_same_batch_is_not_deleted() {
        block_on(async {
            let Unused { _folder, ledger, plan, now, before, fan_out } = unused().await;
            let swept = ledger
                .store
                .queue()
                .write(move |batch| {
                    apply(batch, &fan_out, now)?;
                    delete_unused(batch, before)
                })
                .await;
            assert_eq!(swept.unwrap(), (0, 0));
            assert!(ledger.plans.get(&tenant().id, &plan).await.unwrap().is_some());
            assert_eq!(ledger.deliveries.due(&tenant().id, subscription(1), now, None, 9).await.unwrap()[0].plan, plan);
        });
    }

    /// Undoing a request also undoes its changes to a plan's row, so the next request must look the row up again.
    #[test]
    fn failed_request_clears_cached_plan() {
        block_on(async {
            let Unused { _folder, ledger, now, before, fan_out, .. } = unused().await;
            let again = fan_out.clone();
            let refused = ledger.store.queue().write(move |batch| -> Result<(), Error> {
                apply(batch, &fan_out, now)?;
                Err(Error::InvalidCursor)
            });
            let swept = ledger.store.queue().write(move |batch| {
                assert!(batch.plans.is_empty());
                apply(batch, &again, now)?;
                delete_unused(batch, before)
            });
            let (refused, swept) = in_one_batch(&ledger, async { tokio::join!(biased; refused, swept) }).await;
            assert!(matches!(refused, Err(Error::InvalidCursor)));
            assert_eq!(swept.unwrap(), (0, 0));
        });
    }

    #[test]
    fn one_event_may_exceed_fan_out_limit() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let count = FAN_OUT_DELIVERIES_MAX + 1;
            let deliveries = (0..count).map(|n| new_delivery(1, n as u128, plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            assert_eq!((made.len(), ledger.usage.backlog(&event(1).tenant)), (count, count as u64));
        });
    }
}
