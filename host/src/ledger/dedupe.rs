//! Which events have a dedupe key: an index that costs an event as much with ten million of them as with none.
//!
//! A key is a digest, so in an index that is a tree each event changes a page of its own, which is read, written to the WAL
//! and moved into the file. Here entries of the last events are kept in memory, from where they are written as a sorted
//! [`Run`](run::Run), a few pages at once; runs are merged when there are several of one size (a log-structured merge-tree:
//! O'Neil et al., 1996). A look asks memory, then a filter of each run, and reads a part of the file only where one says
//! that the key most probably is there.
//!
//! The events' rows are what counts: an entry is a hash and a place, and who finds one reads the row. So the index may lack
//! the last events, which a start reads (never more than a run and a batch), and may have entries of events that are
//! deleted. All of it is changed in transactions of the batches that append events, each doing its share of the merging, so
//! that nobody waits for a large one and nothing is left to do when nothing comes.
//!
//! Memory: 1.3 bytes for each event in the ledger.

mod merge;
mod run;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use rusqlite::Connection;

use super::statements::Statements;
use super::{Error, schema};
use crate::domain::event::EventSeq;
use merge::Merge;
pub(super) use run::Entry;
use run::{RUN_SHIFT, Run, Writing};

/// Runs of one level that are merged into one of the next.
const FAN_IN: usize = 8;
/// Entries merged for each event appended. Each entry is merged once a level, of which ten thousand million events have
/// seven.
const MERGED_PER_EVENT: usize = 8;
/// Rows of runs that are not used any more deleted by a batch.
const SWEPT_ROWS: i64 = 64;

/// The name in `meta` that is there while the index is known to be damaged.
const DAMAGED: &str = "dedupe damaged";

