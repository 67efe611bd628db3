//! Backups: a copy of the ledger at one point in time, made while a host may be running, and its restore.
//!
//! A backup is a folder with mode 0700 and two files: `ledger.db`, written by `VACUUM INTO` in one read transaction on
//! a separate connection, so that no commit waits for it; and `backup.json`, the [`Manifest`], written last. The copy
//! is synced and verified before the manifest is written; a folder without a manifest is not a backup.
//!
//! While a backup is made, the WAL cannot be reset and grows with the writes of that time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use setgate_base::crypto::{sha256_reader, write_private_file};
use setgate_domain::event::EventSeq;
use setgate_domain::id::Digest;
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::schema;
use crate::schema::FILE;
use crate::schema::files;
use crate::schema::folder::{LOCK, lock_folder, sync_folder};
use crate::schema::sql_types::ReadColumn;

const MANIFEST: &str = "backup.json";
/// Maximum size of a manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// The only backup format so far.
const FORMAT: u32 = 1;

/// Description of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the folder: 1.
    pub format: u32,
    /// When the backup was started.
    pub made_at: Timestamp,
    /// Schema of the ledger.
    pub schema: i64,
    /// Size of `ledger.db` in bytes.
    pub bytes: u64,
    /// SHA-256 of `ledger.db`.
    pub sha256: Digest,
    /// Last event included.
    pub last: EventSeq,
    /// Last event with its deliveries included; later ones are fanned out after a restore.
    pub cursor: EventSeq,
    /// Fingerprint of the master key that decrypts its secrets; the key itself is not included. `None` if no host has
    /// ever started with this ledger.
    pub master_key: Option<String>,
}

/// Error while making or restoring a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder has no ledger.
    #[error("there is no ledger in {}: name the data folder with --data, or the configuration with --config", .0.display())]
    NoLedger(PathBuf),
    /// A folder that must be new or empty is not.
    #[error("{} is not empty, and nothing is overwritten: name another folder, or move its content away", .0.display())]
    NotEmpty(PathBuf),
    /// The manifest is missing or invalid.
    #[error("{} is not a backup: its {MANIFEST} {why}", path.display())]
    Manifest {
        /// The folder.
        path: PathBuf,
        /// The fault, as the rest of a sentence.
        why: String,
    },
    /// The copy differs from the original.
    #[error("{} is damaged: {why}; nothing was restored from it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The difference.
        why: String,
    },
    /// A file or folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An error of the ledger itself.
    #[error(transparent)]
    Ledger(#[from] Error),
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Ledger(error.into())
    }
}

/// Copies the ledger in `ledger`, which may be in use, into the new or empty folder `to`. Blocks. The copy is synced
/// and verified when this returns.
pub fn back_up(ledger: &Path, to: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    let source = ledger.join(FILE);
    if !source.is_file() {
        return Err(BackupError::NoLedger(ledger.to_owned()));
    }
    files::check_folder_mode(to)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed(to))?;
    if !is_empty(to)? {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let copy = to.join(FILE);
    let draft = to.join(format!("{FILE}.draft"));
    // A reader connection of the host would not do, because it may not write any file.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&source, flags)?;
    schema::disable_checkpoint_on_close(&conn)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    schema::check_version(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)?;
    // SQLite accepts an existing empty file and keeps its mode.
    files::create_private(&draft).map_err(failed(&draft))?;
    conn.execute("VACUUM INTO ?1", [draft.to_string_lossy()])?;
    drop(conn);
    // `VACUUM INTO` does not sync the file it wrote.
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed(&draft))?;
    let manifest = describe(&draft, now)?;
    fs::rename(&draft, &copy).map_err(failed(&copy))?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from).map_err(failed(to))?;
    write_private_file(&to.join(MANIFEST), ".manifest", &text).map_err(failed(to))?;
    sync_folder(to)?;
    Ok(manifest)
}

/// Restores a backup into a folder that has no ledger yet. Blocks. [`Error::Locked`] if a host is running on that
/// folder.
pub fn restore(from: &Path, ledger: &Path) -> Result<Manifest, BackupError> {
    let manifest = manifest(from)?;
    schema::check_version(manifest.schema)?;
    let copy = from.join(FILE);
    let damaged = |why: String| BackupError::Damaged { path: copy.clone(), why };
    let bytes = fs::metadata(&copy).map_err(failed(&copy))?.len();
    if bytes != manifest.bytes {
        return Err(damaged(format!("it has {bytes} bytes, but the manifest says {}", manifest.bytes)));
    }
    if digest(&copy)? != manifest.sha256 {
        return Err(damaged("its digest does not match the manifest".to_owned()));
    }
    let _lock = lock_folder(ledger)?;
    let place = ledger.join(FILE);
    if place.exists() {
        return Err(BackupError::NotEmpty(ledger.to_owned()));
    }
    let draft = ledger.join(format!("{FILE}.draft"));
    fs::copy(&copy, &draft).map_err(failed(&draft))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).map_err(failed(&draft))?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed(&draft))?;
    if digest(&draft)? != manifest.sha256 {
        return Err(BackupError::Damaged {
            path: draft,
            why: "the disk returns different bytes than were written".to_owned(),
        });
    }
    fs::rename(&draft, &place).map_err(failed(&place))?;
    sync_folder(ledger)?;
    Ok(manifest)
}

