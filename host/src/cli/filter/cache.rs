//! The current user's cache of compiled filters: a private directory.
//!
//! Write access to the directory would allow running machine code as this user, so it is not used unless it belongs to
//! this user alone. Its files are authenticated with a key beside it, as on a host: a file from elsewhere is not
//! loaded.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use setgate_base::crypto;

/// Size limit (bytes) of the cached filters; the least recently used ones are evicted first.
pub(super) const BYTES_MAX: u64 = 512 << 20;
const KEY_BYTES: usize = 32;

/// A directory for compiled filters, and the key that authenticates them.
pub(super) struct OwnCache {
    pub(super) dir: PathBuf,
    pub(super) key: [u8; KEY_BYTES],
}

/// This user's directory, created if it does not exist: `setgate/filters` in `$XDG_CACHE_HOME`, or in `~/.cache`.
///
/// # Errors
/// The reason for which nothing can be cached, as a message.
pub(super) fn of_user() -> Result<OwnCache, String> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    open(&base.ok_or("neither XDG_CACHE_HOME nor HOME is set")?)
}

fn open(base: &Path) -> Result<OwnCache, String> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("{path}: {error}")
    };
    DirBuilder::new().recursive(true).mode(0o700).create(base).map_err(failed(base))?;
    // Anyone with write access to the parent could replace the directory by their own.
    let of_base = fs::metadata(base).map_err(failed(base))?;
    let is_sticky = of_base.mode() & 0o1000 != 0;
    if of_base.mode() & 0o022 != 0 && !is_sticky {
        return Err(format!("{} can be written to by others", base.display()));
    }
    let own = base.join("setgate");
    let dir = own.join("filters");
    for folder in [&own, &dir] {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(folder)(error)),
            _ => check(folder, &fs::symlink_metadata(folder).map_err(failed(folder))?, true)?,
        }
    }
    let file = own.join("filters.key");
    let key = key(&file).map_err(failed(&file))??;
    Ok(OwnCache { dir, key })
}

/// Checks that the path is owned by this user, has the expected type and is not accessible to others.
fn check(path: &Path, found: &Metadata, is_dir: bool) -> Result<(), String> {
    let path = path.display();
    let kind = if is_dir { found.is_dir() } else { found.is_file() };
    if !kind {
        return Err(format!("{path} is not a {}", if is_dir { "folder" } else { "file" }));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("{path} belongs to another user"));
    }
    if found.mode() & 0o077 != 0 {
        let mode = if is_dir { "700" } else { "600" };
        return Err(format!("{path} is open to other users: `chmod {mode} {path}` closes it"));
    }
    Ok(())
}

/// Loads the key, or creates one. If two processes create one concurrently, both use the first.
fn key(file: &Path) -> io::Result<Result<[u8; KEY_BYTES], String>> {
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let open = || OpenOptions::new().read(true).custom_flags(nofollow).open(file);
    let mut opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(file)?;
            open()?
        }
        opened => opened?,
    };
    if let Err(why) = check(file, &opened.metadata()?, false) {
        return Ok(Err(why));
    }
    let mut key = [0; KEY_BYTES];
    opened.read_exact(&mut key)?;
    Ok(Ok(key))
}

fn make(file: &Path) -> io::Result<()> {
    let unfinished = file.with_extension(format!("{:016x}", crypto::random_u128()));
    let mut new: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    new.write_all(&crypto::random_bytes::<KEY_BYTES>())?;
    // A hard link makes the complete file appear atomically and never replaces an existing key.
    let linked = fs::hard_link(&unfinished, file);
    let _ = fs::remove_file(&unfinished);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn close(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_folder_is_private_and_its_key_stays() {
        let base = tempfile::tempdir().unwrap();
        let first = open(&base.path().join("new")).unwrap();
        let again = open(&base.path().join("new")).unwrap();
        assert_eq!((first.dir.clone(), first.key), (again.dir, again.key));
        assert_ne!(first.key, [0; KEY_BYTES]);
        let own = base.path().join("new/setgate");
        for (path, mode) in [(first.dir, 0o700), (own.clone(), 0o700), (own.join("filters.key"), 0o600)] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode, "{}", path.display());
        }
    }

    #[test]
    fn what_others_could_have_put_there_is_not_used() {
        let wrong = |set: fn(&Path), part: &str| {
            let base = tempfile::tempdir().unwrap();
            open(base.path()).unwrap();
            set(base.path());
            let why = open(base.path()).err().unwrap_or_else(|| panic!("used, not: {part}"));
            assert!(why.contains(part), "{why}");
        };
        wrong(|base| close(&base.join("setgate"), 0o755), "chmod 700");
        wrong(|base| close(&base.join("setgate/filters"), 0o770), "chmod 700");
        wrong(|base| close(&base.join("setgate/filters.key"), 0o644), "chmod 600");
        wrong(|base| close(base, 0o777), "written to by others");
        wrong(
            |base| {
                fs::rename(base.join("setgate"), base.join("elsewhere")).unwrap();
                symlink(base.join("elsewhere"), base.join("setgate")).unwrap();
            },
            "not a folder",
        );
        wrong(
            |base| {
                fs::rename(base.join("setgate/filters.key"), base.join("key")).unwrap();
                symlink(base.join("key"), base.join("setgate/filters.key")).unwrap();
            },
            "filters.key",
        );
        wrong(|base| fs::write(base.join("setgate/filters.key"), "short").unwrap(), "filters.key");
    }
}
