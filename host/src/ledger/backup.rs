//! Backups: a copy of the ledger as of one instant, made beside a host that runs, and the way back.
//!
//! A backup is a folder of mode 0700 with two files: `ledger.db`, which `VACUUM INTO` wrote within one read transaction of a
//! connection of its own, so that no commit waits for it; and `backup.json`, the [`Manifest`], which is written last.
//! What stands in both was synced and read again before; a folder without a manifest is no backup.
//!
//! While a backup is made the WAL cannot start anew and grows by what is written meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::schema::FILE;
use super::{Error, files, hold, schema, sync_folder};
use crate::crypto::{sha256_of, write_private};
use crate::domain::event::EventSeq;
use crate::domain::id::Digest;
use crate::domain::time::Timestamp;

/// The manifest's file.
const MANIFEST: &str = "backup.json";
/// Bytes of a manifest at the most.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// The one shape of backups so far.
const FORMAT: u32 = 1;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The shape of the folder: 1.
    pub format: u32,
    /// When it was begun.
    pub made_at: Timestamp,
    /// The ledger's schema.
    pub schema: i64,
    /// Bytes of `ledger.db`.
    pub bytes: u64,
    /// SHA-256 of `ledger.db`.
    pub sha256: Digest,
    /// The last event in it.
    pub last: EventSeq,
    /// The last event whose deliveries are in it; those behind are fanned out after a restore.
    pub cursor: EventSeq,
    /// Names the master key that opens its secrets; the key itself is not in it. None: no host ever started over it.
    pub master_key: Option<String>,
}

/// Why there is no backup, or why it was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no ledger to be backed up.
    #[error("there is no ledger in {}: name the data folder with --data, or the configuration with --config", .0.display())]
    NoLedger(PathBuf),
    /// A folder that has to be new or empty is not.
    #[error("{} is not empty: nothing is ever written over; name another folder, or move it away", .0.display())]
    NotEmpty(PathBuf),
    /// There is no manifest, or not one of ours.
    #[error("{} is no backup: its {MANIFEST} {why}", path.display())]
    Manifest {
        /// The folder.
        path: PathBuf,
        /// What is wrong with the manifest.
        why: String,
    },
    /// The copy is not what was backed up.
    #[error("{} is damaged: {why}; nothing was restored from it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        why: String,
    },
    /// A file or folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ledger itself.
    #[error(transparent)]
    Ledger(#[from] Error),
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Ledger(error.into())
    }
}

/// Copies the ledger in `ledger`, whether a host runs over it or not, into the new or empty folder `to`. Blocks. The copy
/// is on disk and was read again when this returns.
pub fn back_up(ledger: &Path, to: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    let source = ledger.join(FILE);
    if !source.is_file() {
        return Err(BackupError::NoLedger(ledger.to_owned()));
    }
    files::refuse_shared(to)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed(to))?;
    if !is_empty(to)? {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let copy = to.join(FILE);
    let draft = to.join(format!("{FILE}.draft"));
    // Not one of the host's readers: those may not even write another file.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&source, flags)?;
    schema::leave_the_wal(&conn)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    schema::refuse_later(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)?;
    // It takes an empty file as it is, with its mode.
    files::begin_private(&draft).map_err(failed(&draft))?;
    conn.execute("VACUUM INTO ?1", [draft.to_string_lossy()])?;
    drop(conn);
    // `VACUUM INTO` leaves what it wrote to the system.
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed(&draft))?;
    let manifest = describe(&draft, now)?;
    fs::rename(&draft, &copy).map_err(failed(&copy))?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from).map_err(failed(to))?;
    write_private(&to.join(MANIFEST), ".manifest", &text).map_err(failed(to))?;
    sync_folder(to)?;
    Ok(manifest)
}

