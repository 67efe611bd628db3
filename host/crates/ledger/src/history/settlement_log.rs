//! The settlement log: recent state changes of a tenant's deliveries, in commit order, for live views. Collected while
//! a batch runs and written at its end as one row per tenant; retained for [`crate::Options::tail_retention_ms`].
//! Details are read from the delivery and attempt rows, so an entry whose delivery has been deleted is skipped.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use setgate_domain::attempt::Attempt;
use setgate_domain::delivery::State;
use setgate_domain::id::{DeliveryId, SourceName, SubscriptionId, TenantId};
use setgate_domain::page::PageBuilder;
use setgate_domain::time::Timestamp;

use crate::history::History;
use crate::schema::sql_types::{Json, ReadColumn, params};
use crate::state::settlements::Entry;
use crate::{Error, HISTORY_SCAN_ROWS_MAX};

/// Maximum number of settlements that [`History::settlements`](crate::History::settlements) returns.
pub const SETTLED_LIMIT_MAX: usize = 200;
/// Maximum bytes of JSON that it returns, unless a single settlement is larger.
pub const SETTLED_BYTES_MAX: usize = 64 << 10;
/// Batches that retention deletes per transaction.
const CHUNK_BATCHES: i64 = 1_000;

/// A position in the log, just after an entry. Its text form is opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettledPlace {
    batch: i64,
    /// Index of the entry in its row; `u32::MAX` after the last entry of the row.
    entry: u32,
}

impl fmt::Display for SettledPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}", self.batch, self.entry)
    }
}

impl FromStr for SettledPlace {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let part = |range| given.get(range).and_then(|hex: &str| u64::from_str_radix(hex, 16).ok());
        let place = part(0..16).zip(part(16..24)).and_then(|(batch, entry)| {
            Some(Self { batch: i64::try_from(batch).ok()?, entry: u32::try_from(entry).ok()? })
        });
        place.filter(|place| place.to_string() == given).ok_or(Error::InvalidCursor)
    }
}

/// Settlement filter. Fields that are `None` match everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct SettledQuery {
    /// Only deliveries of this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only settlements that left the delivery in this state.
    pub state: Option<State>,
}

/// A state change of a delivery.
#[derive(Debug, Clone, Serialize)]
pub struct SettledRecord {
    /// Position in the log.
    #[serde(skip)]
    pub place: SettledPlace,
    /// The delivery.
    pub delivery: DeliveryId,
    /// State after the settlement.
    pub state: State,
    /// Time of the settlement.
    pub at: Timestamp,
    /// Source of the event.
    pub source: SourceName,
    /// Types of the event.
    pub types: Vec<String>,
    /// Subject of the event.
    pub subject: Option<String>,
    /// The attempt that led to it, if any.
    pub attempt: Option<Attempt>,
}

/// A page of settlements, oldest first.
#[derive(Debug, Clone)]
pub struct SettledPage {
    /// The settlements.
    pub items: Vec<SettledRecord>,
    /// Position to continue from.
    pub next: SettledPlace,
    /// More settlements may be available already.
    pub more: bool,
    /// Entries right after the requested position have been deleted: settlements may be missing before the first one.
    pub missed: bool,
}

impl History {
    /// End of the log. Never blocks.
    pub fn settlements_end(&self) -> SettledPlace {
        SettledPlace { batch: *self.0.shared().settled.borrow(), entry: u32::MAX }
    }

    /// Whether the tenant may have settlements after a position. Never blocks.
    pub fn has_settlements(&self, tenant: &TenantId, after: SettledPlace) -> bool {
        self.0.shared().last_settled(tenant) > after.batch
    }

    /// Signals each batch with settlements of any tenant.
    pub fn settlements_changed(&self) -> tokio::sync::watch::Receiver<i64> {
        self.0.shared().settled.subscribe()
    }

