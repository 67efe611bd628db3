//! History queries: deliveries and events of a tenant, newest first, in pages.
//!
//! Tenant, time and the resting states are indexed. Every other filter is evaluated row by row, so a page ends after
//! [`HISTORY_SCAN_ROWS_MAX`] rows and returns a cursor: it may be short or empty although more pages follow. It also
//! ends when its entries reach [`PAGE_BYTES_MAX`](setgate_domain::page::PAGE_BYTES_MAX).

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, Rows};
use serde::Serialize;
use setgate_domain::attempt::Attempt;
use setgate_domain::builtin_event;
use setgate_domain::delivery::{DeliveryRecord, DeliverySeq, State};
use setgate_domain::event::EventRecord;
use setgate_domain::id::{DeliveryId, EventId, FilterName, SourceName, SubscriptionId, TenantId};
use setgate_domain::page::PageBuilder;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::FilterRun;

use crate::Error;
use crate::deliveries::attempts;
use crate::deliveries::outbox::content;
use crate::deliveries::settle::RELEASED;
use crate::history::History;
use crate::limits::{HISTORY_LIMIT_MAX, HISTORY_SCAN_ROWS_MAX};
use crate::schema::compression;
use crate::schema::sql_types::{FromColumn, Json, ReadColumn, params};
use crate::state::content::Content;

/// Delivery filter. Fields that are `None` match everything.
#[derive(Debug, Clone, Default)]
pub struct DeliveryQuery {
    /// Only deliveries of this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only deliveries in this state.
    pub state: Option<State>,
    /// Only deliveries of this event.
    pub event: Option<EventId>,
    /// Only events with this type (the whole URI).
    pub event_type: Option<String>,
    /// Only events with exactly this subject.
    pub subject: Option<String>,
    /// Only events of this source.
    pub source: Option<SourceName>,
    /// Only deliveries that ended at a fault of this filter.
    pub filter: Option<FilterName>,
    /// Created at or after this instant.
    pub since: Option<Timestamp>,
    /// Created before this instant.
    pub until: Option<Timestamp>,
}

/// Event filter. Fields that are `None` match everything.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only events of this source.
    pub source: Option<SourceName>,
    /// Only events with this type among theirs (the whole URI).
    pub event_type: Option<String>,
    /// Only events with exactly this subject.
    pub subject: Option<String>,
    /// Only events with this `jti`.
    pub jti: Option<String>,
    /// Accepted at or after this instant.
    pub since: Option<Timestamp>,
    /// Accepted before this instant.
    pub until: Option<Timestamp>,
}

/// A page of entries, newest first unless noted otherwise.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The entries. A page with fewer than requested, or none, is not necessarily the last.
    pub items: Vec<T>,
    /// Cursor of the next page, or `None` after the last one.
    pub next: Option<Cursor>,
}

/// A position in a history. Its text form is opaque to clients. Inserted or deleted rows do not shift other entries
/// across it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) at: Timestamp,
    pub(crate) seq: i64,
}

impl Cursor {
    /// Before the newest possible entry.
    const START: Cursor = Cursor { at: Timestamp::from_millis(i64::MAX), seq: i64::MAX };
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.at.as_millis(), self.seq)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let half = |range| {
            given.get(range).and_then(|hex: &str| u64::from_str_radix(hex, 16).ok()).ok_or(Error::InvalidCursor)
        };
        let cursor = Self { at: Timestamp::from_millis(half(0..16)?.cast_signed()), seq: half(16..32)?.cast_signed() };
        if cursor.to_string() == given { Ok(cursor) } else { Err(Error::InvalidCursor) }
    }
}

/// Number of deliveries by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// See [`State::Due`].
    pub due: u64,
    /// See [`State::Delivered`].
    pub delivered: u64,
    /// See [`State::Dropped`].
    pub dropped: u64,
    /// See [`State::Held`].
    pub held: u64,
    /// See [`State::Dead`].
    pub dead: u64,
}

