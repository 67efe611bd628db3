//! `cargo xtask demo`: every step from a fresh clone to events on the screen.

use std::process::Command;

use anyhow::{Context, Result};

use crate::guests;
use crate::host::{self, With};

const HELP: &str = "\
cargo xtask demo [--once] [--json] [--listen ADDRESS]

Builds the example filters and the host, then runs `setgate demo` with these options:
  --once            exit when all events have arrived; non-zero if one was lost or a signature is invalid
  --json            print the summary as one JSON object on the last line
  --listen ADDRESS  the host's address; by default a free port of this machine";

/// `cargo xtask demo` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    guests::build_all()?;
    let setgate = host::build(With::Nothing)?;
    let mut demo = Command::new(setgate);
    demo.arg("demo").arg("--filters").arg(guests::filters_dir()).args(arguments);
    replace_with(demo)
}

/// Replaces this process by the program, so that Ctrl-C, output and exit code are the program's own.
#[cfg(unix)]
fn replace_with(mut program: Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    Err(program.exec()).context("the demo cannot be started")
}

#[cfg(not(unix))]
fn replace_with(mut program: Command) -> Result<()> {
    let status = program.status().context("the demo cannot be started")?;
    std::process::exit(status.code().unwrap_or(1))
}