    /// Settlements of the tenant after a position, oldest first: at most `limit`, [`SETTLED_LIMIT_MAX`] and
    /// [`SETTLED_BYTES_MAX`]. Scans at most [`HISTORY_SCAN_ROWS_MAX`] rows, so a page may be empty although more
    /// follow.
    ///
    /// [`Error::InvalidCursor`] if the position is beyond the end of the log.
    pub async fn settlements(
        &self,
        tenant: &TenantId,
        query: SettledQuery,
        after: SettledPlace,
        limit: usize,
    ) -> Result<SettledPage, Error> {
        if after.batch > self.settlements_end().batch {
            return Err(Error::InvalidCursor);
        }
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| page(conn, &tenant, query, after, limit)).await
    }

    /// Deletes expired batches, in chunks.
    pub(crate) async fn retain_settled(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.plus_millis(-self.0.options().tail_retention_ms.max(0));
        let young = self
            .0
            .readers()
            .read(move |conn| {
                // Batches are in order of time, except if the clock was set back: batches after the first young one can
                // wait.
                let young = conn
                    .prepare_cached("SELECT batch FROM settled WHERE at >= ?1 ORDER BY batch LIMIT 1")?
                    .query_row(params![before], |row| row.get::<_, i64>(0))
                    .optional()?;
                let last: i64 =
                    conn.query_row("SELECT value FROM mark WHERE name = 'settled'", [], |row| row.get(0))?;
                Ok(young.unwrap_or(last + 1))
            })
            .await?;
        while self.0.queue().write(move |batch| delete_before(batch.conn, young)).await? {}
        Ok(())
    }
}

pub(crate) const SETTLED: &str = "SELECT batch, tenant, doc FROM settled WHERE batch >= ?1 ORDER BY batch";

fn page(
    conn: &Connection,
    tenant: &TenantId,
    query: SettledQuery,
    after: SettledPlace,
    limit: usize,
) -> Result<SettledPage, Error> {
    let limit = limit.clamp(1, SETTLED_LIMIT_MAX);
    let floor: i64 =
        conn.prepare_cached("SELECT value FROM mark WHERE name = 'settled_floor'")?.query_row([], |row| row.get(0))?;
    let mut filling = PageBuilder::with_bytes(limit, SETTLED_BYTES_MAX);
    let (mut next, missed) = (after, after.batch < floor);
    let ended = |filling: PageBuilder<SettledRecord>, next, more| {
        Ok(SettledPage { items: filling.into_items(), next, more, missed })
    };
    let mut looked_at = 0;
    let mut statement = conn.prepare_cached(SETTLED)?;
    let mut rows = statement.query([after.batch])?;
    while let Some(row) = rows.next()? {
        let batch: i64 = row.get(0)?;
        looked_at += 1;
        let entries = if row.get_ref(1)?.as_str().is_ok_and(|name| name == tenant.as_str()) {
            row.get::<_, Json<Vec<Entry>>>(2)?.0
        } else {
            Vec::new()
        };
        for (entry, number) in entries.iter().zip(0..) {
            let place = SettledPlace { batch, entry: number };
            if place <= after {
                continue;
            }
            if filling.is_full() || looked_at >= HISTORY_SCAN_ROWS_MAX {
                return ended(filling, next, true);
            }
            looked_at += 1;
            if let Some(settled) = read(conn, place, entry, query)?
                && !filling.push(settled)
            {
                return ended(filling, next, true);
            }
            next = place;
        }
        if looked_at >= HISTORY_SCAN_ROWS_MAX {
            // Rows of one batch belong to different tenants, so at most one of them is this tenant's and `next` is
            // safe.
            return ended(filling, next, true);
        }
        next = next.max(SettledPlace { batch: batch - 1, entry: u32::MAX });
    }
    // All batches were examined, including those with only other tenants' rows.
    let end: i64 =
        conn.prepare_cached("SELECT value FROM mark WHERE name = 'settled'")?.query_row([], |row| row.get(0))?;
    ended(filling, next.max(SettledPlace { batch: end, entry: u32::MAX }), false)
}

