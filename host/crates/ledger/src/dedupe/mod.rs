//! The dedupe index: finds the events with a given dedupe key. An insert costs the same with ten million events as with
//! none.
//!
//! A key is a digest, so in a B-tree each event would change a page of its own, which is read, written to the WAL and
//! copied to the file. Here the entries of recent events stay in memory until they are written as a sorted [`Run`], a
//! few pages at once. Several runs of about the same size are merged (a log-structured merge-tree: O'Neil et al.,
//! 1996). A lookup checks memory, then a Bloom filter of each part, and reads a part from the file only if its filter
//! reports a probable match.
//!
//! The event rows are authoritative: an entry is a hash and a position, and a lookup reads the row to verify it. The
//! index may therefore lack the latest events, which are read at the start (usually no more than a run and a batch),
//! and may contain entries of deleted events. All changes happen in the transactions of batches that append events.
//! Each batch does its share of the merging, so that no request waits for a large merge and no work is left when no
//! events arrive.
//!
//! Memory: 1.3 bytes per entry; up to twice that while the largest runs are merged.
//!
//! # Damage
//!
//! An unreadable part is never treated as "not found": the lookup fails, and with it the event and all requests of its
//! commit, since SQLite commits nothing after detecting damage. From then on nothing is merged. The damage is recorded
//! in the file, and the next start sets the index aside and rebuilds it (`open.rs`).

mod check;
mod merge;
mod open;
mod run;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use rusqlite::Connection;

use crate::Error;
use crate::schema::sql_types::ReadColumn;
use crate::schema::statements::Statements;

pub(crate) use check::faults;
use merge::{DeletedEvents, Merge};
pub(crate) use run::Entry;
use run::{PART_ENTRIES, RUN_SHIFT, Run, RunWriter};
use setgate_domain::event::EventSeq;

/// Number of runs of one level that are merged into one of the next level.
const FAN_IN: usize = 8;
/// Entries merged for each event appended. Each entry is merged once per level; ten billion events have seven levels.
const MERGED_ENTRIES_PER_EVENT: usize = 8;

/// Key in `meta` that exists while the index is known to be damaged.
const DAMAGED_KEY: &str = "dedupe damaged";

/// The part of a key stored in the index. Entries are small; the event row resolves collisions.
pub(crate) fn hash(key: &[u8; 32]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The index as of the last commit.
pub(crate) struct Index {
    /// Number of events buffered in memory before a run is written.
    run_events: usize,
    /// Entries that are in no run yet.
    memtable: BTreeSet<Entry>,
    /// Runs in order of age, oldest first; levels never increase along the list.
    runs: Vec<Run>,
    /// At most one per level.
    merges: Vec<Merge>,
    /// Ids of obsolete runs with rows left to delete.
    obsolete: VecDeque<i64>,
    next_id: i64,
    /// Changes of the current transaction.
    staged: Staged,
    damage: Cell<Damage>,
    /// The damage is recorded in the file.
    is_recorded: bool,
}

/// Changes that take effect with the commit.
#[derive(Default)]
struct Staged {
    new_entries: Vec<Entry>,
    written: Option<Run>,
    /// Output id of the merge that was advanced.
    merging: Option<i64>,
    /// Result of a finished merge: the ids of its inputs, and the new run.
    merged: Option<(Vec<i64>, Option<Run>)>,
    /// Runs without any remaining event.
    expired: Vec<i64>,
    /// Number of obsolete runs without any remaining row.
    cleaned_runs: usize,
    is_recorded: bool,
}

/// Extent of the damage, until the next start rebuilds the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    None,
    /// A read failed: no more merges or sweeps.
    Read,
    /// Writing a run failed too: entries stay in memory.
    Write,
}

