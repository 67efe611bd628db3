//! Files that contain a secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::random_bytes;

/// Creates a file with mode 0600 atomically and durably, without ever replacing an existing file. It is first written
/// under a temporary name that begins with `temp_prefix`, in the same directory, and then linked to its path.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the file exists, or else the error of the operating system.
pub fn write_private_file(path: &Path, temp_prefix: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = folder.join(format!("{temp_prefix}-{}", hex::encode(random_bytes::<8>())));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    // Unlike `rename`, `hard_link` never replaces a key that may already have been used to encrypt secrets.
    let linked = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked?;
    File::open(folder)?.sync_all()
}
