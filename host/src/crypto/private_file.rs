//! Files that hold a secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::random_bytes;

/// Makes a file of mode 0600 that is there whole or not at all, also after a power cut, and never in place of another one:
/// it is written beside its place, under a name that begins with `draft`, and linked into it.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where there is a file; else what the system says.
pub fn write_private(path: &Path, draft: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = folder.join(format!("{draft}-{}", hex::encode(random_bytes::<8>())));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    // `hard_link`, unlike `rename`, never replaces a key that secrets may already be sealed under.
    let linked = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked?;
    File::open(folder)?.sync_all()
}
