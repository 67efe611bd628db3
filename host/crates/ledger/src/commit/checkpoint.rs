//! Checkpoints the WAL on a separate thread and connection, so that no commit waits for it.
//!
//! A checkpoint concurrent with a writer never quite catches up, and only a complete one lets the WAL restart at its
//! beginning. When the WAL is large, the writer is therefore asked to finish the checkpoint between two batches; by
//! then few pages are left to copy.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc::WeakSender;

use crate::commit::effects::SharedState;
use crate::commit::queue::QueueItem;
use crate::state::disk;

/// Interval of the checks of free space, and of probes while the disk fails.
const DISK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The checkpointer's connection, shared so that the writer can close it. `None` while all connections are closed.
pub(crate) type CheckpointConnection = Arc<Mutex<Option<Connection>>>;

/// State of the checkpointer, moved onto its thread.
pub(crate) struct Checkpointer {
    pub(crate) conn: CheckpointConnection,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) writer: WeakSender<QueueItem>,
    /// Disconnected when the writer ends.
    pub(crate) writer_alive: Receiver<()>,
    pub(crate) poll: Duration,
    pub(crate) pages_min: u32,
    pub(crate) wal_pages_max: u32,
}

impl Checkpointer {
    /// Runs until the writer ends.
    pub(crate) fn run(self) {
        let mut seen = 0;
        let mut checked_at = Instant::now();
        self.shared.space.measure();
        while let Err(RecvTimeoutError::Timeout) = self.writer_alive.recv_timeout(self.poll) {
            if checked_at.elapsed() >= DISK_CHECK_INTERVAL {
                checked_at = Instant::now();
                self.shared.space.measure();
                self.request_probe();
            }
            if self.shared.disk.is_suspect() {
                continue;
            }
            let checkpoint_conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(conn) = &*checkpoint_conn else { continue };
            let commits = self.shared.commits.load(Ordering::Relaxed);
            if commits == seen {
                continue;
            }
            let Some(before) = run(conn, "NOOP", &self.shared) else { continue };
            seen = commits;
            if before.pages - before.copied >= i64::from(self.pages_min) {
                run(conn, "PASSIVE", &self.shared);
            }
            drop(checkpoint_conn);
            if before.pages >= i64::from(self.wal_pages_max)
                && let Some(writer) = self.writer.upgrade()
            {
                // If the queue is full, the writer is busy; the next round tries again.
                let _ = writer.try_send(QueueItem::Checkpoint);
                seen = 0;
            }
        }
    }

    /// If the disk fails, makes the writer probe it, since only the writer may write.
    fn request_probe(&self) {
        let disk = &self.shared.disk;
        if (disk.failing().is_some() || disk.is_suspect())
            && let Some(writer) = self.writer.upgrade()
        {
            // If the queue is full, its requests will try to write anyway.
            let _ = writer.try_send(QueueItem::Probe);
        }
    }
}

/// Length of the WAL and the part of it already copied to the file, in pages.
#[derive(Debug)]
pub(crate) struct WalProgress {
    pub(crate) pages: i64,
    pub(crate) copied: i64,
}

/// Runs a checkpoint in the given mode. `None` if it failed; no data is lost then, the WAL only stays longer for a
/// while.
pub(crate) fn run(conn: &Connection, mode: &str, shared: &SharedState) -> Option<WalProgress> {
    let progress = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(WalProgress { pages: row.get(1)?, copied: row.get(2)? })
    });
    match progress {
        Ok(progress) => Some(progress),
        Err(error) => {
            if disk::is_io(&error) {
                shared.disk.set_suspect();
            }
            if shared.disk.checkpoint_log_throttle.allow().is_some() {
                tracing::warn!(%error, mode, "checkpoint of the ledger failed; it is retried");
            }
            None
        }
    }
}
