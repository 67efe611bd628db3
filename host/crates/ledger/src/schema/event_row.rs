//! Decodes rows of the table `event`.

use rusqlite::Row;
use setgate_domain::event::Event;
use setgate_domain::set::SetToken;
use setgate_domain::trace::TraceContext;

use crate::Error;
use crate::schema::compression;
use crate::schema::sql_types::{Json, ReadColumn};

pub(crate) const EVENT_COLUMNS: &str = "e.seq, e.id, e.tenant, e.source, e.accepted_at, e.issued_at, e.issuer, e.jti, \
     e.types, e.subject, e.content_type, e.set_text, e.original, e.trace, e.compressed";

/// Reads [`EVENT_COLUMNS`] from the start of the row.
pub(crate) fn read_event(row: &Row<'_>) -> Result<Event, Error> {
    let compressed = row.get(14)?;
    let text = compression::text_of(compressed, row.get_ref(11)?)?;
    let original = compression::original_of(compressed, row.get_ref(12)?, &text)?;
    Ok(Event {
        seq: row.column(0)?,
        id: row.column(1)?,
        tenant: row.column(2)?,
        source: row.column(3)?,
        accepted_at: row.column(4)?,
        set: SetToken {
            issued_at: row.get(5)?,
            issuer: row.get(6)?,
            jti: row.get(7)?,
            types: row.get::<_, Json<Vec<String>>>(8)?.0,
            text,
        },
        subject: row.get(9)?,
        content_type: row.get(10)?,
        original,
        // An unreadable trace context must not make the event unreadable.
        trace: row.get::<_, Option<Vec<u8>>>(13)?.as_deref().and_then(TraceContext::from_bytes),
    })
}
