//! Consistency check of the dedupe index.

use rusqlite::Connection;
use setgate_domain::event::EventSeq;

use super::{Index, hash};
use crate::Error;
use crate::schema::sql_types::ReadColumn;
use crate::schema::statements::Statements;

/// Describes parts that cannot be read, and events that a lookup does not find, at most `limit` in total. Reads the
/// whole index, and one part per event.
pub(crate) fn faults(conn: &Connection, limit: usize) -> Result<Vec<String>, Error> {
    let index = Index::load(conn, 1_000)?;
    let parts = index.runs.iter().flat_map(|run| (0..run.parts()).map(move |part| run.read_part(conn, part)));
    let mut faults: Vec<_> = parts.filter_map(|read| Some(read.err()?.to_string())).take(limit).collect();
    let mut statements = Statements::new(conn);
    let mut statement = conn.prepare("SELECT seq, dedupe_hash, dedupe_key FROM event")?;
    let mut rows = statement.query([])?;
    while faults.len() < limit
        && let Some(row) = rows.next()?
    {
        let (seq, hashed): (EventSeq, i64) = (row.column(0)?, row.get(1)?);
        if hashed != hash(&row.get(2)?) {
            faults.push(format!("event {}: its dedupe hash does not match its dedupe key", seq.0));
            continue;
        }
        match index.find(&mut statements, hashed, |_, found| Ok((found == seq).then_some(()))) {
            Ok(Some(())) => {}
            Ok(None) => faults.push(format!(
                "event {}: its dedupe key is not in the index, so a duplicate would be accepted as a new event",
                seq.0
            )),
            Err(error) if error.is_damage() => faults.push(format!("event {}: {error}", seq.0)),
            Err(error) => return Err(error),
        }
    }
    Ok(faults)
}
