//! Reads a ledger's master key fingerprint and checks its version without changing any file, before a host starts with
//! it.

use std::fs;
use std::path::Path;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::Error;
use crate::schema::files;
use crate::schema::{self, FILE};
use crate::upkeep::backup::is_in_use;

/// Characters to percent-encode in the path of a `file:` URI.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// Identity of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Fingerprint of the master key that decrypts its secrets. `None` if no host has finished its first start with
    /// this ledger.
    pub master_key: Option<String>,
}

/// Reads the identity of the ledger in a folder. `None` if there is no ledger, or one that was never written to.
///
/// # Errors
/// [`Error::WritableByOthers`] if others may write to the folder, [`Error::Locked`] if a process has it open, [`Error::Schema`]
/// if a later version wrote it, and any error that prevents reading it.
pub fn identity(folder: &Path) -> Result<Option<Identity>, Error> {
    files::check_folder_mode(folder)?;
    let length = |name: &str| fs::metadata(folder.join(name)).map_or(0, |meta| meta.len());
    if length(FILE) == 0 {
        // A WAL without its file is damage, which opening the ledger reports.
        return Ok(None);
    }
    if is_in_use(folder) {
        return Err(Error::Locked(folder.to_owned()));
    }
    let conn = open_untouched(folder)?;
    let schema: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    schema::check_version(schema)?;
    if schema == 0 {
        // The first start was interrupted before it created the tables.
        return Ok(None);
    }
    let key: Option<Vec<u8>> =
        conn.query_row("SELECT value FROM meta WHERE name = 'master key'", [], |row| row.get(0)).optional()?;
    Ok(Some(Identity { master_key: key.map(|key| String::from_utf8_lossy(&key).into_owned()) }))
}

/// Opens a ledger that no process has open for reading, without creating or changing a file. If the WAL is empty, the
/// database file alone is complete. Otherwise SQLite reads the WAL through an in-memory index of its own, because the
/// index file may be missing, or half written if a kill interrupted its update. SQLite only does so for a connection
/// with exclusive access. Here the lock file ensures that access, and not SQLite's own locks, which cannot be taken on
/// a file opened for reading.
pub(crate) fn open_untouched(folder: &Path) -> Result<Connection, Error> {
    let wal = folder.join(format!("{FILE}-wal"));
    let is_empty = fs::metadata(&wal).map_or(0, |meta| meta.len()) == 0;
    let conn = open(folder, if is_empty { "immutable=1" } else { "vfs=unix-none" })?;
    conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    Ok(conn)
}

fn open(folder: &Path, parameter: &str) -> Result<Connection, Error> {
    let path = folder.join(FILE);
    let path = utf8_percent_encode(&path.to_string_lossy(), NOT_IN_A_PATH).to_string();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(format!("file:{path}?mode=ro&{parameter}"), flags)?;
    schema::disable_checkpoint_on_close(&conn)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;")?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tests::{NOW, block_on, open, with_events};
    use crate::{Ledger, Options};
    use setgate_base::clock::Clock;

    fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    fn copy(from: &Path, to: &Path, leave_out: &[&str]) {
        for (name, bytes) in contents(from).iter().filter(|(name, _)| !leave_out.contains(&name.as_str())) {
            fs::write(to.join(name), bytes).unwrap();
        }
    }

    #[test]
    fn identity_changes_no_file() {
        block_on(async {
            let (folder, ledger) = open();
            ledger.upkeep.meta_put("master key", b"0123456789abcdef").await.unwrap();
            with_events(&ledger, 3).await;
            assert!(matches!(identity(folder.path()), Err(Error::Locked(_))));
            // As a crash leaves it, with everything in the WAL; once without the index file, and once with a
            // half-written one.
            let crashed = tempfile::tempdir().unwrap();
            copy(folder.path(), crashed.path(), &[]);
            let moved = tempfile::tempdir().unwrap();
            copy(folder.path(), moved.path(), &["ledger.db-shm"]);
            let torn = tempfile::tempdir().unwrap();
            copy(folder.path(), torn.path(), &[]);
            let index = torn.path().join("ledger.db-shm");
            let mut bytes = fs::read(&index).unwrap();
            assert_eq!(
                bytes[..48],
                bytes[48..96],
                "the header of the index stands there twice (SQLite, WAL-index format)"
            );
            bytes[8] ^= 1;
            fs::write(&index, bytes).unwrap();
            ledger.shutdown().await;
            drop(ledger);
            for folder in [folder.path(), crashed.path(), moved.path(), torn.path()] {
                let before = contents(folder);
                let found = identity(folder).unwrap().unwrap();
                assert_eq!(found.master_key.as_deref(), Some("0123456789abcdef"));
                assert!(contents(folder) == before, "no file is made, changed or removed");
            }
            // They can be opened afterwards.
            for folder in [crashed.path(), torn.path()] {
                drop(Ledger::open(Options::new(folder), Clock::manual(NOW)).unwrap());
            }
        });
    }

    #[test]
    fn missing_empty_and_later_ledgers() {
        block_on(async {
            let place = tempfile::tempdir().unwrap();
            assert_eq!(identity(&place.path().join("nowhere")).unwrap(), None);
            fs::write(place.path().join(FILE), b"").unwrap();
            assert_eq!(identity(place.path()).unwrap(), None);
            let (folder, ledger) = open();
            ledger.shutdown().await;
            drop(ledger);
            assert_eq!(identity(folder.path()).unwrap(), Some(Identity { master_key: None }));
            let conn = Connection::open(folder.path().join(FILE)).unwrap();
            conn.execute_batch("PRAGMA user_version = 999").unwrap();
            drop(conn);
            let later = identity(folder.path()).unwrap_err();
            assert!(matches!(later, Error::Schema { found: 999, .. }), "{later}");
            assert!(later.to_string().contains("upgrade"), "{later}");
        });
    }
}
