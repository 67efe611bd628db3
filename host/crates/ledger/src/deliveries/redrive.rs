//! Bulk redrive: lists deliveries at rest, oldest first, and applies a person's decision to a chunk of them.

use rusqlite::Connection;
use setgate_domain::delivery::{DeliveryRecord, State};
use setgate_domain::id::{DeliveryId, TenantId};
use setgate_domain::time::Timestamp;

use crate::deliveries::settle::{Decision, Redriven, decide};
use crate::history::queries::{DELIVERY_COLUMNS, delivery, page_of, read_if_asked_for};
use crate::schema::sql_types::params;
use crate::{Cursor, DeliveryQuery, Error, Ledger, Page};

/// Maximum number of deliveries that one call of [`Ledger::redrive_many`] changes, since it delays all other requests.
pub const REDRIVE_CHUNK_ROWS: usize = 200;

impl Ledger {
    /// A page of the tenant's deliveries in state [`State::Held`] or [`State::Dead`], oldest first, so that redriving
    /// page by page preserves their order. `query.event` is ignored. A row that leaves its state meanwhile does not
    /// shift others across the cursor. `limit` is capped at [`crate::HISTORY_LIMIT_MAX`].
    pub async fn at_rest(
        &self,
        tenant: &TenantId,
        state: State,
        query: DeliveryQuery,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<DeliveryRecord>, Error> {
        let tenant = tenant.clone();
        self.history_of(&tenant).read(move |conn| at_rest(conn, &tenant, state, &query, cursor, limit)).await
    }

    /// The current records of the given deliveries, without those that the tenant does not have.
    pub async fn deliveries_by_id(
        &self,
        tenant: &TenantId,
        ids: Vec<DeliveryId>,
    ) -> Result<Vec<DeliveryRecord>, Error> {
        let tenant = tenant.clone();
        self.history_of(&tenant)
            .read(move |conn| ids.iter().filter_map(|id| delivery(conn, &tenant, *id).transpose()).collect())
            .await
    }

    /// Applies [`Ledger::redrive`] to the first [`REDRIVE_CHUNK_ROWS`] deliveries in one transaction, and ignores
    /// further ones. Returns a result for each delivery that exists.
    pub async fn redrive_many(
        &self,
        tenant: &TenantId,
        ids: Vec<DeliveryId>,
        decision: impl Into<Decision>,
        at: Timestamp,
    ) -> Result<Vec<Redriven>, Error> {
        let (tenant, decision) = (tenant.clone(), decision.into());
        self.queue()
            .write(move |batch| {
                let chunk = ids.iter().take(REDRIVE_CHUNK_ROWS);
                chunk.filter_map(|id| decide(batch, &tenant, *id, &decision, at).transpose()).collect()
            })
            .await
    }
}

/// The state condition is repeated literally so that the partial index applies; both time bounds are index ranges.
pub(crate) fn oldest_at_rest() -> String {
    format!(
        "{DELIVERY_COLUMNS} WHERE d.tenant = ?1 AND d.state IN (3, 4) AND d.state = ?2
         AND (d.created_at, d.seq) > (?3, ?4) AND d.created_at < ?5 ORDER BY d.created_at, d.seq"
    )
}

fn at_rest(
    conn: &Connection,
    tenant: &TenantId,
    state: State,
    query: &DeliveryQuery,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<DeliveryRecord>, Error> {
    let since = Cursor { at: query.since.unwrap_or(Timestamp::from_millis(i64::MIN)), seq: i64::MIN };
    // The later bound applies. A cursor points after a row, `since` before the first one.
    let from = cursor.filter(|cursor| cursor.at >= since.at).unwrap_or(since);
    let until = query.until.unwrap_or(Timestamp::from_millis(i64::MAX));
    let mut statement = conn.prepare_cached(&oldest_at_rest())?;
    let rows = statement.query(params![tenant, state, from.at, from.seq, until])?;
    page_of(rows, limit, |row| read_if_asked_for(conn, query, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, TENANT, block_on, event, new_delivery, open, run, subscription, with_events};
    use crate::{FanOut, Ledger};
    use setgate_domain::delivery::Redrive;
    use setgate_domain::delivery::{Settlement, Step};
    use setgate_domain::event::EventSeq;
    use setgate_domain::verdict::Fault;

    fn tenant() -> TenantId {
        TENANT.parse().unwrap()
    }

    /// Six events for two subscriptions: the deliveries of the first are dead, those of the second held by `redact`.
    async fn at_rest_by_twelve(ledger: &Ledger) {
        let plan = with_events(ledger, 6).await;
        for n in 1..=6_u64 {
            ledger.clock().set(NOW.plus_millis(n.cast_signed()));
            let deliveries = vec![new_delivery(n, 1, plan), new_delivery(n, 2, plan)];
            let made = ledger.fan_out(FanOut { through: EventSeq(n.cast_signed()), deliveries }).await.unwrap();
            let mut faulted = run();
            faulted.fault = Some(Fault::Wall { limit_ms: 1 });
            let steps = [
                Step::Dead { attempt: None, reason: "gave up".into() },
                Step::Held { runs: vec![faulted], reason: "a fault".into() },
            ];
            for (due, step) in made.iter().zip(steps) {
                ledger.settle(Settlement::new(due.seq, NOW, step)).await.unwrap();
            }
        }
    }

    #[test]
    fn what_is_at_rest_comes_oldest_first_in_pages_that_do_not_slip() {
        block_on(async {
            let (_folder, ledger) = open();
            at_rest_by_twelve(&ledger).await;
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let page = ledger.at_rest(&tenant(), State::Dead, DeliveryQuery::default(), cursor, 2).await.unwrap();
                let ids: Vec<_> = page.items.iter().map(|record| record.id).collect();
                seen.extend(ids.iter().map(|id| id.event));
                // The redriven ones leave the listed state.
                let done = ledger.redrive_many(&tenant(), ids.clone(), Redrive::Again, NOW).await.unwrap();
                assert!(done.iter().all(|one| matches!(one, Redriven::Due(_))) && done.len() == ids.len());
                let again = ledger.redrive_many(&tenant(), ids, Redrive::Again, NOW).await.unwrap();
                assert!(again.iter().all(|one| matches!(one, Redriven::NotApplicable(State::Due))));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, [1, 2, 3, 4, 5, 6].map(|n| event(n).id));
            assert_eq!(ledger.counts(&tenant(), Some(subscription(1))).await.unwrap().due, 6);
        });
    }

    #[test]
    fn the_query_picks_by_time_and_by_the_filter_that_faulted() {
        block_on(async {
            let (_folder, ledger) = open();
            at_rest_by_twelve(&ledger).await;
            let count = async |state: State, query: DeliveryQuery| {
                ledger.at_rest(&tenant(), state, query, None, 100).await.unwrap().items.len()
            };
            let any = DeliveryQuery::default;
            let time = |since: i64, until: i64| DeliveryQuery {
                since: Some(NOW.plus_millis(since)),
                until: Some(NOW.plus_millis(until)),
                ..any()
            };
            assert_eq!(count(State::Held, any()).await, 6);
            assert_eq!(count(State::Held, time(2, 5)).await, 3);
            assert_eq!(count(State::Held, time(6, 6)).await, 0);
            let by = |filter: &str| DeliveryQuery { filter: Some(filter.parse().unwrap()), ..any() };
            assert_eq!(count(State::Held, by("redact")).await, 6);
            assert_eq!(count(State::Held, by("other")).await, 0);
            assert_eq!(count(State::Dead, by("redact")).await, 0);
            let other = "another".parse().unwrap();
            assert!(ledger.at_rest(&other, State::Dead, any(), None, 9).await.unwrap().items.is_empty());
            let dead = ledger.at_rest(&tenant(), State::Dead, any(), None, 9).await.unwrap().items;
            let ids: Vec<_> = dead.iter().map(|record| record.id).collect();
            assert_eq!(ledger.deliveries_by_id(&tenant(), ids.clone()).await.unwrap().len(), 6);
            assert!(ledger.deliveries_by_id(&other, ids.clone()).await.unwrap().is_empty());
            assert!(ledger.redrive_many(&other, ids, Redrive::Discard, NOW).await.unwrap().is_empty());
        });
    }

    #[test]
    fn one_call_changes_no_more_than_a_chunk() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let count = REDRIVE_CHUNK_ROWS + 1;
            let deliveries = (0..count).map(|n| new_delivery(1, n as u128, plan)).collect();
            let made = ledger.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            let ids: Vec<_> = made.iter().map(|due| due.id).collect();
            let done = ledger.redrive_many(&tenant(), ids, Redrive::Discard, NOW).await.unwrap();
            assert_eq!(done.len(), REDRIVE_CHUNK_ROWS);
        });
    }
}
