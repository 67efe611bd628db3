//! Moving the WAL into the file, on a thread and a connection of its own, so that no commit waits for it.
//!
//! A checkpoint beside a writer never quite reaches the end, and only a finished one lets the WAL start anew. So when
//! the WAL is large the writer is asked to finish between two batches; by then little is left to move.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::mpsc::WeakSender;

use super::effects::Shared;
use super::writer::Item;

/// The checkpointer's own state, moved onto its thread.
pub(super) struct Checkpointer {
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) writer: WeakSender<Item>,
    /// Ends when the writer does.
    pub(super) alive: Receiver<()>,
    pub(super) poll: Duration,
    pub(super) pages_min: u32,
    pub(super) wal_pages_max: u32,
}

impl Checkpointer {
    /// Runs until the writer ends.
    pub(super) fn run(self) {
        let mut seen = 0;
        while let Err(RecvTimeoutError::Timeout) = self.alive.recv_timeout(self.poll) {
            let commits = self.shared.commits.load(Ordering::Relaxed);
            if commits == seen {
                continue;
            }
            let Some(before) = run(&self.conn, "NOOP") else { continue };
            seen = commits;
            if before.pages - before.moved >= i64::from(self.pages_min) {
                run(&self.conn, "PASSIVE");
            }
            if before.pages >= i64::from(self.wal_pages_max)
                && let Some(writer) = self.writer.upgrade()
            {
                // A full queue means that the writer is busy; the next round asks again.
                let _ = writer.try_send(Item::Checkpoint);
                seen = 0;
            }
        }
    }
}

/// The WAL's length and how much of it is in the file already, in pages.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) pages: i64,
    pub(super) moved: i64,
}

/// Runs a checkpoint in the given mode. None where it did not come to it; nothing is lost by that, the WAL is only
/// longer for a while.
pub(super) fn run(conn: &Connection, mode: &str) -> Option<Progress> {
    let progress = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(Progress { pages: row.get(1)?, moved: row.get(2)? })
    });
    match progress {
        Ok(progress) => Some(progress),
        Err(error) => {
            tracing::warn!(%error, mode, "a checkpoint of the ledger failed; it will be tried again");
            None
        }
    }
}