/// Loads the details of an entry. `None` if the delivery is gone, or the filter excludes it.
fn read(
    conn: &Connection,
    place: SettledPlace,
    entry: &Entry,
    query: SettledQuery,
) -> Result<Option<SettledRecord>, Error> {
    if query.state.is_some_and(|state| state != entry.state) {
        return Ok(None);
    }
    let mut statement = conn.prepare_cached(
        "SELECT d.event_id, d.subscription, d.run, e.source, e.types, e.subject
         FROM delivery d JOIN event e ON e.seq = d.event_seq WHERE d.seq = ?1",
    )?;
    let mut rows = statement.query(params![entry.delivery])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let delivery = DeliveryId { event: row.column(0)?, subscription: row.column(1)?, run: row.get(2)? };
    if query.subscription.is_some_and(|subscription| subscription != delivery.subscription) {
        return Ok(None);
    }
    let attempt = match entry.attempt {
        Some(number) => crate::deliveries::attempts::attempts(conn, entry.delivery, Some(number))?.pop(),
        None => None,
    };
    Ok(Some(SettledRecord {
        place,
        delivery,
        state: entry.state,
        at: Timestamp::from_millis(entry.at_ms),
        source: row.column(3)?,
        types: row.get::<_, Json<_>>(4)?.0,
        subject: row.get(5)?,
        attempt,
    }))
}

