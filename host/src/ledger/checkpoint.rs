//! Moving the WAL into the file, on a thread and a connection of its own, so that no commit waits for it.
//!
//! A checkpoint beside a writer never quite reaches the end, and only a finished one lets the WAL start anew. So when
//! the WAL is large the writer is asked to finish between two batches; by then little is left to move.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc::WeakSender;

use super::disk;
use super::effects::Shared;
use super::queue::Item;

/// Time between two looks at the disk, and between two tries to write where it fails.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the checkpointer's connection lies, so that the writer can close it; none while all are closed.
pub(super) type Shelf = Arc<Mutex<Option<Connection>>>;

/// The checkpointer's own state, moved onto its thread.
pub(super) struct Checkpointer {
    pub(super) conn: Shelf,
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
        let mut looked = Instant::now();
        self.shared.space.look();
        while let Err(RecvTimeoutError::Timeout) = self.alive.recv_timeout(self.poll) {
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.shared.space.look();
                self.have_tried();
            }
            if self.shared.disk.is_suspect() {
                continue;
            }
            let shelf = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(conn) = &*shelf else { continue };
            let commits = self.shared.commits.load(Ordering::Relaxed);
            if commits == seen {
                continue;
            }
            let Some(before) = run(conn, "NOOP", &self.shared) else { continue };
            seen = commits;
            if before.pages - before.moved >= i64::from(self.pages_min) {
                run(conn, "PASSIVE", &self.shared);
            }
            drop(shelf);
            if before.pages >= i64::from(self.wal_pages_max)
                && let Some(writer) = self.writer.upgrade()
            {
                // A full queue means that the writer is busy; the next round asks again.
                let _ = writer.try_send(Item::Checkpoint);
                seen = 0;
            }
        }
    }

    /// Where the disk fails, has the writer try it: nobody else may write meanwhile.
    fn have_tried(&self) {
        let disk = &self.shared.disk;
        if (disk.failing().is_some() || disk.is_suspect())
            && let Some(writer) = self.writer.upgrade()
        {
            // A full queue is as good: what is in it will try.
            let _ = writer.try_send(Item::Probe);
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
pub(super) fn run(conn: &Connection, mode: &str, shared: &Shared) -> Option<Progress> {
    let progress = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(Progress { pages: row.get(1)?, moved: row.get(2)? })
    });
    match progress {
        Ok(progress) => Some(progress),
        Err(error) => {
            if disk::is_io(&error) {
                shared.disk.suspect();
            }
            if shared.disk.checkpoints_told.due().is_some() {
                tracing::warn!(%error, mode, "a checkpoint of the ledger failed; it will be tried again");
            }
            None
        }
    }
}
