//! `cargo xtask crash`: the host killed again and again under load, and nothing accepted may be lost.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, run, target_dir};
use crate::{guests, host};

const HELP: &str = "\
cargo xtask crash [--kills N] [--seed S] [--power-cut] [--no-fsync] [--json]

Builds everything, then kills a host under load and compares what it accepted with what arrived (host/docs/crash.md).
  --kills N    200 where absent
  --seed S     tell a run again; another one each time where absent, and printed
  --power-cut  at each kill, undo at random what was written and not synced (Linux; needs `cc`)
  --no-fsync   the control: as --power-cut on a disk that lies about syncs; fails if nothing is lost
  --json       print everything as one JSON object on the last line but for the control's verdict";

/// `cargo xtask crash` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    guests::build_all()?;
    // Together with the host: with fewer packages some features would differ, and be compiled a second time.
    run(cargo().args(["build", "--workspace", "--bin", "setgate", "--bin", "crash"]))?;
    let program = target_dir().join("debug").join(format!("crash{}", std::env::consts::EXE_SUFFIX));
    run(Command::new(program).env("SETGATE_BIN", host::program()).args(arguments))
}
