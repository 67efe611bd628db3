//! The baseline of a durable append: the same bytes, written to the end of a file and synced, and nothing else.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A file on the file system of temporary files, where the ledgers of the run are.
pub(super) struct Bare {
    file: File,
}

impl Bare {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { file: tempfile::tempfile().context("a file for the baseline")? })
    }

    /// For so long: `group` times `bytes` in one write, then `fdatasync`. Gives how many of them in a second. Blocks.
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
