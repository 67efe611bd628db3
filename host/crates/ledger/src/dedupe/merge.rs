//! Merges several runs into one, a few entries at a time.

use rusqlite::Connection;
use setgate_domain::event::EventSeq;

use super::run::{Entry, Run, RunWriter};
use crate::Error;
use crate::schema::sql_types::params;

/// A merge in progress. Its output is unused until it is [finished](Merge::finish).
pub(crate) struct Merge {
    /// Level of its inputs.
    pub(crate) level: u32,
    /// Ids of the input runs, by age.
    pub(crate) inputs: Vec<i64>,
    sources: Vec<Source>,
    out: RunWriter,
    deleted: DeletedEvents,
}

/// Read position in an input.
struct Source {
    next_part: usize,
    entries: std::vec::IntoIter<Entry>,
}

/// Decides which events are deleted, so that their entries can be left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeletedEvents {
    /// First existing event.
    pub(crate) oldest: EventSeq,
    /// Retention has examined all events up to here and left few of them, so their rows are checked one by one. Later
    /// events are assumed to exist, because the checks would cost more than keeping their entries.
    pub(crate) retention_watermark: EventSeq,
}

impl DeletedEvents {
    fn contains(self, conn: &Connection, seq: EventSeq) -> Result<bool, Error> {
        if seq < self.oldest || seq > self.retention_watermark {
            return Ok(seq < self.oldest);
        }
        let there =
            conn.prepare_cached("SELECT 1 FROM event WHERE seq = ?1")?.exists(params![seq]).map_err(Error::from);
        match there {
            // An unreadable row exists.
            Err(error) if error.is_damage() => Ok(false),
            there => Ok(!there?),
        }
    }
}

impl Merge {
    /// Starts a merge of these runs, all of one level, into a run with the given id and level.
    pub(crate) fn begin(inputs: &[&Run], id: i64, level: u32, deleted: DeletedEvents) -> Self {
        let last = inputs.iter().map(|run| run.last).max().unwrap_or_default();
        let mut out = RunWriter::new(id, level, last, inputs.iter().map(|run| run.parts()).sum());
        out.set_compacted(deleted.retention_watermark);
        Self {
            level: inputs.iter().map(|run| run.level).max().unwrap_or_default(),
            inputs: inputs.iter().map(|run| run.id).collect(),
            sources: inputs.iter().map(|_| Source { next_part: 0, entries: Vec::new().into_iter() }).collect(),
            out,
            deleted,
        }
    }

    /// Approximate memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.out.bytes()
    }

    /// Id of the output run.
    pub(crate) fn id(&self) -> i64 {
        self.out.id()
    }

    /// Merges up to `count` entries of the inputs, which are among `runs`. Returns whether that was everything.
    pub(crate) fn step(&mut self, conn: &Connection, runs: &[Run], count: usize) -> Result<bool, Error> {
        for _ in 0..count {
            let mut least: Option<(Entry, usize)> = None;
            for (place, (source, id)) in self.sources.iter_mut().zip(&self.inputs).enumerate() {
                let Some(entry) = source.peek(conn, runs, *id)? else { continue };
                if least.is_none_or(|(least, _)| entry < least) {
                    least = Some((entry, place));
                }
            }
            let Some((entry, place)) = least else { return Ok(true) };
            self.sources[place].entries.next();
            if !self.deleted.contains(conn, entry.seq)? {
                self.out.push(conn, entry)?;
            }
        }
        Ok(false)
    }

    /// Finishes the output run. `None` if no entries are left.
    pub(crate) fn finish(self, conn: &Connection) -> Result<Option<Run>, Error> {
        self.out.finish(conn)
    }
}

impl Source {
    /// The next entry, or `None` at the end of the input.
    fn peek(&mut self, conn: &Connection, runs: &[Run], id: i64) -> Result<Option<Entry>, Error> {
        if self.entries.as_slice().is_empty() {
            let run = runs.iter().find(|run| run.id == id);
            let run = run.ok_or_else(|| Error::corrupt(format!("run {id} of the dedupe index is missing")))?;
            if self.next_part == run.parts() {
                return Ok(None);
            }
            self.entries = run.read_part(conn, self.next_part)?.into_iter();
            self.next_part += 1;
        }
        Ok(self.entries.as_slice().first().copied())
    }
}
