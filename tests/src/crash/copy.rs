//! Reads the ledger after a kill from a copy of its files, so that the original is not changed.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::load::End;

/// Byte offsets of two counts in the WAL's index (SQLite, "WAL-mode File Format", section 2.1): frames that are
/// checkpointed, and frames that the last checkpoint attempted.
const BACKFILLED: usize = 96;
const BACKFILL_ATTEMPTED: usize = 128;

/// The contents of a ledger's files.
#[derive(Debug, Default)]
pub struct Copy {
    /// Findings of `integrity_check` and of the counts; empty if there are none.
    pub damage: Vec<String>,
    /// Ids of its events.
    pub events: HashSet<String>,
    /// The same by `jti`.
    pub events_by_jti: HashMap<String, String>,
    /// Events that are not fanned out yet.
    pub behind_cursor: i64,
    /// Due deliveries by id.
    pub due: HashMap<String, Due>,
    /// Ended deliveries by id. `None` if a delivery is held, which must not happen in a run.
    pub at_rest: HashMap<String, Option<End>>,
    /// Events that a retention run at that moment would have deleted.
    pub past: i64,
}

/// A due delivery.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// Whether its chain has run.
    pub filtered: bool,
}

impl Copy {
    /// Copies the ledger in `folder` and reads the copy. `retention_ms` is the host's retention time.
    pub fn read(folder: &Path, retention_ms: i64) -> Result<Self, String> {
        let aside = tempfile::tempdir().map_err(|error| error.to_string())?;
        for name in ["ledger.db", "ledger.db-wal"] {
            let from = folder.join(name);
            if from.exists() {
                std::fs::copy(&from, aside.path().join(name)).map_err(|error| format!("{name}: {error}"))?;
            }
        }
        let conn = Connection::open(aside.path().join("ledger.db")).map_err(|error| error.to_string())?;
        look(&conn, retention_ms).map_err(|error| format!("the ledger cannot be read: {error}"))
    }
}

fn look(conn: &Connection, retention_ms: i64) -> rusqlite::Result<Copy> {
    let mut copy = Copy::default();
    let said: Vec<String> =
        conn.prepare("PRAGMA integrity_check")?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    copy.damage.extend(said.into_iter().filter(|line| line != "ok"));
    let wrong: i64 = conn.query_row(
        "SELECT count(*) FROM (SELECT tenant, subscription, sum(state = 0) AS a, sum(state = 1) AS b,
             sum(state = 2) AS c, sum(state = 3) AS d, sum(state = 4) AS e FROM delivery GROUP BY 1, 2) AS real
         LEFT JOIN tally AS t USING (tenant, subscription)
         WHERE (t.due, t.delivered, t.dropped, t.held, t.dead) IS NOT (real.a, real.b, real.c, real.d, real.e)",
        [],
        |row| row.get(0),
    )?;
    if wrong > 0 {
        copy.damage.push(format!("the tally of {wrong} subscriptions is not the count of their rows"));
    }
    let orphans: i64 =
        conn.query_row("SELECT count(*) FROM delivery WHERE event_seq NOT IN (SELECT seq FROM event)", [], |row| {
            row.get(0)
        })?;
    if orphans > 0 {
        copy.damage.push(format!("{orphans} deliveries have no event"));
    }
    copy.events_by_jti = conn
        .prepare("SELECT jti, id FROM event")?
        .query_map([], |row| Ok((row.get(0)?, format!("evt_{}", text_of(row.get(1)?)))))?
        .collect::<Result<_, _>>()?;
    copy.events = copy.events_by_jti.values().cloned().collect();
    copy.behind_cursor = conn.query_row(
        "SELECT count(*) FROM event WHERE seq > (SELECT value FROM mark WHERE name = 'cursor')",
        [],
        |row| row.get(0),
    )?;
    let mut statement = conn.prepare("SELECT event_id, subscription, run, state, filtered FROM delivery")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = delivery_id(row)?;
        match row.get::<_, i64>(3)? {
            0 => drop(copy.due.insert(id, Due { filtered: row.get::<_, i64>(4)? > 0 })),
            1 => drop(copy.at_rest.insert(id, Some(End::Delivered))),
            2 => drop(copy.at_rest.insert(id, Some(End::Dropped))),
            4 => drop(copy.at_rest.insert(id, Some(End::Dead))),
            _ => drop(copy.at_rest.insert(id, None)),
        }
    }
    // The newest timestamp in the ledger represents the time of the kill, so no clock is read.
    copy.past = conn.query_row(
        "WITH now AS (SELECT max(coalesce((SELECT max(accepted_at) FROM event), 0),
                                 coalesce((SELECT max(updated_at) FROM delivery), 0)) - ?1 AS before)
         SELECT count(*) FROM event AS e, now WHERE e.accepted_at < now.before AND NOT EXISTS
             (SELECT 1 FROM delivery AS d WHERE d.event_seq = e.seq AND (d.state IN (0, 3) OR d.updated_at >= now.before))",
        params![retention_ms],
        |row| row.get(0),
    )?;
    Ok(copy)
}

fn delivery_id(row: &Row<'_>) -> rusqlite::Result<String> {
    Ok(format!("dlv_{}_{}_{}", text_of(row.get(0)?), text_of(row.get(1)?), row.get::<_, i64>(2)?))
}

/// The 26 characters of an id (Crockford's base 32, most significant first).
fn text_of(bytes: [u8; 16]) -> String {
    let number = u128::from_be_bytes(bytes);
    let letter = |place: u32| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(number >> (5 * place)) as usize & 31] as char;
    (0..26).rev().map(letter).collect()
}

/// Reads the WAL's index in `folder`: the number of checkpointed frames, and the number that the last checkpoint
/// attempted. `None` if there is no index.
pub fn checkpoint(folder: &Path) -> Option<(u32, u32)> {
    let index = std::fs::read(folder.join("ledger.db-shm")).ok()?;
    let number = |at: usize| Some(u32::from_ne_bytes(index.get(at..at + 4)?.try_into().ok()?));
    Some((number(BACKFILLED)?, number(BACKFILL_ATTEMPTED)?))
}

/// Whether a checkpoint is in progress, that is, attempted more frames than it has moved. The index of a recovered WAL
/// looks the same without a checkpoint; `recovered` is its content when the host had started.
pub fn is_checkpointing(folder: &Path, recovered: Option<(u32, u32)>) -> bool {
    checkpoint(folder)
        .is_some_and(|(moved, attempted)| attempted > moved && recovered.is_some_and(|(_, before)| before != attempted))
}
