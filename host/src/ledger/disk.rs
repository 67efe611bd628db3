//! How the disk is doing, as the ledger's threads find it: what fails, who is told, and what memory must not be believed.
//!
//! A commit that fails needs no repair. SQLite takes its frames back, and the next commit writes over them and syncs
//! what it wrote, so that nothing acknowledged stands on a sync that failed.
//!
//! A checkpoint that fails is another matter. SQLite counts pages as moved before they are synced, and a page whose sync
//! failed may be gone although the next sync succeeds: the kernel reports a failed write once, then forgets it. So after
//! an I/O error of a checkpoint the count is [suspect](Disk::is_suspect): no checkpoint is run before all connections
//! were closed and the file was opened anew, which recovers the WAL from its begin and has every page moved once more.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::Seldom;

/// Why nothing can be written, in words for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No space is left, or a quota of the system's is used up.
    Full,
    /// The file system is read-only.
    ReadOnly,
    /// Anything else: an I/O error, mostly.
    Fails,
}

impl Cause {
    /// In words.
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

/// Time between two lines of the log about one and the same outage.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Written to where a write failed, to learn the system's own words: SQLite does not pass them on.
const PROBE: &str = "ledger.probe";

/// Shared by the ledger's threads.
pub(super) struct Disk {
    folder: PathBuf,
    failing: AtomicBool,
    suspect: AtomicBool,
    cause: Mutex<Option<Cause>>,
    told: Seldom,
    /// For checkpoints that fail.
    pub(super) checkpoints_told: Seldom,
}

impl Disk {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            failing: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            cause: Mutex::new(None),
            told: Seldom::new(TELL_EVERY),
            checkpoints_told: Seldom::new(TELL_EVERY),
        }
    }

    /// Something could not be written, in `doing`.
    pub(super) fn failed(&self, doing: &str, error: &dyn std::fmt::Display) {
        let first = !self.failing.swap(true, Ordering::AcqRel);
        if let Some(unsaid) = self.told.due() {
            let system = probe(&self.folder).err();
            let cause = match &system {
                Some(system) => Cause::of(system),
                None if error.to_string().contains("full") => Cause::Full,
                None => Cause::Fails,
            };
            self.set_cause(Some(cause));
            let system = system.map_or_else(|| "a file beside it can be written".to_owned(), |error| error.to_string());
            tracing::error!(%error, doing, system, unsaid, "the ledger cannot write: {}; nothing is accepted before it \
                can, what was accepted stays, and it is tried again each second", cause.as_str());
        } else if first {
            // Told of an outage a moment ago; this one may be of another kind.
            self.set_cause(Some(probe(&self.folder).err().map_or(Cause::Fails, |error| Cause::of(&error))));
        }
    }

    /// Something was written and synced.
    pub(super) fn works(&self) {
        if self.failing.load(Ordering::Acquire) && self.failing.swap(false, Ordering::AcqRel) {
            self.set_cause(None);
            tracing::info!("the ledger can write again");
        }
    }

    /// A checkpoint failed with an I/O error; see the head of this file.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// The files were opened anew.
    pub(super) fn is_trusted_again(&self) {
        self.suspect.store(false, Ordering::Release);
    }

    /// Why the last batch could not be written; none: it could.
    pub(super) fn failing(&self) -> Option<Cause> {
        self.failing.load(Ordering::Acquire).then(|| {
            let cause = *self.cause.lock().unwrap_or_else(PoisonError::into_inner);
            cause.unwrap_or(Cause::Fails)
        })
    }

    fn set_cause(&self, cause: Option<Cause>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }
}

/// Whether an error of SQLite is one of the disk, apart from a full one.
pub(super) fn is_io(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly | SystemIoFailure))
}

fn probe(folder: &Path) -> io::Result<()> {
    let probe = folder.join(PROBE);
    super::files::begin_private(&probe)?;
    let mut file = std::fs::File::create(probe)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()
}
