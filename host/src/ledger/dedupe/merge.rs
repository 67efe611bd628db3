//! Making one run of several, a few entries at a time.

use rusqlite::Connection;

use super::super::Error;
use super::run::{Entry, Run, Writing};
use crate::domain::event::EventSeq;

/// A merge that has begun. What it has written so far counts for nothing before it is [finished](Merge::finish).
pub(super) struct Merge {
    pub(super) level: u32,
    /// The runs that it reads, in the order of age.
    pub(super) inputs: Vec<i64>,
    sources: Vec<Source>,
    out: Writing,
    /// Entries of events before this one are left out: they are deleted.
    oldest: EventSeq,
}

/// How far an input is read.
struct Source {
    next_part: usize,
    entries: std::vec::IntoIter<Entry>,
}

impl Merge {
    /// Of these runs, all of one level, into a run of that name. No runs are nothing to merge.
    pub(super) fn begin(inputs: &[&Run], id: i64, oldest: EventSeq) -> Option<Self> {
        let (first, last) = (inputs.first()?, inputs.last()?);
        Some(Self {
            level: first.level,
            inputs: inputs.iter().map(|run| run.id).collect(),
            sources: inputs.iter().map(|_| Source { next_part: 0, entries: Vec::new().into_iter() }).collect(),
            out: Writing::new(id, first.level + 1, first.first, last.last),
            oldest,
        })
    }

    /// The run that it makes.
    pub(super) fn id(&self) -> i64 {
        self.out.id()
    }

    /// Takes over up to `count` entries of `runs`, which have the inputs among them; whether that were all.
    pub(super) fn step(&mut self, conn: &Connection, runs: &[Run], count: usize) -> Result<bool, Error> {
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
            if entry.seq >= self.oldest {
                self.out.push(conn, entry)?;
            }
        }
        Ok(false)
    }

    /// Writes the run down; none where nothing was left of its inputs.
    pub(super) fn finish(self, conn: &Connection) -> Result<Option<Run>, Error> {
        self.out.finish(conn)
    }
}

impl Source {
    /// The next entry; none: that were all.
    fn peek(&mut self, conn: &Connection, runs: &[Run], id: i64) -> Result<Option<Entry>, Error> {
        if self.entries.as_slice().is_empty() {
            let run = runs.iter().find(|run| run.id == id);
            let run = run.ok_or_else(|| Error::corrupt(format!("run {id} of the dedupe keys is not there")))?;
            if self.next_part == run.parts() {
                return Ok(None);
            }
            self.entries = run.read_part(conn, self.next_part)?.into_iter();
            self.next_part += 1;
        }
        Ok(self.entries.as_slice().first().copied())
    }
}