/// Whether a process has the ledger in a folder open. Creates no files.
pub fn is_in_use(ledger: &Path) -> bool {
    let lock = File::options().write(true).open(ledger.join(LOCK));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Reads and validates the manifest of a backup.
pub fn manifest(from: &Path) -> Result<Manifest, BackupError> {
    let path = from.join(MANIFEST);
    let wrong = |why: String| BackupError::Manifest { path: from.to_owned(), why };
    let bytes = fs::metadata(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if bytes > MANIFEST_BYTES_MAX {
        return Err(wrong(format!("has {bytes} bytes")));
    }
    let text = fs::read(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(format!("is not valid: {error}")))?;
    if manifest.format != FORMAT {
        return Err(wrong(format!(
            "has format {}, but this version of Setgate supports only {FORMAT}",
            manifest.format
        )));
    }
    Ok(manifest)
}

fn is_empty(folder: &Path) -> Result<bool, BackupError> {
    Ok(fs::read_dir(folder).map_err(failed(folder))?.next().is_none())
}

/// Opens a finished copy on its own, verifies it and builds its manifest.
fn describe(copy: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: copy.to_owned(), why };
    let conn = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(damaged(found));
    }
    let schema: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    schema::check_version(schema)?;
    let key: Option<Vec<u8>> =
        conn.query_row("SELECT value FROM meta WHERE name = 'master key'", [], |row| row.get(0)).optional()?;
    Ok(Manifest {
        format: FORMAT,
        made_at: now,
        schema,
        bytes: fs::metadata(copy).map_err(failed(copy))?.len(),
        sha256: digest(copy)?,
        last: conn.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.column(0))?,
        cursor: conn.query_row("SELECT value FROM mark WHERE name = 'cursor'", [], |row| row.column(0))?,
        master_key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
    })
}

fn digest(path: &Path) -> Result<Digest, BackupError> {
    File::open(path).and_then(sha256_reader).map(Digest).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, block_on, event, open, with_events};
    use crate::{Ledger, Options};
    use setgate_base::clock::Clock;

    #[test]
    fn backup_round_trips() {
        block_on(async {
            let (folder, ledger) = open();
            with_events(&ledger, 3).await;
            let place = tempfile::tempdir().unwrap();
            let to = place.path().join("backup");
            // While the ledger is open.
            let made = back_up(folder.path(), &to, NOW).unwrap();
            assert_eq!((made.last, made.cursor, made.schema), (EventSeq(3), EventSeq(0), schema::version()));
            assert_eq!(manifest(&to).unwrap(), made);
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&to), mode(&to.join(FILE)), mode(&to.join(MANIFEST))), (0o700, 0o600, 0o600));
            ledger.events.append(event(9)).await.unwrap();

            let back = place.path().join("ledger");
            assert_eq!(restore(&to, &back).unwrap(), made);
            let restored = Ledger::open(Options::new(&back), Clock::manual(NOW)).unwrap();
            let events = restored.events.events_after(EventSeq(0), 10).await.unwrap();
            assert_eq!(events.len(), 3, "what came later is not in it");
            assert_eq!(events[2].original, event(3).original);
            // The next event gets a sequence number that was never used.
            assert!(matches!(restored.events.append(event(9)).await, Ok(crate::Appended::New(EventSeq(4)))));
        });
    }

    #[test]
    fn existing_files_are_not_overwritten() {
        block_on(async {
            let (folder, ledger) = open();
            let place = tempfile::tempdir().unwrap();
            let to = place.path().join("backup");
            back_up(folder.path(), &to, NOW).unwrap();
            assert!(matches!(back_up(folder.path(), &to, NOW), Err(BackupError::NotEmpty(_))));
            assert!(matches!(restore(&to, folder.path()), Err(BackupError::Ledger(Error::Locked(_)))));
            assert!(is_in_use(folder.path()));
            ledger.shutdown().await;
            assert!(!is_in_use(folder.path()) && !is_in_use(&to));
            assert!(matches!(restore(&to, folder.path()), Err(BackupError::NotEmpty(_))));
            assert!(matches!(back_up(&to.join("no"), &to, NOW), Err(BackupError::NoLedger(_))));
        });
    }

    #[test]
    fn changed_copy_is_not_restored() {
        block_on(async {
            let (folder, _ledger) = open();
            let place = tempfile::tempdir().unwrap();
            let (to, back) = (place.path().join("backup"), place.path().join("back"));
            back_up(folder.path(), &to, NOW).unwrap();
            let good = fs::read(to.join(FILE)).unwrap();
            let mut bytes = good.clone();
            *bytes.last_mut().unwrap() ^= 1;
            for bytes in [&bytes, &good[1..]] {
                fs::write(to.join(FILE), bytes).unwrap();
                assert!(matches!(restore(&to, &back), Err(BackupError::Damaged { .. })));
            }
            fs::write(to.join(FILE), &good).unwrap();
            fs::write(to.join(MANIFEST), "{}").unwrap();
            assert!(matches!(restore(&to, &back), Err(BackupError::Manifest { .. })));
            fs::remove_file(to.join(MANIFEST)).unwrap();
            assert!(matches!(restore(&to, &back), Err(BackupError::Manifest { .. })));
            assert!(!back.join(FILE).exists());
        });
    }
}
