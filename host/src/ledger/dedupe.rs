//! Which events have a dedupe key: an index that costs an event as much with ten million of them as with none.
//!
//! A key is a digest, so in an index that is a tree each event changes a page of its own, which is read, written to the WAL
//! and moved into the file. Here entries of the last events are kept in memory, from where they are written as a sorted
//! [`Run`], a few pages at once; runs are merged when there are several of one size (a log-structured merge-tree: O'Neil et
//! al., 1996). A look asks memory, then a filter of each run, and reads a part of the file only where one says that the key
//! most probably is there.
//!
//! The events' rows are what counts: an entry is a hash and a place, and who finds one reads the row. So the index may lack
//! the last events, which a start reads (mostly no more than a run and a batch), and may have entries of events that are
//! deleted. All of it is changed in transactions of the batches that append events, each doing its share of the merging, so
//! that nobody waits for a large one and nothing is left to do when nothing comes.
//!
//! Memory: 1.3 bytes for each entry; while the largest runs are merged, up to twice that.
//!
//! # Damage
//!
//! What cannot be read is never taken for "not there": the look fails, and with it the event and those that share its
//! commit, since the engine commits nothing after damage. Nothing is merged any more from then on, the file remembers it, and
//! the next start puts the index aside and makes it anew (`open.rs`).

mod check;
mod merge;
mod open;
mod run;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use rusqlite::Connection;

use super::Error;
use super::statements::Statements;
use crate::domain::event::EventSeq;
pub(super) use check::missing;
use merge::{Gone, Merge};
pub(super) use run::Entry;
use run::{PART_ENTRIES, RUN_SHIFT, Run, Writing};

/// Runs of one level that are merged into one of the next.
const FAN_IN: usize = 8;
/// Entries merged for each event appended. Each entry is merged once a level, of which ten thousand million events have
/// seven.
const MERGED_PER_EVENT: usize = 8;

/// The name in `meta` that is there while the index is known to be damaged.
const DAMAGED_MARK: &str = "dedupe damaged";

/// What the index holds of a key: entries are small, the row tells keys apart.
pub(super) fn hash(key: &[u8; 32]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The index, as of the last commit.
pub(super) struct Index {
    /// Events of a run that is written from memory.
    run_events: usize,
    /// Entries that are in no run.
    recent: BTreeSet<Entry>,
    /// The oldest first, and the younger ones of no higher level.
    runs: Vec<Run>,
    /// At most one of each level.
    merges: Vec<Merge>,
    /// Runs whose rows are still to be deleted.
    unused: VecDeque<i64>,
    next_id: i64,
    /// What the transaction that is under way changes.
    staged: Staged,
    damage: Cell<Damage>,
    /// The file knows of the damage.
    is_noted: bool,
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
    /// Of how many unused runs nothing is left.
    swept: usize,
    is_noted: bool,
}

/// What of the tables cannot be relied on until the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    None,
    /// Something could not be read: nothing is merged or swept.
    Read,
    /// Nor can a run be written: entries stay in memory.
    Write,
}

