//! Building the host's program.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, run, target_dir};

/// What is built besides the program itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    /// Nothing: it is wanted soon.
    Nothing,
    /// All tests, which come next.
    Tests,
}

/// Builds `target/debug/setgate` and gives its path.
pub(crate) fn build(with: With) -> Result<PathBuf> {
    if !program().exists() {
        eprintln!("host: compiling, about ten minutes on two cores the first time; most of it is wasmtime");
    }
    run(&mut cargo_build(with))?;
    Ok(program())
}

/// The same, and one more program of the workspace's.
pub(crate) fn build_with_program(name: &str) -> Result<PathBuf> {
    run(cargo_build(With::Nothing).args(["--bin", name]))?;
    Ok(program())
}

/// The host's program.
pub(crate) fn program() -> PathBuf {
    target_dir().join("debug").join(format!("setgate{}", std::env::consts::EXE_SUFFIX))
}

/// `--workspace` although one program is wanted: with fewer packages some features of wasmtime's dependencies would be
/// missing, and the tests would compile all of it a second time.
fn cargo_build(with: With) -> Command {
    let mut cargo = cargo();
    cargo.args(["build", "--workspace", "--bin", "setgate"]);
    if with == With::Tests {
        cargo.arg("--tests");
    }
    cargo
}
