//! Building the host's program.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::guests;
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

/// Builds the host, the filters and one more program of the workspace's, and gives a command that runs that one over them.
pub(crate) fn suite(name: &str) -> Result<Command> {
    guests::build_all()?;
    run(cargo_build(With::Nothing).args(["--bin", name]))?;
    let mut suite = Command::new(built(name));
    suite.env("SETGATE_BIN", program()).env("SETGATE_FILTERS", guests::filters_dir());
    Ok(suite)
}

/// The host's program.
pub(crate) fn program() -> PathBuf {
    built("setgate")
}

fn built(name: &str) -> PathBuf {
    target_dir().join("debug").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
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
