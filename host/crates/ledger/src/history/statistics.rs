//! Statistics: counters of attempts and settlements per subscription, for each minute and each hour. Collected while a
//! batch runs and written at its end, one row per subscription, minute and hour.
//!
//! Minutes cover the last hour and are retained for [`MINUTE_RETENTION_MS`]; hours are retained for
//! [`crate::Options::statistics_retention_ms`].

use rusqlite::{Connection, OptionalExtension};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::statistics::{HOUR_MS, MINUTE_MS, Statistics, Window};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::history::History;
use crate::schema::sql_types::{Json, ReadColumn, params};
use crate::state::counters::bucket_start;

/// How long minute buckets are retained, in milliseconds.
pub const MINUTE_RETENTION_MS: i64 = 2 * HOUR_MS;
/// Rows that retention deletes per transaction.
const CHUNK_ROWS: i64 = 2_000;

/// Counters over a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsWindow {
    /// Start of the period: a bucket boundary, so the period may be longer than requested by part of a bucket.
    pub since: Timestamp,
    /// The counters.
    pub statistics: Statistics,
}

impl History {
    /// Statistics of the tenant's deliveries, or of one subscription's, over the window that ends at `now`.
    pub async fn statistics(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        window: Window,
        now: Timestamp,
    ) -> Result<StatisticsWindow, Error> {
        let tenant = tenant.clone();
        let bucket_ms = window.bucket_ms();
        let since = bucket_start(now.plus_millis(-window.ms()), bucket_ms);
        self.0
            .history_of(&tenant)
            .read(move |conn| {
                // One query per subscription, so that each is a range scan of the primary key.
                let of = match subscription {
                    Some(one) => vec![one],
                    None => subscriptions(conn, &tenant)?,
                };
                let mut statistics = Statistics::default();
                for subscription in of {
                    let mut statement = conn.prepare_cached(
                        "SELECT doc FROM statistic
                         WHERE tenant = ?1 AND subscription = ?2 AND bucket_ms = ?3 AND at >= ?4 AND at <= ?5",
                    )?;
                    let mut rows = statement.query(params![tenant, subscription, bucket_ms, since, now])?;
                    while let Some(row) = rows.next()? {
                        statistics.merge(&row.get::<_, Json<Statistics>>(0)?.0);
                    }
                }
                Ok(StatisticsWindow { since, statistics })
            })
            .await
    }

    /// Due time of the earliest due delivery of the tenant, or of one subscription. `None` if none is due.
    pub async fn oldest_due(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
    ) -> Result<Option<Timestamp>, Error> {
        let tenant = tenant.clone();
        self.0
            .history_of(&tenant)
            .read(move |conn| {
                Ok(conn
                    .prepare_cached(
                        "SELECT min((SELECT min(d.due_at) FROM delivery d
                             WHERE d.subscription = t.subscription AND d.state = 0))
                         FROM tally t WHERE t.tenant = ?1 AND (?2 IS NULL OR t.subscription = ?2) AND t.due > 0",
                    )?
                    .query_row(params![tenant, subscription], |row| row.column(0))?)
            })
            .await
    }

    /// Deletes expired buckets, in chunks.
    pub(crate) async fn retain_statistics(&self, now: Timestamp) -> Result<(), Error> {
        let hours_ms = self.0.options().statistics_retention_ms.max(0);
        for (bucket_ms, kept_ms) in [(MINUTE_MS, MINUTE_RETENTION_MS), (HOUR_MS, hours_ms)] {
            // A bucket expires when all of it is past the retention time.
            let before = now.plus_millis(-kept_ms - bucket_ms);
            while self.0.queue().write(move |batch| delete_past(batch.conn, bucket_ms, before)).await? {}
        }
        Ok(())
    }
}

/// All subscriptions of the tenant with statistics, by seeking from one key to the next.
fn subscriptions(conn: &Connection, tenant: &TenantId) -> Result<Vec<SubscriptionId>, Error> {
    let mut found: Vec<SubscriptionId> = Vec::new();
    let mut statement = conn.prepare_cached(
        "SELECT subscription FROM statistic WHERE tenant = ?1 AND subscription > ?2 ORDER BY subscription LIMIT 1",
    )?;
    loop {
        let after = found.last().map_or_else(Vec::new, |last| last.to_bytes().to_vec());
        match statement.query_row(params![tenant, after], |row| row.column(0)).optional()? {
            Some(next) => found.push(next),
            None => return Ok(found),
        }
    }
}

