//! Failure streaks of subscriptions, stored so that they survive restarts.
//!
//! The first failed attempt inserts a row. The next success deletes it, and so does every change of the subscription:
//! repairing or resuming an endpoint starts over.

use rusqlite::Connection;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::schema::sql_types::params;

/// Records the first failed attempt of a streak.
pub(crate) fn start(
    conn: &Connection,
    tenant: &TenantId,
    subscription: SubscriptionId,
    at: Timestamp,
) -> Result<(), Error> {
    conn.prepare_cached("INSERT INTO failure_streak (subscription, tenant, since) VALUES (?1, ?2, ?3)")?
        .execute(params![subscription, tenant, at])?;
    Ok(())
}

/// Ends a streak after a success or a change of the subscription.
pub(crate) fn end(conn: &Connection, subscription: SubscriptionId) -> Result<(), Error> {
    conn.prepare_cached("DELETE FROM failure_streak WHERE subscription = ?1")?.execute(params![subscription])?;
    Ok(())
}

pub(crate) fn delete_tenant(conn: &Connection, tenant: &TenantId) -> Result<(), Error> {
    conn.prepare_cached("DELETE FROM failure_streak WHERE tenant = ?1")?.execute(params![tenant])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::tests::{NOW, attempt, block_on, due_one, open, reopen};
    use setgate_domain::delivery::{Settlement, Step};

    #[test]
    fn streak_lasts_from_first_failure_to_success() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let settle = |number: u32, wait_ms: i64, status: u16| {
                let at = NOW.plus_millis(wait_ms);
                let attempt = attempt(number, status);
                let step = if status == 200 {
                    Step::Delivered { attempt }
                } else {
                    Step::Retry { attempt, due_at: at.plus_millis(1) }
                };
                Settlement::new(due.seq, at, step)
            };
            let since = async |ledger: &crate::Ledger, settlement| {
                ledger.deliveries.settle(settlement).await.unwrap().failing_since
            };
            assert_eq!(since(&ledger, settle(1, 10, 500)).await, Some(NOW.plus_millis(10)));
            assert_eq!(since(&ledger, settle(2, 20, 500)).await, Some(NOW.plus_millis(10)));
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(since(&ledger, settle(3, 30, 500)).await, Some(NOW.plus_millis(10)));
            assert_eq!(since(&ledger, settle(4, 40, 200)).await, None);
            let rows: i64 = ledger
                .store
                .history_readers()
                .read(|conn| Ok(conn.query_row("SELECT count(*) FROM failure_streak", [], |row| row.get(0))?))
                .await
                .unwrap();
            assert_eq!(rows, 0);
        });
    }
}
