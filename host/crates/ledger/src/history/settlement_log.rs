//! Live tails: pages of a tenant's settlement log. The log is in memory ([`crate::state::settlements`]). Details of an
//! entry are read from the rows of its delivery and attempt.

use std::future;
use std::sync::Arc;

use rusqlite::Connection;
use serde::Serialize;
use setgate_domain::attempt::Attempt;
use setgate_domain::delivery::State;
use setgate_domain::id::{DeliveryId, SourceName, SubscriptionId, TenantId};
use setgate_domain::page::PageBuilder;
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::history::History;
use crate::schema::sql_types::{Json, ReadColumn, params};
use crate::state::settlements::{Entries, OpenRing, SettlementPosition, StateChange};
use crate::store::Store;

/// Maximum number of settlements that [`SettlementReader::next_page`] returns.
pub const SETTLED_LIMIT_MAX: usize = 200;
/// Maximum bytes of JSON that it returns, unless a single settlement is larger.
pub const SETTLED_BYTES_MAX: usize = 64 << 10;

/// Settlement filter. Fields that are `None` match everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct SettledQuery {
    /// Only deliveries of this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only settlements that left the delivery in this state.
    pub state: Option<State>,
}

impl SettledQuery {
    fn matches(&self, change: &StateChange) -> bool {
        self.state.is_none_or(|state| state == change.state)
            && self.subscription.is_none_or(|subscription| subscription == change.subscription)
    }
}

/// A state change of a delivery.
#[derive(Debug, Clone, Serialize)]
pub struct SettledRecord {
    /// Position after it.
    #[serde(skip)]
    pub position: SettlementPosition,
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
    /// The settlements. May be empty although more follow.
    pub items: Vec<SettledRecord>,
    /// Settlements before the first one may be missing: they were evicted from the log, their deliveries were deleted, or
    /// the position is from before a restart.
    pub missed: bool,
}

/// Reads a tenant's settlements from a position on. The log retains the tenant's settlements while a reader is open and
/// for some time after it, within its limits.
pub struct SettlementReader {
    store: Arc<Store>,
    tenant: TenantId,
    query: SettledQuery,
    ring: OpenRing,
    position: SettlementPosition,
}

impl History {
    /// Opens a reader of the tenant's settlements after a position, or from the next settlement on. Never blocks.
    ///
    /// [`Error::NoTenant`] if the tenant does not exist, [`Error::InvalidCursor`] if the position was never issued.
    pub fn follow_settlements(
        &self,
        tenant: &TenantId,
        query: SettledQuery,
        after: Option<SettlementPosition>,
    ) -> Result<SettlementReader, Error> {
        let shared = self.0.shared();
        let ring = shared.settlements.open(tenant, || shared.snapshot.load().tenants.contains_key(tenant));
        let ring = ring.ok_or_else(|| Error::NoTenant(tenant.clone()))?;
        let position = after.unwrap_or_else(|| ring.end());
        let reader = SettlementReader { store: Arc::clone(&self.0), tenant: tenant.clone(), query, ring, position };
        shared.settlements.read(tenant, &reader.ring, position, 0, |_| false)?;
        Ok(reader)
    }
}

impl SettlementReader {
    /// The position after the last page.
    pub fn position(&self) -> SettlementPosition {
        self.position
    }

    /// Whether the log has entries after the position. Never blocks.
    pub fn has_more(&self) -> bool {
        self.position != self.ring.end()
    }

    /// Returns when the log has entries after the position. Cancel safe.
    pub async fn wait_for_more(&mut self) {
        while !self.has_more() {
            if self.ring.last.changed().await.is_err() {
                // The tenant was removed, so there will be none.
                future::pending::<()>().await;
            }
        }
    }

    /// The next settlements, at most `limit`, [`SETTLED_LIMIT_MAX`] and [`SETTLED_BYTES_MAX`]. Cancel safe.
    pub async fn next_page(&mut self, limit: usize) -> Result<SettledPage, Error> {
        let limit = limit.clamp(1, SETTLED_LIMIT_MAX);
        let log = &self.store.shared().settlements;
        let entries = log.read(&self.tenant, &self.ring, self.position, limit, |change| self.query.matches(change))?;
        let (page, position) = if entries.found.is_empty() {
            (SettledPage { items: Vec::new(), missed: entries.missed }, entries.examined)
        } else {
            let after = self.position;
            self.store.history_of(&self.tenant).read(move |conn| page(conn, after, limit, &entries)).await?
        };
        self.position = position;
        Ok(page)
    }
}

impl Drop for SettlementReader {
    fn drop(&mut self) {
        self.store.shared().settlements.close(&self.tenant, &self.ring);
    }
}

