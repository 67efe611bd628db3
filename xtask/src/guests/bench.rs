//! Builds the programs that the bench compares with the host: its own guest, the same guest in JavaScript, and the
//! program with the peers' engines. All output goes to `target/bench`, separate from the example filters.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{DEFAULT_TARGET, build, file_name, keep};
use crate::run::{cargo, root, run, target_dir, which};
use crate::toolchain;

const GUEST: &str = "bench-guest";
const PEERS_GUEST: &str = "bench-peers-guest";
/// Source files of the JavaScript build.
const SCRIPTS: [&str; 3] = ["build.mjs", "filter.js", "package.json"];

fn bench_dir() -> PathBuf {
    target_dir().join("bench")
}

/// Builds the guest of the bench: `target/bench/bench-guest.wasm`.
pub(crate) fn build_bench() -> Result<PathBuf> {
    build(DEFAULT_TARGET, &[GUEST.to_owned()], &bench_dir())?;
    Ok(bench_dir().join("bench-guest.wasm"))
}

/// Builds the same guest from JavaScript: `target/bench/bench-guest-javascript.wasm`. `None` if node or npm is missing.
pub(crate) fn build_javascript() -> Result<Option<PathBuf>> {
    let (Some(node), Some(npm)) = (which("node"), which("npm")) else {
        eprintln!("guests: no guest in JavaScript: node and npm are not both installed");
        return Ok(None);
    };
    let (from, folder) = (root().join("bench/guest/javascript"), bench_dir().join("javascript"));
    let component = bench_dir().join("bench-guest-javascript.wasm");
    fs::create_dir_all(&folder)?;
    let mut changed = !component.exists();
    for script in SCRIPTS {
        changed |= keep(&from.join(script), &folder.join(script))?;
    }
    if !changed {
        eprintln!("guests: {} is up to date", component.display());
        return Ok(Some(component));
    }
    // Removed first: an interrupted build must not leave an old component behind.
    let _was_there = fs::remove_file(&component);
    eprintln!("guests: building {}: about a minute the first time", component.display());
    run(Command::new(npm).args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(&folder))?;
    let out = folder.join("out.wasm");
    run(Command::new(node).arg("build.mjs").arg(root().join("wit")).arg(&out).current_dir(&folder))?;
    keep(&out, &component)?;
    Ok(Some(component))
}

/// Builds the program with the peers, in release mode, and its guest, `target/bench/peers-guest.wasm`. Returns the
/// program.
///
/// It is a separate workspace with a separate target directory, because it compiles a second engine that nothing else
/// needs.
pub(crate) fn build_peers() -> Result<PathBuf> {
    let peers = root().join("bench/peers");
    let toolchain = toolchain::provide(DEFAULT_TARGET)?;
    let mut guest = toolchain.cargo();
    guest.current_dir(&peers).args(["build", "--quiet", "--locked", "--lib", "--package", PEERS_GUEST]);
    run(guest.args(["--profile", "guest", "--target", DEFAULT_TARGET]))?;
    let built = toolchain.target_dir.join(DEFAULT_TARGET).join("guest").join(file_name(PEERS_GUEST));
    keep(&built, &bench_dir().join("peers-guest.wasm"))?;

    let folder = target_dir().join("peers");
    let program = folder.join("release/bench-peers");
    if !program.exists() {
        eprintln!("guests: compiling the peers of the bench: about ten minutes the first time");
    }
    let mut native = cargo();
    native.current_dir(&peers).env("CARGO_TARGET_DIR", &folder);
    run(native.args(["build", "--quiet", "--locked", "--release", "--bin", "bench-peers"]))?;
    ensure!(program.is_file(), "no program at {}", program.display());
    fs::canonicalize(&program).with_context(|| format!("{}", program.display()))
}
