//! `promtool`, which checks the alerts of `deploy/`: the machine's own, or that of Debian's package `prometheus`,
//! unpacked into the target directory. The package is not installed, since that would start a server.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{read, target_dir, which};

/// Installs the program at the path used by the story `tests/it/operations/alerts.rs`.
pub(crate) fn provide() -> Result<PathBuf> {
    if let Some(program) = which("promtool") {
        return Ok(program);
    }
    let folder = target_dir().join("promtool");
    let program = folder.join("usr/bin/promtool");
    if program.is_file() {
        return Ok(program);
    }
    which("apt-get").context("promtool is not installed, and this is no Debian")?;
    fs::create_dir_all(&folder)?;
    eprintln!("promtool: unpacking Debian's prometheus into {}: about 20 MB, once", folder.display());
    let download = || read(Command::new("apt-get").current_dir(&folder).args(["-qq", "download", "prometheus"]));
    if download().is_err() {
        // The package lists may be missing or outdated. Only root may update them.
        let _decided_by_the_next_try = read(Command::new("apt-get").args(["-qq", "update"]));
        download().context("run `apt-get update` as root, and try again")?;
    }
    let package = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    read(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&folder))?;
    fs::remove_file(package)?;
    ensure!(program.is_file(), "Debian's prometheus has no {}", program.display());
    // The server is not needed, and has some 100 MB. A package without it is as good.
    match fs::remove_file(folder.join("usr/bin/prometheus")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).context("the server of Debian's prometheus cannot be removed");
        }
        _ => {}
    }
    Ok(program)
}