/// Loads the details of the entries. Also returns the position up to which the page has them.
fn page(
    conn: &Connection,
    after: SettlementPosition,
    limit: usize,
    entries: &Entries,
) -> Result<(SettledPage, SettlementPosition), Error> {
    let mut page = PageBuilder::with_bytes(limit, SETTLED_BYTES_MAX);
    let (mut position, mut missed) = (after, entries.missed);
    for (after_entry, change) in &entries.found {
        match record(conn, *after_entry, change)? {
            Some(settled) => {
                if !page.push(settled) {
                    return Ok((SettledPage { items: page.into_items(), missed }, position));
                }
            }
            // Retention has deleted the delivery.
            None => missed = true,
        }
        position = *after_entry;
    }
    Ok((SettledPage { items: page.into_items(), missed }, entries.examined))
}

/// Loads the details of an entry. `None` if the delivery has been deleted.
fn record(
    conn: &Connection,
    position: SettlementPosition,
    change: &StateChange,
) -> Result<Option<SettledRecord>, Error> {
    let mut statement = conn.prepare_cached(
        "SELECT d.event_id, d.subscription, d.run, e.source, e.types, e.subject
         FROM delivery d JOIN event e ON e.seq = d.event_seq WHERE d.seq = ?1",
    )?;
    let mut rows = statement.query(params![change.delivery])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let attempt = match change.attempt {
        Some(number) => crate::deliveries::attempts::attempts(conn, change.delivery, Some(number))?.pop(),
        None => None,
    };
    Ok(Some(SettledRecord {
        position,
        delivery: DeliveryId { event: row.column(0)?, subscription: row.column(1)?, run: row.get(2)? },
        state: change.state,
        at: change.at,
        source: row.column(3)?,
        types: row.get::<_, Json<_>>(4)?.0,
        subject: row.get(5)?,
        attempt,
    }))
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

    fn follow(ledger: &Ledger, query: SettledQuery, after: Option<SettlementPosition>) -> SettlementReader {
        ledger.history.follow_settlements(&tenant(), query, after).unwrap()
    }

    /// All settlements after a position, in pages of two.
    async fn all_after(ledger: &Ledger, after: SettlementPosition, query: SettledQuery) -> Vec<SettledRecord> {
        let mut all = Vec::new();
        let mut reader = follow(ledger, query, Some(after));
        while reader.has_more() {
            let page = reader.next_page(2).await.unwrap();
            assert!(page.items.len() <= 2 && !page.missed);
            all.extend(page.items);
            // Through the text form, as a client would store it.
            reader = follow(ledger, query, Some(reader.position().to_string().parse().unwrap()));
        }
        all
    }

    #[test]
    fn every_settlement_is_in_the_log_once_and_in_order() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = due_one(&ledger).await;
            let settle = async |step: Step| {
                for _ in 0..2 {
                    let at = NOW.plus_millis(1);
                    ledger.deliveries.settle(Settlement::new(due.seq, at, step.clone())).await.unwrap();
                }
            };
            let mut reader = follow(&ledger, SettledQuery::default(), None);
            let begin = reader.position();
            assert!(!reader.has_more());
            settle(Step::FilterRetry { runs: vec![run()], due_at: NOW }).await;
            settle(Step::Held { runs: vec![run()], reason: "a fault".into() }).await;
            ledger.deliveries.redrive(&tenant(), due.id, Redrive::Release, NOW).await.unwrap();
            reader.wait_for_more().await;
            assert_eq!(reader.next_page(9).await.unwrap().items.len(), 3);
            let after_three = reader.position();
            assert!(!reader.has_more());
            drop(reader);
            settle(Step::Retry { attempt: attempt(1, 500), due_at: NOW }).await;
            settle(Step::Delivered { attempt: attempt(2, 200) }).await;

            let all = all_after(&ledger, begin, SettledQuery::default()).await;
            let seen: Vec<_> = all.iter().map(|one| (one.state, one.attempt.as_ref().map(|a| a.number))).collect();
            let (again, held) = ((State::Due, None), (State::Held, None));
            assert_eq!(seen, [again, held, again, (State::Due, Some(1)), (State::Delivered, Some(2))]);
            assert!(all.is_sorted_by_key(|one| one.position));
            assert!(all.iter().all(|one| one.delivery == due.id && one.types == event(1).set.types));
            assert_eq!(all[4].attempt.as_ref(), Some(&attempt(2, 200)));
            assert_eq!(all_after(&ledger, after_three, SettledQuery::default()).await.len(), 2);
            let held = SettledQuery { state: Some(State::Held), ..SettledQuery::default() };
            assert_eq!(all_after(&ledger, begin, held).await.len(), 1);
            let other = SettledQuery { subscription: Some(subscription(2)), ..SettledQuery::default() };
            assert_eq!(all_after(&ledger, begin, other).await.len(), 0);
        });
    }

    #[test]
    fn position_that_was_never_issued_is_refused() {
        block_on(async {
            let (_folder, ledger) = open();
            with_events(&ledger, 0).await;
            let begin = follow(&ledger, SettledQuery::default(), None).position();
            let mut text = begin.to_string();
            text.replace_range(31.., "1");
            let ahead = ledger.history.follow_settlements(&tenant(), SettledQuery::default(), text.parse().ok());
            assert!(matches!(ahead, Err(Error::InvalidCursor)), "after the end");
            for text in ["", "x", "00", &begin.to_string()[1..], &format!("{begin}0"), &format!("+{}", &text[1..])] {
                assert!(text.parse::<SettlementPosition>().is_err(), "{text}");
            }
            let nobody = ledger.history.follow_settlements(&"nobody".parse().unwrap(), SettledQuery::default(), None);
            assert!(matches!(nobody, Err(Error::NoTenant(_))));
        });
    }

    #[test]
    fn reader_after_a_restart_is_informed_of_the_gap() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let retry = async |ledger: &Ledger, number: u32| {
                let step = Step::Retry { attempt: attempt(number, 500), due_at: NOW };
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            };
            let mut reader = follow(&ledger, SettledQuery::default(), None);
            retry(&ledger, 1).await;
            reader.next_page(9).await.unwrap();
            let position = reader.position();
            drop(reader);
            retry(&ledger, 2).await;

            let ledger = reopen(&folder, ledger).await;
            let mut reader = follow(&ledger, SettledQuery::default(), Some(position));
            assert!(reader.has_more());
            let page = reader.next_page(9).await.unwrap();
            assert!(page.items.is_empty() && page.missed, "{page:?}");
            retry(&ledger, 3).await;
            let page = reader.next_page(9).await.unwrap();
            assert!(page.items.len() == 1 && !page.missed, "reported once: {page:?}");
            // The client has not stored a position since.
            let page = follow(&ledger, SettledQuery::default(), Some(position)).next_page(9).await.unwrap();
            assert!(page.items.len() == 1 && page.missed, "{page:?}");
        });
    }

    #[test]
    fn batch_of_many_settlements_is_read_in_pages() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let begin = follow(&ledger, SettledQuery::default(), None).position();
            let deliveries = (0..50).map(|n| new_delivery(1, n, plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            let settling = made.iter().map(|due| {
                let step = Step::Dropped { runs: vec![], reason: "not wanted".into() };
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step))
            });
            futures_util::future::try_join_all(settling).await.unwrap();
            let all = all_after(&ledger, begin, SettledQuery::default()).await;
            assert_eq!(
                all.iter().map(|one| one.delivery).collect::<Vec<_>>(),
                made.iter().map(|d| d.id).collect::<Vec<_>>()
            );
        });
    }

    #[test]
    fn settlement_whose_delivery_was_deleted_is_reported_as_missed() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let mut reader = follow(&ledger, SettledQuery::default(), None);
            let deliveries = (1..=2).map(|n| new_delivery(1, n, plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            for due in &made {
                let step = Step::Delivered { attempt: attempt(1, 200) };
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            }
            let deleted = made[0].seq;
            let delete = ledger.store.queue().write(move |batch| {
                batch.conn.execute("DELETE FROM delivery WHERE seq = ?1", params![deleted])?;
                Ok(())
            });
            delete.await.unwrap();
            let page = reader.next_page(9).await.unwrap();
            assert_eq!(page.items.iter().map(|one| one.delivery).collect::<Vec<_>>(), [made[1].id]);
            assert!(page.missed && !reader.has_more());
        });
    }

    #[test]
    fn reader_of_a_removed_tenant_gets_nothing_of_its_successor() {
        block_on(async {
            let (_folder, ledger) = open();
            with_events(&ledger, 0).await;
            let mut reader = follow(&ledger, SettledQuery::default(), None);
            ledger.registry.remove_tenant(&tenant(), crate::Precondition::Any).await.unwrap();
            let due = due_one(&ledger).await;
            let mut successor = follow(&ledger, SettledQuery::default(), None);
            let step = Step::Delivered { attempt: attempt(1, 200) };
            ledger.deliveries.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            assert!(successor.has_more() && !reader.has_more());
            assert!(futures_util::poll!(std::pin::pin!(reader.wait_for_more())).is_pending());
            assert!(reader.next_page(9).await.unwrap().items.is_empty());
            drop(reader);
            assert_eq!(successor.next_page(9).await.unwrap().items.len(), 1);
        });
    }
}
