//! The journal: accepted events, in the order in which they were appended.

use std::sync::Arc;

use setgate_domain::audit::{AuditAction, AuditEntry, AuditObject};
use setgate_domain::delivery::{DueDelivery, NewDelivery};
use setgate_domain::event::{Dedupe, Event, EventSeq, NewEvent};
use setgate_domain::id::{EventId, TenantId};
use setgate_domain::time::Timestamp;
use setgate_domain::trace::TraceContext;

use crate::audit;
use crate::commit::queue::Batch;
use crate::dedupe;
use crate::events::Events;
use crate::events::fan_out;
use crate::schema::compression::CompressedEvent;
use crate::schema::event_row::{EVENT_COLUMNS, read_event};
use crate::schema::sql_types::{Json, ReadColumn, params};
use crate::schema::statements::Statements;
use crate::state::stored;
use crate::{Error, FanoutCursor};

/// Result of [`Events::append`](crate::Events::append).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The event was appended at this position.
    New(EventSeq),
    /// The same event, with the same body, is already in the journal.
    Duplicate {
        /// The event that is already there.
        id: EventId,
    },
    /// An event with the same key but another body is already in the journal. Nothing was written.
    Conflict {
        /// The event that is already there.
        id: EventId,
    },
}

/// Approximate bytes of a delivery in the writer's queue.
const DELIVERY_BYTES: usize = 256;

/// Result of [`Events::append_with`](crate::Events::append_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendOutcome {
    /// The event's own result.
    pub appended: Appended,
    /// Whether the deliveries were inserted. False for a duplicate, and if they were left to [`Events::fan_out`](crate::Events::fan_out).
    pub fanned_out: bool,
}

/// Maximum number of events that [`Events::events_after`](crate::Events::events_after) returns.
pub const JOURNAL_LIMIT_MAX: usize = 1_000;
/// Bytes of SETs and originals after which [`Events::events_after`](crate::Events::events_after) returns early, with fewer events than requested.
pub const JOURNAL_BYTES_MAX: usize = 8 << 20;

impl Events {
    /// See [`Options::append_deliveries_max`](crate::Options::append_deliveries_max).
    pub fn append_deliveries_max(&self) -> usize {
        self.0.options().append_deliveries_max
    }

    /// Appends an event. It is durable once this returns [`Appended::New`]; on any error the caller must refuse it.
    ///
    /// [`Error::Busy`] immediately if the queue is full; [`Error::NoTenant`] if its tenant does not exist (any more).
    pub async fn append(&self, event: NewEvent) -> Result<Appended, Error> {
        let mut new = PreparedEvent::from(event);
        let bytes = new.bytes();
        self.0.queue().write_unless_full(bytes, move |batch| append_alone(batch, &mut new)).await
    }

    /// Like [`Events::append`](crate::Events::append), but inserts the event's deliveries (run 0) in the same transaction. Their `event` field
    /// is ignored. The dispatcher gets the new deliveries from [`Deliveries::take_new`](crate::Deliveries::take_new), so the caller need not notify it.
    ///
    /// The deliveries are left to [`Events::fan_out`](crate::Events::fan_out) if there are more than `append_deliveries_max` of them, if a plan
    /// must be interned again, if they are ordered and earlier events of their tenant are still to be fanned out, or if
    /// the batch has reached its limit of new deliveries.
    pub async fn append_with(&self, event: NewEvent, deliveries: Vec<NewDelivery>) -> Result<AppendOutcome, Error> {
        let (now, most) = (self.0.clock().now(), self.0.options().append_deliveries_max);
        let mut new = PreparedEvent::from(event);
        let bytes = new.bytes() + deliveries.len() * DELIVERY_BYTES;
        let mut deliveries = (deliveries.len() <= most).then_some(deliveries);
        self.0
            .queue()
            .write_unless_full(bytes, move |batch| append_with(batch, &mut new, deliveries.as_deref_mut(), now))
            .await
    }

