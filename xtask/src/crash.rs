//! `cargo xtask crash`: kills the host repeatedly under load and checks that no accepted event is lost.

use anyhow::Result;

use crate::host;
use crate::run::run;

const HELP: &str = "\
cargo xtask crash [--kills N] [--seed S] [--power-cut] [--sync-fails N] [--no-fsync] [--json]

Builds everything, then kills a host under load and compares what it accepted with what arrived (docs/reference/crash.md).
  --kills N    200 where absent
  --seed S     tell a run again; another one each time where absent, and printed
  --power-cut  at each kill, undo at random what was written and not synced (Linux; needs `cc`)
  --sync-fails N  of a thousand syncs, so many fail, and no later sync makes good what they lost; cuts the power
  --no-fsync   the control: as --power-cut on a disk that lies about syncs; fails if nothing is lost
  --json       print everything as one JSON object on the last line but for the control's verdict";

/// `cargo xtask crash` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    run(host::suite("crash")?.args(arguments))
}
