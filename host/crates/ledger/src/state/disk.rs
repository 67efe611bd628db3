//! State of the disk as seen by the ledger's threads: failures, their logging, and the loss of trust in cached pages.
//!
//! A failed commit needs no repair. SQLite discards its frames, and the next commit overwrites them and syncs them
//! itself, so no acknowledged data depends on the failed fsync.
//!
//! A failed checkpoint is different. SQLite counts pages as checkpointed before they are synced, and a page whose fsync
//! failed may be lost although the next fsync succeeds: the kernel reports a failed write once and then forgets it.
//! After an I/O error in a checkpoint the count is therefore [suspect](Disk::is_suspect). No checkpoint runs until all
//! connections have been closed and the file has been reopened, which recovers the WAL from its start and copies every
//! page again.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use setgate_base::telemetry::LogThrottle;

/// Reason why writes fail, for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No space is left, or a disk quota is exhausted.
    Full,
    /// The file system is read-only.
    ReadOnly,
    /// Any other failure, usually an I/O error.
    Fails,
}

impl Cause {
    /// Description for log lines and health checks.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the disk is full",
            Self::ReadOnly => "the disk is read-only",
            Self::Fails => "the disk fails",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Fails,
        }
    }
}

/// Minimum time between two log lines about the same outage.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// File written after a failure to get the operating system's own error, which SQLite does not pass on.
const PROBE: &str = "ledger.probe";

/// Shared by the ledger's threads.
pub(crate) struct Disk {
    folder: PathBuf,
    failing: AtomicBool,
    suspect: AtomicBool,
    cause: Mutex<Option<Cause>>,
    log_throttle: LogThrottle,
    /// Throttles log lines about failed checkpoints.
    pub(crate) checkpoint_log_throttle: LogThrottle,
}

impl Disk {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            failing: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            cause: Mutex::new(None),
            log_throttle: LogThrottle::new(LOG_INTERVAL),
            checkpoint_log_throttle: LogThrottle::new(LOG_INTERVAL),
        }
    }

    /// Records that a write failed during `doing`.
    pub(crate) fn failed(&self, doing: &str, error: &dyn std::fmt::Display) {
        let first = !self.failing.swap(true, Ordering::AcqRel);
        if let Some(suppressed) = self.log_throttle.allow() {
            let os_error = probe(&self.folder).err();
            let cause = match &os_error {
                Some(os_error) => Cause::of(os_error),
                None if error.to_string().contains("full") => Cause::Full,
                None => Cause::Fails,
            };
            self.set_cause(Some(cause));
            let os_error = os_error.map_or_else(
                || "none: a probe file in the same folder could be written".to_owned(),
                |error| error.to_string(),
            );
            tracing::error!(%error, doing, os_error, suppressed, "the ledger cannot write: {}; events are refused until it \
                can, accepted events are safe, and a write is retried every second", cause.as_str());
        } else if first {
            // An outage was logged a moment ago; this one may have another cause.
            self.set_cause(Some(probe(&self.folder).err().map_or(Cause::Fails, |error| Cause::of(&error))));
        }
    }

    /// Records that a write was synced successfully.
    pub(crate) fn works(&self) {
        if self.failing.load(Ordering::Acquire) && self.failing.swap(false, Ordering::AcqRel) {
            self.set_cause(None);
            tracing::info!("the ledger can write again");
        }
    }

    /// Records an I/O error in a checkpoint; see the module documentation.
    pub(crate) fn set_suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Called after the files have been reopened.
    pub(crate) fn clear_suspect(&self) {
        self.suspect.store(false, Ordering::Release);
    }

    /// Cause of the last failed write, or `None` if the last batch was written.
    pub(crate) fn failing(&self) -> Option<Cause> {
        self.failing.load(Ordering::Acquire).then(|| {
            let cause = *self.cause.lock().unwrap_or_else(PoisonError::into_inner);
            cause.unwrap_or(Cause::Fails)
        })
    }

    fn set_cause(&self, cause: Option<Cause>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }
}

/// Whether SQLite reports a failure of the disk other than a full one.
pub(crate) fn is_io(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly | SystemIoFailure))
}

fn probe(folder: &Path) -> io::Result<()> {
    let probe = folder.join(PROBE);
    crate::schema::files::create_private(&probe)?;
    let mut file = std::fs::File::create(probe)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()
}
