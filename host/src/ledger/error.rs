//! What can go wrong with the ledger.

use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::id::{Digest, FilterName, SubscriptionName, TenantId};

/// What went wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the ledger open. One process writes a ledger, ever.
    #[error("another process holds the ledger at {}", .0.display())]
    Locked(PathBuf),
    /// The folder or a file in it cannot be made or opened.
    #[error("cannot use {}: {source}", path.display())]
    Folder {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may write into the folder.
    #[error(
        "others may write to {path} (mode {mode:04o}), and could put other data in place of this host's: run `chmod go-w \
         {path}`, or name a folder within it, which the host makes for itself alone",
        path = path.display()
    )]
    Shared {
        /// Which folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The linked SQLite is older than [`super::SQLITE_VERSION_MIN`]; older ones can lose commits (WAL-reset race).
    #[error("SQLite {found} is linked, but the ledger needs 3.51.3 or later")]
    EngineVersion {
        /// The version found.
        found: &'static str,
    },
    /// SQLite did not take a setting that durability depends on.
    #[error("SQLite did not take `{name}`: it answers `{found}`")]
    Setting {
        /// The PRAGMA.
        name: &'static str,
        /// Its value afterwards.
        found: String,
    },
    /// The ledger was written by a later Setgate.
    #[error(
        "a later version of Setgate wrote the ledger: its schema is {found}, and this one knows up to {known}. Nothing was \
         changed: upgrade this program"
    )]
    Schema {
        /// The schema of the file.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The ledger is of an earlier Setgate, whose endpoints have to be sealed.
    #[error("the ledger of an earlier Setgate holds endpoints in the clear: sealing them needs the master key")]
    NoMasterKey,
    /// The master key is not the ledger's.
    #[error("the master key is {found}, and this ledger was made with {needed}: put the right file back")]
    OtherMasterKey {
        /// Names the key that was given.
        found: String,
        /// Names the key that the ledger needs.
        needed: String,
    },
    /// SQLite refused one request; the others of its batch are not touched by it.
    #[error("the ledger's engine failed: {0}")]
    Engine(#[source] rusqlite::Error),
    /// The batch could not be made durable: nothing of it counts. The ledger goes on by itself once the cause (a full
    /// disk, mostly) is gone.
    #[error("the ledger could not commit: {0}")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The queue before the writer is full.
    #[error("the ledger's queue is full")]
    Busy,
    /// The ledger was shut down.
    #[error("the ledger is closed")]
    Closed,
    /// What stands on disk cannot be read as what it should be.
    #[error("the ledger is damaged: {what}; nothing was changed, see docs/how-to/storage.md for what to do")]
    Corrupt {
        /// What and where.
        what: String,
    },
    /// A document is not at the version the caller expected.
    #[error("the document has changed meanwhile")]
    VersionMismatch {
        /// Its version now; none: there is none by that name.
        current: Option<u64>,
    },
    /// There is no such tenant.
    #[error("there is no tenant `{0}`")]
    NoTenant(TenantId),
    /// The tenant was removed and its rows are still being deleted: its name is not free yet.
    #[error("the tenant `{0}` is still being removed")]
    Purging(TenantId),
    /// The document cannot be removed: another one names it. In words.
    #[error("{0}")]
    InUse(String),
    /// Another subscription of the tenant has that name.
    #[error("another subscription is named `{0}` already")]
    NameTaken(SubscriptionName),
    /// A subscription's chain names a filter that is not there or has no active version.
    #[error("there is no active filter `{0}`: upload it first")]
    Unbound(FilterName),
    /// The tenant's documents would come to more than its quota, or one document is too long.
    #[error(
        "with this change, what the tenant has comes to {sum}: its quota `{quota}` is {max}; remove or shorten something, or \
         have the operator raise it"
    )]
    TooHeavy {
        /// The name of the quota.
        quota: &'static str,
        /// What it comes to.
        sum: u64,
        /// The quota.
        max: u64,
    },
    /// One document is too long.
    #[error("the document has {bytes} bytes as it is stored: {max} are allowed; shorten it")]
    TooLong {
        /// Bytes of its text.
        bytes: usize,
        /// How many there may be.
        max: usize,
    },
    /// The plan is not stored (any more): intern it again.
    #[error("the plan {0} is not stored")]
    UnknownPlan(Digest),
    /// A page cursor that this ledger did not make.
    #[error("the cursor is malformed")]
    Cursor,
}

impl Error {
    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy | Self::Commit(_) | Self::Engine(_) | Self::Purging(_))
    }

    /// Whether what is asked for is damaged on disk, or the ledger as a whole.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether the ledger itself has told the operator, and tells again while it lasts: who meets the error need not.
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Commit(_)) || self.is_of_disk()
    }

    /// Whether the disk failed one request, as it would have failed the commit.
    pub(super) fn is_of_disk(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        let Self::Engine(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(CannotOpen | DiskFull | ReadOnly | SystemIoFailure))
    }

    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error as E, ErrorCode};
        match &error {
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::Utf8Error(..)
            | E::InvalidColumnType(..) => Self::corrupt(error.to_string()),
            E::SqliteFailure(cause, _)
                if matches!(cause.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
            {
                Self::corrupt(error.to_string())
            }
            _ => Self::Engine(error),
        }
    }
}
