//! Finds or installs a Rust toolchain that can compile a filter.
//!
//! In this order: the active toolchain, if it has the target; `rustup target add`, if rustup may install
//! (`RUSTUP_AUTO_INSTALL` is not 0); Debian's packages; otherwise an error with instructions.
//! `SETGATE_GUEST_TOOLCHAIN=active|rustup|debian` forces one of them; even then, `rustup` installs nothing if
//! `RUSTUP_AUTO_INSTALL` is 0.

mod debian;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{cargo, read, run, target_dir, which};

/// A toolchain with one wasm target's standard library.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler, if it is not the active toolchain's.
    pub(crate) rustc: Option<PathBuf>,
    /// Target directory of guests built with this toolchain, separate from native builds.
    pub(crate) target_dir: PathBuf,
    target: String,
}

impl Toolchain {
    /// A cargo command for this toolchain, without the variables that `cargo run` set for xtask.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = cargo();
        for variable in ["CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS", "LD_LIBRARY_PATH", "RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo.env("CARGO_TARGET_DIR", &self.target_dir);
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc).env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER");
        }
        cargo
    }

    fn new(rustc: Option<PathBuf>, folder: &str, target: &str) -> Result<Toolchain> {
        let toolchain = Toolchain { rustc, target_dir: target_dir().join(folder), target: target.to_owned() };
        toolchain.clean_if_stale()?;
        Ok(toolchain)
    }

    /// Removes guests that were compiled against another standard library. Cargo does not detect the change, and rustc
    /// then fails with E0463.
    fn clean_if_stale(&self) -> Result<()> {
        let library = standard_library(&rustc(self.rustc.as_deref()), &self.target)?;
        let library = library.with_context(|| format!("the standard library of {} is missing", self.target))?;
        let changed = fs::metadata(&library)?.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
        let now = format!("{} {}", library.display(), changed.as_nanos());
        let stamp = self.target_dir.join(format!("{}.std", self.target));
        if fs::read_to_string(&stamp).is_ok_and(|before| before == now) {
            return Ok(());
        }
        let guests = self.target_dir.join(&self.target);
        if guests.exists() {
            eprintln!("guests: the standard library changed, cleaning {}", guests.display());
            fs::remove_dir_all(guests)?;
        }
        fs::create_dir_all(&self.target_dir)?;
        fs::write(stamp, now)?;
        Ok(())
    }
}

/// Installs missing Debian packages; the error explains how to do it manually.
pub(crate) fn install_from_debian(packages: &[&str]) -> Result<()> {
    debian::install_missing(packages)
}

/// Finds a toolchain that has `target`, or installs the target.
pub(crate) fn provide(target: &str) -> Result<Toolchain> {
    let forced = env::var("SETGATE_GUEST_TOOLCHAIN").unwrap_or_default();
    match forced.as_str() {
        "" => choose(target),
        "active" if active_has(target)? => active(target),
        "active" => bail!("the active toolchain has no {target}: run `rustup target add {target}`"),
        "rustup" => {
            rustup_target_add(target)?;
            active(target)
        }
        "debian" => debian::provide(target),
        _ => bail!("SETGATE_GUEST_TOOLCHAIN is `{forced}`, and may be active, rustup or debian"),
    }
}

fn choose(target: &str) -> Result<Toolchain> {
    if active_has(target)? {
        return active(target);
    }
    let mut reasons = format!("no toolchain here has {target}\n  active: it is not installed");
    match rustup_target_add(target) {
        Ok(()) => return active(target),
        Err(error) => reasons += &format!("\n  rustup: {error:#}"),
    }
    match debian::provide(target) {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => reasons += &format!("\n  debian: {error:#}"),
    }
    bail!(
        "{reasons}\nWhere rustup may install, `rustup target add {target}` is all it takes; \
         on Debian, run `cargo xtask guests` once as root"
    )
}

fn active(target: &str) -> Result<Toolchain> {
    Toolchain::new(None, "guest", target)
}

fn active_has(target: &str) -> Result<bool> {
    Ok(standard_library(&rustc(None), target)?.is_some())
}

fn rustup_target_add(target: &str) -> Result<()> {
    // Applies to a forced `rustup` too: the machine's toolchain was pinned deliberately.
    let forbidden = env::var("RUSTUP_AUTO_INSTALL").is_ok_and(|value| value == "0");
    ensure!(!forbidden, "RUSTUP_AUTO_INSTALL=0 forbids it to install");
    which("rustup").context("rustup is not installed")?;
    if !active_has(target)? {
        eprintln!("guests: rustup target add {target}: downloads about 20 MB");
        run(Command::new("rustup").args(["target", "add", target]))?;
    }
    Ok(())
}

fn rustc(path: Option<&Path>) -> PathBuf {
    path.map_or_else(|| env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from), Path::to_owned)
}

/// The directory of a target's standard library, which may not exist.
fn libdir(rustc: &Path, target: &str) -> Result<PathBuf> {
    let mut command = Command::new(rustc);
    command.env_remove("LD_LIBRARY_PATH").args(["--print", "target-libdir", "--target", target]);
    Ok(read(&mut command)?.into())
}

/// The `core` library of a target, which represents the whole standard library.
fn standard_library(rustc: &Path, target: &str) -> Result<Option<PathBuf>> {
    let Ok(files) = fs::read_dir(libdir(rustc, target)?) else { return Ok(None) };
    for file in files {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("libcore-") && name.ends_with(".rlib") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