/// Deletes a chunk. Returns whether there may be more.
fn delete_past(conn: &Connection, bucket_ms: i64, before: Timestamp) -> Result<bool, Error> {
    let deleted = conn
        .prepare_cached(
            "DELETE FROM statistic WHERE (tenant, subscription, bucket_ms, at) IN (
                 SELECT tenant, subscription, bucket_ms, at FROM statistic
                 WHERE bucket_ms = ?1 AND at < ?2 LIMIT ?3)",
        )?
        .execute(params![bucket_ms, before, CHUNK_ROWS])?;
    Ok(deleted as i64 == CHUNK_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::tests::{
        NOW, TENANT, attempt, block_on, due_one, new_delivery, open, reopen, subscription, with_events,
    };
    use crate::{FanOut, Precondition};
    use setgate_domain::delivery::{Redrive, Settlement, State, Step};
    use setgate_domain::event::EventSeq;

    fn tenant() -> TenantId {
        TENANT.parse().unwrap()
    }

    async fn counted(ledger: &Ledger, window: Window, now: Timestamp) -> Statistics {
        ledger.history.statistics(&tenant(), None, window, now).await.unwrap().statistics
    }

    async fn rows(ledger: &Ledger) -> i64 {
        ledger
            .store
            .readers()
            .read(|conn| Ok(conn.query_row("SELECT count(*) FROM statistic", [], |row| row.get(0))?))
            .await
            .unwrap()
    }

    #[test]
    fn attempts_and_outcomes_are_counted_once() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let settle = async |ledger: &Ledger, step: Step| {
                for _ in 0..2 {
                    let at = NOW.plus_millis(90);
                    ledger.deliveries.settle(Settlement::new(due.seq, at, step.clone())).await.unwrap();
                }
            };
            settle(&ledger, Step::Retry { attempt: attempt(1, 500), due_at: NOW }).await;
            settle(&ledger, Step::Dead { attempt: Some(attempt(2, 404)), reason: "gave up".into() }).await;
            ledger.deliveries.redrive(&tenant(), due.id, Redrive::Again, NOW).await.unwrap();
            let ledger = reopen(&folder, ledger).await;
            settle(&ledger, Step::Delivered { attempt: attempt(3, 200) }).await;

            for window in [Window::Hour, Window::Day, Window::Week] {
                let counted = counted(&ledger, window, NOW.plus_millis(1_000)).await;
                assert_eq!((counted.attempts(), counted.succeeded), (3, 1), "{window:?}");
                assert_eq!((counted.failed["5xx"], counted.failed["4xx"]), (1, 1));
                assert_eq!((counted.settled_as(State::Dead), counted.settled_as(State::Delivered)), (1, 1));
                assert_eq!((counted.attempt_us.total(), counted.attempt_us.percentile(50)), (3, Some(1_471)));
                assert_eq!(counted.accepted_to_delivered_ms.percentile(99), Some(91), "90 ms, read back in its step");
            }
            let other = ledger.history.statistics(&"another".parse().unwrap(), None, Window::Week, NOW).await.unwrap();
            assert_eq!(other.statistics, Statistics::default());
            let other = ledger.history.statistics(&tenant(), Some(subscription(2)), Window::Week, NOW).await.unwrap();
            assert_eq!(other.statistics, Statistics::default());
        });
    }

    #[test]
    fn batch_writes_one_row_per_bucket() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let deliveries = (0..200_u32).map(|n| {
                let mut new = new_delivery(1, u128::from(n % 2), plan);
                new.id.run = n / 2;
                new
            });
            let fan_out = FanOut { through: EventSeq(1), deliveries: deliveries.collect() };
            let made = ledger.events.fan_out(fan_out).await.unwrap();
            // Concurrently, so that they share batches.
            let settling = made.iter().map(|due| {
                let step = Step::Delivered { attempt: attempt(1, 200) };
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, step))
            });
            futures_util::future::try_join_all(settling).await.unwrap();
            assert_eq!(rows(&ledger).await, 4, "two subscriptions, a minute and an hour each");
            let counted = counted(&ledger, Window::Hour, NOW).await;
            assert_eq!((counted.succeeded, counted.settled_as(State::Delivered)), (200, 200));
            assert_eq!(counted.accepted_to_delivered_ms.total(), 2, "the others are replays");
        });
    }

    #[test]
    fn windows_and_retention() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let deliveries = (1..=3).map(|n| new_delivery(1, n, plan)).collect();
            let made = ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            let now = NOW.plus_millis(8 * 24 * HOUR_MS);
            for (due, hours) in made.iter().zip([8 * 24 - 3, 20, 0]) {
                let at = now.plus_millis(-hours * HOUR_MS);
                let step = Step::Dropped { runs: vec![], reason: "not wanted".into() };
                ledger.deliveries.settle(Settlement::new(due.seq, at, step)).await.unwrap();
            }
            let dropped = async |window: Window| counted(&ledger, window, now).await.settled_as(State::Dropped);
            assert_eq!((dropped(Window::Hour).await, dropped(Window::Day).await), (1, 2));
            assert_eq!((dropped(Window::Week).await, rows(&ledger).await), (2, 6));
            let oldest = ledger.history.oldest_due(&tenant(), None).await.unwrap();
            assert_eq!(oldest, None, "nothing is due");

            ledger.history.retain_statistics(now).await.unwrap();
            // Two hours, and the one minute that is young enough.
            assert_eq!((dropped(Window::Week).await, rows(&ledger).await), (2, 3));
            ledger.registry.remove_tenant(&tenant(), Precondition::Any).await.unwrap();
            assert_eq!(rows(&ledger).await, 0, "a removed tenant leaves nothing");
        });
    }

    #[test]
    fn oldest_due_by_subscription_and_tenant() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 1).await;
            let mut deliveries = vec![new_delivery(1, 1, plan), new_delivery(1, 2, plan)];
            deliveries[1].due_at = NOW.plus_millis(-5);
            ledger.events.fan_out(FanOut { through: EventSeq(1), deliveries }).await.unwrap();
            let oldest = async |of| ledger.history.oldest_due(&tenant(), of).await.unwrap();
            assert_eq!(oldest(Some(subscription(1))).await, Some(NOW));
            assert_eq!(oldest(None).await, Some(NOW.plus_millis(-5)));
            assert_eq!(oldest(Some(subscription(9))).await, None);
        });
    }
}