/// Deletes a chunk of batches before `batch`. Returns whether more are left.
fn delete_before(conn: &Connection, batch: i64) -> Result<bool, Error> {
    let first: Option<i64> = conn.query_row("SELECT min(batch) FROM settled", [], |row| row.get(0))?;
    let Some(first) = first.filter(|first| *first < batch) else { return Ok(false) };
    let to = batch.min(first + CHUNK_BATCHES);
    conn.prepare_cached("DELETE FROM settled WHERE batch < ?1")?.execute([to])?;
    conn.prepare_cached("UPDATE mark SET value = ?1 WHERE name = 'settled_floor'")?.execute([to - 1])?;
    Ok(to < batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FanOut;
    use crate::Ledger;
    use crate::tests::{
        NOW, TENANT, attempt, block_on, due_one, event, new_delivery, open, reopen, run, subscription, with_events,
    };
    use setgate_domain::delivery::{Redrive, Settlement, Step};
    use setgate_domain::event::EventSeq;

    fn tenant() -> TenantId {
        TENANT.parse().unwrap()
    }

    const START: SettledPlace = SettledPlace { batch: 0, entry: 0 };

    /// All settlements after a position, in pages of two.
    async fn all_behind(ledger: &Ledger, mut after: SettledPlace, query: SettledQuery) -> Vec<SettledRecord> {
        let mut all = Vec::new();
        loop {
            let page = ledger.history.settlements(&tenant(), query, after, 2).await.unwrap();
            assert!(page.items.len() <= 2 && !page.missed);
            all.extend(page.items);
            // Through the text form, as a client would store it.
            after = page.next.to_string().parse().unwrap();
            if !page.more {
                return all;
            }
        }
    }

    #[test]
    fn every_settlement_is_in_the_log_once_and_in_order() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let settle = async |ledger: &Ledger, step: Step| {
                for _ in 0..2 {
                    let at = NOW.plus_millis(1);
                    ledger.deliveries.settle(Settlement::new(due.seq, at, step.clone())).await.unwrap();
                }
            };
            let begin = ledger.history.settlements_end();
            settle(&ledger, Step::FilterRetry { runs: vec![run()], due_at: NOW }).await;
            settle(&ledger, Step::Held { runs: vec![run()], reason: "a fault".into() }).await;
            ledger.deliveries.redrive(&tenant(), due.id, Redrive::Release, NOW).await.unwrap();
            let after_three = ledger.history.settlements_end();
            assert!(
                ledger.history.has_settlements(&tenant(), begin)
                    && !ledger.history.has_settlements(&tenant(), after_three)
            );
            settle(&ledger, Step::Retry { attempt: attempt(1, 500), due_at: NOW }).await;
            let ledger = reopen(&folder, ledger).await;
            assert!(ledger.history.has_settlements(&tenant(), after_three), "also after a restart");
            settle(&ledger, Step::Delivered { attempt: attempt(2, 200) }).await;

            let all = all_behind(&ledger, begin, SettledQuery::default()).await;
            let seen: Vec<_> = all.iter().map(|one| (one.state, one.attempt.as_ref().map(|a| a.number))).collect();
            let (again, held) = ((State::Due, None), (State::Held, None));
            assert_eq!(seen, [again, held, again, (State::Due, Some(1)), (State::Delivered, Some(2))]);
            assert!(all.is_sorted_by_key(|one| one.place));
            assert!(all.iter().all(|one| one.delivery == due.id && one.types == event(1).set.types));
            assert_eq!(all[4].attempt.as_ref(), Some(&attempt(2, 200)));
            assert_eq!(all_behind(&ledger, after_three, SettledQuery::default()).await.len(), 2);
            let held = SettledQuery { state: Some(State::Held), ..SettledQuery::default() };
            assert_eq!(all_behind(&ledger, START, held).await.len(), 1);
            let other = SettledQuery { subscription: Some(subscription(2)), ..SettledQuery::default() };
            assert_eq!(all_behind(&ledger, START, other).await.len(), 0);
            let stranger = "another".parse().unwrap();
            let page = ledger.history.settlements(&stranger, SettledQuery::default(), START, 9).await.unwrap();
            assert!(page.items.is_empty());
            let ahead = SettledPlace { batch: ledger.history.settlements_end().batch + 1, entry: 0 };
            assert!(matches!(ledger.history.settlements(&tenant(), other, ahead, 9).await, Err(Error::InvalidCursor)));
        });
    }

    #[test]
    fn a_batch_of_many_is_read_in_pages() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let deliveries = (0..50).map(|n| new_delivery(1, n, plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            let settling = made.iter().map(|due| {
                let step = Step::Dropped { runs: vec![], reason: "not wanted".into() };
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step))
            });
            futures_util::future::try_join_all(settling).await.unwrap();
            let all = all_behind(&ledger, START, SettledQuery::default()).await;
            assert_eq!(
                all.iter().map(|one| one.delivery).collect::<Vec<_>>(),
                made.iter().map(|d| d.id).collect::<Vec<_>>()
            );
        });
    }

    #[test]
    fn what_is_past_its_time_is_deleted_and_said_to_be_missed() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let retry = async |ledger: &Ledger, number: u32, at: Timestamp| {
                let step = Step::Retry { attempt: attempt(number, 500), due_at: NOW };
                ledger.deliveries.settle(Settlement::new(due.seq, at, step)).await.unwrap();
            };
            retry(&ledger, 1, NOW).await;
            let seen = ledger.history.settlements_end();
            retry(&ledger, 2, NOW.plus_millis(10)).await;
            retry(&ledger, 3, NOW.plus_millis(20)).await;
            let kept_ms = ledger.store.options().tail_retention_ms;
            ledger.history.retain_settled(NOW.plus_millis(kept_ms + 1)).await.unwrap();
            let page = ledger.history.settlements(&tenant(), SettledQuery::default(), seen, 9).await.unwrap();
            assert!(page.items.len() == 2 && !page.missed, "what was seen may go");
            ledger.history.retain_settled(NOW.plus_millis(kept_ms + 11)).await.unwrap();
            let page = ledger.history.settlements(&tenant(), SettledQuery::default(), seen, 9).await.unwrap();
            assert!(page.items.len() == 1 && page.missed, "{page:?}");

            // Even if the log is empty, positions are not reused.
            ledger.history.retain_settled(NOW.plus_millis(kept_ms + 1_000)).await.unwrap();
            let end = ledger.history.settlements_end();
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(ledger.history.settlements_end(), end);
            retry(&ledger, 4, NOW.plus_millis(30)).await;
            let page = ledger.history.settlements(&tenant(), SettledQuery::default(), end, 9).await.unwrap();
            assert!(page.items.len() == 1 && !page.missed && page.next > end);
        });
    }
}