    /// Appends an event that is addressed to a single subscription, together with its delivery and an audit row, in one
    /// transaction. The delivery's `event` field is ignored. The event is never fanned out.
    pub async fn append_for(
        &self,
        event: NewEvent,
        delivery: NewDelivery,
        audit: AuditAction,
    ) -> Result<DueDelivery, Error> {
        let at = self.0.clock().now();
        let (mut new, mut delivery) = (PreparedEvent::from(event), delivery);
        let bytes = new.bytes();
        let object = AuditObject { kind: "subscription".to_owned(), id: delivery.id.subscription.to_string() };
        let audit = audit.note(delivery.id.to_string());
        let entry = AuditEntry::new(audit, at, Some(delivery.tenant.clone()), object);
        self.0
            .queue()
            .write_unless_full(bytes, move |batch| {
                let Appended::New(seq) = append(batch, &mut new)? else {
                    return Err(Error::corrupt(format!("event {} already exists", new.event.id)));
                };
                // No other subscription may match it, so the event needs no fan-out.
                batch.fanout_cursor.append_complete(seq);
                delivery.event = seq;
                let due = fan_out::insert(batch, &delivery, at)?;
                let due = due.ok_or_else(|| Error::corrupt(format!("delivery {} already exists", delivery.id)))?;
                audit::record(batch, &entry)?;
                Ok(due)
            })
            .await
    }

    /// End of the journal and fan-out cursor. Changes are signalled after each batch while events are left to fan out.
    /// For the fan-out loop.
    pub fn fanout_cursor(&self) -> tokio::sync::watch::Receiver<FanoutCursor> {
        self.0.shared().fanout_cursor.subscribe()
    }

    /// The fan-out cursor: the last event that has been fanned out. Never blocks.
    pub fn cursor(&self) -> EventSeq {
        self.0.shared().fanout_cursor.borrow().position()
    }

    /// The next events to fan out, in order: at most `limit`, and with the limits of [`Events::events_after`](crate::Events::events_after).
    /// Recently appended events come from memory.
    pub async fn next_events(&self, limit: usize) -> Result<Vec<Arc<Event>>, Error> {
        let cursor = self.cursor();
        match self.0.shared().recent_writes.events_after(cursor, limit.min(JOURNAL_LIMIT_MAX)) {
            Some(events) => Ok(events),
            None => Ok(self.events_after(cursor, limit).await?.into_iter().map(Arc::new).collect()),
        }
    }

    /// The events after `after`, in order: at most `limit` and [`JOURNAL_LIMIT_MAX`], and none beyond
    /// [`JOURNAL_BYTES_MAX`] bytes. Empty only if no later event exists.
    pub async fn events_after(&self, after: EventSeq, limit: usize) -> Result<Vec<Event>, Error> {
        let limit = limit.min(JOURNAL_LIMIT_MAX);
        self.0
            .readers()
            .read(move |conn| {
                let mut statement = conn.prepare_cached(&format!(
                    "SELECT {EVENT_COLUMNS} FROM event e WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2"
                ))?;
                let mut rows = statement.query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
                let mut events = Vec::new();
                let mut bytes = 0;
                while let Some(row) = rows.next()? {
                    let event = read_event(row)?;
                    bytes += event.set.text.len() + event.original.len();
                    events.push(event);
                    if bytes >= JOURNAL_BYTES_MAX {
                        break;
                    }
                }
                Ok(events)
            })
            .await
    }

    /// An event of the tenant, including its SET and original bytes.
    pub async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<Event>, Error> {
        let tenant = tenant.clone();
        self.0
            .history_of(&tenant)
            .read(move |conn| {
                let mut statement = conn.prepare_cached(&format!(
                    "SELECT {EVENT_COLUMNS} FROM event e WHERE e.id = ?1 AND e.tenant = ?2"
                ))?;
                let mut rows = statement.query(params![id, tenant])?;
                rows.next()?.map(read_event).transpose()
            })
            .await
    }
}

/// An event to append, compressed and in shareable form before it reaches the writer thread, which is the bottleneck.
struct PreparedEvent {
    /// `seq` is assigned by the last run of the request.
    event: Arc<Event>,
    dedupe: Dedupe,
    compressed: CompressedEvent,
}

impl From<NewEvent> for PreparedEvent {
    fn from(new: NewEvent) -> Self {
        let compressed = CompressedEvent::new(&new.set.text, &new.original);
        let event = Event {
            seq: EventSeq::default(),
            id: new.id,
            tenant: new.tenant,
            source: new.source,
            accepted_at: new.accepted_at,
            set: new.set,
            subject: new.subject,
            content_type: new.content_type,
            original: new.original,
            trace: new.trace,
        };
        Self { event: Arc::new(event), dedupe: new.dedupe, compressed }
    }
}