impl Index {
    /// Approximate memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(Run::bytes).sum();
        let merges: usize = self.merges.iter().map(Merge::bytes).sum();
        runs + merges + self.memtable.len() * size_of::<Entry>() * 3 / 2
    }

    /// Calls `look` for each event with that hash, newest first, until it returns a value; some of those events may be
    /// deleted. Events of the current batch are not included.
    ///
    /// # Errors
    /// Errors of `look`; [`Error::Corrupt`] if damage makes the answer uncertain.
    pub(crate) fn find<T>(
        &self,
        statements: &mut Statements<'_>,
        hash: i64,
        mut look: impl FnMut(&mut Statements<'_>, EventSeq) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        // An unreadable event row is not damage of the index.
        let row_failed = Cell::new(false);
        let mut look =
            |statements: &mut Statements<'_>, seq| look(statements, seq).inspect_err(|_| row_failed.set(true));
        let [least, greatest] = [0, i64::MAX].map(|seq| Entry { hash, seq: EventSeq(seq) });
        for entry in self.memtable.range(least..=greatest).rev() {
            if let Some(found) = look(statements, entry.seq)? {
                return Ok(Some(found));
            }
        }
        for run in self.runs.iter().rev() {
            let found = run.find(statements, hash, &mut look);
            if found.as_ref().is_err_and(is_unreadable) && !row_failed.get() {
                self.record_damage(Damage::Read);
            }
            if let Some(found) = found? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Adds the entries of the events that a batch appended, and does the batch's share of writing and merging, in its
    /// transaction. For `retention_watermark` see [`DeletedEvents`]. Must be followed by [`Index::committed`] or
    /// [`Index::rolled_back`].
    ///
    /// # Errors
    /// If a write fails or a part is damaged; the transaction cannot be committed then. From the next batch on, the
    /// damaged part is left alone.
    pub(crate) fn append(
        &mut self,
        conn: &Connection,
        new_entries: Vec<Entry>,
        retention_watermark: EventSeq,
    ) -> Result<(), Error> {
        self.staged = Staged { new_entries, ..Staged::default() };
        if !self.staged.new_entries.is_empty() && self.needs_maintenance(retention_watermark) {
            // If damage is already known, only the remaining kind of work, writing a run, can have failed.
            let damage = if self.damage.get() == Damage::None { Damage::Read } else { Damage::Write };
            let done = self.maintain(conn, retention_watermark);
            if done.as_ref().is_err_and(is_unreadable) {
                self.record_damage(damage);
            }
            done?;
        }
        if self.damage.get() > Damage::None && !self.is_recorded {
            self.merges.clear();
            conn.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, x'')", [DAMAGED_KEY])?;
            self.staged.is_recorded = true;
        }
        Ok(())
    }

    fn needs_maintenance(&self, retention_watermark: EventSeq) -> bool {
        let is_full = self.memtable.len() + self.staged.new_entries.len() >= self.run_events;
        match self.damage.get() {
            Damage::None => {
                is_full
                    || !self.merges.is_empty()
                    || !self.obsolete.is_empty()
                    || self.levels().any(|level| !self.merge_inputs(level, retention_watermark).is_empty())
            }
            Damage::Read => is_full,
            Damage::Write => false,
        }
    }

    fn maintain(&mut self, conn: &Connection, retention_watermark: EventSeq) -> Result<(), Error> {
        let share = self.staged.new_entries.len();
        let is_intact = self.damage.get() == Damage::None;
        if is_intact {
            self.merge(conn, retention_watermark, share * MERGED_ENTRIES_PER_EVENT)?;
        }
        if self.memtable.len() + share >= self.run_events {
            let last = self.memtable.iter().chain(&self.staged.new_entries).map(|entry| entry.seq).max();
            self.flush_memtable(conn, last.unwrap_or_default())?;
            if is_intact {
                self.drop_expired_runs(conn)?;
            }
        }
        if is_intact { self.delete_obsolete_rows(conn, share) } else { Ok(()) }
    }

    /// Writes all entries that are in no run as a new run, which covers the events up to `last`.
    fn flush_memtable(&mut self, conn: &Connection, last: EventSeq) -> Result<(), Error> {
        let mut entries: Vec<_> = self.memtable.iter().chain(&self.staged.new_entries).copied().collect();
        entries.sort_unstable();
        let mut run = RunWriter::new(self.new_id(), 0, last, entries.len().div_ceil(PART_ENTRIES));
        for entry in entries {
            run.push(conn, entry)?;
        }
        self.staged.written = run.finish(conn)?;
        Ok(())
    }

    /// Drops runs without any remaining event.
    fn drop_expired_runs(&mut self, conn: &Connection) -> Result<(), Error> {
        let oldest = oldest(conn)?;
        let merged = self.staged.merged.as_ref().map(|(inputs, _)| inputs);
        let in_merges = self.merges.iter().map(|merge| &merge.inputs).chain(merged).flatten().collect::<BTreeSet<_>>();
        for run in self.runs.iter().filter(|run| run.last < oldest && !in_merges.contains(&run.id)) {
            delete_run_row(conn, run.id)?;
            self.staged.expired.push(run.id);
        }
        Ok(())
    }

    fn levels(&self) -> impl Iterator<Item = u32> + use<> {
        self.runs.last().map_or(0, |run| run.level)..=self.runs.first().map_or(0, |run| run.level)
    }

    /// Runs of a level to merge: the oldest if there are enough of them, or a single run of which retention has left
    /// few events.
    fn merge_inputs(&self, level: u32, retention_watermark: EventSeq) -> Vec<&Run> {
        let of_level = || self.runs.iter().filter(move |run| run.level == level);
        let oldest: Vec<_> = of_level().take(FAN_IN).collect();
        if oldest.len() == FAN_IN {
            return oldest;
        }
        of_level().find(|run| !run.is_compacted && run.last <= retention_watermark).into_iter().collect()
    }

    /// Advances the merge of the lowest level first, so that few runs accumulate behind a large merge.
    fn merge(&mut self, conn: &Connection, retention_watermark: EventSeq, count: usize) -> Result<(), Error> {
        for level in self.levels() {
            let place = match self.merges.iter().position(|merge| merge.level == level) {
                Some(place) => place,
                None => {
                    let inputs = self.merge_inputs(level, retention_watermark);
                    if inputs.is_empty() {
                        continue;
                    }
                    let deleted = DeletedEvents { oldest: oldest(conn)?, retention_watermark };
                    let level = if inputs.len() == FAN_IN { level + 1 } else { level };
                    let merge = Merge::begin(&inputs, self.next_id, level, deleted);
                    self.next_id += 1;
                    self.merges.push(merge);
                    self.merges.len() - 1
                }
            };
            let merge = &mut self.merges[place];
            self.staged.merging = Some(merge.id());
            if merge.step(conn, &self.runs, count)? {
                // Until the commit, `merging` records that its output must be discarded on a rollback.
                let merge = self.merges.swap_remove(place);
                for input in &merge.inputs {
                    delete_run_row(conn, *input)?;
                }
                self.staged.merged = Some((merge.inputs.clone(), merge.finish(conn)?));
            }
            return Ok(());
        }
        Ok(())
    }

    /// Deletes up to `rows` rows of obsolete runs.
    fn delete_obsolete_rows(&mut self, conn: &Connection, rows: usize) -> Result<(), Error> {
        let mut left = i64::try_from(rows).unwrap_or(i64::MAX);
        while left > 0
            && let Some(id) = self.obsolete.get(self.staged.cleaned_runs)
        {
            for sql in [DELETE_PARTS, DELETE_HEADERS] {
                let deleted =
                    conn.prepare_cached(sql)?.execute([*id << RUN_SHIFT, (*id + 1) << RUN_SHIFT, left.max(0)])?;
                left -= i64::try_from(deleted).unwrap_or(i64::MAX);
            }
            if left > 0 {
                // All its rows are deleted. The query itself costs about as much as a row, so count one for it.
                self.staged.cleaned_runs += 1;
                left -= 1;
            }
        }
        Ok(())
    }

    /// Applies the changes of the committed transaction.
    pub(crate) fn committed(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        match staged.written {
            Some(run) => {
                self.memtable.clear();
                self.runs.push(run);
            }
            None => self.memtable.extend(staged.new_entries),
        }
        self.obsolete.drain(..staged.cleaned_runs);
        let (mut obsolete, made) = staged.merged.unwrap_or_default();
        obsolete.extend(staged.expired);
        self.runs.retain(|run| !obsolete.contains(&run.id));
        self.obsolete.extend(obsolete);
        if let Some(run) = made {
            let place = self.runs.partition_point(|other| other.last < run.last);
            self.runs.insert(place, run);
        }
        if staged.is_recorded {
            self.is_recorded = true;
            metrics::gauge!(crate::metric_names::DAMAGED).set(1.0);
            tracing::error!(
                "the dedupe index is damaged: an event is refused if its key may be in a damaged part. Restart the host: the \
                 index is then rebuilt from the events"
            );
        }
    }

    /// Discards the changes of the transaction. A merge that was advanced starts over.
    pub(crate) fn rolled_back(&mut self) {
        if let Some(id) = self.staged.merging {
            self.merges.retain(|merge| merge.id() != id);
            self.obsolete.push_back(id);
        }
        self.staged = Staged::default();
    }

    fn record_damage(&self, damage: Damage) {
        self.damage.set(self.damage.get().max(damage));
    }

    fn new_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id - 1
    }
}

