//! The folder of a ledger: created, locked and synced.

use std::fs;
use std::path::Path;

use crate::Error;
use crate::schema::files::{self, check_folder_mode};

pub(crate) const LOCK: &str = "ledger.lock";

/// Creates the folder if necessary and locks it. The lock is held as long as the returned file is open.
pub(crate) fn lock_folder(path: &Path) -> Result<fs::File, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { path, source }
    };
    check_folder_mode(path)?;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed(path))?;
    let name = path.join(LOCK);
    files::create_private(&name).map_err(failed(&name))?;
    let file = fs::OpenOptions::new().write(true).open(&name).map_err(failed(&name))?;
    match file.try_lock() {
        Ok(()) => {
            files::restrict_file_modes(path)?;
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(failed(&name)(source)),
    }
}

/// Syncs a folder and its parent, so that new directory entries are durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    for folder in [Some(path), path.parent().filter(|p| !p.as_os_str().is_empty())].into_iter().flatten() {
        fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
    }
    Ok(())
}