impl PreparedEvent {
    /// Bytes it occupies in the writer's queue.
    fn bytes(&self) -> usize {
        self.event.set.text.len() + self.event.original.len() + self.compressed.bytes()
    }
}

fn append_alone(batch: &mut Batch<'_>, new: &mut PreparedEvent) -> Result<Appended, Error> {
    let appended = append(batch, new)?;
    if let Appended::New(seq) = appended {
        batch.fanout_cursor.append_pending(seq);
    }
    Ok(appended)
}

fn append_with(
    batch: &mut Batch<'_>,
    new: &mut PreparedEvent,
    deliveries: Option<&mut [NewDelivery]>,
    now: Timestamp,
) -> Result<AppendOutcome, Error> {
    let appended = append(batch, new)?;
    let Appended::New(seq) = appended else { return Ok(AppendOutcome { appended, fanned_out: false }) };
    let fanned_out = match deliveries {
        Some(deliveries) => fan_out::insert_all(batch, seq, deliveries, now)?,
        None => false,
    };
    if fanned_out {
        batch.fanout_cursor.append_complete(seq);
    } else {
        batch.fanout_cursor.append_pending(seq);
    }
    Ok(AppendOutcome { appended, fanned_out })
}

/// Inserts the event's row. Advancing the fan-out cursor is left to the caller.
fn append(batch: &mut Batch<'_>, new: &mut PreparedEvent) -> Result<Appended, Error> {
    let PreparedEvent { event, dedupe, compressed } = new;
    if !batch.snapshot.tenants.contains_key(&event.tenant) {
        return Err(Error::NoTenant(event.tenant.clone()));
    }
    let hash = dedupe::hash(&dedupe.key);
    if let Some(duplicate) = find_duplicate(batch, event, dedupe, hash)? {
        return Ok(duplicate);
    }
    let insert = batch.statements.get(
        "INSERT INTO event (id, tenant, source, accepted_at, dedupe_hash, dedupe_key, dedupe_body, issued_at, issuer,
             jti, types, subject, content_type, set_text, original, trace, compressed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    )?;
    insert.execute(params![
        event.id,
        event.tenant,
        event.source,
        event.accepted_at,
        hash,
        dedupe.key,
        dedupe.body,
        event.set.issued_at,
        event.set.issuer,
        event.set.jti,
        Json(&event.set.types),
        event.subject,
        event.content_type,
        compressed.text(&event.set.text),
        compressed.original(&event.original, &event.set.text),
        event.trace.as_ref().map(TraceContext::to_bytes),
        compressed.compressed,
    ])?;
    let seq = EventSeq(batch.conn.last_insert_rowid());
    let bytes = stored::of_event(batch.conn, seq)?;
    batch.effects.add_stored_bytes(&event.tenant, bytes);
    // No run, even one that was rolled back, leaves another reference behind, so this never copies.
    Arc::make_mut(event).seq = seq;
    batch.effects.appended(Arc::clone(event));
    batch.appended.push(dedupe::Entry { hash, seq });
    Ok(Appended::New(seq))
}

/// Looks up an earlier event with the same dedupe key. `hash` is the hash of that key.
fn find_duplicate(batch: &mut Batch<'_>, event: &Event, dedupe: &Dedupe, hash: i64) -> Result<Option<Appended>, Error> {
    let same_hash = batch.appended.iter().rev().filter(|entry| entry.hash == hash);
    for entry in same_hash {
        if let Some(duplicate) = compare_with(&mut batch.statements, entry.seq, event, dedupe)? {
            return Ok(duplicate);
        }
    }
    let look = |statements: &mut Statements<'_>, seq| compare_with(statements, seq, event, dedupe);
    Ok(batch.dedupe.find(&mut batch.statements, hash, look)?.flatten())
}