const DELETE_PARTS: &str =
    "DELETE FROM dedupe_part WHERE id IN (SELECT id FROM dedupe_part WHERE id >= ?1 AND id < ?2 LIMIT ?3)";
const DELETE_HEADERS: &str =
    "DELETE FROM dedupe_header WHERE id IN (SELECT id FROM dedupe_header WHERE id >= ?1 AND id < ?2 LIMIT ?3)";

/// First existing event, or `i64::MAX` if there is none: all future events are later. 0 if it cannot be read.
fn oldest(conn: &Connection) -> Result<EventSeq, Error> {
    let oldest = conn.prepare_cached("SELECT min(seq) FROM event")?.query_row([], |row| row.column(0));
    match oldest.map_err(Error::from) {
        Err(error) if is_unreadable(&error) => Ok(EventSeq::default()),
        oldest => Ok(Option::unwrap_or(oldest?, EventSeq(i64::MAX))),
    }
}

/// Removes a run from the list; its rows are no longer read.
fn delete_run_row(conn: &Connection, id: i64) -> Result<(), Error> {
    conn.prepare_cached("DELETE FROM dedupe_run WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Whether the error means damaged data or a failed read from the disk.
fn is_unreadable(error: &Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};
    let of_disk = |code: i32| code == SQLITE_IOERR_READ || code == SQLITE_IOERR_SHORT_READ;
    error.is_damage()
        || matches!(error, Error::Engine(rusqlite::Error::SqliteFailure(error, _)) if of_disk(error.extended_code))
}
