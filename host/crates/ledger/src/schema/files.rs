//! File permissions: only the owner may read the ledger's files, which contain events, and only the owner may write to
//! their folder.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::Error;

/// Mode of a private file.
const PRIVATE: u32 = 0o600;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;

/// Refuses a folder that its group or others may write to, because they could replace the ledger. A missing folder is
/// accepted.
pub fn check_folder_mode(folder: &Path) -> Result<(), Error> {
    match fs::metadata(folder) {
        Ok(meta) if meta.permissions().mode() & OTHERS_WRITE != 0 => {
            Err(Error::WritableByOthers { path: folder.to_owned(), mode: meta.permissions().mode() & 0o7777 })
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Folder { path: folder.to_owned(), source }),
    }
}

/// Removes the permissions of group and others from the files in a folder. Earlier versions left them to the umask.
pub(crate) fn restrict_file_modes(folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let meta = fs::symlink_metadata(&path).map_err(failed(&path))?;
        if meta.is_file() && meta.permissions().mode() & OTHERS != 0 {
            fs::set_permissions(&path, Permissions::from_mode(PRIVATE)).map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// Creates an empty file with mode 0600 if it is missing. SQLite gives the WAL and its index the mode of the database
/// file, whose own mode would otherwise depend on the umask.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(PRIVATE).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, block_on, with_events};
    use crate::{Ledger, Options, back_up};
    use setgate_base::clock::Clock;

    fn modes(folder: &Path) -> Vec<(String, u32)> {
        let mut modes: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
            })
            .collect();
        modes.sort();
        modes
    }

    #[test]
    fn files_are_private() {
        block_on(async {
            let place = tempfile::tempdir().unwrap();
            let (folder, backup) = (place.path().join("ledger"), place.path().join("backup"));
            fs::create_dir(&backup).unwrap();
            fs::set_permissions(&backup, Permissions::from_mode(0o755)).unwrap();
            let open = || Ledger::open(Options::new(&folder), Clock::manual(NOW)).unwrap();
            let ledger = open();
            with_events(&ledger, 3).await;
            back_up(&folder, &backup, NOW).unwrap();
            let (files, copies) = (modes(&folder), modes(&backup));
            for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.lock"] {
                assert!(files.contains(&(name.to_owned(), 0o600)), "{name}: {files:?}");
            }
            assert!(files.iter().chain(&copies).all(|(_, mode)| *mode == 0o600), "{files:?} {copies:?}");
            ledger.shutdown().await;

            // As an earlier version left them.
            for (name, _) in modes(&folder) {
                fs::set_permissions(folder.join(name), Permissions::from_mode(0o644)).unwrap();
            }
            let ledger = open();
            assert!(modes(&folder).iter().all(|(_, mode)| *mode == 0o600), "{:?}", modes(&folder));
            ledger.shutdown().await;
        });
    }

    #[test]
    fn folder_writable_by_others_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("ledger");
        fs::create_dir(&folder).unwrap();
        for mode in [0o770, 0o702, 0o777, 0o1777, 0o2775] {
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            let refused = Ledger::open(Options::new(&folder), Clock::manual(NOW)).err().unwrap();
            assert!(matches!(refused, Error::WritableByOthers { .. }), "{mode:o}: {refused}");
            assert!(refused.to_string().contains("chmod go-w"), "{refused}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is written");
        }
        for mode in [0o700, 0o750, 0o755] {
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            drop(Ledger::open(Options::new(&folder), Clock::manual(NOW)).unwrap());
        }
    }
}
