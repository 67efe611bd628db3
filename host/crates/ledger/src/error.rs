//! Errors of the ledger.

use std::path::PathBuf;
use std::sync::Arc;

use setgate_domain::id::{Digest, FilterName, SubscriptionName, TenantId};

/// An error of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the ledger open. Only one process may use a ledger at a time.
    #[error("another process has the ledger in {} open: stop it, or use another data folder", .0.display())]
    Locked(PathBuf),
    /// The folder or a file in it cannot be created or opened.
    #[error("cannot use {}: {source}", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Users other than the owner may write to the folder.
    #[error(
        "other users may write to {path} (mode {mode:04o}) and could replace the host's data: run `chmod go-w {path}`, or \
         configure a folder inside it, which the host creates with mode 0700",
        path = path.display()
    )]
    WritableByOthers {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The linked SQLite is older than [`crate::SQLITE_VERSION_MIN`], and such versions can lose commits (WAL-reset
    /// race).
    #[error("the linked SQLite is {found}, but the ledger requires 3.51.3 or later: rebuild with a newer SQLite")]
    EngineVersion {
        /// The linked version.
        found: &'static str,
    },
    /// SQLite did not accept a setting that durability depends on.
    #[error("SQLite did not apply the setting `{name}`: its value is `{found}`")]
    PragmaRefused {
        /// The PRAGMA.
        name: &'static str,
        /// Its value afterwards.
        found: String,
    },
    /// A later version of Setgate wrote the ledger.
    #[error(
        "a later version of Setgate wrote the ledger: its schema version is {found}, and this version supports up to {known}. \
         Nothing was changed: upgrade this program"
    )]
    Schema {
        /// Schema of the file.
        found: i64,
        /// Newest schema that this version supports.
        known: i64,
    },
    /// SQLite refused this request; the other requests of its batch are not affected.
    #[error("SQLite failed: {0}")]
    Engine(#[source] rusqlite::Error),
    /// The batch could not be made durable, and none of it takes effect. The ledger recovers by itself when the cause
    /// (usually a full disk) is gone.
    #[error("the ledger could not commit: {0}")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The writer's queue is full.
    #[error("the ledger's queue is full")]
    Busy,
    /// The ledger was shut down.
    #[error("the ledger is closed")]
    Closed,
    /// Stored data cannot be decoded.
    #[error("the ledger is damaged: {what}. Nothing was changed; see docs/how-to/storage.md")]
    Corrupt {
        /// The data and its location.
        what: String,
    },
    /// A document does not have the version that the caller expected.
    #[error("the document was changed concurrently: read it again")]
    VersionMismatch {
        /// Its current version, or `None` if no such document exists.
        current: Option<u64>,
    },
    /// The tenant does not exist.
    #[error("there is no tenant `{0}`")]
    NoTenant(TenantId),
    /// The tenant was removed and its rows are still being deleted, so its name is not free yet.
    #[error("the tenant `{0}` is still being removed")]
    Purging(TenantId),
    /// An earlier tenant of that name had an issuer key, so receivers may still trust its issuer.
    #[error("an earlier tenant `{0}` signed SETs, and receivers may still trust its issuer")]
    IssuerNameUsed(TenantId),
    /// The tenant has no issuer yet, and none can be made without a public URL.
    #[error("the tenant `{0}` has no issuer, and there is no public URL to make one from")]
    NoPublicUrl(TenantId),
    /// The tenant has the maximum number of issuer keys.
    #[error("the tenant has {max} issuer keys, which is the limit: remove a retired one first")]
    TooManyIssuerKeys {
        /// Maximum number of keys.
        max: usize,
    },
    /// The document cannot be removed because another one refers to it. Contains the explanation.
    #[error("{0}")]
    InUse(String),
    /// Another subscription of the tenant has that name.
    #[error("another subscription already has the name `{0}`")]
    NameTaken(SubscriptionName),
    /// A subscription's chain names a filter that does not exist or has no active version.
    #[error("the filter `{0}` does not exist or has no active version: upload one first")]
    FilterNotActive(FilterName),
    /// The tenant's documents would exceed its quota.
    #[error(
        "the change would exceed the tenant's quota `{quota}`: {sum} of {max}; remove or shorten documents, or ask the \
         operator to raise the quota"
    )]
    QuotaExceeded {
        /// Name of the quota.
        quota: &'static str,
        /// The total with this change.
        sum: u64,
        /// The quota.
        max: u64,
    },
    /// A single document is too long.
    #[error("the document is too long: {bytes} bytes as stored, at most {max} are allowed")]
    DocumentTooLarge {
        /// Bytes of its text.
        bytes: usize,
        /// Maximum number of bytes.
        max: usize,
    },
    /// The plan is not stored (any more) and must be interned again.
    #[error("the plan {0} is not stored")]
    UnknownPlan(Digest),
    /// A page cursor that this ledger did not produce.
    #[error("the cursor is not valid")]
    InvalidCursor,
}

impl Error {
    /// Whether the same request may succeed later without any change to it.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy | Self::Commit(_) | Self::Engine(_) | Self::Purging(_))
    }

    /// Whether stored data is damaged, either the requested rows or the whole file.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether the ledger logs this error itself, repeatedly while it lasts, so that the caller need not log it.
    pub fn is_logged(&self) -> bool {
        matches!(self, Self::Commit(_)) || self.is_of_disk()
    }

    /// Whether the disk failed this request, as it would have failed the commit.
    pub(crate) fn is_of_disk(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        let Self::Engine(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(CannotOpen | DiskFull | ReadOnly | SystemIoFailure))
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
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
