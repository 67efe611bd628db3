//! The wasm targets from Debian's packages, for machines with a fixed toolchain.
//!
//! Debian 12 provides a current rustc (`rustc-web`) and the source of its standard library, but no library compiled for
//! WebAssembly. So this compiles it, as rustc's own bootstrap does, and installs it in rustc's library directory. A
//! stamp with the compiler's version makes that idempotent; the directory is moved into place as a whole, so that an
//! interrupted run leaves nothing incomplete.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use anyhow::{Context, Result, bail, ensure};

use super::{Toolchain, libdir};
use crate::run::{cargo, read, target_dir, which};

const RUSTC: &str = "/usr/bin/rustc";

/// The compiler, the standard library's source, and the two linkers that wasm needs.
const PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "rust-web-llvm", "lld-22"];

/// An additional package for the WASI targets.
const WASI_PACKAGE: &str = "wasi-libc";
const WASI_LIBC: &str = "/usr/lib/wasm32-wasi";
const WASI_OBJECTS: [&str; 3] = ["libc.a", "crt1-command.o", "crt1-reactor.o"];

pub(super) fn provide(target: &str) -> Result<Toolchain> {
    let wasi = target.contains("wasi");
    let mut packages = PACKAGES.to_vec();
    if wasi {
        packages.push(WASI_PACKAGE);
    }
    install_missing(&packages)?;

    let library = libdir(Path::new(RUSTC), target)?;
    let version = rustc(&["--version"])?;
    if stamp(&library) != version {
        ensure!(is_root()?, "{} has to be made by root: run `cargo xtask guests` once as root", library.display());
        let rustlib = library.ancestors().nth(2).context("a target's library lies in rustlib")?;
        let lock = fs::File::create(rustlib.join(".setgate-lock"))?;
        lock.lock()?;
        // Another process may have built it while this one waited for the lock.
        if stamp(&library) != version {
            let built = compile(target)?;
            put_in_place(&built, &library, wasi, &version)?;
            fs::remove_dir_all(built.ancestors().nth(3).context("deps lies in the build folder")?)?;
        }
    }
    Toolchain::new(Some(RUSTC.into()), "guest-debian", target)
}

/// Installs the packages that are missing.
pub(super) fn install_missing(packages: &[&str]) -> Result<()> {
    which("apt-get").context("this is no Debian")?;
    let mut missing = Vec::new();
    for package in packages {
        if !installed(package)? {
            missing.push(*package);
        }
    }
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn installed(package: &str) -> Result<bool> {
    let mut query = Command::new("dpkg-query");
    let output = query.args(["-W", "-f", "${Status}", package]).output().context("cannot start dpkg-query")?;
    Ok(output.stdout == b"install ok installed")
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = format!("apt-get update && apt-get install -y --no-install-recommends {list}");
    ensure!(is_root()?, "run as root: {by_hand}");
    eprintln!("installing {list}: one to five minutes");
    // Outdated lists name packages that no longer exist. If the update fails, the lists may still be usable, so
    // `install` decides.
    let _ = apt(&["update"]);
    let install = ["install", "-y", "--no-install-recommends"];
    apt(&[&install[..], packages].concat()).with_context(|| format!("run by hand to see more: {by_hand}"))
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Waits for other processes that hold the package lock, instead of failing.
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
    let output = command.env("DEBIAN_FRONTEND", "noninteractive").output().context("cannot start apt-get")?;
    if !output.status.success() {
        bail!("apt-get {} failed: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Compiles the standard library and returns the directory of its rlibs.
fn compile(target: &str) -> Result<PathBuf> {
    let source = Path::new(&rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library");
    let source = source.canonicalize().with_context(|| format!("no source at {}", source.display()))?;
    let folder = target_dir().join(format!("guest-std-{}", process::id()));
    eprintln!("guests: compiling the standard library for {target}: about a minute, once");
    let mut build = cargo();
    for (variable, _) in env::vars_os() {
        let name = variable.to_string_lossy();
        // Variables set for the workspace by `cargo run` and the caller would affect the standard library.
        if name.starts_with("CARGO_PROFILE") || name.starts_with("CARGO_TARGET") || name.starts_with("CARGO_BUILD") {
            build.env_remove(variable);
        }
    }
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "LD_LIBRARY_PATH", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        build.env_remove(variable);
    }
    build
        .current_dir(source)
        // `sysroot` depends on all crates of a target's library; only `sysroot` itself is left out below.
        .args(["build", "--quiet", "--locked", "--release", "--package", "sysroot", "--target", target])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zforce-unstable-if-unmarked -Cembed-bitcode=yes -Cdebuginfo=0");
    // Its warnings are about crate types that wasm does not support: shown only if the build fails.
    read(&mut build).context("the standard library does not compile")?;
    Ok(folder.join(target).join("release/deps"))
}

fn put_in_place(built: &Path, library: &Path, wasi: bool, version: &str) -> Result<()> {
    let target = library.parent().context("a target's library lies in the target's folder")?;
    fs::create_dir_all(target)?;
    let new = target.join(format!(".lib-{}", process::id()));
    fs::create_dir(&new)?;
    for file in fs::read_dir(built)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libsysroot-") {
            fs::copy(file.path(), new.join(name))?;
        }
    }
    if wasi {
        let objects = new.join("self-contained");
        fs::create_dir(&objects)?;
        for name in WASI_OBJECTS {
            fs::copy(Path::new(WASI_LIBC).join(name), objects.join(name))?;
        }
    }
    fs::write(new.join(".built-with"), version)?;
    if library.exists() {
        fs::remove_dir_all(library)?;
    }
    fs::rename(new, library)?;
    Ok(())
}

/// The compiler version that built a library; empty if there is no library.
fn stamp(library: &Path) -> String {
    fs::read_to_string(library.join(".built-with")).unwrap_or_default().trim_end().to_owned()
}

fn rustc(arguments: &[&str]) -> Result<String> {
    read(Command::new(RUSTC).env_remove("LD_LIBRARY_PATH").args(arguments))
}

fn is_root() -> Result<bool> {
    Ok(read(Command::new("id").arg("-u"))? == "0")
}