/// Compares with the event at `seq`. Outer `None` if that event has another key or is deleted, so the search must go
/// on; inner `None` if it has the same key but its dedupe window is over.
fn compare_with(
    statements: &mut Statements<'_>,
    seq: EventSeq,
    event: &Event,
    dedupe: &Dedupe,
) -> Result<Option<Option<Appended>>, Error> {
    let select = statements.get("SELECT id, dedupe_key, dedupe_body, accepted_at FROM event WHERE seq = ?1")?;
    let mut rows = select.query(params![seq])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    if row.get::<_, [u8; 32]>(1)? != dedupe.key {
        return Ok(None);
    }
    // An earlier copy may be dated in the future if the clock was or is wrong: then only the distance counts.
    let age_ms = event.accepted_at.since(row.column::<Timestamp>(3)?).saturating_abs();
    if dedupe.window_ms.is_some_and(|window| age_ms > window) {
        // This is the newest copy; all others are older still.
        return Ok(Some(None));
    }
    let id = row.column(0)?;
    let same = row.get::<_, [u8; 32]>(2)? == dedupe.body;
    Ok(Some(Some(if same { Appended::Duplicate { id } } else { Appended::Conflict { id } })))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tests::{NOW, block_on, copy, event, open, open_at, reopen, with_tenant};

    #[test]
    fn duplicate_key_is_detected() {
        block_on(async {
            let (folder, ledger) = open();
            with_tenant(&ledger).await;
            let first = event(1);
            assert_eq!(ledger.events.append(first.clone()).await.unwrap(), Appended::New(EventSeq(1)));
            let mut again = event(2);
            again.dedupe = first.dedupe;
            assert_eq!(ledger.events.append(again.clone()).await.unwrap(), Appended::Duplicate { id: first.id });
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(ledger.events.append(again.clone()).await.unwrap(), Appended::Duplicate { id: first.id });
            again.dedupe.body = [9; 32];
            assert_eq!(ledger.events.append(again).await.unwrap(), Appended::Conflict { id: first.id });
            // Two simultaneous copies end up in the same batch.
            let mut twin = event(4);
            twin.dedupe = event(3).dedupe;
            let (a, b) = tokio::join!(ledger.events.append(event(3)), ledger.events.append(twin));
            assert!(matches!((a.unwrap(), b.unwrap()), (Appended::New(_), Appended::Duplicate { .. })));
        });
    }

    #[test]
    fn dedupe_window_ends() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            let mut first = event(1);
            first.dedupe.window_ms = Some(1_000);
            ledger.events.append(first.clone()).await.unwrap();
            let mut second = event(2);
            second.dedupe = first.dedupe;
            second.accepted_at = NOW.plus_millis(1_000);
            assert_eq!(ledger.events.append(second.clone()).await.unwrap(), Appended::Duplicate { id: first.id });
            second.accepted_at = NOW.plus_millis(1_001);
            assert!(matches!(ledger.events.append(second.clone()).await.unwrap(), Appended::New(_)));
            // From here on the newest copy counts.
            let mut third = event(3);
            third.dedupe = first.dedupe;
            third.accepted_at = NOW.plus_millis(1_500);
            assert_eq!(ledger.events.append(third).await.unwrap(), Appended::Duplicate { id: second.id });
        });
    }

    #[test]
    fn acknowledged_events_survive_crash() {
        block_on(async {
            let (folder, ledger) = open();
            with_tenant(&ledger).await;
            let trace = TraceContext { trace: [3; 16], span: [5; 8], flags: 1, state: "rojo=1".into() };
            for n in 1..=20 {
                let trace = (n == 5).then(|| trace.clone());
                ledger.events.append(NewEvent { trace, ..event(n) }).await.unwrap();
            }
            // The files as a crash at this moment would leave them, while the first ledger is still running.
            let crashed = open_at(&copy(&folder));
            let events = crashed.events.events_after(EventSeq(0), 100).await.unwrap();
            assert_eq!(events.len(), 20);
            assert_eq!(crashed.events.fanout_cursor().borrow().last(), EventSeq(20));
            assert_eq!(events[4].id, event(5).id);
            assert_eq!(events[4].original, event(5).original);
            assert_eq!(events[4].set, event(5).set);
            assert_eq!((&events[3].trace, &events[4].trace), (&None, &Some(trace)));
        });
    }

    #[test]
    fn original_equal_to_set_round_trips() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            let mut plain = event(1);
            plain.original = Bytes::from(plain.set.text.clone());
            ledger.events.append(plain.clone()).await.unwrap();
            let kept = ledger.events.event(&plain.tenant, plain.id).await.unwrap().unwrap();
            assert_eq!(kept.original, plain.original);
        });
    }
}