impl Index {
    /// Bytes that it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(Run::bytes).sum();
        let merges: usize = self.merges.iter().map(Merge::bytes).sum();
        runs + merges + self.recent.len() * size_of::<Entry>() * 3 / 2
    }

    /// Calls `look` with the events whose key has the hash, the newest first, until it gives something; some of them may be
    /// deleted. Of those of the batch under way it knows nothing.
    ///
    /// # Errors
    /// Those of `look`; [`Error::Corrupt`] where it cannot be told whether there is one.
    pub(super) fn find<T>(
        &self,
        statements: &mut Statements<'_>,
        hash: i64,
        mut look: impl FnMut(&mut Statements<'_>, EventSeq) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        // A row of an event that cannot be read says nothing of the index.
        let row_failed = Cell::new(false);
        let mut look =
            |statements: &mut Statements<'_>, seq| look(statements, seq).inspect_err(|_| row_failed.set(true));
        let [least, greatest] = [0, i64::MAX].map(|seq| Entry { hash, seq: EventSeq(seq) });
        for entry in self.recent.range(least..=greatest).rev() {
            if let Some(found) = look(statements, entry.seq)? {
                return Ok(Some(found));
            }
        }
        for run in self.runs.iter().rev() {
            let found = run.find(statements, hash, &mut look);
            if found.as_ref().is_err_and(is_unreadable) && !row_failed.get() {
                self.met(Damage::Read);
            }
            if let Some(found) = found? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Takes in the entries of the events that a batch appended, and does the batch's share of what is to be written; within
    /// its transaction. `looked_through`: see [`Gone`]. [`Index::committed`] or [`Index::rolled_back`] has to follow.
    ///
    /// # Errors
    /// Where something cannot be written or is damaged: the engine commits nothing then. What was damaged is left alone from the
    /// next batch on.
    pub(super) fn keep_up(
        &mut self,
        conn: &Connection,
        fresh: Vec<Entry>,
        looked_through: EventSeq,
    ) -> Result<(), Error> {
        self.staged = Staged { fresh, ..Staged::default() };
        if !self.staged.fresh.is_empty() && self.has_work(looked_through) {
            // Only what is left to do where there is damage can have met it.
            let met = if self.damage.get() == Damage::None { Damage::Read } else { Damage::Write };
            let done = self.work(conn, looked_through);
            if done.as_ref().is_err_and(is_unreadable) {
                self.met(met);
            }
            done?;
        }
        if self.damage.get() > Damage::None && !self.is_noted {
            self.merges.clear();
            conn.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, x'')", [DAMAGED_MARK])?;
            self.staged.is_noted = true;
        }
        Ok(())
    }

    fn has_work(&self, looked_through: EventSeq) -> bool {
        let is_full = self.recent.len() + self.staged.fresh.len() >= self.run_events;
        match self.damage.get() {
            Damage::None => {
                is_full
                    || !self.merges.is_empty()
                    || !self.unused.is_empty()
                    || self.levels().any(|level| !self.to_merge(level, looked_through).is_empty())
            }
            Damage::Read => is_full,
            Damage::Write => false,
        }
    }

    fn work(&mut self, conn: &Connection, looked_through: EventSeq) -> Result<(), Error> {
        let share = self.staged.fresh.len();
        let is_sound = self.damage.get() == Damage::None;
        if is_sound {
            self.merge(conn, looked_through, share * MERGED_PER_EVENT)?;
        }
        if self.recent.len() + share >= self.run_events {
            let last = self.recent.iter().chain(&self.staged.fresh).map(|entry| entry.seq).max();
            self.write_recent(conn, last.unwrap_or_default())?;
            if is_sound {
                self.expire(conn)?;
            }
        }
        if is_sound { self.sweep(conn, share) } else { Ok(()) }
    }

    /// Writes all that is in no run as one, which has all events up to `last`.
    fn write_recent(&mut self, conn: &Connection, last: EventSeq) -> Result<(), Error> {
        let mut entries: Vec<_> = self.recent.iter().chain(&self.staged.fresh).copied().collect();
        entries.sort_unstable();
        let mut run = Writing::new(self.new_id(), 0, last, entries.len().div_ceil(PART_ENTRIES));
        for entry in entries {
            run.push(conn, entry)?;
        }
        self.staged.written = run.finish(conn)?;
        Ok(())
    }

    /// Lets go of runs whose events are deleted.
    fn expire(&mut self, conn: &Connection) -> Result<(), Error> {
        let oldest = oldest(conn)?;
        let merged = self.staged.merged.as_ref().map(|(inputs, _)| inputs);
        let in_merges = self.merges.iter().map(|merge| &merge.inputs).chain(merged).flatten().collect::<BTreeSet<_>>();
        for run in self.runs.iter().filter(|run| run.last < oldest && !in_merges.contains(&run.id)) {
            unlist(conn, run.id)?;
            self.staged.expired.push(run.id);
        }
        Ok(())
    }

    fn levels(&self) -> impl Iterator<Item = u32> + use<> {
        self.runs.last().map_or(0, |run| run.level)..=self.runs.first().map_or(0, |run| run.level)
    }

    /// Runs of a level that are to become one: the oldest where there are enough, or one of which retention has left little.
    fn to_merge(&self, level: u32, looked_through: EventSeq) -> Vec<&Run> {
        let of_level = || self.runs.iter().filter(move |run| run.level == level);
        let oldest: Vec<_> = of_level().take(FAN_IN).collect();
        if oldest.len() == FAN_IN {
            return oldest;
        }
        of_level().find(|run| !run.is_sifted && run.last <= looked_through).into_iter().collect()
    }

    /// Goes on with the merge of the lowest level, so that few runs wait for a large one.
    fn merge(&mut self, conn: &Connection, looked_through: EventSeq, count: usize) -> Result<(), Error> {
        for level in self.levels() {
            let place = match self.merges.iter().position(|merge| merge.level == level) {
                Some(place) => place,
                None => {
                    let inputs = self.to_merge(level, looked_through);
                    if inputs.is_empty() {
                        continue;
                    }
                    let gone = Gone { oldest: oldest(conn)?, looked_through };
                    let level = if inputs.len() == FAN_IN { level + 1 } else { level };
                    let merge = Merge::begin(&inputs, self.next_id, level, gone);
                    self.next_id += 1;
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

    /// Deletes some `rows` of runs that are not used any more.
    fn sweep(&mut self, conn: &Connection, rows: usize) -> Result<(), Error> {
        let mut left = i64::try_from(rows).unwrap_or(i64::MAX);
        while left > 0
            && let Some(id) = self.unused.get(self.staged.swept)
        {
            for sql in [SWEEP_PARTS, SWEEP_HEADS] {
                let deleted =
                    conn.prepare_cached(sql)?.execute([*id << RUN_SHIFT, (*id + 1) << RUN_SHIFT, left.max(0)])?;
                left -= i64::try_from(deleted).unwrap_or(i64::MAX);
            }
            if left > 0 {
                // That were all of it. One without rows counts as a row, as it is asked for.
                self.staged.swept += 1;
                left -= 1;
            }
        }
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
        self.unused.drain(..staged.swept);
        let (mut gone, made) = staged.merged.unwrap_or_default();
        gone.extend(staged.expired);
        self.runs.retain(|run| !gone.contains(&run.id));
        self.unused.extend(gone);
        if let Some(run) = made {
            let place = self.runs.partition_point(|other| other.last < run.last);
            self.runs.insert(place, run);
        }
        if staged.is_noted {
            self.is_noted = true;
            metrics::gauge!(super::DAMAGED).set(1.0);
            tracing::error!(
                "the index of dedupe keys is damaged: an event whose key may stand where it cannot be read is refused. The \
                 next start makes the index anew, from the events"
            );
        }
    }

    /// The transaction was rolled back: nothing of it counts. A merge that was gone on with begins anew.
    pub(super) fn rolled_back(&mut self) {
        if let Some(id) = self.staged.merging {
            self.merges.retain(|merge| merge.id() != id);
            self.unused.push_back(id);
        }
        self.staged = Staged::default();
    }

    fn met(&self, damage: Damage) {
        self.damage.set(self.damage.get().max(damage));
    }

    fn new_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id - 1
    }
}

const SWEEP_PARTS: &str =
    "DELETE FROM dedupe_part WHERE id IN (SELECT id FROM dedupe_part WHERE id >= ?1 AND id < ?2 LIMIT ?3)";
const SWEEP_HEADS: &str =
    "DELETE FROM dedupe_head WHERE id IN (SELECT id FROM dedupe_head WHERE id >= ?1 AND id < ?2 LIMIT ?3)";

/// The first event that is there; all are later that are yet to come. The very first where that cannot be read.
fn oldest(conn: &Connection) -> Result<EventSeq, Error> {
    let oldest = conn.prepare_cached("SELECT min(seq) FROM event")?.query_row([], |row| row.get(0));
    match oldest.map_err(Error::from) {
        Err(error) if is_unreadable(&error) => Ok(EventSeq::default()),
        oldest => Ok(Option::unwrap_or(oldest?, EventSeq(i64::MAX))),
    }
}

/// Takes a run out of the list: its rows are not read any more.
fn unlist(conn: &Connection, id: i64) -> Result<(), Error> {
    conn.prepare_cached("DELETE FROM dedupe_run WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Whether what is asked for is damaged, or the disk does not give it.
fn is_unreadable(error: &Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};
    let of_disk = |code: i32| code == SQLITE_IOERR_READ || code == SQLITE_IOERR_SHORT_READ;
    error.is_damage()
        || matches!(error, Error::Engine(rusqlite::Error::SqliteFailure(error, _)) if of_disk(error.extended_code))
}