macro_rules! delivery_columns {
    () => {
        "SELECT d.created_at, d.seq, d.subscription, d.state, d.event_id, e.source, e.types, e.subject, d.run, d.tenant,
             e.jti, d.due_at, d.reason, p.digest, d.filtered, d.attempts, d.updated_at
         FROM delivery d CROSS JOIN event e ON e.seq = d.event_seq LEFT JOIN plan p ON p.id = d.plan "
    };
}
macro_rules! delivery_by_id {
    () => {
        " WHERE d.tenant = ?1 AND d.event_seq = (SELECT seq FROM event WHERE id = ?2) AND d.subscription = ?3 \
            AND d.run = ?4"
    };
}
macro_rules! delivery_page {
    () => {
        " AND (d.created_at, d.seq) < (?2, ?3) AND d.created_at >= ?4 ORDER BY d.created_at DESC, d.seq DESC"
    };
}

impl History {
    /// A page of the tenant's deliveries in state [`State::Held`] or [`State::Dead`], oldest first, so that redriving
    /// page by page preserves their order. `query.event` is ignored. A row that leaves its state meanwhile does not
    /// shift others across the cursor. `limit` is capped at [`crate::HISTORY_LIMIT_MAX`].
    pub async fn resting_deliveries(
        &self,
        tenant: &TenantId,
        state: State,
        query: DeliveryQuery,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<DeliveryRecord>, Error> {
        let tenant = tenant.clone();
        self.0
            .history_of(&tenant)
            .read(move |conn| resting_deliveries(conn, &tenant, state, &query, cursor, limit))
            .await
    }

    /// The current records of the given deliveries, without those that the tenant does not have.
    pub async fn deliveries_by_id(
        &self,
        tenant: &TenantId,
        ids: Vec<DeliveryId>,
    ) -> Result<Vec<DeliveryRecord>, Error> {
        let tenant = tenant.clone();
        self.0
            .history_of(&tenant)
            .read(move |conn| ids.iter().filter_map(|id| delivery(conn, &tenant, *id).transpose()).collect())
            .await
    }

    /// A page of the tenant's deliveries, newest first. `limit` is capped at [`HISTORY_LIMIT_MAX`].
    pub async fn deliveries(
        &self,
        tenant: &TenantId,
        query: DeliveryQuery,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<DeliveryRecord>, Error> {
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| deliveries(conn, &tenant, &query, cursor, limit)).await
    }

    /// A delivery of the tenant.
    pub async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<DeliveryRecord>, Error> {
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| delivery(conn, &tenant, id)).await
    }

    /// A delivery of the tenant with its event and the output of its chain, from one consistent read.
    pub async fn delivery_with_content(
        &self,
        tenant: &TenantId,
        id: DeliveryId,
    ) -> Result<Option<(DeliveryRecord, Content)>, Error> {
        let tenant = tenant.clone();
        self.0
            .history_of(&tenant)
            .read(move |conn| {
                // A read is already a single transaction.
                let Some(record) = delivery(conn, &tenant, id)? else { return Ok(None) };
                let content = content(conn, record.seq)?;
                Ok(content.map(|content| (record, content)))
            })
            .await
    }

    /// The attempts of a delivery of the tenant, in order.
    pub async fn attempts(&self, tenant: &TenantId, delivery: DeliverySeq) -> Result<Vec<Attempt>, Error> {
        self.0.history_of(tenant).read(move |conn| attempts::attempts(conn, delivery, None)).await
    }

