//! The outbox: one row per delivery, inserted with its event, by `fan_out` or by a replay, and read by the dispatcher.

use std::sync::Arc;

use rusqlite::{Connection, Row};
use setgate_domain::delivery::{DeliverySeq, DueDelivery, stored_or_assumed_bytes};
use setgate_domain::id::{DeliveryId, SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;

use crate::deliveries::Deliveries;
use crate::deliveries::fifo::blocked;
use crate::schema::event_row::{EVENT_COLUMNS, read_event};
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::content::Content;
use crate::{Error, NewDue};

/// Due deliveries of one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSummary {
    /// Tenant of the subscription.
    pub tenant: TenantId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// When the first of them is due.
    pub due_at: Timestamp,
    /// Number of due deliveries.
    pub deliveries: u64,
}

/// Maximum number of deliveries that [`Deliveries::due`](crate::Deliveries::due) returns.
pub const DUE_LIMIT_MAX: usize = 10_000;

impl Deliveries {
    /// Deliveries inserted by [`Events::append_with`](crate::Events::append_with) since the last call. For the dispatcher.
    pub fn take_new(&self) -> NewDue {
        self.0.shared().new_deliveries.take()
    }

    /// Returns when [`Deliveries::take_new`](crate::Deliveries::take_new) has new deliveries. For a single waiter.
    pub async fn new_ready(&self) {
        self.0.shared().new_deliveries.ready().await;
    }

    /// Deliveries of the subscription due at `now`, ordered by due time, after position `after`: at most `limit` and
    /// [`DUE_LIMIT_MAX`].
    pub async fn due(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        now: Timestamp,
        after: Option<(Timestamp, DeliverySeq)>,
        limit: usize,
    ) -> Result<Vec<DueDelivery>, Error> {
        let (after_at, after_seq) = after.unwrap_or((Timestamp::from_millis(i64::MIN), DeliverySeq(i64::MIN)));
        let limit = i64::try_from(limit.min(DUE_LIMIT_MAX)).unwrap_or(i64::MAX);
        self.0
            .readers()
            .of(tenant)
            .read(move |conn| {
                let mut statement = conn.prepare_cached(DUE)?;
                let mut rows = statement.query(params![subscription, now, after_at, after_seq, limit])?;
                let mut due = Vec::new();
                while let Some(row) = rows.next()? {
                    due.push(read_due(row)?);
                }
                Ok(due)
            })
            .await
    }

    /// Every subscription with deliveries due now or later. Scans all due rows, so it is meant for the start.
    pub async fn due_summary(&self) -> Result<Vec<DueSummary>, Error> {
        self.0
            .readers()
            .read(|conn| {
                let mut statement = conn.prepare_cached(DUE_SUMMARY)?;
                let mut rows = statement.query([])?;
                let mut summaries = Vec::new();
                while let Some(row) = rows.next()? {
                    summaries.push(DueSummary {
                        tenant: row.column(0)?,
                        subscription: row.column(1)?,
                        due_at: row.column(2)?,
                        deliveries: row.get::<_, i64>(3)?.cast_unsigned(),
                    });
                }
                Ok(summaries)
            })
            .await
    }

    /// Everything needed to continue a delivery, or `None` if it is gone. A delivery that was just inserted comes from
    /// memory.
    pub async fn load(&self, tenant: &TenantId, delivery: DeliverySeq) -> Result<Option<Content>, Error> {
        if let Some(content) = self.0.shared().recent_writes.take_content(delivery) {
            return Ok(Some(content));
        }
        self.0.readers().of(tenant).read(move |conn| content(conn, delivery)).await
    }
}

/// See [`Deliveries::load`](crate::Deliveries::load).
pub(crate) fn content(conn: &Connection, delivery: DeliverySeq) -> Result<Option<Content>, Error> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS}, d.filtered, f.claims, d.state, d.attempts, d.due_at, d.filter_tries, p.digest,
             d.attempts_before, {}
         FROM delivery d JOIN event e ON e.seq = d.event_seq LEFT JOIN filter_output f ON f.delivery = d.seq
         LEFT JOIN plan p ON p.id = d.plan
         WHERE d.seq = ?1",
        blocked!()
    ))?;
    let mut rows = statement.query(params![delivery])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Content {
        event: Arc::new(read_event(row)?),
        filtered: row.get(15)?,
        claims: row.get(16)?,
        state: row.column(17)?,
        attempts: row.get(18)?,
        due_at: row.column(19)?,
        filter_tries: row.get(20)?,
        plan: row.column(21)?,
        attempts_before: row.get(22)?,
        blocked: row.get(23)?,
    }))
}

/// A missing plan shows up as an unreadable column and not as a missing row, so that a delivery never vanishes
/// silently.
macro_rules! due_columns {
    () => {
        "SELECT d.seq, d.event_id, d.subscription, d.run, d.event_seq, d.tenant, p.digest, d.due_at, d.attempts,
             d.attempts_before, d.filter_tries, d.filtered, d.bytes, coalesce(octet_length(f.claims), 0)
         FROM delivery d LEFT JOIN plan p ON p.id = d.plan LEFT JOIN filter_output f ON f.delivery = d.seq"
    };
}

pub(crate) const DUE: &str = concat!(
    due_columns!(),
    " WHERE d.subscription = ?1 AND d.state = 0 AND d.due_at <= ?2 AND (d.due_at, d.seq) > (?3, ?4) AND NOT ",
    blocked!(),
    " ORDER BY d.due_at, d.seq LIMIT ?5"
);

/// The inner query runs on the index alone; the tenant is read once per subscription.
pub(crate) const DUE_SUMMARY: &str = "SELECT d.tenant, l.subscription, l.due_at, l.deliveries
     FROM (SELECT subscription, min(due_at) AS due_at, count(*) AS deliveries, seq
           FROM delivery INDEXED BY delivery_due WHERE state = 0 GROUP BY subscription) l
     CROSS JOIN delivery d ON d.seq = l.seq";

fn read_due(row: &Row<'_>) -> Result<DueDelivery, Error> {
    let (event_bytes, claims_bytes): (i64, i64) = (row.get(12)?, row.get(13)?);
    Ok(DueDelivery {
        seq: row.column(0)?,
        id: DeliveryId { event: row.column(1)?, subscription: row.column(2)?, run: row.get(3)? },
        event: row.column(4)?,
        tenant: row.column(5)?,
        plan: row.column(6)?,
        due_at: row.column(7)?,
        attempts: row.get(8)?,
        attempts_before: row.get(9)?,
        filter_tries: row.get(10)?,
        filtered: row.get(11)?,
        bytes: stored_or_assumed_bytes(event_bytes.cast_unsigned()) + claims_bytes.cast_unsigned(),
    })
}

/// A due delivery by its row id. `None` if it is gone or not due.
pub(crate) fn due_by_seq(conn: &Connection, seq: DeliverySeq) -> Result<Option<DueDelivery>, Error> {
    let mut statement = conn.prepare_cached(concat!(due_columns!(), " WHERE d.seq = ?1 AND d.state = 0"))?;
    let mut rows = statement.query(params![seq])?;
    rows.next()?.map(read_due).transpose()
}