/// What the index holds of a key: entries are small, the row tells keys apart.
pub(super) fn hash(key: &[u8; 32]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The index, as of the last commit.
pub(super) struct Index {
    run_entries: usize,
    /// Entries that are in no run.
    recent: BTreeSet<Entry>,
    /// The oldest first.
    runs: Vec<Run>,
    /// At most one of each level.
    merges: Vec<Merge>,
    /// Runs whose rows are still to be deleted.
    unused: VecDeque<i64>,
    next_run: i64,
    /// What the transaction that is under way changes.
    staged: Staged,
    /// A part could not be read. Nothing is merged any more, and the next start makes the index anew.
    damaged: Cell<bool>,
    /// The file and the operator know of that.
    told: bool,
}

/// Changes that count once they are committed.
#[derive(Default)]
struct Staged {
    fresh: Vec<Entry>,
    written: Option<Run>,
    /// The merge that was gone on with.
    merging: Option<i64>,
    /// It is done: the runs that it read, and what it made of them.
    merged: Option<(Vec<i64>, Option<Run>)>,
    /// Runs of which no event is left.
    expired: Vec<i64>,
    /// Nothing is left of the first unused run.
    swept: bool,
    /// The file knows that the index is damaged.
    told: bool,
}

impl Index {
    /// Reads what is held in memory. Makes the index anew, from the events, where it is damaged.
    pub(super) fn open(conn: &Connection, run_entries: usize) -> Result<Self, Error> {
        let was_damaged = conn.prepare("SELECT 1 FROM meta WHERE name = ?1")?.exists([DAMAGED])?;
        match Self::load(conn, run_entries) {
            Ok(index) if !was_damaged => return Ok(index),
            Err(error) if !error.is_damage() => return Err(error),
            _ => {}
        }
        tracing::warn!("the index of dedupe keys is damaged; it is made anew from the events");
        let transaction = conn.unchecked_transaction()?;
        build(&transaction, run_entries)?;
        transaction.execute("DELETE FROM meta WHERE name = ?1", [DAMAGED])?;
        transaction.commit()?;
        Self::load(conn, run_entries)
    }

    /// The same, and an error where it is damaged.
    pub(super) fn load(conn: &Connection, run_entries: usize) -> Result<Self, Error> {
        let runs = Run::load_all(conn)?;
        let through = runs.last().map_or(EventSeq::default(), |run| run.last);
        let mut statement = conn.prepare("SELECT dedupe_hash, seq FROM event WHERE seq > ?1")?;
        let recent = statement.query_map([through], |row| Ok(Entry { hash: row.get(0)?, seq: row.get(1)? }))?;
        let recent = recent.collect::<Result<_, _>>()?;
        let mut unused = BTreeSet::new();
        for table in ["dedupe_part", "dedupe_head"] {
            let mut next =
                conn.prepare(&format!("SELECT min(id) >> {RUN_SHIFT} FROM {table} WHERE id >= ?1 << {RUN_SHIFT}"))?;
            let mut from = 0;
            while let Some(run) = next.query_row([from], |row| row.get::<_, Option<i64>>(0))? {
                unused.insert(run);
                from = run + 1;
            }
        }
        let next_run = unused.last().map_or(1, |run| run + 1);
        unused.retain(|id| runs.iter().all(|run| run.id != *id));
        Ok(Self {
            run_entries: run_entries.max(1),
            recent,
            runs,
            merges: Vec::new(),
            unused: unused.into_iter().collect(),
            next_run,
            staged: Staged::default(),
            damaged: Cell::new(false),
            told: false,
        })
    }

    /// Bytes that it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.runs.iter().map(Run::bytes).sum::<usize>() + self.recent.len() * size_of::<Entry>() * 3 / 2
    }

    /// Events whose key has the hash, the newest first; some may be deleted. Of those of the batch under way it knows nothing.
    pub(super) fn find(&self, statements: &mut Statements<'_>, hash: i64) -> Result<Vec<EventSeq>, Error> {
        let [least, greatest] = [0, i64::MAX].map(|seq| Entry { hash, seq: EventSeq(seq) });
        let mut found: Vec<_> = self.recent.range(least..=greatest).map(|entry| entry.seq).collect();
        for run in &self.runs {
            run.find(statements, hash, &mut found)
                .inspect_err(|error| self.damaged.set(self.damaged.get() || error.is_damage()))?;
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Takes in the entries of the events that a batch appended, and does the batch's share of what is to be written; within
    /// its transaction. [`Index::committed`] or [`Index::rolled_back`] has to follow.
    pub(super) fn keep_up(&mut self, conn: &Connection, fresh: Vec<Entry>) -> Result<(), Error> {
        let appended = fresh.len();
        self.staged = Staged { fresh, ..Staged::default() };
        if appended == 0 && self.damaged.get() == self.told {
            return Ok(());
        }
        if !self.damaged.get()
            && let Err(error) = self.merge(conn, appended * MERGED_PER_EVENT)
        {
            if !error.is_damage() {
                return Err(error);
            }
            // What it wrote is committed with the rest, and swept as that of any run that is not used.
            self.abandon();
            self.damaged.set(true);
        }
        if self.damaged.get() && !self.told {
            self.staged.told = true;
            conn.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, x'')", [DAMAGED])?;
        }
        if self.recent.len() + appended >= self.run_entries {
            self.write_recent(conn)?;
        }
        self.sweep(conn)
    }

    /// Writes all that is in no run as one, and lets go of runs whose events are deleted.
    fn write_recent(&mut self, conn: &Connection) -> Result<(), Error> {
        let mut entries: Vec<_> = self.recent.iter().chain(&self.staged.fresh).copied().collect();
        entries.sort_unstable();
        let places = || entries.iter().map(|entry| entry.seq);
        let (Some(first), Some(last)) = (places().min(), places().max()) else { return Ok(()) };
        let mut run = Writing::new(self.name(), 0, first, last);
        for entry in entries {
            run.push(conn, entry)?;
        }
        self.staged.written = run.finish(conn)?;
        let oldest = oldest(conn)?;
        let merged = self.staged.merged.as_ref().map(|(inputs, _)| inputs);
        let in_merges = self.merges.iter().map(|merge| &merge.inputs).chain(merged).flatten().collect::<BTreeSet<_>>();
        for run in self.runs.iter().filter(|run| run.last < oldest && !in_merges.contains(&run.id)) {
            unlist(conn, run.id)?;
            self.staged.expired.push(run.id);
        }
        Ok(())
    }

    /// Goes on with the merge of the lowest level, so that few runs wait for a large one.
    fn merge(&mut self, conn: &Connection, count: usize) -> Result<(), Error> {
        let levels = self.runs.last().map_or(0, |run| run.level)..=self.runs.first().map_or(0, |run| run.level);
        for level in levels {
            let place = match self.merges.iter().position(|merge| merge.level == level) {
                Some(place) => place,
                None => {
                    let inputs: Vec<_> = self.runs.iter().filter(|run| run.level == level).take(FAN_IN).collect();
                    if inputs.len() < FAN_IN {
                        continue;
                    }
                    let Some(merge) = Merge::begin(&inputs, self.next_run, oldest(conn)?) else { continue };
                    self.next_run += 1;
                    self.merges.push(merge);
                    self.merges.len() - 1
                }
            };
            let merge = &mut self.merges[place];
            self.staged.merging = Some(merge.id());
            if merge.step(conn, &self.runs, count)? {
                // Until it is committed, `merging` says what to do with what it wrote.
                let merge = self.merges.swap_remove(place);
                for input in &merge.inputs {
                    unlist(conn, *input)?;
                }
                self.staged.merged = Some((merge.inputs.clone(), merge.finish(conn)?));
            }
            return Ok(());
        }
        Ok(())
    }

    /// Deletes some rows of a run that is not used any more.
    fn sweep(&mut self, conn: &Connection) -> Result<(), Error> {
        let Some(id) = self.unused.front() else { return Ok(()) };
        let mut deleted = 0;
        for table in ["dedupe_part", "dedupe_head"] {
            let sql = format!(
                "DELETE FROM {table} WHERE id IN
                    (SELECT id FROM {table} WHERE id >= ?1 << {RUN_SHIFT} AND id < (?1 + 1) << {RUN_SHIFT} LIMIT ?2)"
            );
            deleted += conn.prepare_cached(&sql)?.execute([*id, SWEPT_ROWS])?;
        }
        self.staged.swept = deleted == 0;
        Ok(())
    }

    /// The transaction was committed.
    pub(super) fn committed(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        match staged.written {
            Some(run) => {
                self.recent.clear();
                self.runs.push(run);
            }
            None => self.recent.extend(staged.fresh),
        }
        if staged.swept {
            self.unused.pop_front();
        }
        if staged.told {
            self.told = true;
            tracing::error!(
                "the index of dedupe keys is damaged: an event whose key may stand where it cannot be read is refused. The \
                 next start makes the index anew, from the events"
            );
        }
        let (mut gone, made) = staged.merged.unwrap_or_default();
        gone.extend(staged.expired);
        self.runs.retain(|run| !gone.contains(&run.id));
        self.unused.extend(gone);
        if let Some(run) = made {
            let place = self.runs.partition_point(|other| other.last < run.last);
            self.runs.insert(place, run);
        }
    }

    /// The transaction was rolled back: nothing of it counts. A merge that was gone on with in it begins anew.
    pub(super) fn rolled_back(&mut self) {
        self.abandon();
        self.staged = Staged::default();
    }

    fn abandon(&mut self) {
        if let Some(id) = self.staged.merging.take() {
            self.merges.retain(|merge| merge.id() != id);
            self.unused.push_back(id);
        }
        self.staged.merged = None;
    }

    fn name(&mut self) -> i64 {
        self.next_run += 1;
        self.next_run - 1
    }
}

/// The first event that is there; all are later that are yet to come.
fn oldest(conn: &Connection) -> Result<EventSeq, Error> {
    let oldest = conn.prepare_cached("SELECT min(seq) FROM event")?.query_row([], |row| row.get(0))?;
    Ok(Option::unwrap_or(oldest, EventSeq(i64::MAX)))
}

/// Takes a run out of the list: its rows are not read any more.
fn unlist(conn: &Connection, id: i64) -> Result<(), Error> {
    conn.prepare_cached("DELETE FROM dedupe_run WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Makes the index of all events that are there, in place of what there is; within a transaction. Takes a second for
/// each million of them, or a few where the file has none of the index of earlier schemas, which is in the order of a run.
pub(super) fn build(conn: &Connection, run_entries: usize) -> Result<(), Error> {
    conn.execute_batch(schema::DEDUPE_TABLES)?;
    conn.execute_batch(
        "DELETE FROM dedupe_run; DELETE FROM dedupe_part; DELETE FROM dedupe_head;
         CREATE INDEX IF NOT EXISTS event_dedupe ON event (dedupe_hash);",
    )?;
    let (first, last, count): (Option<EventSeq>, Option<EventSeq>, i64) =
        conn.query_row("SELECT min(seq), max(seq), count(*) FROM event", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    let runs = usize::try_from(count).unwrap_or(0) / run_entries.max(1);
    let level = runs.checked_ilog(FAN_IN).unwrap_or(0);
    let mut run = Writing::new(1, level, first, last);
    let mut statement =
        conn.prepare("SELECT dedupe_hash, seq FROM event INDEXED BY event_dedupe ORDER BY dedupe_hash, seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        run.push(conn, Entry { hash: row.get(0)?, seq: row.get(1)? })?;
    }
    run.finish(conn)?;
    drop(rows);
    conn.execute_batch("DROP INDEX event_dedupe")?;
    Ok(())
}

/// Events that a look at the index does not find; in words, `limit` at the most. Reads all of it.
pub(super) fn missing(conn: &Connection, limit: usize) -> Result<Vec<String>, Error> {
    let index = Index::load(conn, 1)?;
    let mut faults = Vec::new();
    for run in &index.runs {
        let parts = (0..run.parts()).map(|part| run.read_part(conn, part));
        faults.extend(parts.filter_map(|read| Some(read.err()?.to_string())));
    }
    let mut statements = Statements::new(conn);
    let mut statement = conn.prepare("SELECT seq, dedupe_hash, dedupe_key FROM event")?;
    let mut rows = statement.query([])?;
    while faults.len() < limit
        && let Some(row) = rows.next()?
    {
        let (seq, hashed): (EventSeq, i64) = (row.get(0)?, row.get(1)?);
        if hashed != hash(&row.get(2)?) {
            faults.push(format!("event {}: its hash is not that of its dedupe key", seq.0));
            continue;
        }
        match index.find(&mut statements, hashed) {
            Ok(found) if found.contains(&seq) => {}
            Ok(_) => faults
                .push(format!("event {}: its dedupe key is not found, a second copy is taken for a new event", seq.0)),
            Err(error) if error.is_damage() => faults.push(format!("event {}: {error}", seq.0)),
            Err(error) => return Err(error),
        }
    }
    Ok(faults)
}