    /// The claims of a delivery as JSON text: the output of its chain, or the normalized SET if the chain left it
    /// unchanged.
    pub async fn delivery_claims(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<String>, Error> {
        let tenant = tenant.clone();
        self.0
            .history_of(&tenant)
            .read(move |conn| {
                let mut statement = conn.prepare_cached(concat!(
                    "SELECT f.claims, e.compressed, e.set_text FROM delivery d JOIN event e ON e.seq = d.event_seq
                     LEFT JOIN filter_output f ON f.delivery = d.seq ",
                    delivery_by_id!()
                ))?;
                let mut rows = statement.query(params![tenant, id.event, id.subscription, id.run])?;
                let Some(row) = rows.next()? else { return Ok(None) };
                Ok(Some(match row.get::<_, Option<String>>(0)? {
                    Some(claims) => claims,
                    None => compression::text_of(row.get(1)?, row.get_ref(2)?)?,
                }))
            })
            .await
    }

    /// A page of the tenant's events, newest first. `limit` is capped at [`HISTORY_LIMIT_MAX`].
    pub async fn events(
        &self,
        tenant: &TenantId,
        query: EventQuery,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<EventRecord>, Error> {
        let tenant = tenant.clone();
        self.0.history_of(&tenant).read(move |conn| events(conn, &tenant, &query, cursor, limit)).await
    }

    /// Number of deliveries by state, for the tenant or for one of its subscriptions.
    pub async fn counts(&self, tenant: &TenantId, subscription: Option<SubscriptionId>) -> Result<Counts, Error> {
        let tenant = tenant.clone();
        self.0
            .history_of(&tenant)
            .read(move |conn| {
                let counts = conn
                    .prepare_cached(
                        "SELECT sum(due), sum(delivered), sum(dropped), sum(held), sum(dead) FROM tally
                         WHERE tenant = ?1 AND (?2 IS NULL OR subscription = ?2)",
                    )?
                    .query_row(params![tenant, subscription], |row| {
                        let count = |column: usize| -> rusqlite::Result<u64> {
                            Ok(row.get::<_, Option<i64>>(column)?.unwrap_or(0).cast_unsigned())
                        };
                        Ok(Counts {
                            due: count(0)?,
                            delivered: count(1)?,
                            dropped: count(2)?,
                            held: count(3)?,
                            dead: count(4)?,
                        })
                    })?;
                Ok(counts)
            })
            .await
    }
}

/// The columns that [`read_delivery`] expects, up to `WHERE`.
pub(crate) const DELIVERY_COLUMNS: &str = delivery_columns!();
pub(crate) const DELIVERIES: &str = concat!(delivery_columns!(), "WHERE d.tenant = ?1", delivery_page!());
/// SQLite uses the partial index only if its condition is repeated literally.
pub(crate) const RESTING_DELIVERIES: &str =
    concat!(delivery_columns!(), "WHERE d.tenant = ?1 AND d.state IN (3, 4) AND d.state = ?5", delivery_page!());
const DELIVERIES_OF_EVENT: &str = concat!(
    delivery_columns!(),
    "WHERE +d.tenant = ?1 AND d.event_seq = (SELECT seq FROM event WHERE id = ?5)",
    delivery_page!()
);

fn deliveries(
    conn: &Connection,
    tenant: &TenantId,
    query: &DeliveryQuery,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<DeliveryRecord>, Error> {
    let from = start(cursor, query.until);
    let since = query.since.unwrap_or(Timestamp::from_millis(i64::MIN));
    let mut statement;
    let rows = match (query.event, query.state) {
        (Some(event), _) => {
            statement = conn.prepare_cached(DELIVERIES_OF_EVENT)?;
            statement.query(params![tenant, from.at, from.seq, since, event])?
        }
        (None, Some(state @ (State::Held | State::Dead))) => {
            statement = conn.prepare_cached(RESTING_DELIVERIES)?;
            statement.query(params![tenant, from.at, from.seq, since, state])?
        }
        (None, _) => {
            statement = conn.prepare_cached(DELIVERIES)?;
            statement.query(params![tenant, from.at, from.seq, since])?
        }
    };
    page_of(rows, limit, |row| read_if_matching(conn, query, row))
}

/// The delivery of the row, if the query matches. Time, tenant and event are filtered by the SQL.
pub(crate) fn read_if_matching(
    conn: &Connection,
    query: &DeliveryQuery,
    row: &Row<'_>,
) -> Result<Option<DeliveryRecord>, Error> {
    let matches = is(&query.subscription, row, 2)?
        && is(&query.state, row, 3)?
        && is(&query.source, row, 5)?
        && is(&query.subject, row, 7)?
        && has_type(&query.event_type, row, 6)?;
    if !matches {
        return Ok(None);
    }
    if let Some(filter) = &query.filter {
        // A delivery that ended at a fault has it as the last run. Runs stored with an attempt contain no fault.
        let runs = runs_of_own_row(conn, row.column(1)?)?.unwrap_or_default();
        if runs.last().is_none_or(|run| run.fault.is_none() || run.filter != *filter) {
            return Ok(None);
        }
    }
    read_delivery(conn, row).map(Some)
}

pub(crate) fn delivery(conn: &Connection, tenant: &TenantId, id: DeliveryId) -> Result<Option<DeliveryRecord>, Error> {
    let mut statement = conn.prepare_cached(concat!(delivery_columns!(), delivery_by_id!()))?;
    let mut rows = statement.query(params![tenant, id.event, id.subscription, id.run])?;
    rows.next()?.map(|row| read_delivery(conn, row)).transpose()
}

/// The filter runs of a delivery, if they are stored in a row of their own.
fn runs_of_own_row(conn: &Connection, delivery: DeliverySeq) -> Result<Option<Vec<FilterRun>>, Error> {
    let runs = conn
        .prepare_cached("SELECT runs FROM filter_output WHERE delivery = ?1")?
        .query_row(params![delivery], |row| row.get::<_, Json<_>>(0))
        .optional()?;
    Ok(runs.map(|Json(runs)| runs))
}

fn read_delivery(conn: &Connection, row: &Row<'_>) -> Result<DeliveryRecord, Error> {
    let seq: DeliverySeq = row.column(1)?;
    let state: State = row.column(3)?;
    // Not joined, because a page scans many rows and returns few of them.
    let attempted = row.get::<_, u32>(15)? > 0;
    let stored_with_attempt = if attempted { attempts::runs(conn, seq) } else { Ok(None) };
    let runs = match stored_with_attempt {
        Ok(Some(runs)) => Some(runs),
        Ok(None) => runs_of_own_row(conn, seq)?,
        // Reading the attempt itself reports the damage; a list must not end there.
        Err(error) if error.is_damage() => None,
        Err(error) => return Err(error),
    };
    let source: SourceName = row.column(5)?;
    let types: Vec<String> = row.get::<_, Json<_>>(6)?.0;
    Ok(DeliveryRecord {
        seq,
        id: DeliveryId { event: row.column(4)?, subscription: row.column(2)?, run: row.get(8)? },
        event: row.column(4)?,
        subscription: row.column(2)?,
        tenant: row.column(9)?,
        test: builtin_event::is_test(&source, &types),
        source,
        types,
        subject: row.get(7)?,
        jti: row.get(10)?,
        state,
        due_at: if state == State::Due { Some(row.column(11)?) } else { None },
        reason: row.get(12)?,
        plan: row.column(13)?,
        runs: runs.unwrap_or_default(),
        released: row.get::<_, i64>(14)? == RELEASED,
        attempt_count: row.get(15)?,
        created_at: row.column(0)?,
        updated_at: row.column(16)?,
    })
}

pub(crate) const EVENTS: &str = "SELECT e.accepted_at, e.seq, e.id, e.source, e.types, e.subject, e.jti, e.content_type
     FROM event e WHERE e.tenant = ?1 AND (e.accepted_at, e.seq) < (?2, ?3) AND e.accepted_at >= ?4
     ORDER BY e.accepted_at DESC, e.seq DESC";

fn events(
    conn: &Connection,
    tenant: &TenantId,
    query: &EventQuery,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<EventRecord>, Error> {
    let from = start(cursor, query.until);
    let since = query.since.unwrap_or(Timestamp::from_millis(i64::MIN));
    let mut statement = conn.prepare_cached(EVENTS)?;
    let rows = statement.query(params![tenant, from.at, from.seq, since])?;
    page_of(rows, limit, |row| {
        let matches = is(&query.source, row, 3)?
            && is(&query.subject, row, 5)?
            && is(&query.jti, row, 6)?
            && has_type(&query.event_type, row, 4)?;
        if !matches {
            return Ok(None);
        }
        Ok(Some(event_record(row, tenant)?))
    })
}

/// Reads an event of the tenant. The columns are time, seq, id, source, types, subject, `jti` and media type, in this
/// order.
pub(crate) fn event_record(row: &Row<'_>, tenant: &TenantId) -> rusqlite::Result<EventRecord> {
    Ok(EventRecord {
        accepted_at: row.column(0)?,
        seq: row.column(1)?,
        id: row.column(2)?,
        tenant: tenant.clone(),
        source: row.column(3)?,
        types: row.get::<_, Json<_>>(4)?.0,
        subject: row.get(5)?,
        jti: row.get(6)?,
        content_type: row.get(7)?,
    })
}

/// Both bounds are exclusive; the earlier one applies.
fn start(cursor: Option<Cursor>, until: Option<Timestamp>) -> Cursor {
    let cursor = cursor.unwrap_or(Cursor::START);
    match until {
        Some(until) if until <= cursor.at => Cursor { at: until, seq: i64::MIN },
        _ => cursor,
    }
}

/// Builds a page from the rows that `read` accepts. The first two columns are the position: time, then seq. The page
/// ends at `limit` entries, at [`PAGE_BYTES_MAX`](setgate_domain::page::PAGE_BYTES_MAX) or after
/// [`HISTORY_SCAN_ROWS_MAX`] rows.
pub(crate) fn page_of<T: Serialize>(
    mut rows: Rows<'_>,
    limit: usize,
    mut read: impl FnMut(&Row<'_>) -> Result<Option<T>, Error>,
) -> Result<Page<T>, Error> {
    let mut filling = PageBuilder::new(limit.clamp(1, HISTORY_LIMIT_MAX));
    let (mut scanned, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        if filling.is_full() || scanned >= HISTORY_SCAN_ROWS_MAX {
            return Ok(Page { items: filling.into_items(), next: last });
        }
        scanned += 1;
        if let Some(item) = read(row)?
            && !filling.push(item)
        {
            return Ok(Page { items: filling.into_items(), next: last });
        }
        last = Some(Cursor { at: row.column(0)?, seq: row.get(1)? });
    }
    Ok(Page { items: filling.into_items(), next: None })
}

fn is<T: PartialEq + FromColumn>(wanted: &Option<T>, row: &Row<'_>, column: usize) -> Result<bool, Error> {
    Ok(wanted.is_none() || row.column::<Option<T>>(column)? == *wanted)
}

fn has_type(wanted: &Option<String>, row: &Row<'_>, column: usize) -> Result<bool, Error> {
    let Some(wanted) = wanted else { return Ok(true) };
    Ok(row.get::<_, Json<Vec<String>>>(column)?.0.contains(wanted))
}

/// The state condition is repeated literally so that the partial index applies; both time bounds are index ranges.
pub(crate) fn resting_deliveries_sql() -> String {
    format!(
        "{DELIVERY_COLUMNS} WHERE d.tenant = ?1 AND d.state IN (3, 4) AND d.state = ?2
         AND (d.created_at, d.seq) > (?3, ?4) AND d.created_at < ?5 ORDER BY d.created_at, d.seq"
    )
}

fn resting_deliveries(
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
    let mut statement = conn.prepare_cached(&resting_deliveries_sql())?;
    let rows = statement.query(params![tenant, state, from.at, from.seq, until])?;
    page_of(rows, limit, |row| read_if_matching(conn, query, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, TENANT, attempt, block_on, event, new_delivery, open, subscription, with_events};
    use crate::{FanOut, Ledger};
    use setgate_domain::delivery::{Settlement, Step};
    use setgate_domain::event::EventSeq;

    fn tenant() -> TenantId {
        TENANT.parse().unwrap()
    }

    async fn fan_out(ledger: &Ledger, events: std::ops::RangeInclusive<u64>, plan: setgate_domain::id::Digest) {
        let through = EventSeq(events.end().cast_signed());
        let deliveries = events.flat_map(|n| [new_delivery(n, 1, plan), new_delivery(n, 2, plan)]).collect();
        ledger.events.fan_out(FanOut { through, deliveries }).await.unwrap();
    }

    #[test]
    fn pages_are_stable_during_inserts() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 5).await;
            fan_out(&ledger, 1..=4, plan).await;
            let query = DeliveryQuery { subscription: Some(subscription(1)), ..Default::default() };
            let mut seen = Vec::new();
            let mut cursor = None;
            loop {
                let page = ledger.history.deliveries(&tenant(), query.clone(), cursor, 3).await.unwrap();
                seen.extend(page.items.iter().map(|d| d.id.event));
                // New deliveries are newer than all following pages.
                fan_out(&ledger, 5..=5, plan).await;
                cursor = page.next.map(|next| next.to_string().parse().unwrap());
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, [4, 3, 2, 1].map(|n| event(n).id));
            assert!("".parse::<Cursor>().is_err() && "é".repeat(16).parse::<Cursor>().is_err());
        });
    }

    #[test]
    fn filters_select_rows() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 3).await;
            fan_out(&ledger, 1..=3, plan).await;
            let due = ledger.deliveries.due(&tenant(), subscription(2), NOW, None, 9).await.unwrap();
            let step = Step::Held { runs: vec![], reason: "trapped".into() };
            ledger.deliveries.settle(Settlement::new(due[1].seq, NOW, step)).await.unwrap();
            let step = Step::Delivered { attempt: attempt(1, 204) };
            ledger.deliveries.settle(Settlement::new(due[2].seq, NOW, step)).await.unwrap();

            let count = async |query: DeliveryQuery| {
                ledger.history.deliveries(&tenant(), query, None, 100).await.unwrap().items.len()
            };
            let any = DeliveryQuery::default;
            assert_eq!(count(any()).await, 6);
            assert_eq!(count(DeliveryQuery { state: Some(State::Held), ..any() }).await, 1);
            assert_eq!(count(DeliveryQuery { state: Some(State::Delivered), ..any() }).await, 1);
            assert_eq!(count(DeliveryQuery { state: Some(State::Due), ..any() }).await, 4);
            assert_eq!(count(DeliveryQuery { event: Some(event(2).id), ..any() }).await, 2);
            assert_eq!(count(DeliveryQuery { subject: Some("user-3".into()), ..any() }).await, 2);
            assert_eq!(count(DeliveryQuery { event_type: Some("https://e/2".into()), ..any() }).await, 2);
            assert_eq!(count(DeliveryQuery { filter: Some("redact".parse().unwrap()), ..any() }).await, 0);
            assert_eq!(count(DeliveryQuery { source: Some("other".parse().unwrap()), ..any() }).await, 0);
            assert_eq!(count(DeliveryQuery { since: Some(NOW.plus_millis(1)), ..any() }).await, 0);
            assert_eq!(count(DeliveryQuery { until: Some(NOW), ..any() }).await, 0);
            assert_eq!(count(DeliveryQuery { until: Some(NOW.plus_millis(1)), ..any() }).await, 6);

            let query = EventQuery { jti: Some(event(2).set.jti), ..Default::default() };
            let page = ledger.history.events(&tenant(), query, None, 1).await.unwrap();
            assert_eq!(page.items[0].id, event(2).id);
            let other = "another".parse().unwrap();
            assert!(ledger.history.events(&other, EventQuery::default(), None, 1).await.unwrap().items.is_empty());
            assert!(ledger.history.delivery(&other, due[0].id).await.unwrap().is_none());
            assert_eq!(ledger.history.delivery_claims(&tenant(), due[0].id).await.unwrap(), Some(event(1).set.text));

            let counts = ledger.history.counts(&tenant(), Some(subscription(2))).await.unwrap();
            assert_eq!(counts, Counts { due: 1, held: 1, delivered: 1, ..Default::default() });
            assert_eq!(ledger.history.counts(&tenant(), None).await.unwrap().due, 4);
        });
    }
}
