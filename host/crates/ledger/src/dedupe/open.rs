//! Loading and rebuilding the index at the start.
//!
//! Events that are in no run are indexed from their rows: after a normal start only the latest ones, after an upgrade
//! or damage all of them. This happens one run at a time, each in its own transaction, so a start that is killed
//! resumes at the last run.

use std::collections::{BTreeSet, VecDeque};

use rusqlite::{Connection, OptionalExtension as _};
use setgate_domain::event::EventSeq;

use super::run::{Entry, RUN_ID_END, RUN_SHIFT, Run};
use super::{DAMAGED_KEY, Damage, Index, Staged, is_unreadable};
use crate::Error;
use crate::schema;
use crate::schema::sql_types::{ReadColumn, params};

/// Tables of the index.
const TABLES: [&str; 3] = ["dedupe_run", "dedupe_part", "dedupe_header"];
/// Number of events to index from which a log line announces the delay.
const LOG_EVENTS_MIN: i64 = 1_000_000;

impl Index {
    /// Loads the index and writes runs for events that are in none. A damaged index is set aside and rebuilt.
    ///
    /// An event whose row cannot be read is left out: a duplicate of it would be accepted as a new event.
    pub(crate) fn open(conn: &Connection, run_events: usize) -> Result<Self, Error> {
        if !conn.prepare("SELECT 1 FROM meta WHERE name = ?1")?.exists([DAMAGED_KEY])? {
            match Self::catch_up(conn, run_events) {
                Err(error) if is_unreadable(&error) => tracing::warn!(%error, "the dedupe index is damaged"),
                opened => return opened,
            }
        }
        set_aside(conn)?;
        Self::catch_up(conn, run_events)
    }

    /// Loads the runs and writes runs for the events that are in none.
    fn catch_up(conn: &Connection, run_events: usize) -> Result<Self, Error> {
        let mut index = Self::load_runs(conn, run_events)?;
        let (mut through, last) = (index.last_indexed(), last_event(conn)?);
        if last.0 - through.0 >= LOG_EVENTS_MIN {
            tracing::info!(
                events = last.0 - through.0,
                "building the dedupe index from the events; this may take minutes"
            );
        }
        while through < last {
            through = index.index_events(conn, through, last)?;
            if index.memtable.len() >= index.run_events {
                let transaction = conn.unchecked_transaction()?;
                index.flush_memtable(&transaction, through)?;
                transaction.commit()?;
                index.committed();
                index.merge_all(conn)?;
            }
        }
        Ok(index)
    }

    /// Loads the index without writing anything. Fails if it is damaged.
    pub(crate) fn load(conn: &Connection, run_events: usize) -> Result<Self, Error> {
        let mut index = Self::load_runs(conn, run_events)?;
        let (mut through, last) = (index.last_indexed(), last_event(conn)?);
        while through < last {
            through = index.index_events(conn, through, last)?;
        }
        Ok(index)
    }

    /// The index with all stored runs, but without the events that are in no run.
    fn load_runs(conn: &Connection, run_events: usize) -> Result<Self, Error> {
        let runs = Run::load_all(conn)?;
        let mut ids = BTreeSet::new();
        for table in ["dedupe_part", "dedupe_header"] {
            let mut next = conn.prepare(&format!("SELECT min(id) FROM {table} WHERE id >= ?1"))?;
            let mut from = 0;
            while from < RUN_ID_END
                && let Some(key) = next.query_row([from << RUN_SHIFT], |row| row.get::<_, Option<i64>>(0))?
            {
                ids.insert(key >> RUN_SHIFT);
                from = (key >> RUN_SHIFT) + 1;
            }
        }
        let next_id = ids.last().map_or(1, |id| id + 1);
        let obsolete: VecDeque<_> = ids.into_iter().filter(|id| runs.iter().all(|run| run.id != *id)).collect();
        Ok(Self {
            run_events: run_events.max(1),
            memtable: BTreeSet::new(),
            runs,
            merges: Vec::new(),
            obsolete,
            next_id,
            staged: Staged::default(),
            damage: std::cell::Cell::new(Damage::None),
            is_recorded: false,
        })
    }

    /// Last event covered by a run.
    fn last_indexed(&self) -> EventSeq {
        self.runs.last().map_or(EventSeq::default(), |run| run.last)
    }

    /// Adds entries for up to `run_events` positions after `through`, at most up to `last`. Returns the last position
    /// covered.
    fn index_events(&mut self, conn: &Connection, through: EventSeq, last: EventSeq) -> Result<EventSeq, Error> {
        let places = i64::try_from(self.run_events).unwrap_or(i64::MAX);
        let end = EventSeq(through.0.saturating_add(places).min(last.0));
        match entries(conn, through, end) {
            Err(error) if is_unreadable(&error) => {
                // One event at a time, so that an unreadable row leaves out only itself.
                let mut left_out = 0_u64;
                for place in (through.0..end.0).map(EventSeq) {
                    match entries(conn, place, EventSeq(place.0 + 1)) {
                        Err(error) if is_unreadable(&error) => left_out += 1,
                        found => self.memtable.extend(found?),
                    }
                }
                tracing::warn!(left_out, %error, "events cannot be read and are not in the dedupe index: duplicates of them are accepted as new events");
            }
            found => self.memtable.extend(found?),
        }
        Ok(end)
    }

    /// Merges until no merge is due.
    fn merge_all(&mut self, conn: &Connection) -> Result<(), Error> {
        loop {
            let transaction = conn.unchecked_transaction()?;
            self.merge(&transaction, EventSeq::default(), usize::MAX)?;
            if self.staged.merging.is_none() {
                return Ok(());
            }
            transaction.commit()?;
            self.committed();
        }
    }
}

/// Entries of the events after `after` up to `through`.
fn entries(conn: &Connection, after: EventSeq, through: EventSeq) -> Result<Vec<Entry>, Error> {
    let mut statement = conn.prepare_cached("SELECT dedupe_hash, seq FROM event WHERE seq > ?1 AND seq <= ?2")?;
    let entries =
        statement.query_map(params![after, through], |row| Ok(Entry { hash: row.get(0)?, seq: row.column(1)? }))?;
    Ok(entries.collect::<Result<_, _>>()?)
}

/// Highest event seq ever used.
fn last_event(conn: &Connection) -> Result<EventSeq, Error> {
    let mut statement = conn.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'event'")?;
    Ok(statement.query_row([], |row| row.column(0)).optional()?.unwrap_or_default())
}

/// Starts an empty index. The damaged tables stay in the file under other names, because unreadable rows cannot be
/// deleted.
fn set_aside(conn: &Connection) -> Result<(), Error> {
    let transaction = conn.unchecked_transaction()?;
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'dedupe_run_damaged_%'";
    let number: i64 = transaction.query_row(sql, [], |row| row.get(0))?;
    for table in TABLES {
        transaction.execute_batch(&format!("ALTER TABLE {table} RENAME TO {table}_damaged_{number}"))?;
    }
    transaction.execute_batch(schema::tables::DEDUPE_TABLES)?;
    transaction.execute("DELETE FROM meta WHERE name = ?1", [DAMAGED_KEY])?;
    transaction.commit()?;
    let to = format!("dedupe_*_damaged_{number}");
    tracing::warn!(
        to,
        "the dedupe index was damaged: its tables are renamed, and a new index is built from the events"
    );
    Ok(())
}
