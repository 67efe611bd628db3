//! Builds the host's program.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::guests;
use crate::run::{cargo, run, target_dir};

/// Further targets to build with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    /// None: the program is needed soon.
    Nothing,
    /// All tests, which run next.
    Tests,
}

/// Builds `target/debug/setgate` and returns its path.
pub(crate) fn build(with: With) -> Result<PathBuf> {
    if !program().exists() {
        eprintln!("host: compiling, about ten minutes on two cores the first time; most of it is wasmtime");
    }
    run(&mut cargo_build(with))?;
    Ok(program())
}

/// Builds the host, the filters and one more program of the workspace, and returns a command that runs that program
/// with them.
pub(crate) fn suite(name: &str) -> Result<Command> {
    guests::build_all()?;
    run(cargo_build(With::Nothing).args(["--bin", name]))?;
    let mut suite = Command::new(built(name));
    suite.env("SETGATE_BIN", program()).env("SETGATE_FILTERS", guests::filters_dir());
    Ok(suite)
}

/// Path of the host's program.
pub(crate) fn program() -> PathBuf {
    built("setgate")
}

fn built(name: &str) -> PathBuf {
    target_dir().join("debug").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Uses `--workspace` although only one program is needed: with fewer packages, some features of wasmtime's
/// dependencies would be disabled, and the tests would compile all of it a second time.
fn cargo_build(with: With) -> Command {
    let mut cargo = cargo();
    cargo.args(["build", "--workspace", "--bin", "setgate"]);
    if with == With::Tests {
        cargo.arg("--tests");
    }
    cargo
}
