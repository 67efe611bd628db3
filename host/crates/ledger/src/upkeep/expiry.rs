//! Finds the events that retention may delete: those whose deliveries have all been at rest for long enough. Reads
//! only.

use std::collections::HashSet;

use rusqlite::Connection;
use setgate_domain::event::EventSeq;
use setgate_domain::id::TenantId;
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::schema::sql_types::{ReadColumn, params};

/// Events examined per read.
const SCAN_EVENTS: i64 = 2_000;

/// Deletable events after `after`, of the given tenants or of all, and the position to continue from. `None` if all
/// later events are too young.
pub(crate) fn expired(
    conn: &Connection,
    after: EventSeq,
    cursor: EventSeq,
    before: Timestamp,
    of: Option<&HashSet<TenantId>>,
) -> Result<(Vec<EventSeq>, Option<EventSeq>), Error> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, accepted_at, tenant FROM event WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query(params![after, cursor, SCAN_EVENTS])?;
    let mut expired = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let seq = row.column(0)?;
        // The journal is in order of acceptance, except if the clock was set back: events after the first one that is
        // too young can wait for a later round.
        if row.column::<Timestamp>(1)? >= before {
            return Ok((expired, None));
        }
        let is_selected = match of {
            Some(tenants) => tenants.contains(&row.column::<TenantId>(2)?),
            None => true,
        };
        if is_selected && !is_retained(conn, seq, before)? {
            expired.push(seq);
        }
        last = Some(seq);
    }
    Ok((expired, last))
}

/// Like [`expired`], but reads one event at a time: unreadable events are skipped, so they do not block the retention of
/// later ones.
pub(crate) fn expired_skipping_damage(
    conn: &Connection,
    after: EventSeq,
    cursor: EventSeq,
    before: Timestamp,
) -> (Vec<EventSeq>, Option<EventSeq>) {
    let end = cursor.0.min(after.0.saturating_add(SCAN_EVENTS));
    let mut expired = Vec::new();
    for seq in (after.0 + 1..=end).map(EventSeq) {
        let is_expired = || -> Result<bool, Error> {
            let old = conn
                .prepare_cached("SELECT 1 FROM event WHERE seq = ?1 AND accepted_at < ?2")?
                .exists(params![seq, before])?;
            Ok(old && !is_retained(conn, seq, before)?)
        };
        if is_expired().unwrap_or(false) {
            expired.push(seq);
        }
    }
    (expired, (end < cursor.0).then_some(EventSeq(end)))
}

/// Whether a delivery keeps the event: it is due or held, or it came to rest at or after `before`. A dead letter of an
/// old event is thus available to a person for as long as any other.
pub(crate) fn is_retained(conn: &Connection, event: EventSeq, before: Timestamp) -> Result<bool, Error> {
    Ok(conn
        .prepare_cached(
            "SELECT 1 FROM delivery WHERE event_seq = ?1 AND (state IN (0, 3) OR updated_at >= ?2) LIMIT 1",
        )?
        .exists(params![event, before])?)
}
