//! The baseline of a durable append: the same bytes, appended to a file and synced.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A file on the file system of temporary files, which also contains the ledgers of the run.
pub(super) struct Bare {
    file: File,
}

impl Bare {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { file: tempfile::tempfile().context("a file for the baseline")? })
    }

    /// Repeats for the given time: `group` times `bytes` in one write, then `fdatasync`. Returns the number of entries
    /// per second. Blocks.
    #[expect(clippy::cast_precision_loss, reason = "counts of events are small")]
    pub(super) fn per_second(&mut self, bytes: usize, group: usize, lasts: Duration) -> anyhow::Result<f64> {
        let write = vec![7; bytes * group];
        let begin = Instant::now();
        let mut events = 0;
        while begin.elapsed() < lasts {
            self.file.write_all(&write).context("writing the baseline")?;
            self.file.sync_data().context("syncing the baseline")?;
            events += group;
        }
        Ok(events as f64 / begin.elapsed().as_secs_f64())
    }
}
