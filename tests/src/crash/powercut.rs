//! Simulates power cuts: the library of `tests/powercut`, preloaded into the host, and the pipe that triggers it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::place;

/// The library and its control files.
pub struct PowerCut {
    library: PathBuf,
    pipe: PathBuf,
    report: PathBuf,
    no_fsync: bool,
    /// Number of syncs in a thousand that fail.
    sync_fails: u32,
}

/// The writes undone by a power cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct Undone {
    /// Writes that were not synced.
    pub pending: u64,
    /// Those that were undone completely or partially.
    pub undone: u64,
    /// Whether the ledger file itself had unsynced writes, which means that a checkpoint was in progress.
    pub checkpointing: bool,
}

impl PowerCut {
    /// Builds the library with `cc` in `folder`. Returns an error message if that fails.
    pub fn build(folder: &Path, no_fsync: bool) -> Result<Self, String> {
        let library = folder.join("powercut.so");
        let source = place::root().join("tests/powercut/powercut.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .arg(&library)
            .arg(&source);
        let built = cc.output().map_err(|error| format!("`cc` cannot be started: {error}"))?;
        if !built.status.success() {
            return Err(format!("{}: {}", source.display(), String::from_utf8_lossy(&built.stderr)));
        }
        Ok(Self { library, pipe: folder.join("cut"), report: folder.join("cut.report"), no_fsync, sync_fails: 0 })
    }

    /// Sets the number of syncs in a thousand that fail.
    pub fn with_failing_syncs(self, sync_fails: u32) -> Self {
        Self { sync_fails, ..self }
    }

    /// Prepares the next start of the host for a power cut derived from `seed`.
    pub fn prepare(&self, host: &mut Host, seed: u64) -> Result<(), String> {
        for file in [&self.pipe, &self.report] {
            let _was_not_there = std::fs::remove_file(file);
        }
        let made = Command::new("mkfifo").arg(&self.pipe).status().map_err(|error| format!("mkfifo: {error}"))?;
        if !made.success() {
            return Err(format!("mkfifo {}: {made}", self.pipe.display()));
        }
        let text = |path: &Path| path.to_str().expect("a temporary folder's name is text").to_owned();
        host.set_env("LD_PRELOAD", &text(&self.library));
        host.set_env("SETGATE_POWERCUT_DIR", &text(&host.data()));
        host.set_env("SETGATE_POWERCUT_PIPE", &text(&self.pipe));
        host.set_env("SETGATE_POWERCUT_REPORT", &text(&self.report));
        host.set_env("SETGATE_POWERCUT_SEED", &seed.to_string());
        host.set_env("SETGATE_POWERCUT_SYNC_FAILS", &self.sync_fails.to_string());
        host.set_env("SETGATE_POWERCUT_NO_FSYNC", if self.no_fsync { "1" } else { "0" });
        Ok(())
    }

    /// Cuts the power. Keep the returned pipe open until the process has ended, because it buffers the trigger.
    pub fn cut(&self) -> std::io::Result<File> {
        // Opened for reading too, because opening a pipe blocks until there is a reader.
        let mut pipe = OpenOptions::new().read(true).write(true).open(&self.pipe)?;
        pipe.write_all(b"x")?;
        Ok(pipe)
    }

    /// The writes undone by the last power cut.
    pub fn report(&self) -> Result<Undone, String> {
        let text = std::fs::read_to_string(&self.report).map_err(|error| format!("no report of the cut: {error}"))?;
        let number = |name: &str| {
            let last = text.lines().last()?;
            last.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok())
        };
        Ok(Undone {
            pending: number("pending=").ok_or_else(|| text.clone())?,
            undone: number("undone=").ok_or_else(|| text.clone())?,
            checkpointing: text.lines().any(|line| line.starts_with("file=ledger.db ")),
        })
    }
}