/// Puts a backup into the folder of a ledger that is not there yet. Blocks. [`Error::Locked`] where a host runs over it.
pub fn restore(from: &Path, ledger: &Path) -> Result<Manifest, BackupError> {
    let manifest = manifest(from)?;
    schema::refuse_later(manifest.schema)?;
    let copy = from.join(FILE);
    let damaged = |why: String| BackupError::Damaged { path: copy.clone(), why };
    let bytes = fs::metadata(&copy).map_err(failed(&copy))?.len();
    if bytes != manifest.bytes {
        return Err(damaged(format!("it has {bytes} bytes, and had {}", manifest.bytes)));
    }
    if digest(&copy)? != manifest.sha256 {
        return Err(damaged("its bytes are not those that were written".to_owned()));
    }
    let _lock = hold(ledger)?;
    let place = ledger.join(FILE);
    if place.exists() {
        return Err(BackupError::NotEmpty(ledger.to_owned()));
    }
    let draft = ledger.join(format!("{FILE}.draft"));
    fs::copy(&copy, &draft).map_err(failed(&draft))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).map_err(failed(&draft))?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed(&draft))?;
    if digest(&draft)? != manifest.sha256 {
        return Err(BackupError::Damaged { path: draft, why: "the disk gives back other bytes".to_owned() });
    }
    fs::rename(&draft, &place).map_err(failed(&place))?;
    sync_folder(ledger)?;
    Ok(manifest)
}

/// Whether a process has the ledger of a folder open. Makes nothing.
pub fn is_in_use(ledger: &Path) -> bool {
    let lock = File::options().write(true).open(ledger.join(super::LOCK));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// What a backup says about itself.
pub fn manifest(from: &Path) -> Result<Manifest, BackupError> {
    let path = from.join(MANIFEST);
    let wrong = |why: String| BackupError::Manifest { path: from.to_owned(), why };
    let bytes = fs::metadata(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if bytes > MANIFEST_BYTES_MAX {
        return Err(wrong(format!("has {bytes} bytes")));
    }
    let text = fs::read(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(format!("is not one: {error}")))?;
    if manifest.format != FORMAT {
        return Err(wrong(format!("has format {}; this Setgate knows {FORMAT}", manifest.format)));
    }
    Ok(manifest)
}

/// Whether there is nothing in a folder.
fn is_empty(folder: &Path) -> Result<bool, BackupError> {
    Ok(fs::read_dir(folder).map_err(failed(folder))?.next().is_none())
}

/// Reads a copy again, as a file of its own.
fn describe(copy: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: copy.to_owned(), why };
    let conn = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(damaged(found));
    }
    let schema: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    schema::refuse_later(schema)?;
    let key: Option<Vec<u8>> =
        conn.query_row("SELECT value FROM meta WHERE name = 'master key'", [], |row| row.get(0)).optional()?;
    Ok(Manifest {
        format: FORMAT,
        made_at: now,
        schema,
        bytes: fs::metadata(copy).map_err(failed(copy))?.len(),
        sha256: digest(copy)?,
        last: conn.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.get(0))?,
        cursor: conn.query_row("SELECT value FROM mark WHERE name = 'cursor'", [], |row| row.get(0))?,
        master_key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
    })
}

fn digest(path: &Path) -> Result<Digest, BackupError> {
    File::open(path).and_then(sha256_of).map(Digest).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, block_on, event, open, with_events};
    use super::super::{Ledger, Options};
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_backup_is_the_ledger_as_it_was() {
        block_on(async {
            let (folder, ledger) = open();
            with_events(&ledger, 3).await;
            let place = tempfile::tempdir().unwrap();
            let to = place.path().join("backup");
            // Beside the ledger that is open.
            let made = back_up(folder.path(), &to, NOW).unwrap();
            assert_eq!((made.last, made.cursor, made.schema), (EventSeq(3), EventSeq(0), schema::known()));
            assert_eq!(manifest(&to).unwrap(), made);
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&to), mode(&to.join(FILE)), mode(&to.join(MANIFEST))), (0o700, 0o600, 0o600));
            ledger.append(event(9)).await.unwrap();

            let back = place.path().join("ledger");
            assert_eq!(restore(&to, &back).unwrap(), made);
            let restored = Ledger::open(Options::new(&back), Clock::manual(NOW)).unwrap();
            let events = restored.journal_after(EventSeq(0), 10).await.unwrap();
            assert_eq!(events.len(), 3, "what came later is not in it");
            assert_eq!(events[2].original, event(3).original);
            // What comes next has a place that nothing had before.
            assert!(matches!(restored.append(event(9)).await, Ok(super::super::Appended::New(EventSeq(4)))));
        });
    }

    #[test]
    fn nothing_is_written_over() {
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
    fn a_copy_that_was_touched_is_not_restored() {
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
